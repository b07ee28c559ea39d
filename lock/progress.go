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

// tell says for whom this run waits, then what has changed: in a log that another
// run has the lock now, on a terminal also how long this has been going on, in a
// line that counts. It returns when it is worth looking for news again.
func (w *waiter) tell() (pause time.Duration) {
	pause = 10 * time.Second
	if w.log.Quiet > 0 {
		return pause
	}
	if w.told <= 0 || !holds(w.told, w.at) {
		w.name(w.look())
	}
	if !onTerminal() {
		return pause
	}
	text := "dcelock: waiting " + meta.Duration(time.Since(w.begin).Truncate(time.Second))
	if w.limit != Forever {
		text += " of " + meta.Duration(w.limit)
	}
	if w.told > 0 {
		text += fmt.Sprintf(" for pid %d", w.told)
	}
	// Cut to the terminal's width, as a line that wraps could not be taken back.
	if size, err := unix.IoctlGetWinsize(2, unix.TIOCGWINSZ); err == nil && size.Col > 0 && len(text) >= int(size.Col) {
		text = text[:size.Col-1]
	}
	fmt.Fprintf(w.log.Out, "\r\x1b[K%s", text)
	return time.Second
}

// name says who holds the lock, where that is news: of several, the first, as the
// others are mostly what that one has started.
func (w *waiter) name(view *meta.View) {
	limit := ""
	if w.limit != Forever {
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
		fmt.Fprint(w.log.Out, "\r\x1b[K")
	}
}

// onTerminal tells whether the line that counts can be drawn: on a terminal that
// understands it, while this process is in the foreground there.
func onTerminal() bool {
	group, err := unix.IoctlGetInt(2, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp() && os.Getenv("TERM") != "dumb"
}
