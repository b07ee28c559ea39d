package lock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lowestFD is the lowest number the lock's descriptor may have: 0 to 9 are
// what shell scripts name, so they stay the caller's (contract, "Taking,
// holding, releasing").
const lowestFD = 10

// errHeld is contention: flock(2) said EWOULDBLOCK.
var errHeld = errors.New("the lock is held")

// lockFile opens and locks the file at path and returns its descriptor, which
// is closed on exec. The error is errHeld when the lock is held.
func lockFile(path string) (fd int, err error) {
	for range mostReplacements {
		fd, err := open(path)
		if err != nil {
			return 0, err
		}
		if err := flock(fd, path, unix.LOCK_NB); err != nil {
			unix.Close(fd)
			return 0, err
		}
		// Between open and flock the file may have been removed or
		// replaced; then the lock is on a file that nobody else sees.
		if isAt(fd, path) {
			return fd, nil
		}
		unix.Close(fd)
	}
	return 0, replacedAgain(path)
}

// open opens the lock file, made when missing, on a descriptor of lowestFD or
// more. It waits for nothing but a file server's lease (fcntl(2)) to be broken.
func open(path string) (fd int, err error) {
	flags := unix.O_CLOEXEC | unix.O_NOCTTY
	if err := checkRegular(path); err != nil {
		return 0, err
	}
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
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowestFD)
	if err != nil {
		return 0, fail(System, "no descriptor of %d or more for lock file %s: %w (see ulimit -n)", lowestFD, path, err)
	}
	return high, nil
}

// checkRegular tells whether a lock file may be opened, where there is one.
func checkRegular(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fail(CannotOpen, "lock file %s is not a regular file", path)
	}
	return nil
}

// flock takes the lock on an open file, at once (unix.LOCK_NB) or when it is
// free (0). The error is errHeld for EWOULDBLOCK; any other means that there is
// no lock to be had.
func flock(fd int, path string, how int) error {
	for {
		switch err := unix.Flock(fd, unix.LOCK_EX|how); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return errHeld
		case !errors.Is(err, unix.EINTR):
			return fail(System, "lock file %s cannot be locked: flock: %w (does its file system have locks?)", path, err)
		}
	}
}

// isAt tells whether fd is the file that path names now.
func isAt(fd int, path string) bool {
	there, ok := fileAt(path)
	return ok && there == fileOf(fd)
}
