package lock

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// What a waiting run says: for whom it waits, how long of how long, and when
// another run has the lock meanwhile (contract, "Messages").

// pace is how often it is worth looking for news of a wait.
func (w *waiter) pace() time.Duration {
	if onTerminal() {
		return time.Second
	}
	return 10 * time.Second
}

// announce says what is waited for: once, however often it is called.
func (w *waiter) announce(view *meta.View) {
	if w.told != 0 {
		return
	}
	limit := ""
	if w.limit != Forever {
		limit = ", at most " + meta.Duration(w.limit)
	}
	w.log.Note("%v; waiting until it ends%s", &HeldError{View: view}, limit)
	w.told = -1
	w.name(view)
}

// name says who holds the lock: of several, the first, as the others are mostly
// what that one has started.
func (w *waiter) name(view *meta.View) {
	if len(view.Holders) > 0 {
		w.told = view.Holders[0].PID
		view.Holders = view.Holders[:1]
	}
	for _, line := range view.Who() {
		w.log.Note("%s", line)
	}
}

// tell says for whom this run waits, then what has changed: in a log that another
// run has the lock now, on a terminal also how long this has been going on.
func (w *waiter) tell() {
	switch {
	case w.told == 0:
		w.announce(w.look())
	case w.log.Quiet > 0:
	case w.told < 0 || !holds(w.told, w.at):
		if view := w.look(); len(view.Holders) > 0 && view.Holders[0].PID != w.told {
			w.clear()
			w.name(view)
		}
	}
	if onTerminal() && w.log.Quiet == 0 {
		w.count()
	}
}

// count draws the line that counts, cut to the terminal's width, as one that
// wraps could not be taken back.
func (w *waiter) count() {
	text := "dcelock: waiting " + meta.Duration(time.Since(w.begin).Truncate(time.Second))
	if w.limit != Forever {
		text += " of " + meta.Duration(w.limit)
	}
	if w.told > 0 {
		text += fmt.Sprintf(" for pid %d", w.told)
	}
	if size, err := unix.IoctlGetWinsize(2, unix.TIOCGWINSZ); err == nil && size.Col > 0 && len(text) >= int(size.Col) {
		text = text[:size.Col-1]
	}
	fmt.Fprintf(w.log.Out, "\r\x1b[K%s", text)
	w.counter = true
}

// clear removes the line that counts.
func (w *waiter) clear() {
	if w.counter && onTerminal() {
		fmt.Fprint(w.log.Out, "\r\x1b[K")
	}
	w.counter = false
}

// took says that the wait is over.
func (w *waiter) took() {
	w.clear()
	if waited := time.Since(w.begin); w.told != 0 {
		w.log.Note("took the lock after waiting for %s", meta.Duration(waited))
	} else {
		w.log.Detail("took the lock in %v", waited.Round(time.Microsecond))
	}
}

// onTerminal tells whether the line that counts can be drawn: on a terminal that
// understands it, while this process is in the foreground there.
func onTerminal() bool {
	group, err := unix.IoctlGetInt(2, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp() && os.Getenv("TERM") != "dumb"
}
