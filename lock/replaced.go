package lock

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A lock file that is removed or replaced while a run holds it leaves that run
// with a lock on a file that nobody finds any more, and the new file free.
// Two things keep a second run out (contract, "Taking, holding, releasing"):
// the record of the first, which names a live process and another inode, and
// here, should the record be gone too, the kernel's view.

// former matches descriptors of files that were at the lock's path before: the
// link of one reads "PATH (deleted)", or PATH with something appended, where it
// was moved aside.
func (l *Lock) former(fd string) bool {
	path, err1 := os.Readlink("/proc/self/fd/" + strconv.Itoa(l.fd))
	link, err2 := os.Readlink(fd)
	return err1 == nil && err2 == nil && link != path && strings.HasPrefix(link, path)
}

// formerHolders are the processes that hold the lock of a file that was at the
// lock's path before. The kernel's list of locks is short, and tells without
// looking at every process that there are none: that no other file of the file
// system is locked, or only by processes that can be looked at.
func (l *Lock) formerHolders() []Holder {
	var mine unix.Stat_t
	if unix.Fstat(l.fd, &mine) != nil {
		return nil
	}
	all := kernelLocks()
	own := slices.IndexFunc(all, func(k kernelLock) bool { return k.pid == os.Getpid() && k.ino == mine.Ino })
	for _, k := range all {
		if k.ino == mine.Ino || own >= 0 && k.device != all[own].device {
			continue
		}
		pid := strconv.Itoa(k.pid)
		if _, err := os.Stat("/proc/" + pid); err != nil || holds(pid, l.former) {
			return holders(l.former)
		}
	}
	return nil
}
