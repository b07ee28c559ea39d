package lock

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Wait is how long to wait for a lock.
type Wait time.Duration

const forever time.Duration = math.MaxInt64

// UnmarshalText reads seconds as in flock(1) ("30", "0.5"), a Go duration ("90s"), or "forever".
func (w *Wait) UnmarshalText(text []byte) error {
	value := string(text)
	if strings.Trim(value, "0123456789.") == "" {
		value += "s"
	}
	wait, err := time.ParseDuration(value)
	if value == "forever" {
		wait, err = forever, nil
	}
	if err != nil || wait < 0 {
		return fmt.Errorf("%q is not a time to wait (seconds, a duration like 90s or 2h, or forever)", text)
	}
	*w = Wait(wait)
	return nil
}

// grace is how long any run waits in the kernel's queue before it is refused, as a script may
// lock only to see whether it can; and how long one has to remove its record once it unlocked.
const grace = 100 * time.Millisecond

// A waiter waits for a lock until a time limit.
type waiter struct {
	at      meta.Place
	limit   time.Duration
	begin   time.Time
	log     meta.Log
	signals *Signals
	asked   meta.File // what the kernel was asked for: it may be at its path no more
	told    int       // pid of the holder that was last spoken of; 0 before the first message, -1 for none that is known
}

func (w *waiter) look() *meta.View { return meta.Look(w.at, false, w.asked) }

// left is how long may still be waited.
func (w *waiter) left() time.Duration { return w.limit - time.Since(w.begin) }

// lock opens what is to be locked at a path and locks it, waiting as long as may be: what is
// at path then, as what was removed or replaced meanwhile is a file that nobody else finds.
func (w *waiter) lock(path string, open func(path string) (int, error)) (fd int, err error) {
	for range 1000 { // times that it may be replaced
		fd, err := open(path)
		if err != nil && !errors.Is(err, errRemoved) {
			return -1, err
		}
		if err == nil {
			err = lockOpen(fd, path, unix.LOCK_NB)
		}
		if errors.Is(err, errHeld) {
			err = w.queue(fd, path)
		}
		if there, ok := meta.FileAt(path); err == nil && ok && there == meta.FileOf(fd) {
			return fd, nil
		}
		unix.Close(fd) // without effect on a wait that was given up: this process ends
		switch {
		case errors.Is(err, errRemoved), errors.Is(err, unix.ESTALE): // another host has replaced it, which this one believes in a moment
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			return -1, err
		}
	}
	return -1, fail(System, "%s is replaced again and again while it is being locked", path)
}

// queue waits in the kernel's queue for a lock that was found to be held.
func (w *waiter) queue(fd int, path string) error {
	w.asked = meta.FileOf(fd)
	record, _ := meta.Read(w.at.Record())
	if err := w.related(record); err != nil {
		return err
	}
	if w.left() > 0 {
		w.signals.Prepare() // so that the command begins at once when the lock is free
	}
	done := make(chan error, 1)
	go func() { done <- lockOpen(fd, path, 0) }()
	pause := grace
	if record.Proven() && w.holds(record.PID) {
		pause = 0 // its own process holds the lock: it is no momentary holder
	}
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(pause):
		}
		if w.left() > 0 {
			pause = min(w.tell(), w.left())
			continue
		}
		held := &HeldError{View: w.look(), Waited: min(w.limit, time.Since(w.begin))}
		// It may have become free while this process looked for who has it.
		if lockOpen(fd, path, unix.LOCK_NB) == nil {
			return nil
		}
		return held
	}
}

func (w *waiter) holds(pid int) bool {
	holds, _ := meta.Holds(pid, w.at, w.asked)
	return holds
}

// tell says for whom this run waits, then what has changed; on a terminal also how long this
// has been going on, in a line that counts. It returns when it is worth looking again.
func (w *waiter) tell() (pause time.Duration) {
	if w.log.Quiet == 0 && (w.told <= 0 || !w.holds(w.told)) {
		w.name(w.look())
	}
	if w.log.Quiet > 0 || !onTerminal() {
		return 10 * time.Second
	}
	text := "dcelock: waiting " + meta.Duration(time.Since(w.begin).Truncate(time.Second))
	if w.limit != forever {
		text += " of " + meta.Duration(w.limit)
	}
	if w.told > 0 {
		text += fmt.Sprintf(" for pid %d", w.told)
	}
	// Cut to the terminal's width, as a line that wraps could not be taken back.
	if size, err := unix.IoctlGetWinsize(2, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		text = text[:min(len(text), int(size.Col)-1)]
	}
	fmt.Fprintf(w.log, "\r\x1b[K%s", text)
	return time.Second
}

// name says who holds the lock, if that is news: of several the first, who mostly started the rest.
func (w *waiter) name(view *meta.View) {
	limit := ""
	if w.limit != forever {
		limit = ", at most " + meta.Duration(w.limit)
	}
	switch {
	case w.told == 0:
		w.log.Note("%v; waiting until it ends%s", &HeldError{View: view}, limit)
		w.told = -1
	case len(view.Holders) == 0 || view.Holders[0].PID == w.told:
		return
	default:
		w.clear()
	}
	if len(view.Holders) > 0 {
		w.told = view.Holders[0].PID
		view.Holders = view.Holders[:1]
	}
	for _, line := range view.Who() {
		w.log.Note("%s", line)
	}
}

// clear removes the line that counts.
func (w *waiter) clear() {
	if w.told != 0 && onTerminal() {
		fmt.Fprint(w.log, "\r\x1b[K")
	}
}

// onTerminal tells whether this is the foreground of a terminal that can show the line that counts.
func onTerminal() bool {
	group, err := unix.IoctlGetInt(2, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp() && os.Getenv("TERM") != "dumb"
}
