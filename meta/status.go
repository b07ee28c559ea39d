package meta

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Status is what is said of a lock that was looked at and not taken
// (contract, "Status").
type Status struct {
	*View
	Config string // the config that was read; "" when DCE_SCRAPE_LOCK_FILE named the lock
	State  LockState
	Exists bool // whether there is a lock file
}

// A LockState says whether a lock can be taken.
type LockState string

// The states of a lock.
const (
	Free  LockState = "free"
	Stale LockState = "stale" // free, and the record names a process that does not run
	Held  LockState = "held"
)

// Print writes a status, as text or as one JSON object, all at once.
func (s Status) Print(out io.Writer, asJSON bool) error {
	text := s.text()
	if asJSON {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(s.facts()) // numbers and texts, which always encode
		text = b.String()
	}
	_, err := io.WriteString(out, text)
	return err
}

// text is a status with one fact a line. The first five lines are read by scripts.
func (s Status) text() string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%s: %s\n", key, Printable(fmt.Sprintf(format, args...)))
	}
	line("config", "%s", cmp.Or(s.Config, "none, DCE_SCRAPE_LOCK_FILE names the lock"))
	line("lock", "%s", s.Lock)
	switch {
	case s.State == Held:
		line("state", "held (active scrape)")
	case s.State == Stale:
		line("state", "stale (reclaimable; holder pid %d is not running)", s.Holders[0].PID)
	case s.Exists:
		line("state", "free (lock file present but not held)")
	default:
		line("state", "free (no lock file)")
	}
	for _, h := range s.Holders {
		line("holder", "%s", h.summary())
		line("cmd", "%s", h.Command)
		if about := h.about(); about != "" {
			line("about", "%s", about)
		}
	}
	if s.Killed != nil {
		line("note", "%s", s.killed())
	}
	if s.Replaced {
		line("note", replaced)
	}
	if s.Problem != nil {
		line("record", "cannot be used: %v", s.Problem)
	}
	for _, w := range s.Waiters {
		line("waiter", "%s: %s", w.summary(), w.Command)
	}
	if s.System.Type != "" {
		line("file system", "%s (%s)", s.System.Source, s.System.Type)
	}
	if local := s.System.HostLocal(); local != "" {
		line("warning", "%s", local)
	}
	return b.String()
}

// facts are the same in JSON, by their keys; what is not known is null.
func (s Status) facts() map[string]any {
	var problem, killed any
	if s.Problem != nil {
		problem = Printable(s.Problem.Error())
	}
	if s.Killed != nil {
		killed = s.Killed.PID
	}
	return map[string]any{
		"config": known(s.Config), "lock": s.Lock, "lock_file_exists": s.Exists, "lock_file_replaced": s.Replaced, "state": s.State,
		"record": s.Place.Record(), "record_problem": problem, "killed_pid": killed,
		"holders": s.factsOf(s.Holders), "waiters": s.factsOf(s.Waiters),
		"file_system": known(s.System.Type), "file_system_source": known(Printable(s.System.Source)), "locks_local_because": known(s.System.HostLocal()),
	}
}

func (s Status) factsOf(holders []Holder) []map[string]any {
	list := make([]map[string]any, 0, len(holders)) // never null
	for _, h := range holders {
		facts := map[string]any{
			"pid": h.PID, "state": h.State, "started": nil, "age_seconds": nil, "cmd": h.Command, "user": known(h.User), "host": known(h.Host),
			"cwd": known(h.Folder), "source": h.Source, "left_behind_by_pid": nil, "unseen": h.Unseen,
		}
		if !h.Started.IsZero() {
			facts["started"] = Timestamp(h.Started)
		}
		if age, ok := h.age(); ok {
			facts["age_seconds"] = int64(age / time.Second)
		}
		if s.Killed != nil && slices.Contains(h.takers, s.Killed.PID) {
			facts["left_behind_by_pid"] = s.Killed.PID
		}
		list = append(list, facts)
	}
	return list
}

// known is a text in JSON, null when it is empty.
func known(text string) any {
	if text == "" {
		return nil
	}
	return text
}
