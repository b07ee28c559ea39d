// Package lock finds, takes, holds and releases the lock of an archive root,
// and runs a command under it. The kernel decides who may run.
package lock

import (
	"fmt"
	"time"

	"dcelock/meta"
)

// A Kind is a sort of failure, by its exit status (contract; those below 100 are of sysexits.h).
type Kind int

// The kinds of Error.
const (
	BadUsage   Kind = 64  // wrong usage
	BadConfig  Kind = 65  // the config is not what it should be
	Missing    Kind = 66  // the config, or the archive root's parent, is missing or unreadable
	System     Kind = 71  // the system refused: no flock on this file system, no descriptors, no processes
	CannotOpen Kind = 73  // the lock file cannot be opened or made
	CannotRun  Kind = 126 // the command is there and cannot be executed
	NotFound   Kind = 127 // the command was not found
)

// An Error is any failure but a held lock: of which file, what is wrong, and what to do about it.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func fail(kind Kind, format string, args ...any) error {
	return &Error{kind, fmt.Errorf(format, args...)}
}

// A HeldError says that another run has the lock, and what is known of it.
type HeldError struct {
	*meta.View
	Waited    time.Duration // how long the lock was waited for
	Otherwise string        // why it counts as held, where it is not the kernel that says so
	Itself    bool          // what holds the lock is above this process, which would wait for itself
}

func (e *HeldError) Error() string { return "Another scrape is already running (lock: " + e.Lock + ")" }

// Lines tell the reason, who holds the lock, and what to do; again is as meta.View.Refusal has it.
func (e *HeldError) Lines(again string) (lines []string) {
	lines = append(lines, e.Error())
	if e.Otherwise != "" {
		lines = append(lines, e.Otherwise)
	}
	if e.Itself {
		lines = append(lines, e.Who()...)
		return append(lines, "it is held above this run, which would wait for itself, as nothing proves it to be a part of that one",
			"to go on as a part of it: run the command without this inner dcelock",
			"to run apart from it: start it from a shell that is not below the holder")
	}
	return append(lines, e.Refusal(again, e.Waited)...)
}
