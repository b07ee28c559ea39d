package lock

import (
	"errors"
	"slices"

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
	var asked []meta.File
	fd, cannot := openFile(at.Lock, false)
	switch {
	case cannot == nil:
		defer unix.Close(fd)
		asked = append(asked, meta.FileOf(fd))
	case missing:
		cannot = nil // a run makes the folder as well
	case errors.Is(cannot, unix.ENOENT):
		if cannot = unix.Faccessat(unix.AT_FDCWD, folderOf(at.Lock), unix.W_OK|unix.X_OK, unix.AT_EACCESS); cannot != nil {
			cannot = cannotOpen(at.Lock, cannot)
		}
	}
	view := meta.Look(at.Place, true, asked...)
	s := meta.Status{View: view, Config: at.Config, State: meta.Free}
	_, s.Exists = meta.FileAt(at.Lock)

	shown := slices.ContainsFunc(view.Holders, func(h meta.Holder) bool { return h.Shown })
	held := shown || isHeld(at.Place, fd, !view.Complete)
	if cannot != nil && !held {
		return meta.Status{}, cannot // as a run would, which asks for the folder first
	}
	record, state := view.Recorded, meta.NotRunning
	if record != nil {
		state = record.State()
	}
	viewed := record != nil && record.Proven() && (meta.SharedType(view.System.Type) || meta.SharedType(record.FS))
	switch {
	case held || viewed:
		s.State = meta.Held
		if !shown && state != meta.NotRunning {
			view.ByRecord()
		}
	case record != nil && state == meta.NotRunning:
		s.State = meta.Stale
		view.ByRecord()
	default:
		view.Holders = nil
	}
	return s, nil
}

// isHeld asks the locks themselves, where what is shown may not be all. Other
// hosts' locks on a folder that this one exports are fcntl(2) ones, which can be
// seen without taking any. The others are asked by shared ones that are held for
// an instant: a dcelock does not notice, as it waits for longer than that.
func isHeld(at meta.Place, file int, asking bool) bool {
	if file >= 0 && !byFcntlFree(file) {
		return true
	}
	folder := -1
	if asking && at.Folder != "" {
		folder, _ = openFolder(at.Folder)
		defer unix.Close(folder)
	}
	for _, fd := range []int{folder, file} {
		if !asking || fd < 0 {
			continue
		}
		if unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK {
			return true
		}
		_ = unix.Flock(fd, unix.LOCK_UN)
	}
	return false
}
