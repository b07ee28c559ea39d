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
	f, _ := fileAt(path)
	record, err := meta.Read(meta.Path(path))
	switch {
	case err == nil && record.State(meta.Self()) == meta.Running && f.takenBy(record.PID):
		held.describe(record)
	case err == nil:
		held.Holders = holders(f.is)
		held.describe(record)
	default:
		held.Holders = holders(f.is)
		if !errors.Is(err, fs.ErrNotExist) {
			held.err = err
		}
	}
	return held
}

// describe puts a record in front of the holders, in place of the one that it
// describes. A record that names a living process which is not among them, and
// may be another than the one that was recorded, is of an earlier run: left out.
func (e *HeldError) describe(record meta.Record) {
	self := meta.Self()
	recorded := Holder{record, record.State(self), FromRecord}
	i := slices.IndexFunc(e.Holders, func(h Holder) bool { return h.PID == record.PID })
	switch {
	case i >= 0:
		e.Holders = slices.Delete(e.Holders, i, i+1)
	case len(e.Holders) > 0 && recorded.State == meta.Running && !record.Proven(self):
		return
	}
	e.Holders = slices.Insert(e.Holders, 0, recorded)
}

// file is the identity of an open file, whatever its path is by now.
type file struct{ dev, ino uint64 }

func fileAt(path string) (file, bool) {
	var info unix.Stat_t
	err := unix.Stat(path, &info)
	return file{info.Dev, info.Ino}, err == nil
}

// A kernelLock is a flock(2) lock in the kernel's list (proc_locks(5)).
type kernelLock struct {
	pid    int    // of the process that took it, which may be gone
	device string // of the superblock: not stat's on some file systems
	ino    uint64
}

// kernelLocks are the flock(2) locks that the kernel lists; waiters are not
// among them. A process that shares a lock by inheritance is not listed either.
func kernelLocks() (locks []kernelLock) {
	list, _ := os.ReadFile("/proc/locks")
	for line := range strings.Lines(string(list)) {
		// 1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" {
			continue
		}
		colon := strings.LastIndexByte(fields[5], ':')
		pid, err1 := strconv.Atoi(fields[4])
		ino, err2 := strconv.ParseUint(fields[5][colon+1:], 10, 64)
		if err1 == nil && err2 == nil && colon > 0 {
			locks = append(locks, kernelLock{pid, fields[5][:colon], ino})
		}
	}
	return locks
}

// takenBy tells whether the kernel lists a lock on f that pid took: one file to
// read instead of a walk through /proc. Only the inode is compared, for the
// reason at device.
func (f file) takenBy(pid int) bool {
	return slices.ContainsFunc(kernelLocks(), func(l kernelLock) bool { return l.pid == pid && l.ino == f.ino })
}

// holds tells whether process pid ("self" or a number) has a descriptor with a
// flock(2) lock, its own or one that it shares by inheritance, on a file that
// matches; match is given its path in /proc/PID/fd. Of another user's process
// it cannot tell, and says no.
func holds(pid string, match func(fd string) bool) bool {
	folder := "/proc/" + pid + "/"
	dir, err := os.Open(folder + "fdinfo")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(names, func(fd string) bool {
		return hasFlock(folder+"fdinfo/"+fd) && match(folder+"fd/"+fd)
	})
}

// is matches descriptors of f: by stat, so that the device is the one that stat
// gives of the lock file, which the one in the lock's line need not be.
func (f file) is(fd string) bool {
	found, ok := fileAt(fd)
	return ok && found == f
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

// holders are the processes that hold a flock(2) lock on a file that matches,
// as far as this process may see, in the order of their pids; itself is not
// among them. It looks at every descriptor of every process: call it only
// where nothing quicker answers.
func holders(match func(fd string) bool) (found []Holder) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || !holds(name, match) {
			continue
		}
		if record, err := meta.Describe(pid); err == nil {
			found = append(found, Holder{record, meta.Running, FromKernel})
		}
	}
	slices.SortFunc(found, func(a, b Holder) int { return a.PID - b.PID })
	return found
}

// heldAbove tells whether this process or one of its ancestors holds a lock on
// a file that matches: then this run is part of the run that holds it.
func heldAbove(match func(fd string) bool) bool {
	if holds("self", match) {
		return true
	}
	return slices.ContainsFunc(meta.Ancestors(), func(pid int) bool { return holds(strconv.Itoa(pid), match) })
}
