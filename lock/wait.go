package lock

import (
	"errors"
	"fmt"
	"math"
	"slices"
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

// What holds a lock without a record may be a script that locks and unlocks
// only to see whether it can. So such a lock is waited for, for a short while,
// by any run. If the process that took it is the same afterwards, and those that
// hold it are settled, they are real holders; if not, the while is repeated: a
// momentary holder that waits for a processor is none.
const (
	grace     = 8 * time.Millisecond
	momentary = 500 * time.Millisecond // all of it together
)

func (h Holder) maybeMomentary() bool { return h.Source == FromKernel && !meta.Settled(h.PID) }

// A waiter waits for a lock until a time limit.
type waiter struct {
	path  string
	limit time.Duration
	begin time.Time
	log   Log

	fd   int        // the file being locked, -1 when none is
	done chan error // how that ended

	told    int  // pid of the taker that was last spoken of, -1 for none, 0 before the first message
	counter bool // whether the line that counts is on the terminal
}

func newWaiter(path string, limit time.Duration, log Log) *waiter {
	return &waiter{path: path, limit: limit, begin: time.Now(), log: log, fd: -1}
}

// left is how long may still be waited, of a limit.
func (w *waiter) left(limit time.Duration) time.Duration { return limit - time.Since(w.begin) }

// queue asks the kernel for the lock, unless that is done already.
func (w *waiter) queue() error {
	if w.fd >= 0 {
		return nil
	}
	fd, err := open(w.path)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	w.fd, w.done = fd, done
	go func() { done <- flock(fd, w.path, 0) }()
	return nil
}

// lock takes the lock, after the time that is left of limit at the most, and
// returns its descriptor; errHeld when that time has passed. The kernel is
// asked once and wakes this process when the lock is free: flock(2) queues.
func (w *waiter) lock(limit time.Duration) (int, error) {
	timer := time.NewTimer(w.left(limit))
	defer timer.Stop()
	tick := time.NewTicker(w.log.pace())
	defer tick.Stop()
	for {
		if err := w.queue(); err != nil {
			return 0, err
		}
		select {
		case err := <-w.done:
			if fd, ok, err := w.granted(err); ok || err != nil {
				return fd, err
			}
		case <-tick.C:
			w.tell()
		case <-timer.C:
			// The kernel still waits, for the next call or the end of
			// this process.
			return 0, errHeld
		}
	}
}

// granted makes what the kernel answered the end of an attempt: the lock, an
// error, or neither, when the file was removed or replaced meanwhile.
func (w *waiter) granted(err error) (fd int, ok bool, _ error) {
	fd, w.fd = w.fd, -1
	if err == nil && isAt(fd, w.path) {
		return fd, true, nil
	}
	unix.Close(fd)
	return 0, false, err
}

// contend gets a lock that was just found to be held, if it is free in time.
func (w *waiter) contend() (fd int, err error) {
	// Before anything is waited for: from then on this process may be given
	// the lock at any moment, and would find itself.
	if heldAbove(w.path, true) {
		return 0, errNested
	}
	held := recorded(w.path)
	for settled := held != nil; !settled && time.Since(w.begin) < momentary; {
		if err := w.queue(); err != nil {
			return 0, err
		}
		t, until := look(w.path), time.Since(w.begin)+grace
		held = t.heldBy(false) // this search takes a part of the while
		if len(held.Holders) > 0 && held.Holders[0].Source == FromRecord && held.Holders[0].PID == t.taker() {
			break // a run that was killed: what it left is no script that looks
		}
		if fd, err = w.lock(until); !errors.Is(err, errHeld) {
			return fd, err
		}
		settled = t.taker() != 0 && t.taker() == look(w.path).taker() && !slices.ContainsFunc(held.Holders, Holder.maybeMomentary)
	}
	if held == nil {
		held = explain(w.path)
	}
	if fd, err = w.refuse(held); errors.Is(err, held) && w.left(w.limit) > 0 {
		w.announce(held)
		if fd, err = w.lock(w.limit); errors.Is(err, errHeld) {
			return w.refuse(explain(w.path))
		}
	}
	return fd, err
}

// refuse returns held, unless the lock is to be had by now: a run that has given
// up may be given it while it looks for who has it.
func (w *waiter) refuse(held *HeldError) (fd int, err error) {
	select {
	case err := <-w.done: // nil, and never ready, before the first attempt
		if fd, ok, err := w.granted(err); ok || err != nil {
			return fd, err
		}
	default:
	}
	return 0, held
}

// running is the first of the holders that is known to run; nil without one.
func (e *HeldError) running() *Holder {
	for i := range e.Holders {
		if e.Holders[i].State == meta.Running {
			return &e.Holders[i]
		}
	}
	return nil
}

// forEnd waits for the end of a run that holds an earlier lock file, or until
// it is time to look again.
func (w *waiter) forEnd(held *HeldError) {
	pause := min(w.left(w.limit), time.Second)
	defer w.tell()
	if h := held.running(); h != nil {
		if pidfd, err := unix.PidfdOpen(h.PID, 0); err == nil {
			defer unix.Close(pidfd)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(pause/time.Millisecond)+1)
			return
		}
		pause = min(pause, 10*time.Millisecond) // it has just ended
	}
	time.Sleep(pause)
}

// announce says what is waited for: once, however often it is called.
func (w *waiter) announce(held *HeldError) {
	if w.told != 0 {
		return
	}
	limit := ""
	if w.limit != Forever {
		limit = ", at most " + exactly(w.limit)
	}
	w.log.Note("%v; waiting until it ends%s", held, limit)
	w.told = -1
	if h := held.running(); h != nil {
		w.told = h.Taker
		w.log.holder(h)
	}
}

// tell says what has changed: in a log that another run has the lock now, on a
// terminal also how long this has been going on.
func (w *waiter) tell() {
	if w.told == 0 || w.log.Quiet {
		return
	}
	// A momentary holder is not worth a line.
	if h := explain(w.path).running(); h != nil && h.Taker != w.told && !h.maybeMomentary() {
		w.clear()
		w.told = h.Taker
		w.log.holder(h)
	}
	if w.log.Terminal {
		fmt.Fprintf(w.log.Out, "\r\x1b[Kdcelock: waiting for %s", duration(time.Since(w.begin)))
		w.counter = true
	}
}

// clear removes the line that counts.
func (w *waiter) clear() {
	if w.counter {
		fmt.Fprint(w.log.Out, "\r\x1b[K")
		w.counter = false
	}
}

// took says that the wait is over.
func (w *waiter) took() {
	w.clear()
	if waited := time.Since(w.begin); w.told != 0 {
		w.log.Note("took the lock after waiting for %s", exactly(waited))
	} else {
		w.log.Detail("took the lock in %v", waited.Round(time.Microsecond))
	}
}

// gaveUp is held, with how long it was waited for.
func (w *waiter) gaveUp(held *HeldError) *HeldError {
	w.clear()
	if w.told != 0 {
		held.Waited = time.Since(w.begin)
	}
	return held
}
