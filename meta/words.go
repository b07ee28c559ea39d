package meta

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"
)

// How a view of a lock is put into words (contract, "Messages"). A refusal, a
// waiting run and a status say the same things, because they say them from here.

// Refusal is what follows the first line of a refusal: who holds the lock, and
// what to do, which works when it is typed. again is the refused command line
// with a wait put in, "" where it cannot be shown as it was typed; waited is
// how long the lock was waited for.
func (v *View) Refusal(again string, waited time.Duration) (lines []string) {
	lines = v.Who()
	if waited > 0 {
		lines = append(lines, fmt.Sprintf("gave up after waiting for %s", Duration(waited)))
	}
	again = cmp.Or(again, "the same command line with --wait 1h put in behind dcelock")
	return append(append(lines, "to wait for it: "+again), v.advice()...)
}

// mostDescribed is how many holders are described; the advice names them all.
const mostDescribed = 3

const replaced = "the lock file was removed or replaced while that run holds the lock; there is nothing to repair"

func (v *View) killed() string {
	return fmt.Sprintf("dcelock pid %d (started %s) was killed, by whom is not known, and what it had started goes on: %s", v.Killed.PID, Timestamp(v.Killed.Started), v.Killed.Command)
}

// Who says who holds the lock.
func (v *View) Who() (lines []string) {
	switch {
	case v.Problem != nil:
		lines = append(lines, fmt.Sprintf("the record of the holder cannot be used: %v", v.Problem))
	case v.Killed != nil:
		lines = append(lines, v.killed())
	case len(v.Holders) > 0 && v.Holders[0].Source != FromRecord:
		lines = append(lines, "the holder left no record")
	}
	for _, h := range v.Holders[:min(len(v.Holders), mostDescribed)] {
		lines = append(lines, fmt.Sprintf("Holder %s: %s", h.summary(), h.Command))
		if about := h.about(); about != "" {
			lines = append(lines, about)
		}
	}
	if more := len(v.Holders) - mostDescribed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more with it; dcelock --status shows them all", more))
	}
	if v.Replaced {
		lines = append(lines, replaced)
	}
	return lines
}

// advice says how to stop the holders: by every process that the kernel shows
// to hold the lock, and none that it shows not to.
func (v *View) advice() (lines []string) {
	var pids, sudo string
	var stopped, unseen bool
	for _, h := range v.Holders {
		if !h.Shown {
			continue
		}
		pids += fmt.Sprintf(" %d", h.PID)
		stopped, unseen = stopped || h.State == Stopped, unseen || h.Unseen
		if os.Geteuid() != 0 && h.User != UserName(os.Geteuid()) {
			sudo = "sudo "
		}
	}
	asRoot := "sudo " + Summary([]string{"env", "DCE_SCRAPE_LOCK_FILE=" + v.Lock, os.Args[0], "--status"})
	switch {
	case pids == "" && len(v.Holders) > 0 && v.Holders[0].State == CannotTell:
		return []string{fmt.Sprintf("it runs elsewhere (another host or container%s): to stop it, look for it there", On(v.Holders[0].Host))}
	case pids == "" && os.Geteuid() == 0:
		return []string{"no process can be seen here that holds it: look for it in the containers and on the hosts that share this archive"}
	case pids == "":
		return []string{"no process can be seen that holds it; another user's can, with: " + asRoot}
	}
	stop := "to stop it: " + sudo + "kill" + pids
	if stopped {
		lines = append(lines, fmt.Sprintf("it is stopped and does not end by itself; to let it go on: fg in its terminal, or %skill -CONT%s", sudo, pids))
		stop += "; " + sudo + "kill -CONT" + pids
	}
	if unseen {
		lines = append(lines, "it is another user's, and what else holds the lock with it cannot be seen; to see all: "+asRoot)
	}
	return append(lines, stop)
}

// On says on which host, "" for one that is not known.
func On(host string) string {
	if host == "" {
		return ""
	}
	return ", on " + host
}

// summary is the phrase that a holder is known by.
func (h Holder) summary() string {
	return fmt.Sprintf("pid %d (%s, started %s)", h.PID, h.State, Timestamp(h.Started))
}

// about is what is known of a holder beside that; "" when that is nothing.
func (h Holder) about() string {
	var known []string
	if held, ok := h.age(); ok {
		label := "held for "
		if h.Source == FromKernel {
			label = "runs for "
		}
		known = append(known, label+Duration(held.Truncate(time.Second)))
	}
	for _, part := range []struct{ label, value string }{{"by ", h.User}, {"on ", h.Host}, {"in ", h.Folder}} {
		if part.value != "" {
			known = append(known, part.label+part.value)
		}
	}
	if h.Unseen {
		known = append(known, "took the lock and may not be looked at")
	}
	return strings.Join(known, ", ")
}

// age is how long a holder has had the lock, or has been there; false where that
// is not known, or cannot be, as the clock was set since.
func (h Holder) age() (time.Duration, bool) {
	age := time.Since(h.Started)
	possible := h.State == CannotTell && h.Started.Year() >= 2000 || h.State.Alive() && !h.Started.Before(bootTime())
	return age, possible && age >= 0
}

// List is holders in one line.
func List(holders []Holder) string {
	var texts []string
	for i, h := range holders {
		if i == mostDescribed {
			texts = append(texts, fmt.Sprintf("and %d more", len(holders)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("pid %d (%s)", h.PID, h.Command))
	}
	return strings.Join(texts, ", ")
}

// Timestamp is a time in UTC.
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// Duration is d as people say it, in its two largest units: "2h13m", "11d13h".
func Duration(d time.Duration) string {
	unit := time.Minute
	switch {
	case d >= 48*time.Hour:
		hours := int64(d / time.Hour)
		return strings.TrimSuffix(fmt.Sprintf("%dd%dh", hours/24, hours%24), "0h")
	case d < 10*time.Second:
		unit = 10 * time.Millisecond
	case d < time.Hour:
		unit = time.Second
	}
	text := d.Truncate(unit).String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, none) {
			text = text[:len(text)-2]
		}
	}
	return text
}
