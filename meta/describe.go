package meta

import (
	"bytes"
	"cmp"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of times in /proc/PID/stat, sysconf(_SC_CLK_TCK),
// which Linux has fixed at 100 for programs.
const ticksPerSecond = 100

// Describe makes a record of what /proc tells about a process: Started is when
// the process was started, which is not when it took a lock, and LockID is
// empty. What may not be read of it stays empty. The error is that there is no
// such process.
func Describe(pid int) (Record, error) {
	folder := "/proc/" + strconv.Itoa(pid)
	s, err := readStat(strconv.Itoa(pid))
	if err != nil {
		return Record{}, err
	}
	r := Record{Process: Process{PID: pid, StartTicks: s.start}, Started: time.Now().Add(-age(s.start)).UTC().Truncate(time.Second)}
	r.Command = cmp.Or(commandLine(folder), unknown)
	var info unix.Stat_t
	if unix.Stat(folder, &info) == nil {
		r.User = UserName(int(info.Uid))
	}
	if cwd, err := os.Readlink(folder + "/cwd"); err == nil {
		r.Folder = shown(cwd)
	}
	return r, nil
}

// UserName is the name of a user id, or its number where it has none. Not
// user.Current, which believes the variable USER.
func UserName(id int) string {
	number := strconv.Itoa(id)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}

// commandLine is the summary of a process's words, or its program's name where
// it has none.
func commandLine(folder string) string {
	words, _ := os.ReadFile(folder + "/cmdline")
	if words = bytes.TrimSuffix(words, []byte{0}); len(words) > 0 {
		return Summary(strings.Split(string(words), "\x00"))
	}
	name, _ := os.ReadFile(folder + "/comm")
	return Printable(strings.TrimSpace(string(name)))
}

// age is how long ago it was so many clock ticks after boot.
func age(ticks uint64) time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // a clock that every kernel in use has
	return time.Duration(now.Nano()) - time.Duration(ticks)*(time.Second/ticksPerSecond)
}
