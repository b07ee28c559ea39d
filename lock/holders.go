package lock

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Holder is a process that holds a lock, and how that is known.
type Holder struct {
	meta.Record
	State  meta.State
	Source Source
}

// A Source is where a Holder is known from.
type Source string

// The sources: the record that it wrote, or the kernel's own view in /proc.
const (
	FromRecord Source = "record"
	FromKernel Source = "kernel"
)

// heldBy explains a lock that is held: by its record, and by the kernel's view
// where the record is missing or its process is not the one that took the lock.
func heldBy(path string) *HeldError {
	held := &HeldError{Lock: path}
	record, err := meta.Read(meta.Path(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		held.err = err
	}
	f, _ := fileAt(path)
	if err != nil {
		held.Holders = f.holders()
		return held
	}
	self := meta.Self()
	recorded := Holder{record, record.State(self), FromRecord}
	if recorded.State == meta.Running && f.takenBy(record.PID) {
		held.Holders = []Holder{recorded}
		return held
	}
	seen := f.holders()
	others := slices.DeleteFunc(slices.Clone(seen), func(h Holder) bool { return h.PID == record.PID })
	if len(others) > 0 && len(others) == len(seen) && recorded.State == meta.Running && !record.Proven(self) {
		held.Holders = seen // the recorded pid is some other process's by now
		return held
	}
	held.Holders = append([]Holder{recorded}, others...)
	return held
}

// file is the identity of an open file, whatever its path is by now.
type file struct{ dev, ino uint64 }

func fileAt(path string) (file, bool) {
	var info unix.Stat_t
	err := unix.Stat(path, &info)
	return file{info.Dev, info.Ino}, err == nil
}

// takenBy tells whether the kernel's list names pid as the process that took a
// flock(2) lock on f, and that lock still exists (proc_locks(5)). One line to
// compare instead of a walk through /proc; but a process that got the lock by
// inheriting the descriptor is not in that list.
//
// Only the inode is compared: the device there is the superblock's, which is
// another one than stat's on some file systems.
func (f file) takenBy(pid int) bool {
	list, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(list)) {
		// 1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF
		fields := strings.Fields(line)
		if len(fields) >= 6 && fields[1] == "FLOCK" && fields[4] == strconv.Itoa(pid) &&
			strings.HasSuffix(fields[5], ":"+strconv.FormatUint(f.ino, 10)) {
			return true
		}
	}
	return false
}

// heldIn tells whether process pid has a descriptor of f on which a flock(2)
// lock is held: its own, or one that it shares by inheritance. Of a process of
// another user it cannot tell, and says no.
func (f file) heldIn(pid string) bool {
	folder := "/proc/" + pid + "/fdinfo/"
	dir, err := os.Open(folder)
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(names, func(fd string) bool {
		if !hasFlock(folder + fd) {
			return false
		}
		// By stat, so that the device is the one that stat gives of the
		// lock file, which the device in the lock's line need not be.
		found, ok := fileAt("/proc/" + pid + "/fd/" + fd)
		return ok && found == f
	})
}

// hasFlock tells whether a file of /proc/PID/fdinfo shows a flock(2) lock
// (proc_pid_fdinfo(5)): "lock:\t1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF".
func hasFlock(fdinfo string) bool {
	fd, err := unix.Open(fdinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var buffer [4096]byte
	n, err := unix.Read(fd, buffer[:])
	if err != nil {
		return false
	}
	for line := range bytes.Lines(buffer[:n]) {
		if bytes.HasPrefix(line, []byte("lock:")) && bytes.Contains(line, []byte(" FLOCK ")) {
			return true
		}
	}
	return false
}

// holders are the processes that hold a flock(2) lock on f, as far as this
// process may see, in the order of their pids. It looks at every descriptor of
// every process: call it only where nothing quicker answers.
func (f file) holders() []Holder {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var found []Holder
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || !f.heldIn(name) {
			continue
		}
		if record, err := meta.Describe(pid); err == nil {
			found = append(found, Holder{record, meta.Running, FromKernel})
		}
	}
	slices.SortFunc(found, func(a, b Holder) int { return a.PID - b.PID })
	return found
}

// heldAbove tells whether this process or one of its ancestors holds the lock
// on f: then this run is part of the run that holds it.
func (f file) heldAbove() bool {
	if f.heldIn("self") {
		return true
	}
	return slices.ContainsFunc(meta.Ancestors(), func(pid int) bool { return f.heldIn(strconv.Itoa(pid)) })
}
