package meta

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is the identity of a process: a pid means nothing once it is
// reused, after a reboot, in another PID namespace or on another host. A field
// that is empty or zero is unknown.
type Process struct {
	PID           int
	Host          string // gethostname(2)
	BootID        string // /proc/sys/kernel/random/boot_id
	StartTicks    uint64 // field 22 of /proc/PID/stat, clock ticks since boot
	PIDNamespace  uint64 // inode of /proc/PID/ns/pid
	TimeNamespace uint64 // inode of /proc/PID/ns/time, 0 for the first one: it shifts StartTicks
}

// The first namespaces' inodes, from the kernel's proc_ns.h.
const (
	firstPIDNamespace  = 0xEFFFFFFC
	firstTimeNamespace = 0xEFFFFFFA
)

// Self is the identity of this process. What /proc does not tell, because it
// is not mounted, stays unknown.
var Self = sync.OnceValue(func() Process {
	p := Process{PID: os.Getpid(), PIDNamespace: namespace("pid"), TimeNamespace: namespace("time")}
	p.Host, _ = os.Hostname()
	if id, err := readSmall("/proc/sys/kernel/random/boot_id"); err == nil {
		p.BootID = string(bytes.TrimSpace(id))
	}
	if s, err := readStat("self"); err == nil {
		p.StartTicks = s.start
	}
	if p.TimeNamespace == firstTimeNamespace {
		p.TimeNamespace = 0
	}
	return p
})

func namespace(kind string) uint64 {
	link, _ := os.Readlink("/proc/self/ns/" + kind)
	n, _ := strconv.ParseUint(strings.Trim(link, kind+":[]"), 10, 64)
	return n
}

// SeesAll tells whether /proc shows this process every process of its host.
func SeesAll() bool { return Self().PIDNamespace == firstPIDNamespace && procIsOurs() }

// A State is what can be said of a recorded holder (contract, "What the
// holder's state is called"). Its text is what messages print.
type State string

// The states. NotRunning is only said with proof.
const (
	Running    State = "running"
	Stopped    State = "stopped" // by a signal, with all of its threads
	NotRunning State = "not running"
	CannotTell State = "cannot tell"
)

// Alive tells whether a process with this state is known to be there.
func (s State) Alive() bool { return s == Running || s == Stopped }

// State says what this process can see of the one that a record names.
func (r Record) State() State {
	self := Self()
	bootKnown := r.BootID != "" && self.BootID != ""
	switch {
	case bootKnown && r.BootID != self.BootID:
		// Another host, which may have the same name, or an earlier boot of
		// this one: proven where nobody else could have written the record
		// and it is older than this boot.
		if r.Host == self.Host && r.local && self.TimeNamespace == 0 && !r.Started.IsZero() && r.Started.Before(bootTime()) {
			return NotRunning
		}
		return CannotTell
	case !bootKnown && r.Host != "" && r.Host != self.Host,
		r.PIDNamespace != 0 && r.PIDNamespace != self.PIDNamespace:
		return CannotTell
	}
	s, state := observe(r.PID)
	switch {
	case !state.Alive():
		return state
	case s == nil || r.StartTicks == 0 || r.StartTicks == s.start:
		if r.PID == self.PID && r.StartTicks == 0 {
			return NotRunning // its pid is ours, and this process did not write it
		}
		return state
	case r.TimeNamespace != self.TimeNamespace:
		return CannotTell
	}
	return NotRunning // a reused pid
}

// observe looks at the process that has a pid now. The stat is nil where /proc
// does not show it.
func observe(pid int) (*stat, State) {
	// EPERM means that it exists and is another user's.
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		return nil, NotRunning
	}
	s, err := readStat(strconv.Itoa(pid))
	switch {
	case err != nil || !procIsOurs():
		return nil, Running
	case (s.state == 'Z' || s.state == 'X') && s.threads <= 1:
		return nil, NotRunning
	case s.state == 'T' && allStopped(pid):
		return &s, Stopped
	}
	return &s, Running
}

func allStopped(pid int) bool {
	threads, _ := names("/proc/" + strconv.Itoa(pid) + "/task")
	for _, thread := range threads {
		if s, err := readStat(strconv.Itoa(pid) + "/task/" + thread); err == nil && s.state != 'T' {
			return false
		}
	}
	return true
}

// Proven tells whether the recorded process runs beyond doubt: a pid alone may
// have been reused, a pid with its boot and start time is one process for ever.
func (r Record) Proven() bool {
	return r.StartTicks != 0 && r.BootID != "" && r.BootID == Self().BootID && procIsOurs() && r.State().Alive()
}

// procIsOurs tells whether /proc numbers processes as this process's PID
// namespace does. It does not under `unshare --pid` without a /proc of its
// own, and then /proc/N is not the process that kill(N) reaches.
func procIsOurs() bool {
	link, err := os.Readlink("/proc/self")
	return err == nil && link == strconv.Itoa(os.Getpid())
}

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	state   byte
	parent  int
	threads int
	start   uint64 // clock ticks since boot
}

// readStat reads the stat of "self", a pid, or "PID/task/TID".
func readStat(process string) (stat, error) {
	data, err := readSmall("/proc/" + process + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

// parseStat counts fields from the last parenthesis: the second field is the
// program's name, which may hold spaces and parentheses.
func parseStat(line string) (stat, error) {
	name := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[name+1:])
	const state, parent, threads, start = 0, 1, 17, 19 // fields 3, 4, 20 and 22 of proc_pid_stat(5)
	if name < 0 || len(fields) <= start {
		return stat{}, errors.New("/proc/PID/stat: too few fields")
	}
	s := stat{state: fields[state][0]}
	var err1, err2, err3 error
	s.parent, err1 = strconv.Atoi(fields[parent])
	s.threads, err2 = strconv.Atoi(fields[threads])
	s.start, err3 = strconv.ParseUint(fields[start], 10, 64)
	return s, errors.Join(err1, err2, err3)
}

// Ancestors are the pids of a process's parent, its parent's parent and so on.
// whole tells whether that is all of them up to the first process, or some
// could not be seen.
func Ancestors(pid int) (pids []int, whole bool) {
	for of := pid; ; {
		s, err := readStat(strconv.Itoa(of))
		if err != nil || !procIsOurs() {
			return pids, false
		}
		if s.parent == 0 {
			return pids, of == 1
		}
		pids = append(pids, s.parent)
		of = s.parent
	}
}

// Before tells whether the recorded process was started before another one.
func (r Record) Before(pid int) bool {
	s, err := readStat(strconv.Itoa(pid))
	return err == nil && r.StartTicks != 0 && r.StartTicks <= s.start
}

// ticksPerSecond is the unit of times in /proc/PID/stat, sysconf(_SC_CLK_TCK),
// which Linux has fixed at 100 for programs.
const ticksPerSecond = 100

// bootTime is when this host was started, by its clock as it stands now.
func bootTime() time.Time { return time.Now().Add(-age(0)) }

// age is how long ago it was so many clock ticks after boot.
func age(ticks uint64) time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // a clock that every kernel in use has
	return time.Duration(now.Nano()) - time.Duration(ticks)*(time.Second/ticksPerSecond)
}

// readSmall reads a file of /proc that fits one read. Without a file of Go's,
// as the search for holders reads one for every descriptor that it finds.
func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 4096)
	n, err := unix.Read(fd, buffer)
	return buffer[:max(n, 0)], err
}

// names are the entries of a folder.
func names(folder string) ([]string, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
