package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is the identity of a process: a pid means nothing once it is reused, after a reboot, in
// another PID namespace or on another host. A field that is empty or zero is unknown.
type Process struct {
	PID          int
	Host         string // gethostname(2)
	BootID       string // /proc/sys/kernel/random/boot_id
	StartTicks   uint64 // field 22 of /proc/PID/stat, clock ticks since boot
	PIDNamespace uint64 // inode of /proc/PID/ns/pid
}

// Self is the identity of this process. What /proc does not tell stays unknown, and
// so does StartTicks in a time namespace, which shifts it.
var Self = sync.OnceValue(func() Process {
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	line, _ := os.ReadFile("/proc/self/stat")
	pids, _ := FileAt("/proc/self/ns/pid")
	p := Process{os.Getpid(), host, string(bytes.TrimSpace(boot)), parseStat(string(line)).start, pids.Inode}
	// The first one has this inode, by the proc_ns.h of the kernel.
	if times, ok := FileAt("/proc/self/ns/time"); ok && times.Inode != 0xEFFFFFFA {
		p.StartTicks = 0
	}
	return p
})

// A State is what is said of a recorded holder (contract, "What the holder's state is called").
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
	self, s := Self(), readStat(r.PID)
	// Another boot is that of another host, which may have the same name, or an earlier
	// one of this host: where no other could have written the record.
	otherBoot := r.BootID != "" && r.BootID != self.BootID
	ours := r.Host == self.Host && r.FS != "" && !SharedType(r.FS) && self.StartTicks != 0
	switch {
	case otherBoot && ours && !r.Started.IsZero() && r.Started.Before(bootTime()):
		return NotRunning
	case otherBoot,
		r.BootID == "" && r.Host != "" && r.Host != self.Host,
		r.PIDNamespace != 0 && r.PIDNamespace != self.PIDNamespace,
		r.StartTicks != 0 && self.StartTicks == 0:
		return CannotTell
	case unix.Kill(r.PID, 0) == unix.ESRCH, // EPERM is of another user's process
		s.state == 'Z' && s.threads <= 1,
		s.start != 0 && r.StartTicks != 0 && r.StartTicks != s.start,
		r.StartTicks == 0 && r.PID == self.PID: // this process did not write that
		return NotRunning
	case s.state == 'T':
		return Stopped
	}
	return Running
}

// Proven tells whether the recorded process runs beyond doubt: a pid alone may
// have been reused, a pid with its boot and start time is one process for ever.
func (r Record) Proven() bool {
	return r.StartTicks != 0 && r.BootID != "" && readStat(os.Getpid()).start != 0 && r.State().Alive()
}

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)); zero where that process is not shown.
type stat struct {
	state   byte
	parent  int
	threads int
	start   uint64 // clock ticks since boot
}

// procIsOurs tells whether /proc/N is what kill(N) reaches: not so under a bare `unshare --pid`.
var procIsOurs = sync.OnceValue(func() bool {
	link, _ := os.Readlink("/proc/self")
	return link == strconv.Itoa(os.Getpid())
})

func readStat(pid int) stat {
	if !procIsOurs() {
		return stat{}
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return parseStat(string(line))
}

// parseStat counts from the last parenthesis: a program's name may hold some.
func parseStat(line string) (s stat) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const state, parent, threads, start = 0, 1, 17, 19 // fields 3, 4, 20 and 22 of proc_pid_stat(5)
	if len(fields) > start {
		s.state = fields[state][0]
		s.parent, _ = strconv.Atoi(fields[parent])
		s.threads, _ = strconv.Atoi(fields[threads])
		s.start, _ = strconv.ParseUint(fields[start], 10, 64)
	}
	return s
}

// Ancestors are the pids of a process's parent, that one's, and so on; whole: seen up to the first.
func Ancestors(pid int) (pids []int, whole bool) {
	for {
		s := readStat(pid)
		if s.parent == 0 {
			return pids, pid == 1 && s != stat{}
		}
		pid = s.parent
		pids = append(pids, pid)
	}
}

// TakenBefore tells whether the lock may, by the record, have been taken before a process started.
func (r Record) TakenBefore(pid int) bool {
	start := readStat(pid).start
	return r.TakenTicks < start || r.TakenTicks == start && uint64(pid) > r.LastPID
}

const tick = time.Second / 100 // Linux has fixed sysconf(_SC_CLK_TCK) for programs

func sinceBoot() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // a clock that every kernel in use has
	return time.Duration(now.Nano())
}

// bootTime is when this host was started, by its clock as it stands now.
func bootTime() time.Time { return time.Now().Add(-sinceBoot()) }

// describe makes a holder of what /proc shows of a process: Started is its start, not the lock's.
func describe(pid int) Holder {
	h := Holder{Record: Record{Process: Process{PID: pid}}, Source: FromKernel}
	if h.State = h.Record.State(); h.State == NotRunning {
		h.State = Running // the kernel showed that it holds the lock: it is ending
	}
	if h.StartTicks = readStat(pid).start; h.StartTicks != 0 {
		h.Started = bootTime().Add(time.Duration(h.StartTicks) * tick).Truncate(time.Second)
	}
	folder := fmt.Sprintf("/proc/%d", pid)
	// A process without words, as one of the kernel's, has its program's name.
	words, _ := os.ReadFile(folder + "/cmdline")
	name, _ := os.ReadFile(folder + "/comm")
	text := strings.TrimRight(cmp.Or(string(words), string(name), "unknown"), "\x00\n")
	h.Command = Summary(strings.Split(text, "\x00"))
	var info unix.Stat_t
	if unix.Stat(folder, &info) == nil {
		h.User = UserName(int(info.Uid))
	}
	cwd, _ := os.Readlink(folder + "/cwd")
	h.Folder = shown(cwd)
	return h
}

// UserName is a user id's name, else its number. Not by user.Current, which believes $USER.
func UserName(id int) string {
	u, err := user.LookupId(strconv.Itoa(id))
	if err != nil {
		return strconv.Itoa(id)
	}
	return u.Username
}
