// Package meta explains: who a process is, what locks the kernel shows it to
// hold, what the record says of it, and how all of that is worded. It decides
// nothing and takes no lock.
package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Record says who holds a lock. Every text in a Record that came from Read is
// fit to be shown, whoever wrote the file.
type Record struct {
	Process
	Started time.Time // when the lock was taken, UTC, whole seconds; zero when unknown
	Command string    // as Summary makes it
	User    string
	Folder  string // the working directory
	LockID  string // as File.ID makes it, of the lock file
	FS      string // type of the file system that the writer saw, as in mount(8)

	local bool // whether the record was read from a file system of this host
}

// unknown stands in place of a command that is not known: scripts grep that key,
// and it may not be empty.
const unknown = "unknown"

// encode gives the text of the file. The first three lines are read by scripts
// with grep and cut: their order, and that none is empty, is promised
// (contract, "What is locked, and the record").
func (r Record) encode() []byte {
	var b bytes.Buffer
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", key, Printable(value))
		}
	}
	number := func(key string, value uint64) {
		if value != 0 {
			line(key, strconv.FormatUint(value, 10))
		}
	}
	line("pid", strconv.Itoa(r.PID))
	line("started", r.Started.UTC().Format(time.RFC3339))
	line("cmd", cmp.Or(r.Command, unknown))
	line("host", r.Host)
	line("user", r.User)
	line("cwd", r.Folder)
	line("boot_id", r.BootID)
	number("start_ticks", r.StartTicks)
	number("pid_ns", r.PIDNamespace)
	number("time_ns", r.TimeNamespace)
	line("lock_id", r.LockID)
	line("fs", r.FS)
	return b.Bytes()
}

// errNoPID is what parse says of text that names no process.
var errNoPID = errors.New("it names no process (no usable pid= line)")

// parse reads the text of a record as untrusted input: the first line of a key
// counts, as in the scripts' `grep | head -1`; keys it does not know are
// passed over; a key that cannot be used is as good as absent, but for the
// pid, without which there is no record.
func parse(data []byte) (Record, error) {
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if _, seen := values[key]; ok && !seen {
			values[key] = value
		}
	}
	raw := func(key string) string { return strings.TrimSpace(values[key]) }
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(raw(key), 10, 64)
		return n
	}

	// kill(2) takes 0 and negative numbers for process groups, and a pid
	// is a 32-bit number: nothing else may go further than this line.
	pid, err := strconv.ParseInt(raw("pid"), 10, 32)
	if err != nil || pid < 1 {
		return Record{}, errNoPID
	}
	started, _ := time.Parse(time.RFC3339, raw("started")) // zero when it is none
	return Record{
		Process: Process{
			PID:           int(pid),
			Host:          shown(raw("host")),
			BootID:        shown(raw("boot_id")),
			StartTicks:    number("start_ticks"),
			PIDNamespace:  number("pid_ns"),
			TimeNamespace: number("time_ns"),
		},
		Started: started.UTC(),
		Command: cmp.Or(shown(raw("cmd")), unknown),
		User:    shown(raw("user")),
		Folder:  shown(raw("cwd")),
		LockID:  shown(raw("lock_id")),
		FS:      shown(raw("fs")),
	}, nil
}
