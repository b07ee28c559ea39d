package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// file is the identity of an open file, whatever its path is by now.
type file struct{ dev, ino uint64 }

func fileAt(path string) (file, bool) {
	var info unix.Stat_t
	err := unix.Stat(path, &info)
	return file{info.Dev, info.Ino}, err == nil
}

func fileOf(fd int) file {
	var info unix.Stat_t
	_ = unix.Fstat(fd, &info) // of an open descriptor it does not fail
	return file{info.Dev, info.Ino}
}

// id is the lock_id of a record.
func (f file) id() string { return fmt.Sprintf("%d:%d", f.dev, f.ino) }

// fileBehind is the file of a descriptor in /proc/PID/fd. The device is the one
// that stat gives, which the one in the kernel's lines need not be; but no file
// server is asked, which may be gone for good.
func fileBehind(fd string) (file, bool) {
	var info unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, fd, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &info)
	return file{unix.Mkdev(info.Dev_major, info.Dev_minor), info.Ino}, err == nil
}

// is matches descriptors of f.
func (f file) is(fd string) bool {
	found, ok := fileBehind(fd)
	return ok && found == f
}

// A kernelLock is a flock(2) lock as the kernel shows it.
type kernelLock struct {
	waits  bool   // for the lock, which another process has
	shared bool   // LOCK_SH: others may have it too
	pid    int    // of the process that asked for it, which may be gone
	device string // of the superblock, "fe:00": not stat's on some file systems
	ino    uint64
}

// parseLock reads a line of /proc/locks (proc_locks(5)), or what follows
// "lock:" in one of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)):
//
//	1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF
//	1: -> FLOCK  ADVISORY  WRITE 4250 fe:00:9978222 0 EOF
func parseLock(line string) (l kernelLock, ok bool) {
	fields := strings.Fields(line)
	if len(fields) > 1 && fields[1] == "->" {
		l.waits = true
		fields = slices.Delete(fields, 1, 2)
	}
	if len(fields) < 6 || fields[1] != "FLOCK" {
		return l, false
	}
	l.shared = fields[3] == "READ"
	colon := strings.LastIndexByte(fields[5], ':')
	if colon < 0 {
		return l, false
	}
	var err1, err2 error
	l.device = fields[5][:colon]
	l.pid, err1 = strconv.Atoi(fields[4])
	l.ino, err2 = strconv.ParseUint(fields[5][colon+1:], 10, 64)
	return l, err1 == nil && err2 == nil
}

// kernelLocks are the flock(2) locks that the kernel lists, and the processes
// that wait for them. A process that shares a lock by inheritance is not
// listed; and inside a PID namespace, locks taken outside of it are not. The
// kernel gives a page at a time, or less to a reader who asks for less, and what
// comes and goes in between moves the rest: only a list of one page is whole.
func kernelLocks() (locks []kernelLock, whole bool) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, false
	}
	defer f.Close()
	page := os.Getpagesize()
	var list []byte
	for {
		list = slices.Grow(list, page)
		n, err := f.Read(list[len(list):cap(list)])
		list = list[:len(list)+n]
		if err != nil {
			break
		}
	}
	for line := range strings.Lines(string(list)) {
		if l, ok := parseLock(line); ok {
			locks = append(locks, l)
		}
	}
	const longestLine = 100 // bytes; the kernel leaves a page that it may not fit
	return locks, len(list) < page-longestLine
}

// holds tells whether process pid ("self" or a number) has a descriptor with a
// flock(2) lock, its own or one that it shares by inheritance, on a file that
// matches, and what the kernel says of that lock. match is given the descriptor's
// path in /proc/PID/fd. The error is fs.ErrPermission where this process may
// not look, which is so for other users' processes.
func holds(pid string, match func(fd string) bool) (l kernelLock, ok bool, err error) {
	folder := "/proc/" + pid + "/"
	dir, err := os.Open(folder + "fdinfo")
	if err != nil {
		return l, false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return l, false, err
	}
	for _, fd := range names {
		// The other way around it would be three calls for a descriptor
		// instead of one.
		if match(folder + "fd/" + fd) {
			if l, ok := flockOf(folder + "fdinfo/" + fd); ok {
				return l, true, nil
			}
		}
	}
	return l, false, nil
}

// flockOf is the flock(2) lock that a file of /proc/PID/fdinfo shows. It is read
// for every descriptor of every process: hence without a file of Go's, and only
// as far as needed.
func flockOf(fdinfo string) (l kernelLock, ok bool) {
	fd, err := unix.Open(fdinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return l, false
	}
	defer unix.Close(fd)
	var buffer [4096]byte
	n, err := unix.Read(fd, buffer[:])
	if err != nil {
		return l, false
	}
	_, rest, found := strings.Cut(string(buffer[:n]), "\nlock:")
	for found {
		var line string
		line, rest, found = strings.Cut(rest, "\nlock:")
		if l, ok := parseLock(line); ok {
			return l, true
		}
	}
	return l, false
}

// mayNotLook tells whether err says that a process is another user's.
func mayNotLook(err error) bool { return errors.Is(err, fs.ErrPermission) }
