// Package meta explains: who a process is, what locks the kernel shows it to
// hold, what the record says of it, and how all of that is worded. It decides
// nothing and takes no lock.
package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// unknown stands in place of a command that is not known.
const unknown = "unknown"

// A field of a record is a *string or a *uint64, not known where that is zero.
type field struct {
	key   string
	value any
}

// fields are what a record holds behind pid and started.
func (r *Record) fields() []field {
	return []field{{"cmd", &r.Command}, {"host", &r.Host}, {"user", &r.User}, {"cwd", &r.Folder},
		{"boot_id", &r.BootID}, {"start_ticks", &r.StartTicks}, {"pid_ns", &r.PIDNamespace}, {"time_ns", &r.TimeNamespace},
		{"lock_id", &r.LockID}, {"fs", &r.FS}}
}

// encode gives the text of the file, without what is not known. The first three
// lines are read by scripts with grep and cut: their order, and that none is
// empty, is promised (contract, "What is locked, and the record").
func (r Record) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "pid=%d\nstarted=%s\n", r.PID, r.Started.UTC().Format(time.RFC3339))
	for _, f := range r.fields() {
		if value := reflect.ValueOf(f.value).Elem(); !value.IsZero() {
			fmt.Fprintf(&b, "%s=%s\n", f.key, Printable(fmt.Sprint(value)))
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

// Read reads the record at path. The error is fs.ErrNotExist where there is
// none; any other error means that something lies there which is no record.
// It never waits and never follows a link: whoever may write to the archive
// root may have put a FIFO or a link to /dev/zero there.
func Read(path string) (r Record, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil && !errors.Is(err, unix.ELOOP) {
		return r, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return r, fmt.Errorf("%s: is not a regular file", path)
	}
	const most = 64 << 10 // bytes; one that dcelock writes is a tenth of it at most
	// The size may grow after a look at it; the limit holds all the same.
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case len(data) > most:
		err = fmt.Errorf("is larger than %d KiB", most>>10)
	case err == nil:
		r, err = parse(data)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return r, err
}

// Write puts r at path by writing a temporary file beside it and renaming it,
// so that a reader sees the whole record or none. Only the lock's holder may
// call it: the lock is what makes the temporary file's fixed name safe, and
// the fixed name is what keeps killed runs from piling up temporary files.
// Not synced to disk: a record outlives its boot only to be reclaimed.
func Write(path string, r Record) error {
	temporary := path + ".tmp"
	_ = os.Remove(temporary) // of a run that was killed
	// Never through a link that somebody put there.
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(r.encode())
	// Whatever the umask: a record that others cannot read explains nothing
	// to them.
	err = cmp.Or(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// Remove removes the record at path when it is still of the process that wrote
// r; another run's record, or none, is left as it is, without an error. Call it
// while the lock is held: then nobody else has a reason to write one in between.
func Remove(path string, r Record) error {
	if there, err := Read(path); err != nil || there.Process != r.Process {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
