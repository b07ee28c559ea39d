package meta

import (
	"bytes"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe makes a holder of what /proc tells about a process: Started is when
// the process was started, which is not when it took a lock. What may not be
// read of it stays empty.
func describe(pid int) Holder {
	h := Holder{Record: Record{Process: Process{PID: pid}, Command: unknown}, Source: FromKernel}
	folder := "/proc/" + strconv.Itoa(pid)
	s, state := observe(pid)
	if h.State = state; !state.Alive() {
		h.State = Running // the kernel showed that it holds the lock: it is ending
	}
	if s != nil {
		h.StartTicks, h.Started = s.start, time.Now().Add(-age(s.start)).UTC().Truncate(time.Second)
	}
	if command := commandLine(folder); command != "" {
		h.Command = command
	}
	var info unix.Stat_t
	if unix.Stat(folder, &info) == nil {
		h.User = UserName(int(info.Uid))
	}
	if cwd, err := os.Readlink(folder + "/cwd"); err == nil {
		h.Folder = shown(cwd)
	}
	return h
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
	name, _ := readSmall(folder + "/comm")
	return Printable(strings.TrimSpace(string(name)))
}
