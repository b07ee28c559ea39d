package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// lowestFD is the lowest number the lock's descriptor may have: 0 to 9 are
// what shell scripts name, so they stay the caller's (contract, "Taking,
// holding, releasing").
const lowestFD = 10

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

// Take takes the lock at a location, at once or not at all, and writes the
// record of a run of command beside it. From then on signals are kept for the
// command. Where this process or an ancestor of it has that lock already, the
// run goes under it: there is nothing to take, and nothing to release.
//
// A *HeldError says who has the lock. The other errors are of kind Missing,
// CannotOpen and System; after any error nothing is held. That the record
// cannot be written is only warned of: the lock is what excludes.
func Take(at Location, command []string, log Log, signals *Signals) (*Lock, error) {
	if err := at.makeFolder(log); err != nil {
		return nil, err
	}
	l := &Lock{path: at.Lock, log: log}
	begin := time.Now()
	var err error
	l.fd, err = lockFile(at.Lock)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if l.heldAbove() {
			return l.goUnder(signals), nil
		}
		return nil, heldBy(at.Lock)
	}
	if err != nil {
		return nil, err
	}
	if err := l.reclaim(); err != nil {
		unix.Close(l.fd)
		if l.heldAbove() {
			return l.goUnder(signals), nil
		}
		return nil, err
	}
	log.Detail("took the lock in %v", time.Since(begin).Round(time.Microsecond))
	signals.keep()
	l.writeRecord(command)
	return l, nil
}

// goUnder makes l the lock of an outer run.
func (l *Lock) goUnder(signals *Signals) *Lock {
	l.log.Detail("an outer run holds the lock; running under it")
	signals.keep()
	l.nested = true
	return l
}

// heldAbove tells whether the run that has the lock is one that this process
// is part of: by the kernel's view of the lock's holders, or where that cannot
// be had, by the identity in the record. Never by a variable, which anybody can
// set and any child inherits.
func (l *Lock) heldAbove() bool {
	if f, ok := fileAt(l.path); ok && f.heldAbove() {
		return true
	}
	record, err := meta.Read(meta.Path(l.path))
	return err == nil && record.Proven(meta.Self()) && slices.Contains(meta.Ancestors(), record.PID)
}

// lockFile opens and locks the file at path and returns its descriptor, which
// is closed on exec. The error is unix.EWOULDBLOCK when the lock is held.
func lockFile(path string) (fd int, err error) {
	// Each round that fails means that somebody replaced the file in it.
	for range 100 {
		fd, err := open(path)
		if err != nil {
			return 0, err
		}
		if err := flock(fd); err != nil {
			unix.Close(fd)
			if !errors.Is(err, unix.EWOULDBLOCK) {
				err = fail(System, "lock file %s cannot be locked: flock: %w (does its file system have locks?)", path, err)
			}
			return 0, err
		}
		// Between open and flock the file may have been removed or
		// replaced; then the lock is on a file that nobody else sees.
		if isAt(fd, path) {
			return fd, nil
		}
		unix.Close(fd)
	}
	return 0, fail(System, "lock file %s is replaced again and again while it is being locked", path)
}

// open opens the lock file, made when missing, on a descriptor of lowestFD or
// more. It never waits, whatever lies at path.
func open(path string) (fd int, err error) {
	const flags = unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	// First without O_CREAT, which fs.protected_regular refuses on another
	// user's file in a sticky folder. For writing, which NFS needs for
	// LOCK_EX; for reading where that is not allowed.
	fd, err = unix.Open(path, unix.O_RDWR|flags, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|flags, 0o666)
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		if readable, readErr := unix.Open(path, unix.O_RDONLY|flags, 0); readErr == nil {
			fd, err = readable, nil
		}
	}
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return 0, fail(System, "lock file %s cannot be opened: %w", path, err)
	case err != nil:
		return 0, fail(CannotOpen, "lock file %s cannot be opened or made: %w", path, err)
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return 0, fail(CannotOpen, "lock file %s: fstat: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fail(CannotOpen, "lock file %s is not a regular file", path)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowestFD)
	if err != nil {
		return 0, fail(System, "no descriptor of %d or more for lock file %s: %w (see ulimit -n)", lowestFD, path, err)
	}
	return high, nil
}

// flock takes the lock without waiting; unix.EWOULDBLOCK is contention, and
// nothing else is.
func flock(fd int) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isAt tells whether fd is the file that path names now.
func isAt(fd int, path string) bool {
	var mine, there unix.Stat_t
	return unix.Fstat(fd, &mine) == nil && unix.Stat(path, &there) == nil &&
		mine.Dev == there.Dev && mine.Ino == there.Ino
}

// reclaim looks at the record that lies beside the lock just taken. With the
// lock free its run is over, and the record is one to replace, unless its
// process is proven to live: then the lock file was removed or replaced, or
// the lock dropped, under a run that goes on, and the lock counts as held.
func (l *Lock) reclaim() error {
	record, err := meta.Read(meta.Path(l.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.log.Warn("replacing a record that cannot be used: %v", err)
		return nil
	}
	self := meta.Self()
	state := record.State(self)
	switch {
	case record.Proven(self):
		return &HeldError{Lock: l.path, Holders: []Holder{{record, state, FromRecord}}, Replaced: record.LockID != l.id()}
	case state == meta.NotRunning:
		l.log.Warn("reclaiming scrape lock; previous holder pid %d is not running", record.PID)
	default:
		l.log.Warn("replacing the record of pid %d (%s): the lock is free", record.PID, state)
	}
	return nil
}

func (l *Lock) writeRecord(command []string) {
	record := meta.Record{
		Process: meta.Self(),
		Started: time.Now().UTC(),
		Command: meta.Summary(command),
		LockID:  l.id(),
	}
	record.Folder, _ = os.Getwd()
	if current, err := user.Current(); err == nil {
		record.User = current.Username
	}
	if err := meta.Write(meta.Path(l.path), record); err != nil {
		l.log.Warn("the record of this run cannot be written, so others cannot see who holds the lock: %v", err)
		return
	}
	l.record = &record
}

// id is the lock_id of the record.
func (l *Lock) id() string {
	var info unix.Stat_t
	if unix.Fstat(l.fd, &info) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", info.Dev, info.Ino)
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
	var info unix.Stat_t
	err := unix.Fstat(l.fd, &info)
	unix.Close(l.fd)
	l.log.Detail("released the lock")
	if f := (file{info.Dev, info.Ino}); err == nil && f.takenBy(os.Getpid()) {
		if left := f.holders(); len(left) > 0 {
			l.log.Warn("the command left processes running that go on holding the lock (--close prevents that): %s", list(left))
		}
	}
}
