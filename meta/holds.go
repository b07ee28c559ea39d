package meta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What single processes hold.

// processes are the pids of all processes but this one.
func processes() (pids []int) {
	list, _ := names("/proc")
	for _, name := range list {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// files are the folder and the file; the zero File is one that is missing, which
// no descriptor leads to.
func (at Place) files() []File {
	folder, _ := FileAt(at.Folder)
	file, _ := FileAt(at.Lock)
	return []File{folder, file}
}

// locksOn are the locks that descriptors have on one of the files; opens tells
// whether any of them leads there.
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

// Holds tells whether a process is seen to hold the exclusive lock of the folder
// or the file, and whether it took that itself: by its descriptors or, where
// those may not be looked at, by the kernel's list of who took a lock.
func Holds(pid int, at Place) (holds, took bool) {
	all, err := descriptors(pid)
	locks, _ := locksOn(at.files(), all)
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

// TakerOf tells which process took the flock(2) lock of an open file description,
// by a descriptor of this process, and whether it is a shared one; false where
// the kernel shows no lock. The pid is 0 for a process of another PID namespace.
func TakerOf(fd int) (pid int, shared, ok bool) {
	l, ok := descriptor{path: fmt.Sprintf("/proc/self/fd/%d", fd)}.lock()
	return l.pid, l.shared, ok
}

// Former finds a descriptor of a process that holds the lock of a file which
// was at path before and has been removed; "" where there is none. Opening it
// gives that very file.
func Former(path string) (fd string) {
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return ""
	}
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
