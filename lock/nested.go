package lock

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// When a run is nested: part of the run that holds the lock, so that it runs at
// once under that (contract, "Taking, holding, releasing"). It is asked only
// when the lock is found to be held.

// heldVariable names the lock that an outer dcelock holds. Anybody can set it and
// any child inherits it, so that alone it proves nothing.
const heldVariable = "DCE_SCRAPE_LOCK_HELD"

// A relation is what this process is to the run that holds a lock.
type relation int

const (
	stranger   relation = iota
	nested              // proven to be a part of it
	descendant          // below what holds the lock, and not provably part of a run: it would wait for itself
)

// relationTo tells what this process is to the holder of a lock, which fd, a
// descriptor of the file or folder in question, was refused.
func relationTo(at meta.Place, fd int) relation {
	record, err := meta.Read(at.Record())
	recorded := err == nil && record.State().Alive()
	named := os.Getenv(heldVariable) == at.Lock

	if own := meta.Inherited(at, meta.FileOf(fd)); len(own) > 0 {
		return inherited(at, own, err == nil, record, named)
	}
	if _, noProc := os.Lstat("/proc/self/fd"); (noProc != nil || meta.FileSystemAt(folderOf(at.Lock)).Shared()) && inheritedUnseen(at) {
		if named && err != nil {
			return descendant // a dcelock has taken its record away and ended
		}
		return nested
	}
	above, whole := meta.Ancestors(os.Getpid())
	if !named {
		// The first process of a PID namespace adopts: one is not part of
		// its run by being below it.
		above = slices.DeleteFunc(above, func(pid int) bool { return pid == 1 })
	}
	recordedAbove := recorded && slices.Contains(above, record.PID)
	// A daemon that the run has started has lost its parents; it has the
	// variable, and its session is younger than the run.
	session, _ := unix.Getsid(0)
	started := recorded && record.Before(session)
	heldAbove := slices.ContainsFunc(above, func(pid int) bool { return meta.Holds(pid, at) }) || recordedAbove && meta.Took(record.PID, at)
	// Where the record could not be written, the kernel shows as much.
	itself := slices.ContainsFunc(above, func(pid int) bool { return meta.HoldsItself(pid, at) })
	switch {
	case heldAbove && recordedAbove, itself:
		return nested
	case heldAbove, named && (recordedAbove || started || !whole):
		return descendant
	}
	return stranger
}

// inherited tells what a process is that has the lock itself, by a descriptor
// that it inherited: part of that run, for as long as that run goes on. What a
// run leaves behind has the descriptor too.
func inherited(at meta.Place, own []meta.Inheritance, hasRecord bool, record meta.Record, named bool) relation {
	for _, i := range own {
		switch {
		case i.Taker == 0, meta.Holds(i.Taker, at): // the former is of another PID namespace
			return nested
		case hasRecord && record.PID == i.Taker:
			return nested // it may not be looked at; or it was killed, and its command is the run
		}
		named = named || i.OfFolder // which dcelock alone locks
	}
	if named {
		return descendant // that dcelock has ended
	}
	return nested // a script's, whose lock a flock(1) took that has ended
}

// inheritedUnseen tells whether this process has inherited the lock of the file,
// where /proc does not show that: it is not there, or a file server has the lock.
// Then the fcntl(2) lock that goes with it is in the way of another descriptor of
// that file, and not of the inherited one.
func inheritedUnseen(at meta.Place) bool {
	probe, err := openFile(at.Lock, false)
	if err != nil || byFcntlFree(probe) {
		return false
	}
	defer unix.Close(probe)
	const most = 1024 // descriptors that are looked at
	for fd := 3; fd < most; fd++ {
		// What this process opened itself is closed on exec.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 && meta.FileOf(fd) == meta.FileOf(probe) && inTheWayOfOneAlone(fd, probe) {
			return true
		}
	}
	return false
}

// inTheWayOfOneAlone tells whether an fcntl(2) lock is in the way of the probe
// and not of fd. The two are asked in turn, as the lock may change hands between
// two questions: not as often as these, a microsecond apart.
func inTheWayOfOneAlone(fd, probe int) bool {
	for range 32 {
		if !byFcntlFree(fd) || byFcntlFree(probe) {
			return false
		}
	}
	return true
}
