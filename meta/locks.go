package meta

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A File is the identity of a file or a folder, by stat(2), whatever its path is by now.
type File struct{ Device, Inode uint64 }

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
	fields := strings.Fields(strings.Replace(line, "->", "", 1))
	if len(fields) < 6 || fields[1] != "FLOCK" {
		return l, false
	}
	pid, err := strconv.Atoi(fields[4])
	return kernelLock{strings.Contains(line, "->"), fields[3] == "READ", pid, fields[5]}, err == nil
}

// listed are the flock(2) locks of the folder and the file that the kernel lists, with who
// waits for them; it takes some ten milliseconds. Who shares a lock by inheritance is not
// listed, nor what was taken outside of this PID namespace; two btrfs subvolumes may have
// files that are listed alike. whole: it fits one page, so that no line moves past the reader.
func (at Place) listed() (locks []kernelLock, whole bool) {
	f, _ := os.Open("/proc/locks")
	defer f.Close()
	const page, longestLine = 1 << 16, 100 // a page of any host; less is given to a reader who asks for less
	list, err := io.ReadAll(bufio.NewReaderSize(f, page))
	files := at.files()
	folder := fmt.Sprintf("%s:%d", FileSystemAt(at.Folder).device, files[0].Inode)
	file := fmt.Sprintf("%s:%d", FileSystemAt(at.Lock).device, files[1].Inode)
	for line := range strings.Lines(string(list)) {
		if l, ok := parseLock(line); ok && (l.file == folder || l.file == file) {
			locks = append(locks, l)
		}
	}
	return locks, err == nil && len(list) < os.Getpagesize()-longestLine
}

// A descriptor is one that a process has open, seen through /proc.
type descriptor struct {
	path string // in /proc/PID/fd: opening it gives the same file, whatever its path is by now
	file File
}

// descriptors are those of a process; the error is fs.ErrPermission where one may not look.
func descriptors(pid int) (all []descriptor, err error) {
	folder := fmt.Sprintf("/proc/%d/", pid)
	fds, err := entries(folder + "fd")
	var task unix.Stat_t // has two links, and one for each thread
	if len(fds) == 0 && unix.Stat(folder+"task", &task) == nil && task.Nlink > 3 && readStat(pid).state == 'Z' {
		// A main thread that has ended shows none, though the other threads have them.
		fds, _ = filepath.Glob(folder + "task/*/fd/*")
	}
	for _, fd := range fds {
		var info unix.Statx_t
		// No file server is asked, which may be gone for good.
		switch unix.Statx(unix.AT_FDCWD, fd, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &info) {
		case nil:
			all = append(all, descriptor{fd, File{unix.Mkdev(info.Dev_major, info.Dev_minor), info.Ino}})
		case unix.EACCES:
			return all, unix.EACCES // as to all of them
		}
	}
	return all, err
}

// lock is its open file description's flock(2) lock, an inherited one, too (proc_pid_fdinfo(5)).
func (d descriptor) lock() (l kernelLock, ok bool) {
	text, _ := os.ReadFile(strings.Replace(d.path, "/fd/", "/fdinfo/", 1))
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "lock:"); found && !ok {
			l, ok = parseLock(value)
		}
	}
	return l, ok
}

// processes are the pids of all but this one.
func processes() (pids []int) {
	if !procIsOurs() {
		return nil
	}
	pids, _ = Numbers("/proc")
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() })
}

// Numbers are those that a folder of /proc has as names, of processes or descriptors.
func Numbers(folder string) (numbers []int, err error) {
	paths, err := entries(folder)
	for _, path := range paths {
		if number, err := strconv.Atoi(filepath.Base(path)); err == nil {
			numbers = append(numbers, number)
		}
	}
	return numbers, err
}

// entries are the paths of what is in a folder. There may be thousands of such
// folders, for each of which os.ReadDir makes twice as many system calls.
func entries(folder string) (paths []string, err error) {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 4<<10)
	for {
		n, err := unix.ReadDirent(fd, buffer)
		if n <= 0 {
			return paths, err
		}
		_, _, names := unix.ParseDirent(buffer[:n], -1, nil)
		for _, name := range names {
			paths = append(paths, folder+"/"+name)
		}
	}
}

// files are the folder and the file, zero ones where they are missing.
func (at Place) files() []File {
	folder, _ := FileAt(at.Folder)
	file, _ := FileAt(at.Lock)
	return []File{folder, file}
}

// locksOn are the locks that descriptors have on the files; opens tells of any there.
func locksOn(files []File, all []descriptor) (locks []kernelLock, opens bool) {
	for _, d := range all {
		if slices.Contains(files, d.file) {
			opens = true
			if l, ok := d.lock(); ok {
				locks = append(locks, l)
			}
		}
	}
	return locks, opens
}

// Holds tells whether a process is seen to hold the exclusive lock of the folder or the file, and
// whether it took that itself: by its descriptors or, where they are hidden, by the kernel's list.
func Holds(pid int, at Place, more ...File) (holds, took bool) {
	all, err := descriptors(pid)
	locks, _ := locksOn(append(at.files(), more...), all)
	if err != nil && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		locks, _ = at.listed()
		locks = slices.DeleteFunc(locks, func(l kernelLock) bool { return l.pid != pid || l.waits })
	}
	for _, l := range locks {
		holds = holds || !l.shared
		took = took || !l.shared && l.pid == pid
	}
	return holds, took
}

// TakenByAnother tells whether the kernel lists that another process than this one has
// taken the lock since, so that nobody has what this one had.
func TakenByAnother(at Place) bool {
	locks, _ := at.listed()
	return slices.ContainsFunc(locks, func(l kernelLock) bool { return !l.waits && l.pid != os.Getpid() })
}

// TakerOf tells which process took the flock(2) lock of a descriptor of this process, 0 for one of
// another PID namespace, and whether it is a shared one; false where the kernel shows no lock.
func TakerOf(fd int) (pid int, shared, ok bool) {
	l, ok := descriptor{path: fmt.Sprintf("/proc/self/fd/%d", fd)}.lock()
	return l.pid, l.shared, ok
}

// Former finds a descriptor of a process that holds the lock of a file which was at path before and
// has been removed; "" where there is none. Opening it gives that very file.
func Former(path string) (fd string) {
	folder, _ := filepath.EvalSymlinks(filepath.Dir(path))
	folder, _ = filepath.Abs(folder)
	removed := filepath.Join(folder, filepath.Base(path)) + " (deleted)"
	device := FileSystemAt(folder).device
	for _, pid := range processes() {
		all, _ := descriptors(pid)
		for _, d := range all {
			if link, _ := os.Readlink(d.path); link == removed {
				if l, _ := d.lock(); strings.HasPrefix(l.file, device+":") {
					return d.path
				}
			}
		}
	}
	return ""
}
