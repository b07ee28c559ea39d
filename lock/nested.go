package lock

import (
	"os"

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
	if r := inherited(at, fd, record, named); r != stranger {
		return r
	}
	above, whole := meta.Ancestors(os.Getpid())
	heldAbove, recordedAbove := false, false
	for _, pid := range above {
		if pid == 1 && !named {
			continue // it adopts: one is not part of its run by being below it
		}
		isRecorded := recorded && pid == record.PID
		holds, took := meta.Holds(pid, at)
		if holds && (isRecorded || took) {
			return nested
		}
		heldAbove, recordedAbove = heldAbove || holds, recordedAbove || isRecorded
	}
	// A daemon that the run has started has lost its parents; it has the
	// variable, and its session is younger than the run.
	session, _ := unix.Getsid(0)
	if heldAbove || named && (recordedAbove || !whole || recorded && record.Before(session)) {
		return descendant
	}
	return stranger
}

// inherited tells what a process is that has the lock itself, by a descriptor
// that it inherited: part of that run, for as long as that run goes on. What a
// run leaves behind has the descriptor too. It is a stranger without one.
func inherited(at meta.Place, refused int, record meta.Record, named bool) relation {
	file := meta.FileOf(refused)
	folder, _ := meta.FileAt(at.Folder)
	relation := stranger
	const most = 1024 // descriptors that are looked at
	for fd := 3; fd < most; fd++ {
		// What this process opened itself is closed on exec.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 || meta.FileOf(fd) != file {
			continue
		}
		taker, shared, shown := meta.TakerOf(fd)
		if shared || !shown && !holdsUnseen(at, fd) {
			continue
		}
		goesOn := true // for a taker of another PID namespace
		switch {
		case !shown:
			goesOn = record.PID != 0 // a dcelock takes its record away at its end
		case taker != 0 && taker != record.PID: // of a dcelock that was killed, the command is the run
			goesOn = holds(taker, at)
		}
		// A flock(1) that took the lock for a script has ended, too: only a
		// dcelock's run is over with it, which the folder's lock shows.
		if goesOn || !named && file != folder {
			return nested
		}
		relation = descendant
	}
	return relation
}

// holdsUnseen tells whether a descriptor has the lock where /proc does not show
// that: it is not there, or a file server has the lock. The kernel is asked then:
// for a description that has the lock already, taking it again changes nothing.
func holdsUnseen(at meta.Place, fd int) bool {
	_, noProc := os.Lstat("/proc/self/fd")
	unseen := noProc != nil || meta.SharedType(meta.FileSystemAt(folderOf(at.Lock)).Type)
	return unseen && flock(fd, at.Lock, unix.LOCK_NB) == nil
}
