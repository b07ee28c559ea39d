package tests

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A marked process is one that a contest has started, by whatever way: all of
// them carry the contest's mark in their environment.
type marked struct {
	pid       int
	contender int
	role      string
}

// The roles of processes, by what they execute.
const (
	roleWrapper = "wrapper" // a dcelock that has started its command
	roleWaiter  = "waiter"  // any other dcelock: starting, waiting, or ending
	roleCommand = "command" // the contender's command
	roleOther   = "other"   // flock(1), bash and what it runs
)

// processes are the living processes with a mark. A process has none between two
// moments of its execve(2), so one that is not seen may be there.
func processes(mark string) (found []marked) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := markedProcess(pid, mark); ok {
				found = append(found, p)
			}
		}
	}
	return found
}

func markedProcess(pid int, mark string) (p marked, ok bool) {
	folder := fmt.Sprintf("/proc/%d/", pid)
	environ, err := os.ReadFile(folder + "environ") // empty of a zombie
	if err != nil {
		return p, false
	}
	_, rest, ok := strings.Cut("\x00"+string(environ), "\x00"+tortureMark+"="+mark+"/")
	if !ok {
		return p, false
	}
	p = marked{pid: pid, role: roleOther}
	number, _, _ := strings.Cut(rest, "\x00")
	p.contender, _ = strconv.Atoi(number)
	switch exe, _ := os.Readlink(folder + "exe"); {
	case strings.HasSuffix(exe, "/torture-command"):
		p.role = roleCommand
	case exe == binary:
		p.role = roleWaiter
		tasks, _ := os.ReadDir(folder + "task")
		for _, task := range tasks {
			if children, _ := os.ReadFile(folder + "task/" + task.Name() + "/children"); len(children) > 0 {
				p.role = roleWrapper
			}
		}
	}
	return p, true
}

// signal sends a signal to the process that still has the mark, and to none that
// has its pid by now.
func (p marked) signal(mark string, sig syscall.Signal) bool {
	pidfd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	if _, ok := markedProcess(p.pid, mark); !ok {
		return false
	}
	return unix.PidfdSendSignal(pidfd, sig, nil, 0) == nil
}

// gone waits until no process has the mark, and kills, after that, and returns
// what is left.
func gone(mark string) []marked {
	clean := 0
	if eventually(func() bool {
		if len(processes(mark)) > 0 {
			clean = 0
		} else {
			clean++
		}
		return clean == 2 // one may have been in the middle of an execve
	}) {
		return nil
	}
	left := processes(mark)
	for range 100 {
		for _, p := range processes(mark) {
			p.signal(mark, syscall.SIGKILL)
		}
	}
	return left
}
