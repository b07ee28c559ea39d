package lock

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Run runs command under the lock, passing signals on to it, and releases the
// lock when it has ended. With close the command does not inherit the lock; inner
// is "skip", "keep" or "auto", as --inner-lock has it. The results are those of
// Signals.Run.
func (l *Lock) Run(command Command, close bool, inner string, signals *Signals) (syscall.WaitStatus, error) {
	defer l.Release()
	_ = os.Setenv(heldVariable, l.at.Lock)
	switch {
	case inner == "keep":
	case inner == "skip" || !close && !l.guardsAnother(command.Words):
		_ = os.Setenv(skipVariable, "1")
	default: // an outer dcelock may have set it for another lock
		_ = os.Unsetenv(skipVariable)
	}
	if close || l.nested {
		return signals.Run(command)
	}
	return signals.Run(command, l.folder, l.file)
}

// handedOn are the command's files, by their numbers: the caller's as they are, and
// the lock's, -1 for one that is not locked, from 500 on, or from 10 on where the
// limit is low: shell scripts name 0 to 10 and 99, 100, 200, 255. The child moves
// them: for several threads, the kernel takes ten milliseconds for a larger table.
func handedOn(locks ...int) []uintptr {
	var limit unix.Rlimit
	lowest := 500
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(lowest+len(locks)) {
		lowest = 10
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
