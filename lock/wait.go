package lock

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// Forever is a wait without an end.
const Forever time.Duration = math.MaxInt64

// ParseWait reads how long to wait for a lock: seconds as flock(1) takes them
// ("30", "0.5"), a Go duration ("90s", "2h"), or "forever".
func ParseWait(text string) (time.Duration, error) {
	if text == "forever" {
		return Forever, nil
	}
	wait, err := time.ParseDuration(text)
	if seconds, numberErr := strconv.ParseFloat(text, 64); numberErr == nil {
		// Compared as seconds: NaN is neither, and larger ones overflow.
		if !(seconds >= 0 && seconds < Forever.Seconds()) {
			return 0, fmt.Errorf("%q is not a time that can be waited", text)
		}
		return time.Duration(seconds * float64(time.Second)), nil
	}
	if err != nil || wait < 0 {
		return 0, fmt.Errorf("%q is not a time to wait (seconds, a duration like 90s or 2h, or forever)", text)
	}
	return wait, nil
}

// grace is how long any run waits in the kernel's queue before it is refused: a
// script may lock only to see whether it can, and the queue hands the lock on the
// moment that it lets go. It is also what a script is given to remove its record
// after it has unlocked.
const grace = 100 * time.Millisecond

// mostReplacements is how often a file may be replaced while a run tries to lock
// it, before that is an error.
const mostReplacements = 1000

// errNested says that the lock is held by a run that this process is part of.
var errNested = errors.New("an outer run holds the lock")

// lockOpen takes the locks of an open file or folder, at once or when they are
// free: of flock(2), and beside it of fcntl(2), which a folder has none of.
func lockOpen(fd int, path string, wait bool) error {
	how := unix.LOCK_NB
	if wait {
		how = 0
	}
	if err := flock(fd, path, how); err != nil {
		return err
	}
	return byFcntl(fd, wait)
}

// A waiter waits for a lock until a time limit.
type waiter struct {
	at    meta.Place
	limit time.Duration
	begin time.Time
	log   meta.Log

	asked   []meta.File // what the kernel was asked for: it may be at its path no more
	told    int         // pid of the holder that was last spoken of; 0 before the first message, -1 for none that is known
	counter bool        // whether the line that counts is on the terminal
}

func (w *waiter) look() *meta.View { return meta.Look(w.at, false, w.asked...) }

// left is how long may still be waited.
func (w *waiter) left() time.Duration { return w.limit - time.Since(w.begin) }

// lock opens what is to be locked at a path and locks it, waiting as long as
// may be. It returns the descriptor of what is at path then: what was removed or
// replaced meanwhile is a file that nobody else finds.
func (w *waiter) lock(path string, open func() (int, error)) (fd int, err error) {
	for range mostReplacements {
		fd, err := open()
		if err != nil {
			return -1, err
		}
		if err = lockOpen(fd, path, false); errors.Is(err, errHeld) {
			err = w.queue(fd, path)
		}
		if errors.Is(err, unix.ESTALE) {
			// Another host has replaced it, which this one believes in a moment.
			unix.Close(fd)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err != nil {
			unix.Close(fd) // without effect on a wait that was given up: this process ends
			return -1, err
		}
		if there, ok := meta.FileAt(path); ok && there == meta.FileOf(fd) {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, fail(System, "%s is replaced again and again while it is being locked", path)
}

// queue waits in the kernel's queue for a lock that was found to be held. The
// error is errNested, or a *HeldError when the time is up.
func (w *waiter) queue(fd int, path string) error {
	w.asked = []meta.File{meta.FileOf(fd)}
	switch relationTo(w.at, fd) {
	case nested:
		return errNested
	case descendant:
		return w.gaveUp(&HeldError{View: w.look(), Itself: true})
	}
	done := make(chan error, 1)
	go func() { done <- lockOpen(fd, path, true) }()
	moment := grace
	if record, err := meta.Read(w.at.Record()); err == nil && record.Proven() && holds(record.PID, w.at) {
		moment = 1 // its own process holds the lock: it is no momentary holder
	}
	tick, timeUp := time.NewTicker(moment), time.After(max(moment, w.left()))
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if w.left() > 0 {
				w.tell()
				tick.Reset(w.pace())
			}
		case <-timeUp:
			held := &HeldError{View: w.look()}
			select {
			case err := <-done: // given while this process looked for who has it
				return err
			default:
				return w.gaveUp(held)
			}
		}
	}
}

func holds(pid int, at meta.Place) bool {
	holds, _ := meta.Holds(pid, at)
	return holds
}

// forEnd waits, with the lock free, for a recorded process to end or its record
// to go: for as long as this run may wait where that process counts as the holder,
// else for the moment that a script takes to remove its record. It returns the
// record that is there then.
func (w *waiter) forEnd(record meta.Record, counts bool) (meta.Record, error) {
	limit, pause := grace, grace/10
	if left := w.left(); counts && left > grace {
		limit, pause = left, time.Second
		w.announce(w.look().ByRecord())
	}
	for begin := time.Now(); ; time.Sleep(pause) {
		now, err := meta.Read(w.at.Record())
		if err != nil || now.PID != record.PID || !now.State().Alive() || time.Since(begin) > limit {
			return now, err
		}
		if counts {
			w.tell()
		}
	}
}

// gaveUp is held, with how long it was waited for.
func (w *waiter) gaveUp(held *HeldError) error {
	w.clear()
	if w.told != 0 {
		held.Waited = time.Since(w.begin)
	}
	return held
}
