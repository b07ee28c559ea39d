package lock

import (
	"cmp"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Lock is one that this process holds: open file descriptions of the folder and the lock file,
// with a flock(2) each. Whoever has a copy of a descriptor holds it too; closing the last frees it.
type Lock struct {
	waiter
	folder, file int         // descriptors; -1 for one that is not locked
	nested       bool        // a run that this one is part of holds the lock
	record       meta.Record // as written
}

// Take takes the lock at a location within wait; a part of the run that holds it goes under that,
// with nothing to record or to release. A *HeldError says who has it, others are of kind Missing,
// CannotOpen and System; after any of them the process must end, as a given-up wait may be granted.
func Take(at Location, wait Wait, log meta.Log, signals *Signals) (*Lock, error) {
	if err := at.makeFolder(log); err != nil {
		return nil, err
	}
	w := waiter{at: at.Place, limit: time.Duration(wait), begin: time.Now(), log: log, signals: signals}
	l := &Lock{waiter: w, folder: -1, file: -1}
	err := l.lockBoth()
	if err == nil {
		err = l.reclaim()
	}
	waited := time.Since(l.begin)
	l.clear()
	switch l.nested = errors.Is(err, errNested); {
	case l.nested:
		log.Detail("an outer run holds the lock; running under it")
	case err != nil:
		return nil, err
	case l.told != 0:
		log.Note("took the lock after waiting for %s", meta.Duration(waited))
	default:
		log.Detail("took the lock in %v", waited.Round(time.Microsecond))
	}
	return l, nil
}

// lockBoth takes the folder's lock, where there is one to be had: it is the queue of
// all dcelocks, whatever is done to the files in it. Then the file's, which scripts
// and other hosts see. A run below a script, which locks the file alone, has the folder's.
func (l *Lock) lockBoth() (err error) {
	for l.at.Folder != "" {
		switch l.folder, err = l.lock(l.at.Folder, openFolder); {
		case errors.Is(err, errNoLocks), errors.Is(err, os.ErrPermission):
			l.log.Detail("the folder %s cannot be locked; its lock file alone is", l.at.Folder)
			l.at.Folder = ""
			continue
		case err != nil:
			return err
		}
		l.file, err = l.lock(l.at.Lock, makeFile)
		if there, _ := meta.FileAt(l.at.Folder); err != nil || there == meta.FileOf(l.folder) {
			return err
		}
		unix.Close(l.file) // of a folder that was put in the place of this one meanwhile
		unix.Close(l.folder)
	}
	l.file, err = l.lock(l.at.Lock, makeFile)
	return err
}

// reclaim clears away the record of a run that is over; that of a process which lives is
// given the grace, unless the archive is seen through two file systems with a lock each:
// there a process that is proven to run counts as the lock that cannot be seen from here.
func (l *Lock) reclaim() error {
	fs := meta.TypeAt(l.file, l.at.Lock)
	record, err := meta.Read(l.at.Record())
	for begin := time.Now(); err == nil && record.State().Alive(); record, err = meta.Read(l.at.Record()) {
		pause := grace / 10
		if record.Viewed(fs) && l.left() > 0 {
			pause = min(l.tell(), l.left(), time.Second)
		} else if time.Since(begin) > grace {
			break
		}
		time.Sleep(pause)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	switch state := record.State(); {
	case err != nil:
		l.log.Note("warning: replacing a record that cannot be used: %v", err)
	case record.Viewed(fs):
		const why = "this archive can be seen through two file systems with a lock each, so the recorded run counts as long as its process lives"
		return &HeldError{View: l.look(), Waited: min(l.limit, time.Since(l.begin)), Otherwise: why}
	case state == meta.NotRunning:
		l.log.Note("warning: reclaiming scrape lock; previous holder pid %d is not running", record.PID)
	default:
		l.log.Note("warning: replacing the record of pid %d (%s%s): the lock is free",
			record.PID, state, meta.Labelled(", on ", record.Host))
	}
	_ = os.Remove(l.at.Record()) // so that it does not seem to be this run's, should that one be impossible to write
	return nil
}

// writeRecord writes the record, once no signal can end this process and leave it there, or says
// why others will not see who holds the lock; it also says where that holds on this host alone.
func (l *Lock) writeRecord(command []string) {
	fs := meta.TypeAt(l.file, l.at.Lock)
	folder, _ := os.Getwd()
	l.record = meta.Record{Process: meta.Self(), Started: time.Now().UTC(), Command: meta.Summary(command),
		User: meta.UserName(os.Geteuid()), Folder: meta.Redact(folder), LockID: meta.FileOf(l.file).ID(), FS: fs}
	l.signals.Keep()
	if err := meta.Write(l.at.Record(), l.record); err != nil {
		l.log.Note("warning: the record of this run cannot be written, so that others cannot see who holds the lock: %v", err)
	}
	if meta.SharedType(fs) {
		if why := meta.FileSystemAt(l.at.Lock).HostLocal(); why != "" {
			l.log.Warn("%s", why)
		}
	}
}

// Release removes the record, then closes the descriptors. There is no LOCK_UN, which would free
// the lock for all who share them: what the command left running goes on holding it, and is named.
func (l *Lock) Release() {
	if err := meta.Remove(l.at.Record(), l.record); err != nil {
		l.log.Note("warning: the record of this run cannot be removed; the next run will reclaim it: %v", err)
	}
	unix.Close(l.file)
	unix.Close(l.folder)
	l.log.Detail("released the lock")
	// The folder if it was locked, so that no script that asks for the file just then is refused.
	fd, err := openAgain(cmp.Or(l.at.Folder, l.at.Lock), unix.O_RDONLY, 0)
	if err == nil && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil || meta.TakenByAnother(l.at) {
		return
	}
	if left := meta.Look(l.at, false).LeftBy(os.Getpid()); left != "" {
		l.log.Note("warning: the command left processes running that go on holding the lock until they end: %s", left)
	}
}
