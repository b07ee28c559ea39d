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
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	p.BootID = string(bytes.TrimSpace(id))
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
	Stopped    State = "stopped" // by a signal, which stops all of its threads
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
		// this one: proven where no other host could have written the record
		// and it is older than this boot.
		ours := r.Host == self.Host && r.FS != "" && !SharedType(r.FS) && self.TimeNamespace == 0
		if ours && !r.Started.IsZero() && r.Started.Before(bootTime()) {
			return NotRunning
		}
		return CannotTell
	case !bootKnown && r.Host != "" && r.Host != self.Host,
		r.PIDNamespace != 0 && r.PIDNamespace != self.PIDNamespace:
		return CannotTell
	}
	s, state := observe(r.PID)
	another := s != nil && r.StartTicks != 0 && r.StartTicks != s.start
	switch {
	case state.Alive() && another && r.TimeNamespace != self.TimeNamespace:
		return CannotTell
	case another, r.PID == self.PID && r.StartTicks == 0:
		return NotRunning // a reused pid, or this process's, which did not write that
	}
	return state
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
	case s.state == 'T':
		return &s, Stopped
	}
	return &s, Running
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

// readStat reads the stat of "self", or a pid.
func readStat(process string) (stat, error) {
	data, err := os.ReadFile("/proc/" + process + "/stat")
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
	for procIsOurs() {
		s, err := readStat(strconv.Itoa(pid))
		if err != nil || s.parent == 0 {
			return pids, err == nil && pid == 1
		}
		pid = s.parent
		pids = append(pids, pid)
	}
	return nil, false
}

// Before tells whether the recorded process was started before another one.
func (r Record) Before(pid int) bool {
	s, err := readStat(strconv.Itoa(pid))
	return err == nil && r.StartTicks != 0 && r.StartTicks <= s.start
}

// bootTime is when this host was started, by its clock as it stands now.
func bootTime() time.Time { return timeOf(0) }

// timeOf is when it was so many clock ticks after boot, by the clock as it stands
// now. Linux has fixed sysconf(_SC_CLK_TCK) at 100 for programs.
func timeOf(ticks uint64) time.Time {
	const tick = time.Second / 100
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // a clock that every kernel in use has
	return time.Now().Add(time.Duration(ticks)*tick - time.Duration(now.Nano())).UTC()
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
