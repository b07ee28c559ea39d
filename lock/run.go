package lock

import (
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// skipVariable set to 1 tells a runner not to lock for itself.
const skipVariable = "DCE_SKIP_SCRAPE_LOCK"

// Options say how a command runs under a lock.
type Options struct {
	Close bool      // the command does not inherit the lock
	Inner InnerLock // what becomes of the locking that the command does for itself
}

// Run runs command under the lock and waits for it, passing signals on. It
// returns how the command ended, or an error of kind CannotRun, NotFound or
// System when it could not be started. The lock stays held either way, until
// Release.
func (l *Lock) Run(command Command, options Options, signals *Signals) (syscall.WaitStatus, error) {
	files := []uintptr{0, 1, 2}
	if !options.Close && !l.nested {
		// The command holds the lock as this process does, and goes on
		// holding it should this process be killed.
		files = handedOn(l.folder, l.file)
	}
	environment := withVariable(os.Environ(), heldVariable, l.at.Lock)
	switch options.Inner {
	case InnerSkip:
		environment = withVariable(environment, skipVariable, "1")
	case InnerStaysOn:
		environment = withVariable(environment, skipVariable, "")
	}
	signals.dieOfArrived(l.Release)
	return run(command, environment, files, signals)
}

// RunUnlocked runs a command without a lock, in the caller's environment. Its
// results are Run's, and LookUp's.
func RunUnlocked(words []string, signals *Signals) (syscall.WaitStatus, error) {
	command, err := LookUp(words)
	if err != nil {
		return 0, err
	}
	signals.Keep()
	return run(command, os.Environ(), []uintptr{0, 1, 2}, signals)
}

func run(command Command, environment []string, files []uintptr, signals *Signals) (syscall.WaitStatus, error) {
	var pid int
	var err error
	signals.unblocked(func() { pid, err = command.start(environment, files) })
	if err != nil {
		return 0, err
	}
	status, err := signals.wait(pid)
	if err != nil {
		return 0, fail(System, "waiting for command %s failed: %w", meta.Redact(command.Words[0]), err)
	}
	return status, nil
}

// withVariable is environment, which it takes over, with a variable that has
// this value in place of any entry of its name; "" takes it out.
func withVariable(environment []string, name, value string) []string {
	environment = slices.DeleteFunc(environment, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	if value == "" {
		return environment
	}
	return append(environment, name+"="+value)
}

// lowestFD is the lowest number of the lock's descriptors in the command: shell
// scripts name 0 to 10 and 99, 100, 200 and 255 among others. Where the limit of
// open files does not allow that, it is lowestAtLeast.
const lowestFD, lowestAtLeast = 500, 10

// handedOn are the command's files, by their numbers: the caller's as they are,
// and the lock's behind them. The child moves those to their high numbers: in
// this process that would take some ten milliseconds, as the kernel makes a
// larger table for several threads wait for an RCU grace period.
func handedOn(locks ...int) (files []uintptr) {
	var limit unix.Rlimit
	lowest := lowestFD
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(lowestFD+len(locks)) {
		lowest = lowestAtLeast
	}
	const none = ^uintptr(0)
	for next := 0; next < len(locks); {
		fd := len(files)
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		switch {
		case err == nil && flags&unix.FD_CLOEXEC == 0:
			files = append(files, uintptr(fd))
		case fd >= lowest:
			if files = append(files, none); locks[next] >= 0 {
				files[fd] = uintptr(locks[next])
			}
			next++
		default:
			files = append(files, none)
		}
	}
	return files
}
