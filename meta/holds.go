package meta

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// What single processes hold, as the kernel shows it.

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

// opens tells whether a process has a file open that matches.
func opens(pid int, match func(fd string) bool) bool {
	folder := "/proc/" + strconv.Itoa(pid) + "/fd"
	list, _ := names(folder)
	return slices.ContainsFunc(list, func(fd string) bool { return match(folder + "/" + fd) })
}

// isAny matches descriptors of any of the files.
func isAny(files []File) func(fd string) bool {
	return func(fd string) bool {
		f, ok := fileBehind(fd)
		return ok && slices.Contains(files, f)
	}
}

// listedAs is how the kernel's list of locks names the folder and the file.
func listedAs(at Place) (here []listed) {
	for _, path := range []string{at.Folder, at.Lock} {
		if f, ok := FileAt(path); ok {
			here = append(here, listed{FileSystemAt(path).device, f.Inode})
		}
	}
	return here
}

// MayHold tells whether it cannot be seen that a process does not hold the lock.
func MayHold(pid int, at Place) bool {
	found, err := locked(strconv.Itoa(pid), isAny(at.files()))
	return len(found) > 0 || err != nil && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) // hidepid of proc(5) hides it
}

func below(pid, ancestor int) bool {
	above, _ := Ancestors(pid)
	return slices.Contains(above, ancestor)
}

// Holds tells whether a process is seen to hold the exclusive lock, by one of its
// descriptors.
func Holds(pid int, at Place) bool {
	found, _ := locked(strconv.Itoa(pid), isAny(at.files()))
	return slices.ContainsFunc(found, func(d descriptor) bool { return !d.lock.shared })
}

// HoldsItself tells whether a process is seen to hold the folder's lock and to
// have taken it itself: it is a living dcelock, and its run goes on.
func HoldsItself(pid int, at Place) bool {
	folder, ok := FileAt(at.Folder)
	found, _ := locked(strconv.Itoa(pid), isAny([]File{folder}))
	return ok && slices.ContainsFunc(found, func(d descriptor) bool { return !d.lock.shared && d.lock.pid == pid })
}

// Took tells whether the kernel lists a process as having taken the exclusive
// lock, which it does of other users' too, and of those that have ended.
func Took(pid int, at Place) bool {
	locks, _ := kernelLocks()
	here := listedAs(at)
	return slices.ContainsFunc(locks, func(l kernelLock) bool {
		return l.pid == pid && !l.waits && !l.shared && slices.Contains(here, l.file)
	})
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
	match := func(fd string) bool {
		link, _ := os.Readlink(fd)
		return link == removed
	}
	for _, pid := range processes() {
		found, _ := locked(strconv.Itoa(pid), match)
		for _, d := range found {
			if d.lock.file.device == device {
				return d.path
			}
		}
	}
	return ""
}

// An Inheritance is a descriptor that this process has inherited, and that holds
// an exclusive lock.
type Inheritance struct {
	Taker    int  // pid of the process that took the lock; 0 for one of another PID namespace
	OfFolder bool // the folder's, which dcelock alone locks
}

// Inherited are the inherited descriptors that hold the lock's files, or file,
// which may have been at its path before.
func Inherited(at Place, file File) (own []Inheritance) {
	folder, _ := FileAt(at.Folder)
	found, _ := locked("self", isAny(append(at.files(), file)))
	for _, d := range found {
		number, _ := strconv.Atoi(filepath.Base(d.path))
		flags, _ := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0)
		// Those that this process opened itself are closed on exec.
		if f, _ := fileBehind(d.path); !d.lock.shared && flags&unix.FD_CLOEXEC == 0 {
			own = append(own, Inheritance{d.lock.pid, f == folder && at.Folder != ""})
		}
	}
	return own
}
