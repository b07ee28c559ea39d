package lock

import (
	"errors"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// Inspect tells whether the lock at a location is held, and by whom (contract,
// "Status"). Its errors are those that a run would end with: of kind Missing,
// CannotOpen and System.
func Inspect(at Location) (meta.Status, error) {
	missing, err := at.checkFolder()
	if err != nil {
		return meta.Status{}, err
	}
	fd, cannot := openFile(at.Lock, false)
	if errors.Is(cannot, unix.ENOENT) || missing {
		cannot = at.mayMakeFile(missing)
	}
	defer unix.Close(fd)
	var former []meta.File
	if fd >= 0 {
		former = append(former, meta.FileOf(fd))
	}
	view := meta.LookClosely(at.Place, former...)
	s := meta.Status{View: view, Config: at.Config, State: meta.Free}
	_, s.Exists = meta.FileAt(at.Lock)

	shown := len(view.Holders) > 0 && view.Holders[0].Shown || len(view.Holders) > 1
	held := shown
	// Other hosts' locks on a folder that this one exports are fcntl(2) ones,
	// which can be seen without taking any.
	held = held || fd >= 0 && !byFcntlFree(fd)
	if !held && !view.Complete {
		if held, err = isHeld(at.Place, fd); err != nil {
			return meta.Status{}, err
		}
	}
	if cannot != nil && !held {
		return meta.Status{}, cannot // as a run would, which asks for the folder first
	}
	record := view.Recorded
	viewed := record != nil && record.Proven() && (view.System.Shared() || meta.SharedType(record.FS))
	switch {
	case held && !shown && record != nil && record.State() != meta.NotRunning, viewed && !held:
		s.State = meta.Held
		view.ByRecord()
	case held:
		s.State = meta.Held
	case record != nil && record.State() == meta.NotRunning:
		s.State = meta.Stale
		view.ByRecord()
	default:
		view.Holders = nil
	}
	return s, nil
}

// mayMakeFile tells whether a run could make the lock file, in a folder that a
// run makes as well where it is missing.
func (at Location) mayMakeFile(missing bool) error {
	folder := folderOf(at.Lock)
	if _, exists := meta.FileAt(folder); missing || !exists && at.Config == "" {
		return nil
	}
	if err := unix.Faccessat(unix.AT_FDCWD, folder, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return cannotOpen(at.Lock, err)
	}
	return nil
}

// isHeld asks the locks themselves, by shared ones that are held for an instant:
// a dcelock does not notice, as it waits for longer than that.
func isHeld(at meta.Place, file int) (bool, error) {
	if folder, err := openFolder(at.Folder); at.Folder != "" && err == nil {
		err = unix.Flock(folder, unix.LOCK_SH|unix.LOCK_NB)
		unix.Close(folder)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return true, nil
		}
	}
	if file < 0 {
		return false, nil
	}
	if !byFcntlFree(file) {
		return true, nil
	}
	err := unix.Flock(file, unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return false, unix.Flock(file, unix.LOCK_UN)
	}
	return errors.Is(err, unix.EWOULDBLOCK), nil
}
