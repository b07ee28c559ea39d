package meta

import (
	"bytes"
	"cmp"
	"fmt"
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
	h := Holder{Record: Record{Process: Process{PID: pid}}, Source: FromKernel}
	folder := fmt.Sprintf("/proc/%d", pid)
	s, state := observe(pid)
	if h.State = state; !state.Alive() {
		h.State = Running // the kernel showed that it holds the lock: it is ending
	}
	if s != nil {
		h.StartTicks, h.Started = s.start, timeOf(s.start).Truncate(time.Second)
	}
	// A process without words, as one of the kernel's, has its program's name.
	name, _ := os.ReadFile(folder + "/comm")
	h.Command = cmp.Or(Printable(strings.TrimSpace(string(name))), unknown)
	words, _ := os.ReadFile(folder + "/cmdline")
	if words = bytes.TrimSuffix(words, []byte{0}); len(words) > 0 {
		h.Command = Summary(strings.Split(string(words), "\x00"))
	}
	var info unix.Stat_t
	if unix.Stat(folder, &info) == nil {
		h.User = UserName(int(info.Uid))
	}
	cwd, _ := os.Readlink(folder + "/cwd")
	h.Folder = shown(cwd)
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
