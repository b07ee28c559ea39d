package lock

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// Inspect tells whether the lock at a location is held, and by whom (contract, "Status"). Its
// errors are those that a run would end with: of kind Missing, CannotOpen and System.
func Inspect(at Location) (meta.Status, error) {
	missing, err := at.checkFolder()
	if err != nil {
		return meta.Status{}, err
	}
	fd, cannot := openFile(at.Lock, false)
	defer unix.Close(fd)
	if errors.Is(cannot, unix.ENOENT) {
		cannot = cannotOpen(at.Lock, unix.Faccessat(unix.AT_FDCWD, folderOf(at.Lock), unix.W_OK|unix.X_OK, unix.AT_EACCESS))
	}
	s := meta.Status{View: meta.Look(at.Place, true, meta.FileOf(fd)), Config: at.Config, State: meta.Free}
	for tries := 0; tries < 3 && !s.Complete && len(s.Holders) == 0; tries++ { // who held it a moment ago may have ended
		s.View = meta.Look(at.Place, true, meta.FileOf(fd))
	}
	_, s.Exists = meta.FileAt(at.Lock)
	// Other hosts' locks on what this one exports are fcntl(2) ones, seen without taking any.
	query := unix.Flock_t{Type: unix.F_WRLCK}
	byFcntl := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &query) == nil && query.Type != unix.F_UNLCK
	held := slices.ContainsFunc(s.Holders, func(h meta.Holder) bool { return h.Shown }) ||
		byFcntl || !s.Complete && isHeld(at.Place, fd)
	switch {
	case held:
		s.State = meta.Held
	case cannot != nil && !missing: // a run makes the folder as well
		return meta.Status{}, cannot // as a run would, which asks for the folder first
	case s.Recorded != nil && s.Recorded.State() == meta.NotRunning:
		s.State = meta.Stale
		s.Holders = []meta.Holder{{Record: *s.Recorded, State: meta.NotRunning, Source: meta.FromRecord}}
	default:
		s.Holders = nil
	}
	return s, nil
}

// isHeld asks the locks, by shared ones that last for an instant: every dcelock waits for longer.
func isHeld(at meta.Place, file int) bool {
	folder, _ := openFolder(at.Folder)
	defer unix.Close(folder)
	return slices.ContainsFunc([]int{folder, file}, func(fd int) bool { // -1 for one that is not there
		return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
	})
}
