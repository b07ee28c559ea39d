package tests

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The contenders' command is a helper that looks at its surroundings itself and
// tells of them in a log, so that nothing rests on when somebody else looked.
//
// The judge of overlaps is a file beside the archive root, which each command
// locks with a POSIX lock (fcntl(2), F_SETLK) for as long as it lives: that lock
// is inherited by nobody and dropped by the kernel when the process ends, in
// whatever way, before its descriptors' flock(2) locks are dropped and before its
// parent can know of the end (exit_files comes before exit_notify, and a file is
// only put after its POSIX locks are removed). So a killed command is never in
// the way of the next one, and a living one always is: if the judge's lock is
// not to be had, two commands are alive at the same time.

func init() { helpers["torture"] = tortured }

// tortureMark is the variable by which all processes of a contender are known:
// CONTEST/CONTENDER, see contest.mark.
const tortureMark = "DCELOCK_TORTURE"

// statusOverlap is the exit status of a command that ran beside another one.
const statusOverlap = 99

// What a command checks of its surroundings, as words of its command line.
const (
	checkRecord = "record" // there is a record of a process above, from begin to end
	checkBothFD = "both"   // the folder's and the file's descriptors are the only additional ones
	checkFileFD = "file"   // the file's is, and the folder's where it could be locked
	checkNoFD   = "none"   // there is no additional descriptor
)

// tortured is the command: FOLDER LOCK ID HOW-LONG STATUS CHECK... . It lasts for
// a number of microseconds, or until the end of its standard input ("told").
func tortured(args []string) int {
	folder, lock, id, long, checks := args[0], args[1], args[2], args[3], args[5:]
	status, _ := strconv.Atoi(args[4])
	log, err := os.OpenFile(folder+"/log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 98
	}
	tell := func(what, text string) {
		// One write(2) to a file opened with O_APPEND: whole lines, in order.
		fmt.Fprintf(log, "%d %s %s %d %s\n", monotonic(), what, id, os.Getpid(), text)
	}
	judge, err := os.OpenFile(folder+"/judge", os.O_RDWR, 0)
	if err != nil {
		tell("bad", err.Error())
		return 98
	}
	mine := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(judge.Fd(), unix.F_SETLK, &mine); err != nil {
		tell("overlap", fmt.Sprintf("with pid %d (%v)", judgeOf(folder), err))
		return statusOverlap
	}
	tell("begin", "")
	for _, check := range checks {
		if problem := look[check](lock); problem != "" {
			tell("bad", problem)
		}
	}
	if long == "told" {
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	} else if n, err := strconv.Atoi(long); err == nil {
		time.Sleep(time.Duration(n) * time.Microsecond) // the command's work
	}
	for _, check := range checks {
		if problem := look[check](lock); problem != "" {
			tell("bad", "at its end: "+problem)
		}
	}
	tell("end", "")
	return status
}

// look are the checks; each returns what is wrong.
var look = map[string]func(lock string) string{
	checkRecord: func(lock string) string { return recordAbove(lock) },
	checkBothFD: func(lock string) string { return lockDescriptors(lock, true) },
	checkFileFD: func(lock string) string { return lockDescriptors(lock, false) },
	checkNoFD: func(string) string {
		if fds := inherited(); len(fds) != 0 {
			return fmt.Sprintf("descriptors: %v inherited with --close", describeFDs(fds))
		}
		return ""
	},
}

// lockDescriptors tells what is wrong with the inherited descriptors. The lock
// file may be anywhere by now; the folder is where it was.
func lockDescriptors(lock string, both bool) string {
	folder := filepath.Dir(lock)
	fds := inherited()
	files := slices.DeleteFunc(slices.Clone(fds), func(fd int) bool { return linkOf(fd) == folder })
	folders := len(fds) - len(files)
	if len(files) != 1 || folders > 1 || both && folders == 0 || slices.Min(fds) < 500 || !isLocked(files[0]) {
		return fmt.Sprintf("descriptors: %v inherited", describeFDs(fds))
	}
	return ""
}

// isLocked tells whether a descriptor holds a flock(2) lock.
func isLocked(fd int) bool {
	info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	return strings.Contains(string(info), "FLOCK")
}

// tortureFDs is the variable that lists the descriptors of the contenders' caller.
const tortureFDs = "DCELOCK_TORTURE_FDS"

// inherited are the descriptors that came down through exec, but for those of
// the contender's caller and the standard streams: those are without
// close-on-exec, unlike what Go opens.
func inherited() (fds []int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	callers := strings.Split(os.Getenv(tortureFDs), ",")
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && fd > 2 && flags&unix.FD_CLOEXEC == 0 && !slices.Contains(callers, entry.Name()) {
			fds = append(fds, fd)
		}
	}
	return fds
}

// tortureEnv is the environment of contender id of the contest with that mark.
func tortureEnv(mark string, id int) []string {
	fds := strings.ReplaceAll(strings.Trim(fmt.Sprint(inherited()), "[]"), " ", ",")
	return []string{"DCELOCK_TEST_HELPER=torture", fmt.Sprintf("%s=%s/%d", tortureMark, mark, id), tortureFDs + "=" + fds}
}

func linkOf(fd int) string {
	link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return link
}

func describeFDs(fds []int) (described []string) {
	for _, fd := range fds {
		described = append(described, fmt.Sprintf("%d=%s", fd, linkOf(fd)))
	}
	return described
}

// recordAbove tells what is wrong with the record of this process's run: it is
// of a process above this one, or of one that is gone (killed, by this test).
func recordAbove(lock string) string {
	data, err := os.ReadFile(lock + ".meta")
	if err != nil {
		return "record: " + err.Error()
	}
	pid := 0
	if _, err := fmt.Sscanf(string(data), "pid=%d\n", &pid); err != nil {
		return fmt.Sprintf("record: %q", data)
	}
	var info unix.Stat_t
	if err := unix.Stat(lock, &info); err != nil || !strings.Contains(string(data), fmt.Sprintf("\nlock_id=%d:%d\n", info.Dev, info.Ino)) {
		return fmt.Sprintf("record: not of this lock file (%v): %q", err, data)
	}
	for above := os.Getppid(); above > 1; above = parentOf(above) {
		if above == pid {
			return ""
		}
	}
	if state, _ := statOf(pid); state != 0 && state != 'Z' {
		return fmt.Sprintf("record: of pid %d, which runs and is not above pid %d", pid, os.Getpid())
	}
	return ""
}

// statOf is the state and the parent of a process; 0 and 0 when it is gone.
func statOf(pid int) (state byte, parent int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	_, _ = fmt.Sscanf(string(data[strings.LastIndexByte(string(data), ')')+1:]), " %c %d", &state, &parent)
	return state, parent
}

func parentOf(pid int) int {
	_, parent := statOf(pid)
	return parent
}

// judgeOf is the pid of the command that runs now; 0 when there is none.
func judgeOf(folder string) int {
	judge, err := os.OpenFile(folder+"/judge", os.O_RDWR, 0)
	if err != nil {
		return -1
	}
	defer judge.Close()
	asked := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(judge.Fd(), unix.F_GETLK, &asked); err != nil || asked.Type == unix.F_UNLCK {
		return 0
	}
	return int(asked.Pid)
}

// monotonic is a clock that all processes share, in nanoseconds.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}

// tortureCommand is the path of the command: a copy of the test binary where
// other users may execute it, too.
func tortureCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(binary), "torture-command")
	copyOnce.Do(func() {
		data, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(path, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return path
}

var copyOnce sync.Once
