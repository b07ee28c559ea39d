package meta

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// A Status is what is said of a lock that was looked at and not taken (contract, "Status").
type Status struct {
	*View
	Config string // the config that was read; "" when DCE_SCRAPE_LOCK_FILE named the lock
	State  string // Free, Stale or Held
	Exists bool   // whether there is a lock file
}

// The states of a lock; a Stale one is free, and its record names a process that does not run.
const Free, Stale, Held = "free", "stale", "held"

// Print writes a status, as one JSON object or with one fact a line, as far as they
// are known, all at once. The first five lines are read by scripts.
func (s Status) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(s.facts())
	}
	text := ""
	line := func(key string, facts ...string) {
		for _, fact := range facts {
			if fact != "" {
				text += key + ": " + Printable(fact) + "\n"
			}
		}
	}
	line("config", cmp.Or(s.Config, "none, DCE_SCRAPE_LOCK_FILE names the lock"))
	line("lock", s.Lock)
	switch {
	case s.State == Held:
		line("state", "held (active scrape)")
	case s.State == Stale:
		line("state", fmt.Sprintf("stale (reclaimable; holder pid %d is not running)", s.Holders[0].PID))
	case s.Exists:
		line("state", "free (lock file present but not held)")
	default:
		line("state", "free (no lock file)")
	}
	for _, h := range s.Holders {
		line("holder", h.summary())
		line("cmd", h.Command)
		line("about", h.about())
	}
	line("note", s.notes()...)
	if s.State == Held {
		line("advice", s.advice()...)
	}
	for _, w := range s.Waiters {
		line("waiter", w.summary()+": "+w.Command)
	}
	if s.System.Type != "" {
		line("file system", fmt.Sprintf("%s (%s)", s.System.Source, s.System.Type))
	}
	line("warning", s.System.HostLocal())
	_, err := io.WriteString(out, text)
	return err
}

// facts are the same in JSON, by their keys.
func (s Status) facts() map[string]any {
	killed := cmp.Or(s.Killed, new(Record))
	processes := func(holders []Holder) []map[string]any {
		list := []map[string]any{} // never null
		for _, h := range holders {
			var age, left any
			if d, ok := h.age(); ok {
				age = int64(d.Seconds())
			}
			if slices.Contains(h.takers, killed.PID) {
				left = known(killed.PID)
			}
			list = append(list, map[string]any{
				"pid": h.PID, "state": h.State, "started": known(Timestamp(h.Started)), "age_seconds": age, "cmd": h.Command,
				"user": known(h.User), "host": known(h.Host), "cwd": known(h.Folder),
				"source": h.Source, "left_behind_by_pid": left, "unseen": h.Unseen,
			})
		}
		return list
	}
	return map[string]any{
		"config": known(s.Config), "lock": s.Lock, "lock_file_exists": s.Exists, "lock_file_replaced": s.Replaced,
		"state": s.State, "record": s.Place.Record(), "record_problem": known(Printable(s.Problem)),
		"holders": processes(s.Holders), "waiters": processes(s.Waiters), "killed_pid": known(killed.PID),
		"file_system": known(s.System.Type), "file_system_source": known(Printable(s.System.Source)),
		"locks_local_because": known(s.System.HostLocal()),
	}
}

// known is a fact in JSON: null for what is not known.
func known[T comparable](fact T) any {
	if fact == *new(T) {
		return nil
	}
	return fact
}
