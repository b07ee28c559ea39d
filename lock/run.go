package lock

import (
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say how a command runs under a lock.
type Options struct {
	Close     bool // the command does not inherit the lock's descriptor
	InnerLock bool // leave on the locking that the command does for itself
}

// Run runs command under the lock and waits for it, passing signals on. It
// returns how the command ended, or an error of kind CannotRun, NotFound or
// System when it could not be started. The lock stays held either way, until
// Release.
func (l *Lock) Run(command Command, options Options, signals *Signals) (syscall.WaitStatus, error) {
	if !options.Close && !l.nested {
		// From here on the command holds the lock as this process does,
		// and goes on holding it should this process be killed.
		if _, err := unix.FcntlInt(uintptr(l.fd), unix.F_SETFD, 0); err != nil {
			return 0, fail(System, "lock file %s cannot be handed to the command: %w", l.path, err)
		}
	}
	added := []string{"DCE_SCRAPE_LOCK_HELD=" + l.path}
	if !options.InnerLock {
		added = append(added, "DCE_SKIP_SCRAPE_LOCK=1")
	}
	signals.dieOfArrived(l.Release)
	return run(command, withVariables(os.Environ(), added), signals)
}

// RunUnlocked runs command without a lock, in the caller's environment. Its
// results are Run's.
func RunUnlocked(command Command, signals *Signals) (syscall.WaitStatus, error) {
	signals.keep()
	return run(command, os.Environ(), signals)
}

func run(command Command, environment []string, signals *Signals) (syscall.WaitStatus, error) {
	pid, err := command.start(environment)
	if err != nil {
		return 0, err
	}
	status, err := signals.wait(pid)
	if err != nil {
		return 0, fail(System, "waiting for command %s failed: %w", command.Words[0], err)
	}
	return status, nil
}

// withVariables is environment, which it takes over, with the given NAME=VALUE
// entries, each in place of any entry of its name.
func withVariables(environment, added []string) []string {
	for _, variable := range added {
		name, _, _ := strings.Cut(variable, "=")
		environment = slices.DeleteFunc(environment, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	}
	return append(environment, added...)
}
