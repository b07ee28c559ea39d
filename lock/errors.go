// Package lock finds, takes, holds and releases the lock of an archive root,
// and runs a command under it. flock(2) alone decides who may run.
package lock

import (
	"fmt"
	"time"
)

// A Kind is what sort of thing went wrong, so that the caller can choose an
// exit status (contract, "Signals and exit status").
type Kind int

// The kinds of Error.
const (
	BadConfig  Kind = iota + 1 // the config is not what it should be
	Missing                    // the config, or the archive root's parent, is missing or unreadable
	System                     // the system refused: no flock on this file system, no descriptors, no processes
	CannotOpen                 // the lock file cannot be opened or made
	CannotRun                  // the command is there and cannot be executed
	NotFound                   // the command was not found
)

// An Error is any failure but a held lock. Its text names the file, what is
// wrong with it, and what to do where that is not plain.
type Error struct {
	Kind Kind
	err  error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

func fail(kind Kind, format string, args ...any) error {
	return &Error{kind, fmt.Errorf(format, args...)}
}

// A HeldError says that another run has the lock, and what is known of it.
type HeldError struct {
	Lock     string        // path of the lock file
	Holders  []Holder      // the recorded one first; none where none can be seen
	Replaced bool          // the holder's lock file is no longer the one at Lock
	Waited   time.Duration // how long the lock was waited for
	err      error         // why a record that is there cannot be used
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("Another scrape is already running (lock: %s)", e.Lock)
}
