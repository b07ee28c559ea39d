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

// A kernelLock is an flock(2) lock as the kernel shows it.
type kernelLock struct {
	waits  bool   // for the lock, which another process has
	shared bool   // LOCK_SH: others may have it too
	pid    int    // of the process that asked for it, which may be gone; 0 for one outside this PID namespace
	file   string // "fe:00:9978222": the device of the superblock, which is not stat's on some file systems, and the inode
}

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

// listed are the flock(2) locks of the folder and the file that the kernel lists,
// and the processes that wait for them, which takes it some ten milliseconds to
// give. A process that shares a lock by inheritance is not listed; and inside a PID
// namespace, locks taken outside of it are not. Two btrfs subvolumes may have files
// that are listed alike. whole tells that the list fits one page: of a longer one
// the kernel gives a page at a time, and what comes and goes in between moves lines
// past the reader.
func (at Place) listed() (locks []kernelLock, whole bool) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, false
	}
	defer f.Close()
	const most, longestLine = 1 << 20, 100
	list := make([]byte, most) // as less is given to a reader who asks for less
	n, _ := io.ReadFull(f, list)
	var here []string
	for _, path := range []string{at.Folder, at.Lock} {
		file, _ := FileAt(path)
		here = append(here, fmt.Sprintf("%s:%d", FileSystemAt(path).device, file.Inode))
	}
	for line := range strings.Lines(string(list[:n])) {
		if l, ok := parseLock(line); ok && slices.Contains(here, l.file) {
			locks = append(locks, l)
		}
	}
	return locks, n < os.Getpagesize()-longestLine
}

// A descriptor is one that a process has open, seen through /proc.
type descriptor struct {
	path string // in /proc/PID/fd: opening it gives the same file, whatever its path is by now
	file File
}

// descriptors are those of a process. The error is fs.ErrPermission where this
// process may not look.
func descriptors(pid int) (all []descriptor, err error) {
	folder := fmt.Sprintf("/proc/%d", pid)
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
		path := folder + "/fd/" + fd
		var info unix.Statx_t
		// No file server is asked, which may be gone for good.
		if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &info) == nil {
			all = append(all, descriptor{path, File{unix.Mkdev(info.Dev_major, info.Dev_minor), info.Ino}})
		}
	}
	return all, err
}

// lock is the flock(2) lock of its open file description, as /proc/PID/fdinfo
// shows it.
func (d descriptor) lock() (l kernelLock, ok bool) {
	text, _ := os.ReadFile(strings.Replace(d.path, "/fd/", "/fdinfo/", 1))
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "lock:"); found && !ok {
			l, ok = parseLock(value)
		}
	}
	return l, ok
}
