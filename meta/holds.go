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

// processes are the pids of all processes but this one, in order.
func processes() (pids []int) {
	list, _ := names("/proc")
	for _, name := range list {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// files are the folder and the file, as far as they exist.
func (at Place) files() (found []File) {
	for _, path := range []string{at.Folder, at.Lock} {
		if f, ok := FileAt(path); ok {
			found = append(found, f)
		}
	}
	return found
}

// listed is how the kernel's list of locks names the folder and the file.
func (at Place) listed() (here []string) {
	for _, path := range []string{at.Folder, at.Lock} {
		if f, ok := FileAt(path); ok {
			here = append(here, listed(FileSystemAt(path).device, f.Inode))
		}
	}
	return here
}

// opened finds the descriptors of a process that lead to one of the files.
func opened(pid int, files []File) ([]descriptor, error) {
	return descriptors(strconv.Itoa(pid), func(_ string, f File) bool { return slices.Contains(files, f) })
}

// Holds tells whether a process is seen to hold the exclusive lock of the folder
// or the file, and whether it took that itself: by its descriptors or, where
// those may not be looked at, by the kernel's list of who took a lock.
func Holds(pid int, at Place) (holds, took bool) {
	var locks []kernelLock
	found, err := opened(pid, at.files())
	for _, d := range found {
		if d.locked {
			locks = append(locks, d.lock)
		}
	}
	if err != nil && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		all, _ := kernelLocks()
		here := at.listed()
		locks = slices.DeleteFunc(all, func(l kernelLock) bool { return l.pid != pid || l.waits || !slices.Contains(here, l.file) })
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
	l, ok := lockOf(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
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
		found, _ := descriptors(strconv.Itoa(pid), func(path string, _ File) bool {
			link, _ := os.Readlink(path)
			return link == removed
		})
		for _, d := range found {
			if d.locked && strings.HasPrefix(d.lock.file, device+":") {
				return d.path
			}
		}
	}
	return ""
}

func below(pid, ancestor int) bool {
	above, _ := Ancestors(pid)
	return slices.Contains(above, ancestor)
}
