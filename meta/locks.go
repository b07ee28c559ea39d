package meta

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the kernel shows of locks: its list of all that were taken, and beside
// each descriptor of a process the lock of that open file description, which
// shows those that inherited it too.

// A File is the identity of a file or a folder, whatever its path is by now.
type File struct {
	Device uint64 // as stat(2) gives it
	Inode  uint64
}

// FileAt is the file that a path leads to; false where there is none.
func FileAt(path string) (File, bool) {
	var info unix.Stat_t
	err := unix.Stat(path, &info)
	return File{info.Dev, info.Ino}, err == nil
}

// FileOf is the file behind an open descriptor.
func FileOf(fd int) File {
	var info unix.Stat_t
	_ = unix.Fstat(fd, &info) // of an open descriptor it does not fail
	return File{info.Dev, info.Ino}
}

// ID is "device:inode", decimal, as a record's lock_id holds it.
func (f File) ID() string { return fmt.Sprintf("%d:%d", f.Device, f.Inode) }

// fileBehind is the file of a descriptor in /proc/PID/fd. No file server is
// asked, which may be gone for good.
func fileBehind(fd string) (File, bool) {
	var info unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, fd, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &info)
	return File{unix.Mkdev(info.Dev_major, info.Dev_minor), info.Ino}, err == nil
}

// A kernelLock is an flock(2) lock as the kernel shows it.
type kernelLock struct {
	waits  bool   // for the lock, which another process has
	shared bool   // LOCK_SH: others may have it too
	pid    int    // of the process that asked for it, which may be gone; 0 for one outside this PID namespace
	file   string // "fe:00:9978222": see listed
}

// listed is how the kernel names a file in its list of locks: by the device of
// the superblock, which is not stat's on some file systems, and the inode. Two
// btrfs subvolumes may have files with one name.
func listed(device string, inode uint64) string { return fmt.Sprintf("%s:%d", device, inode) }

// parseLock reads a line of /proc/locks (proc_locks(5)), or what follows
// "lock:" in one of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)):
//
//	1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF
//	1: -> FLOCK  ADVISORY  WRITE 4250 fe:00:9978222 0 EOF
func parseLock(line string) (l kernelLock, ok bool) {
	fields := strings.Fields(line)
	if l.waits = len(fields) > 1 && fields[1] == "->"; l.waits {
		fields = slices.Delete(fields, 1, 2)
	}
	if len(fields) < 6 || fields[1] != "FLOCK" {
		return l, false
	}
	pid, err := strconv.Atoi(fields[4])
	return kernelLock{l.waits, fields[3] == "READ", pid, fields[5]}, err == nil
}

// kernelLocks are the flock(2) locks that the kernel lists, and the processes
// that wait for them, which takes it some ten milliseconds to give. A process
// that shares a lock by inheritance is not listed; and inside a PID namespace,
// locks taken outside of it are not. whole tells that the list fits one page: of
// a longer one the kernel gives a page at a time, and what comes and goes in
// between moves lines past the reader.
func kernelLocks() (locks []kernelLock, whole bool) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, false
	}
	defer f.Close()
	const most, longestLine = 1 << 20, 100
	list := make([]byte, most) // as less is given to a reader who asks for less
	n, _ := io.ReadFull(f, list)
	for line := range strings.Lines(string(list[:n])) {
		if l, ok := parseLock(line); ok {
			locks = append(locks, l)
		}
	}
	return locks, n < os.Getpagesize()-longestLine
}

// A descriptor is one that a process has open, seen through /proc.
type descriptor struct {
	path   string // in /proc/PID/fd: opening it gives the same file, whatever its path is by now
	file   File
	locked bool       // whether its open file description has a flock(2) lock
	lock   kernelLock // that one
}

// descriptors finds those of a process ("self" or a pid) that match, of which
// their path in /proc/PID/fd is asked, and the file behind it. The error is
// fs.ErrPermission where this process may not look.
func descriptors(process string, match func(path string, f File) bool) (found []descriptor, err error) {
	folder := "/proc/" + process
	list, err := names(folder + "/fd")
	if len(list) == 0 && err == nil {
		// A main thread that has ended shows no descriptor, though the other
		// threads have them.
		threads, _ := names(folder + "/task")
		for _, thread := range threads {
			if list, _ = names(folder + "/task/" + thread + "/fd"); len(list) > 0 {
				folder += "/task/" + thread
				break
			}
		}
	}
	for _, fd := range list {
		d := descriptor{path: folder + "/fd/" + fd}
		var there bool
		if d.file, there = fileBehind(d.path); there && match(d.path, d.file) {
			d.lock, d.locked = lockOf(folder + "/fdinfo/" + fd)
			found = append(found, d)
		}
	}
	return found, err
}

// lockOf is the flock(2) lock that a file of /proc/PID/fdinfo shows.
func lockOf(fdinfo string) (l kernelLock, ok bool) {
	text, _ := os.ReadFile(fdinfo)
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "lock:"); found && !ok {
			l, ok = parseLock(value)
		}
	}
	return l, ok
}
