package lock

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// skipVariable set to 1 tells a runner not to lock for itself.
const skipVariable = "DCE_SKIP_SCRAPE_LOCK"

// Options say how a command runs under a lock.
type Options struct {
	Close bool      // the command does not inherit the lock
	Inner InnerLock // what becomes of the locking that the command does for itself
}

// Run runs command under the lock, passing signals on to it, and releases the
// lock when it has ended. It returns how the command ended, or an error of kind
// CannotRun, NotFound or System when it could not be started.
func (l *Lock) Run(command Command, options Options, signals *Signals) (syscall.WaitStatus, error) {
	defer l.Release()
	_ = os.Setenv(heldVariable, l.at.Lock)
	switch options.Inner {
	case InnerSkip:
		_ = os.Setenv(skipVariable, "1")
	case InnerStaysOn:
		_ = os.Unsetenv(skipVariable)
	}
	if options.Close || l.nested {
		return signals.run(command, handedOn())
	}
	// The command holds the lock as this process does, and goes on holding it
	// should this process be killed.
	return signals.run(command, handedOn(l.folder, l.file))
}

// RunUnlocked runs a command without a lock, in the caller's environment. Its
// results are Run's, and LookUp's.
func RunUnlocked(words []string, signals *Signals) (syscall.WaitStatus, error) {
	command, err := LookUp(words)
	if err != nil {
		return 0, err
	}
	signals.Keep()
	return signals.run(command, handedOn())
}

// lowestFD is the lowest number of the lock's descriptors in the command: shell
// scripts name 0 to 10 and 99, 100, 200 and 255 among others. Where the limit of
// open files does not allow that, it is lowestAtLeast.
const lowestFD, lowestAtLeast = 500, 10

// handedOn are the command's files, by their numbers: the caller's as they are,
// and the lock's behind them, -1 for one that is not locked. The child moves
// those to their high numbers: in this process that would take some ten
// milliseconds, as the kernel makes a larger table for several threads wait for
// an RCU grace period.
func handedOn(locks ...int) []uintptr {
	var limit unix.Rlimit
	lowest := lowestFD
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(lowestFD+len(locks)) {
		lowest = lowestAtLeast
	}
	files := []uintptr{0, 1, 2}
	for len(locks) > 0 {
		fd := len(files)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		switch {
		case err == nil && flags&unix.FD_CLOEXEC == 0:
		case fd >= lowest:
			fd, locks = locks[0], locks[1:]
		default:
			fd = -1
		}
		files = append(files, uintptr(fd))
	}
	return files
}
