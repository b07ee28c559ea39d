package lock

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// All that dcelock itself says goes through this file (contract, "Messages"):
// to standard error, each line beginning "dcelock: ", printable whatever the
// paths and records behind it hold. Standard output is the command's.

// A Log prints messages. The zero Log may not be used.
type Log struct {
	Out      io.Writer
	Terminal bool // whether Out is a terminal
	Quiet    bool // errors only
	Verbose  bool // details as well
}

// Stderr is standard error. Not os.Stderr, which ends the process when a pipe
// there is broken: the command's end, and its status, are worth more.
var Stderr io.Writer = descriptor(2)

type descriptor int

func (d descriptor) Write(text []byte) (int, error) { return unix.Write(int(d), text) }

// IsTerminal tells whether an open descriptor is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

func (l Log) line(text string) { fmt.Fprintln(l.Out, "dcelock: "+meta.Printable(text)) }

// Note says what the operator may like to know.
func (l Log) Note(format string, args ...any) {
	if !l.Quiet {
		l.line(fmt.Sprintf(format, args...))
	}
}

// Warn says what the operator should know.
func (l Log) Warn(format string, args ...any) { l.Note("warning: "+format, args...) }

// Detail says what only --verbose asks for.
func (l Log) Detail(format string, args ...any) {
	if l.Verbose {
		l.Note(format, args...)
	}
}

// Error prints err, and for a held lock who holds it and what can be done.
func (l Log) Error(err error) {
	l.line(err.Error())
	if held, ok := errors.AsType[*HeldError](err); ok {
		for _, text := range held.details() {
			l.line(text)
		}
	}
}

// pace is how often it is worth looking for news of a wait.
func (l Log) pace() time.Duration {
	if l.Terminal {
		return time.Second
	}
	return 10 * time.Second
}

// holder notes what is known of a holder.
func (l Log) holder(h *Holder) {
	for _, text := range h.lines() {
		l.Note("%s", text)
	}
}

// mostHolders is how many holders a refusal describes.
const mostHolders = 3

// details are the lines that follow the first line of a refusal.
func (e *HeldError) details() (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	see := "fuser -v " + meta.Summary([]string{e.Lock})
	recorded := len(e.Holders) > 0 && e.Holders[0].Source == FromRecord
	switch {
	case e.err != nil:
		say("the holder's record cannot be used: %v", e.err)
	case !recorded:
		say("the holder left no record")
	}
	var stop []string
	unseen := false
	for _, h := range e.Holders[:min(len(e.Holders), mostHolders)] {
		if h.State == meta.Running && !h.Unseen {
			stop = append(stop, fmt.Sprint(h.PID))
		}
		unseen = unseen || h.Unseen
		lines = append(lines, h.lines()...)
	}
	if more := len(e.Holders) - mostHolders; more > 0 {
		say("and %d more; to see them all: dcelock --status", more)
	}
	if e.Replaced {
		say("the lock file was removed or replaced while that run holds it")
	}
	if e.Waited > 0 {
		say("gave up after waiting for %s", exactly(e.Waited))
	}
	switch {
	case len(stop) > 0:
		say("to wait for it: dcelock --wait 1h ...; to stop it: kill %s", strings.Join(stop, " "))
	case unseen:
		say("it is another user's and may not be looked at; to see whether it holds the lock still: sudo %s; to wait for it: dcelock --wait 1h ...", see)
	case recorded && e.Holders[0].State == meta.CannotTell:
		say("it runs elsewhere (another host or container): look for it there; to wait for it: dcelock --wait 1h ...")
	default:
		say("no process can be seen that holds it; another user's can, with: sudo %s", see)
	}
	return lines
}

// lines are what is known of a holder.
func (h Holder) lines() []string {
	lines := []string{"Holder " + h.sentence()}
	if about := h.about(); about != "" {
		lines = append(lines, about)
	}
	return lines
}

// sentence is the phrase that a holder is known by.
func (h Holder) sentence() string {
	return fmt.Sprintf("%s: %s", h.summary(), h.Command)
}

func (h Holder) summary() string {
	return fmt.Sprintf("pid %d (%s, started %s)", h.PID, h.State, timestamp(h.Started))
}

// about is what is known of a holder beside that; "" when that is nothing.
func (h Holder) about() string {
	var known []string
	if age := time.Since(h.Started); !h.Started.IsZero() && age >= 0 && h.State != meta.NotRunning {
		label := "held for "
		if h.Source == FromKernel {
			label = "runs for "
		}
		known = append(known, label+duration(age))
	}
	for _, part := range []struct{ label, value string }{{"by ", h.User}, {"on ", h.Host}, {"in ", h.Folder}} {
		if part.value != "" {
			known = append(known, part.label+part.value)
		}
	}
	if h.Unseen {
		known = append(known, "took the lock and may not be looked at")
	}
	if h.leftBehind() {
		known = append(known, fmt.Sprintf("left behind by pid %d, which has ended", h.Taker))
	}
	return strings.Join(known, ", ")
}

// list is holders in one line.
func list(holders []Holder) string {
	var texts []string
	for i, h := range holders {
		if i == mostHolders {
			texts = append(texts, fmt.Sprintf("and %d more", len(holders)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("pid %d (%s)", h.PID, h.Command))
	}
	return strings.Join(texts, ", ")
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// duration is d as people say it: its two largest units.
func duration(d time.Duration) string {
	s := int(d / time.Second)
	two := func(n int, unit string, rest int, unitOfRest string) string {
		if rest == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		return fmt.Sprintf("%d%s%d%s", n, unit, rest, unitOfRest)
	}
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return two(s/60, "m", s%60, "s")
	case s < 48*60*60:
		return two(s/3600, "h", s/60%60, "m")
	}
	return two(s/86400, "d", s/3600%24, "h")
}

// exactly is duration for times that matter below a second too.
func exactly(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return duration(d)
}
