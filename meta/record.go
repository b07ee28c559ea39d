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
}

// unknown stands in place of a command that is not known: scripts grep that key,
// and it may not be empty.
const unknown = "unknown"

// fields are what a record holds behind pid and started, by their keys: each a
// *string or a *uint64.
func (r *Record) fields() []field {
	return []field{{"cmd", &r.Command}, {"host", &r.Host}, {"user", &r.User}, {"cwd", &r.Folder}, {"boot_id", &r.BootID}, {"start_ticks", &r.StartTicks},
		{"pid_ns", &r.PIDNamespace}, {"time_ns", &r.TimeNamespace}, {"lock_id", &r.LockID}, {"fs", &r.FS}}
}

type field struct {
	key   string
	value any
}

// encode gives the text of the file, without what is not known. The first three
// lines are read by scripts with grep and cut: their order, and that none is
// empty, is promised (contract, "What is locked, and the record").
func (r Record) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "pid=%d\nstarted=%s\n", r.PID, r.Started.UTC().Format(time.RFC3339))
	r.Command = cmp.Or(r.Command, unknown)
	for _, f := range r.fields() {
		switch value := f.value.(type) {
		case *string:
			if *value != "" {
				fmt.Fprintf(&b, "%s=%s\n", f.key, Printable(*value))
			}
		case *uint64:
			if *value != 0 {
				fmt.Fprintf(&b, "%s=%d\n", f.key, *value)
			}
		}
	}
	return b.Bytes()
}

// parse reads the text of a record as untrusted input: the first line of a key
// counts, as in the scripts' `grep | head -1`; keys it does not know are
// passed over; a key that cannot be used is as good as absent, but for the
// pid, without which there is no record.
func parse(data []byte) (r Record, err error) {
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if _, seen := values[key]; ok && !seen {
			values[key] = strings.TrimSpace(value)
		}
	}
	// kill(2) takes 0 and negative numbers for process groups, and a pid
	// is a 32-bit number: nothing else may go further than this line.
	pid, err := strconv.ParseInt(values["pid"], 10, 32)
	if err != nil || pid < 1 {
		return Record{}, errors.New("it names no process (no usable pid= line)")
	}
	r.PID = int(pid)
	r.Started, _ = time.Parse(time.RFC3339, values["started"]) // zero when it is none
	r.Started = r.Started.UTC()
	for _, f := range r.fields() {
		switch value := f.value.(type) {
		case *string:
			*value = shown(values[f.key])
		case *uint64:
			*value, _ = strconv.ParseUint(values[f.key], 10, 64)
		}
	}
	r.Command = cmp.Or(r.Command, unknown)
	return r, nil
}
