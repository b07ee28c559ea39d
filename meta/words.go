package meta

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Refusal is what follows the first line of a refusal (contract, "Messages"): who holds the
// lock, and what to do, which works when it is typed. again is the refused command line with
// a wait put in, "" where it cannot be shown; waited is how long the lock was waited for.
func (v *View) Refusal(again string, waited time.Duration) (lines []string) {
	lines = v.Who()
	if waited > 0 {
		lines = append(lines, "gave up after waiting for "+Duration(waited))
	}
	lines = append(lines, "to wait for it: "+cmp.Or(again, "(type the same command line, with --wait 1h behind dcelock)"))
	return append(lines, v.advice()...)
}

// advice says how to stop all processes that the kernel shows to hold the lock, and no others.
func (v *View) advice() (lines []string) {
	pids, kill := "", "kill"
	var stopped, unseen bool
	elsewhere := os.Geteuid() == 0 || len(v.Holders) > 0 && v.Holders[0].State == CannotTell
	for _, h := range v.Holders {
		if !h.Shown {
			continue
		}
		pids += fmt.Sprintf(" %d", h.PID)
		stopped, unseen = stopped || h.State == Stopped, unseen || h.Unseen
		if os.Geteuid() != 0 && h.User != UserName(os.Geteuid()) {
			kill = "sudo kill"
		}
	}
	self, _ := os.Executable() // sudo has a PATH of its own
	asRoot := "sudo " + Summary([]string{"env", "DCE_SCRAPE_LOCK_FILE=" + v.Lock, self, "--status"})
	switch {
	case pids == "" && elsewhere:
		return []string{"no process can be seen here that holds it: look for it in the containers and on the hosts that share this archive"}
	case pids == "":
		return []string{"no process can be seen that holds it; another user's can, with: " + asRoot}
	}
	if stopped {
		goOn := kill + " -CONT" + pids
		lines = append(lines, "it is stopped and does not end by itself; to let it go on: fg in its terminal, or "+goOn)
		pids += "; " + goOn
	}
	lines = append(lines, "to stop it: "+kill+pids)
	if unseen {
		lines = append(lines, "it is another user's, whose other processes may hold the lock as well and cannot be seen; should it stay held, this names all: "+asRoot)
	}
	return lines
}

// Who says who holds the lock. The first three are described; the advice names them all.
func (v *View) Who() (lines []string) {
	lines = v.notes()
	for i, h := range v.Holders {
		if i == 3 {
			return append(lines, fmt.Sprintf("and %d more with it; dcelock --status shows them all", len(v.Holders)-i))
		}
		lines = append(lines, fmt.Sprintf("Holder %s: %s", h.summary(), h.Command))
		if about := h.about(); about != "" {
			lines = append(lines, about)
		}
	}
	return lines
}

// notes say what is unusual about how the lock is held.
func (v *View) notes() (notes []string) {
	switch {
	case v.Problem != "":
		notes = append(notes, "the record of the holder cannot be used: "+v.Problem)
	case v.Killed != nil:
		notes = append(notes, fmt.Sprintf("dcelock pid %d (started %s) was killed, by whom is not known, "+
			"and what it had started goes on: %s", v.Killed.PID, v.Killed.started(), v.Killed.Command))
	case len(v.Holders) > 0 && v.Holders[0].Source != FromRecord:
		notes = append(notes, "the holder left no record")
	}
	if v.Replaced {
		notes = append(notes, "the lock file was removed or replaced while a run holds the lock; there is nothing to repair")
	}
	return notes
}

// Labelled is a text behind its label, "" for one that is not known.
func Labelled(label, text string) string {
	if text == "" {
		return ""
	}
	return label + text
}

func (h Holder) summary() string {
	return fmt.Sprintf("pid %d (%s, started %s)", h.PID, h.State, h.started())
}

func (r Record) started() string { return cmp.Or(Timestamp(r.Started), "at an unknown time") }

// about is what is known of a holder beside that; "" when that is nothing.
func (h Holder) about() string {
	about := Labelled(", by ", h.User) + Labelled(", on ", h.Host) + Labelled(", in ", h.Folder)
	if age, ok := h.age(); ok {
		verb := map[string]string{FromKernel: "runs", FromRecord: "held"}[h.Source]
		about = fmt.Sprintf(", %s for %s%s", verb, Duration(age), about)
	}
	if h.Unseen {
		about += ", took the lock, its other processes cannot be seen"
	}
	return strings.TrimPrefix(about, ", ")
}

// age is how long a holder has had the lock, or has been there, in whole seconds;
// false where that is not known, or cannot be, as the clock was set since.
func (h Holder) age() (time.Duration, bool) {
	age := time.Since(h.Started).Truncate(time.Second)
	possible := h.State == CannotTell && h.Started.Year() >= 2000 || h.State.Alive() && !h.Started.Before(bootTime())
	return age, possible && age >= 0
}

// Timestamp is a time in UTC, "" for one that is not known.
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// Duration is d as people say it, in its two largest units: "2h13m", "11d13h".
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	text := d.Truncate(10 * time.Millisecond).String()
	switch {
	case d >= 2*day:
		text = fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		text = d.Truncate(time.Minute).String()
	case d >= 10*time.Second:
		text = d.Truncate(time.Second).String()
	}
	return strings.NewReplacer("d0h", "d", "h0m0s", "h", "m0s", "m").Replace(text)
}

// A Log prints what dcelock says (contract, "Messages"), printable whatever paths and records hold.
type Log struct {
	Quiet   int // once: no notes; twice: nothing when the lock is held
	Verbose bool
}

// Write writes to standard error as it is. Not to os.Stderr, which ends the process
// when a pipe there is broken: the command's end, and its status, are worth more.
func (Log) Write(text []byte) (int, error) { return unix.Write(2, text) }

// Line prints a line whatever is asked for: errors.
func (l Log) Line(text string) { fmt.Fprintln(l, "dcelock: "+Printable(text)) }

// Warn says that an archive may be at risk.
func (l Log) Warn(format string, args ...any) { l.Line("warning: " + fmt.Sprintf(format, args...)) }

// Note says what the operator may like to know.
func (l Log) Note(format string, args ...any) {
	if l.Quiet == 0 {
		l.Line(fmt.Sprintf(format, args...))
	}
}

// Detail says what only --verbose asks for.
func (l Log) Detail(format string, args ...any) {
	if l.Verbose {
		l.Note(format, args...)
	}
}
