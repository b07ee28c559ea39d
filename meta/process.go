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
	PID          int
	Host         string // gethostname(2)
	BootID       string // /proc/sys/kernel/random/boot_id
	StartTicks   uint64 // field 22 of /proc/PID/stat, clock ticks since boot
	PIDNamespace uint64 // inode of /proc/PID/ns/pid
}

// Self is the identity of this process. What /proc does not tell, because it
// is not mounted, stays unknown.
var Self = sync.OnceValue(func() Process {
	p := Process{PID: os.Getpid()}
	p.Host, _ = os.Hostname()
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.BootID = string(bytes.TrimSpace(id))
	}
	if link, err := os.Readlink("/proc/self/ns/pid"); err == nil {
		p.PIDNamespace, _ = strconv.ParseUint(strings.Trim(link, "pid:[]"), 10, 64)
	}
	if s, err := readStat("self"); err == nil {
		p.StartTicks = s.start
	}
	return p
})

// A State is what can be said of a recorded holder (contract, "What the
// holder's state is called"). Its text is what messages print.
type State string

// The states. NotRunning is only said with proof.
const (
	Running    State = "running"
	NotRunning State = "not running"
	CannotTell State = "cannot tell"
)

// State says what this process can see of p.
func (p Process) State() State {
	self := Self()
	known := p.BootID != "" && self.BootID != ""
	sameBoot := !known || p.BootID == self.BootID
	// The boot id is the kernel's own and unique: equal ones are one host
	// whatever the host names say, which containers set as they like.
	sameHost := p.Host == "" || p.Host == self.Host || known && sameBoot
	sameNamespace := p.PIDNamespace == 0 || p.PIDNamespace == self.PIDNamespace
	switch {
	case !sameHost || !sameNamespace:
		return CannotTell
	case !sameBoot:
		return NotRunning
	case p.PID == self.PID && p.StartTicks != self.StartTicks:
		// Ours now, so not the recorded process's any more; a record
		// without a start time was not written by this process either.
		return NotRunning
	}
	// EPERM means that it exists and is another user's.
	if err := unix.Kill(p.PID, 0); errors.Is(err, unix.ESRCH) {
		return NotRunning
	}
	s, err := readStat(strconv.Itoa(p.PID))
	switch {
	case err != nil || !procIsOurs():
		return Running
	case s.state == 'Z' || s.state == 'X':
		return NotRunning
	case p.StartTicks != 0 && p.StartTicks != s.start:
		return NotRunning
	}
	return Running
}

// Proven tells whether p runs beyond doubt: a pid alone may have
// been reused, a pid with its boot and start time is one process for ever.
func (p Process) Proven() bool {
	if p.StartTicks == 0 || p.BootID == "" || p.State() != Running || !procIsOurs() {
		return false
	}
	s, err := readStat(strconv.Itoa(p.PID))
	return err == nil && s.start == p.StartTicks
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
	state  byte
	parent int
	start  uint64 // clock ticks since boot
}

func readStat(pid string) (stat, error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
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
	const state, parent, start = 0, 1, 19 // fields 3, 4 and 22 of proc_pid_stat(5)
	if name < 0 || len(fields) <= start {
		return stat{}, errors.New("/proc/PID/stat: too few fields")
	}
	s := stat{state: fields[state][0]}
	var err1, err2 error
	s.parent, err1 = strconv.Atoi(fields[parent])
	s.start, err2 = strconv.ParseUint(fields[start], 10, 64)
	return s, errors.Join(err1, err2)
}

// Settled tells whether a process has been there for a tenth of a second and now
// waits for something else than a processor or a disk.
func Settled(pid int) bool {
	s, err := readStat(strconv.Itoa(pid))
	return err == nil && s.state != 'R' && s.state != 'D' && age(s.start) > time.Second/10
}

// Ancestors are the pids of this process's parent, its parent's parent and so
// on, as far as they can be seen.
func Ancestors() []int {
	var pids []int
	for of := "self"; ; {
		s, err := readStat(of)
		if err != nil || s.parent == 0 {
			return pids
		}
		pids = append(pids, s.parent)
		of = strconv.Itoa(s.parent)
	}
}
