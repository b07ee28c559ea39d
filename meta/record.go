// Package meta explains: who a process is, what locks the kernel shows it to hold, what the record
// says of it, and how all of that is worded. It decides nothing and takes no lock.
package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Record says who holds a lock. Every text in one from Read is fit to be shown, whoever wrote it.
type Record struct {
	Process
	Started    time.Time // when the lock was taken, whole seconds; zero when unknown
	Command    string    // as Summary makes it
	User       string
	Folder     string // the working directory
	LockID     string // as File.ID makes it, of the lock file
	FS         string // type of the file system that the writer saw, as in mount(8)
	TakenTicks uint64 // when the lock was taken, in clock ticks since boot; 0 when unknown
	LastPID    uint64 // of the processes that there were then
}

// encode gives the text of the file (contract, "What is locked, and the record").
func (r Record) encode() (text string) {
	for _, line := range []string{
		fmt.Sprint("pid=", r.PID), "started=" + Timestamp(r.Started), "cmd=" + r.Command,
		"host=" + r.Host, "user=" + r.User, "cwd=" + r.Folder, "boot_id=" + r.BootID,
		fmt.Sprint("start_ticks=", r.StartTicks), fmt.Sprint("taken_ticks=", r.TakenTicks),
		fmt.Sprint("last_pid=", r.LastPID), fmt.Sprint("pid_ns=", r.PIDNamespace), "lock_id=" + r.LockID, "fs=" + r.FS,
	} {
		text += Printable(line) + "\n"
	}
	return text
}

// parse reads the text of a record as untrusted input: the first line of a key counts, as in the
// scripts' `grep | head -1`; what cannot be used is as good as absent, without a pid all of it.
func parse(data []byte) (r Record, ok bool) {
	values := map[string]string{}
	for _, line := range slices.Backward(strings.Split(string(data), "\n")) {
		if key, value, ok := strings.Cut(line, "="); ok {
			values[key] = strings.TrimSpace(value)
		}
	}
	text := func(key string) string { return shown(values[key]) }
	number := func(key string) uint64 { n, _ := strconv.ParseUint(values[key], 10, 64); return n }
	// kill(2) takes 0 and what is negative in 32 bits for process groups.
	pid := number("pid")
	if pid < 1 || pid > math.MaxInt32 {
		return r, false
	}
	started, _ := time.Parse(time.RFC3339, values["started"]) // zero when it is none
	return Record{
		Process: Process{int(pid), text("host"), text("boot_id"), number("start_ticks"), number("pid_ns")},
		Started: started.Truncate(time.Second), Command: cmp.Or(text("cmd"), "unknown"), User: text("user"),
		Folder: text("cwd"), LockID: text("lock_id"), FS: text("fs"), TakenTicks: number("taken_ticks"), LastPID: number("last_pid"),
	}, true
}

// Read reads the record at path: fs.ErrNotExist is for none, others for what is no record. It never
// waits nor follows a link: whoever may write to the archive root may have put a FIFO there.
func Read(path string) (r Record, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	var data []byte
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		data, err = io.ReadAll(io.LimitReader(f, 64<<10)) // dcelock writes a tenth of it at most
	}
	r, ok := parse(data)
	if !ok {
		err = cmp.Or(err, fmt.Errorf("%s: is not a regular file that names a process (pid=N)", path))
	}
	return r, err
}

// Write puts r at path by a temporary file that is renamed, so that a reader sees all of it
// or none. Only the lock's holder may call it, which makes the fixed name safe and keeps such
// files from piling up. Not synced to disk: a record outlives its boot only to be reclaimed.
func Write(path string, r Record) error {
	if r.StartTicks != 0 {
		load, _ := os.ReadFile("/proc/loadavg") // proc_loadavg(5) ends in it
		r.LastPID, _ = strconv.ParseUint(strings.TrimSpace(string(load[bytes.LastIndexByte(load, ' ')+1:])), 10, 64)
		r.TakenTicks = uint64(sinceBoot() / tick)
	}
	temporary := path + ".tmp"
	// A killed run's, or a link that somebody put there. Another user's in a sticky folder stays.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		temporary += fmt.Sprint(".", r.PID)
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(r.encode())
	// Whatever the umask: others are to read who it is.
	if err = cmp.Or(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// Remove removes the record at path if it is still of the process that wrote r, without an error if
// not. Call it while the lock is held: then nobody else has a reason to write one in between.
func Remove(path string, r Record) error {
	if there, err := Read(path); err == nil && there.Process == r.Process {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
