package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Lock is a lock that this process holds: an open file description with a
// flock(2) on it. Whoever has a copy of the descriptor holds the lock too; it
// is free when the last copy is closed.
type Lock struct {
	path   string
	fd     int
	log    Log
	record *meta.Record // as written; nil when it could not be
	nested bool         // an ancestor of this process holds the lock; fd is none
}

// Take takes the lock at a location, waiting for it no longer than wait, and
// writes the record of a run of command beside it. From then on signals are
// kept for the command. Where this process or an ancestor of it has that lock
// already, the run goes under it: there is nothing to take, nothing to release,
// and nothing to wait for.
//
// A *HeldError says who has the lock. The other errors are of kind Missing,
// CannotOpen and System; after any error the process must end, as a wait that
// was given up may still be granted. That the record cannot be written is only
// warned of: the lock is what excludes.
func Take(at Location, command []string, wait time.Duration, log Log, signals *Signals) (*Lock, error) {
	if err := at.makeFolder(log); err != nil {
		return nil, err
	}
	record := meta.Record{Process: meta.Self(), Command: meta.Summary(command), User: meta.UserName(os.Geteuid())}
	record.Folder, _ = os.Getwd()
	w := newWaiter(at.Lock, wait, log)
	defer w.clear()
	for replaced := 0; replaced < mostReplacements; {
		l := &Lock{path: at.Lock, log: log}
		var err error
		if l.fd, err = lockFile(at.Lock); errors.Is(err, errHeld) {
			<-signals.ready // else a wait might miss one
			l.fd, err = w.contend()
		}
		if err == nil {
			if err = l.reclaim(); err != nil {
				unix.Close(l.fd)
			}
		}
		held, _ := errors.AsType[*HeldError](err) // nil when it is none
		switch {
		// Asked again, as files come and go; not of this process, which may
		// be given the lock just now.
		case errors.Is(err, errNested), held != nil && heldAbove(at.Lock, false):
			l.log.Detail("an outer run holds the lock; running under it")
			signals.keep()
			l.nested = true
			return l, nil
		case held != nil && held.Replaced && w.left(wait) > 0:
			w.announce(held)
			w.forEnd(held)
			continue
		case held != nil:
			return nil, w.gaveUp(held)
		case err != nil:
			return nil, err
		}
		signals.keep()
		// Whoever locks a new file from here on finds the record. Somebody
		// may have done so before, and then the file here is no longer the
		// one that was locked, and that run goes first.
		if isAt(l.fd, at.Lock) && l.writeRecord(record) && isAt(l.fd, at.Lock) {
			w.took()
			if m := mountOf(at.Lock); m.hostLocal() != "" {
				log.Warn("the lock holds on this host alone: %s (%s) is %s", m.source, m.kind, m.hostLocal())
			}
			return l, nil
		}
		l.Release()
		signals.letGo()
		replaced++
	}
	return nil, replacedAgain(at.Lock)
}

// errNested says that the lock is held by a run that this process is part of.
var errNested = errors.New("an outer run holds the lock")

// mostReplacements is how often the lock file may be replaced while a run tries
// to lock it, before that is an error.
const mostReplacements = 100

func replacedAgain(path string) error {
	return fail(System, "lock file %s is replaced again and again while it is being locked", path)
}

// reclaim makes sure that the lock just taken is not the lock of a run that
// goes on, and clears away the record of one that does not. With the lock free
// a recorded run is over, unless its process lives: then the lock file was
// removed or replaced, or the lock dropped, under that run, and the lock counts
// as held.
func (l *Lock) reclaim() error {
	held := outlived(l.path, fileOf(l.fd))
	if held == nil && !isVerified(l.fd, l.path) {
		t := look(l.path)
		sure := false
		if held, sure = t.supplanted(); held == nil && sure && t.complete() {
			setVerified(l.fd, l.path)
		}
	}
	if held != nil {
		return held
	}
	record, err := meta.Read(meta.Path(l.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.log.Warn("replacing a record that cannot be used: %v", err)
		l.removeStale()
		return nil
	}
	if state := record.State(); state == meta.NotRunning {
		l.log.Warn("reclaiming scrape lock; previous holder pid %d is not running", record.PID)
	} else {
		l.log.Warn("replacing the record of pid %d (%s): the lock is free", record.PID, state)
	}
	l.removeStale()
	return nil
}

// removeStale removes the record of a run that is over, so that it does not
// seem to be this run's should that one be impossible to write; unless the file
// was replaced, for then the record may be another run's by now.
func (l *Lock) removeStale() {
	if isAt(l.fd, l.path) {
		_ = os.Remove(meta.Path(l.path))
	}
}

// writeRecord writes the record, or warns that it cannot. It is false when there
// is another one, of a run that came first.
func (l *Lock) writeRecord(record meta.Record) bool {
	record.Started, record.LockID = time.Now().UTC(), fileOf(l.fd).id()
	err := meta.Write(meta.Path(l.path), record, false)
	if errors.Is(err, fs.ErrExist) {
		if !isAt(l.fd, l.path) {
			return false
		}
		err = meta.Write(meta.Path(l.path), record, true) // one that could not be removed
	}
	if err != nil {
		l.log.Warn("the record of this run cannot be written, so others cannot see who holds the lock: %v", err)
		return true
	}
	l.record = &record
	return true
}

// Release removes the record, while the lock is still held, and closes the
// descriptor. There is no LOCK_UN, which would free the lock for every process
// that shares the descriptor: what the command left running goes on holding
// it, and is named in a warning.
func (l *Lock) Release() {
	if l.nested {
		return
	}
	if l.record != nil {
		if err := meta.Remove(meta.Path(l.path), *l.record); err != nil {
			l.log.Warn("the record of this run cannot be removed; the next run will reclaim it: %v", err)
		}
	}
	f := fileOf(l.fd)
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", l.fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	unix.Close(l.fd)
	l.log.Detail("released the lock")
	if err == nil {
		// Whoever has a copy of the descriptor keeps this one from being
		// locked. The kernel's list would say so too, but takes long.
		err = unix.Flock(again, unix.LOCK_EX|unix.LOCK_NB)
		unix.Close(again)
		if err == nil {
			return
		}
	}
	locks, whole := kernelLocks()
	listed := slices.ContainsFunc(locks, func(k kernelLock) bool { return !k.waits && k.pid == os.Getpid() && k.ino == f.ino })
	if whole && !listed {
		return // the next run has it
	}
	left, _ := search(f.is, os.Getpid(), true)
	left = slices.DeleteFunc(left, func(h Holder) bool { return h.Taker != os.Getpid() })
	switch {
	case len(left) > 0:
		l.log.Warn("the command left processes running that go on holding the lock (--close prevents that): %s", list(left))
	case listed:
		l.log.Warn("the command left processes running that go on holding the lock (--close prevents that), and may not be looked at")
	}
}
