package lock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// heldVariable names an outer dcelock's lock. Anybody can set, any child inherits it: no proof.
const heldVariable = "DCE_SCRAPE_LOCK_HELD"

// errNested says that the lock is held by a run that this process is part of, so that
// it runs at once under that (contract, "Taking, holding, releasing").
var errNested = errors.New("an outer run holds the lock")

// related is errNested where this process, refused the lock, is proven to be a part of the
// run that holds it, and a *HeldError where it is not, and is below what holds the lock.
func (w *waiter) related(record meta.Record) error {
	recorded := record.PID != 0 && record.State().Alive()
	named := os.Getenv(heldVariable) == w.at.Lock
	part, below := w.inherited(record, named)
	above, whole := meta.Ancestors(os.Getpid())
	child := os.Getpid()
	for _, pid := range above {
		if pid == 1 && !named { // it adopts: one is not part of its run by being below it
			break
		}
		holds, took := meta.Holds(pid, w.at, w.asked)
		isRecorded := recorded && pid == record.PID
		// Nor is who was there before, as a job of a shell that became dcelock by exec.
		part = part || holds && (named && took || isRecorded && (named || record.TakenBefore(child)))
		below = below || holds || named && isRecorded
		child = pid
	}
	switch {
	case part:
		return errNested
	case below || named && !whole:
		return &HeldError{View: w.look(), Itself: true}
	}
	return nil
}

// inherited tells whether a process is part of a run by a descriptor of the lock that it
// inherited: as long as that run goes on. What a run leaves behind is below it alone.
func (w *waiter) inherited(record meta.Record, named bool) (part, below bool) {
	folder, _ := meta.FileAt(w.at.Folder)
	file, _ := meta.FileAt(w.at.Lock)
	// Where /proc does not show a lock: it is not there, or a file server has the lock.
	unseen := func() bool {
		return meta.Self().StartTicks == 0 || meta.SharedType(meta.FileSystemAt(folderOf(w.at.Lock)).Type)
	}
	for _, fd := range inheritable() {
		has := meta.FileOf(fd)
		if has != w.asked && (w.asked != folder || has != file) {
			continue
		}
		taker, shared, shown := meta.TakerOf(fd)
		// Where nothing else tells, the kernel does: taking again what one has changes nothing.
		if shared || !shown && (!unseen() || has != w.asked || unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil) {
			continue
		}
		// 0 is of another PID namespace; of a dcelock that was killed, the command is the run.
		if shown && (taker == 0 || taker == record.PID || w.holds(taker)) ||
			!shown && record.PID != 0 { // a dcelock takes its record away at its end
			return true, true
		}
		below = true
		named = named || has == folder
	}
	// A flock(1) that took the lock for a script has ended, too: only a dcelock's
	// run is over with it, which the variable or the folder's lock shows.
	return below && !named, below
}
