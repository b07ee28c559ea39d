package lock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

var (
	errHeld    = errors.New("the lock is held")                                 // contention: another open file description has the lock
	errNoLocks = errors.New("no locks")                                         // the file system has no flock(2) locks for this file
	errRemoved = fail(CannotOpen, "the lock file was removed: %w", unix.ENOENT) // by another host, while it was opened
)

// openFolder opens the archive root.
func openFolder(path string) (fd int, err error) {
	fd, err = openAgain(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return fd, cannotOpen(path, err)
}

// openFile opens the lock file, made when missing if that is asked for, and waits for nothing: what
// lies there may be a FIFO by then. A link counts unless whoever made it would have this user lock
// somebody else's file. What is only looked at is opened for reading: on CIFS Linux may give those
// who open a file alike one handle, and the first of them to close it frees the lock.
func openFile(path string, make bool) (fd int, err error) {
	access, create := unix.O_RDONLY, 0
	if make {
		access, create = unix.O_RDWR, unix.O_CREAT
	}
	// First without O_CREAT: fs.protected_regular refuses it on another's file in a sticky folder.
	fd, err = openExisting(path, access)
	if errors.Is(err, unix.ENOENT) {
		// A script, which locks the file alone, may hold the one that was here: a holder like any.
		if fd, err = openExisting(meta.Former(path), access); err != nil {
			fd, err = openAgain(path, access|create|unix.O_NOFOLLOW, 0o666)
		}
	}
	var file, link unix.Stat_t
	_ = unix.Lstat(path, &link)
	switch gone := unix.Fstat(fd, &file); {
	case err != nil:
		return -1, cannotOpen(path, err)
	case gone == unix.ENOENT, gone == unix.ESTALE:
		err = errRemoved
	case gone != nil:
		err = cannotOpen(path, gone)
	case file.Mode&unix.S_IFMT != unix.S_IFREG:
		err = cannotOpen(path, unix.ENXIO)
	case link.Mode&unix.S_IFMT == unix.S_IFLNK && link.Uid != 0 && int(link.Uid) != os.Geteuid() && link.Uid != file.Uid:
		err = fail(CannotOpen, "lock file %s is a link that %s made to another user's file; "+
			"a link counts when its maker owns the file", path, meta.UserName(int(link.Uid)))
	default:
		return fd, nil
	}
	unix.Close(fd)
	return -1, err
}

func makeFile(path string) (fd int, err error) { return openFile(path, true) }

// openExisting opens a file; for reading where it may not for writing, which NFS needs for LOCK_EX.
func openExisting(path string, flags int) (fd int, err error) {
	fd, err = openAgain(path, flags, 0)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return openAgain(path, flags&^unix.O_RDWR, 0)
	}
	return fd, err
}

// openAgain is open(2) without waiting, repeated when interrupted (FUSE, network file systems) and
// until a lease (fcntl(2)) or a server's delegation is given back, for which the first try asks.
func openAgain(path string, flags int, mode uint32) (fd int, err error) {
	for {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, mode)
		switch {
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(10 * time.Millisecond)
		case !errors.Is(err, unix.EINTR):
			return fd, err
		}
	}
}

// cannotOpen says of an error of open(2) what was opened, and what to do.
func cannotOpen(path string, err error) error {
	var info unix.Stat_t
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO):
		return fail(CannotOpen, "lock file %s is not a regular file", path)
	case errors.Is(err, unix.ELOOP) && unix.Stat(path, &info) == unix.ENOENT:
		target, _ := os.Readlink(path)
		return fail(CannotOpen, "lock file %s is a link to %s, which is missing; make that file, or mend the link", path, target)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fail(System, "%s cannot be opened: %w (see ulimit -n)", path, err)
	case errors.Is(err, unix.EACCES) && unix.Stat(path, &info) == nil:
		return fail(CannotOpen, "lock file %s cannot be opened: %w: it belongs to %s and has the mode %04o; "+
			"let its owner chmod a+rw it", path, err, meta.UserName(int(info.Uid)), info.Mode&0o7777)
	}
	return fail(CannotOpen, "lock file %s cannot be opened or made: %w", path, err)
}

// lockOpen locks an open file or folder, at once (unix.LOCK_NB) or when it is free (0): by flock(2)
// and, where there is such, by fcntl(2), which alone an NFS server sees of a client's, as do tools
// that lock by it. The error is errHeld for contention, errNoLocks where there is no flock(2).
func lockOpen(fd int, path string, how int) error {
	switch err := locked(how, func() error { return unix.Flock(fd, unix.LOCK_EX|how) }); {
	case errors.Is(err, errHeld):
		return err
	case errors.Is(err, unix.EBADF):
		return fail(System, "lock file %s cannot be locked: this file system needs the right to write to it "+
			"for that, which this user has not; let its owner chmod a+w it", path)
	case err != nil:
		return fail(System, "%s cannot be locked: %w: flock: %w", path, errNoLocks, err)
	}
	// On CIFS the two are one kind of lock, refused to the same open file description, too.
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && (uint32(fs.Type) == unix.SMB2_SUPER_MAGIC || uint32(fs.Type) == unix.CIFS_SUPER_MAGIC) {
		return nil
	}
	byFcntl := map[int]int{unix.LOCK_NB: unix.F_OFD_SETLK, 0: unix.F_OFD_SETLKW}[how]
	err := locked(how, func() error { return unix.FcntlFlock(uintptr(fd), byFcntl, &unix.Flock_t{Type: unix.F_WRLCK}) })
	if errors.Is(err, errHeld) {
		return errHeld
	}
	return nil // where there is no such lock to be had, flock(2) is the one that counts
}

// locked makes a locking system call until it is not interrupted nor, without LOCK_NB, refused.
func locked(how int, call func() error) error {
	for {
		switch err := call(); {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES): // the latter from CIFS
			if how == unix.LOCK_NB {
				return errHeld
			}
			time.Sleep(100 * time.Millisecond) // the server does not wait, or no longer
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}
