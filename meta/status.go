package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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
	var b bytes.Buffer
	if asJSON {
		s.encode(&b)
	} else {
		s.describe(&b)
	}
	_, err := out.Write(b.Bytes())
	return err
}

// describe writes a status as text, one fact a line. The first five lines are
// read by scripts.
func (s Status) describe(out io.Writer) {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(out, "%s: %s\n", key, Printable(fmt.Sprintf(format, args...)))
	}
	config := s.Config
	if config == "" {
		config = "none, DCE_SCRAPE_LOCK_FILE names the lock"
	}
	line("config", "%s", config)
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
		line("note", "dcelock pid %d was killed, and what it had started goes on: %s", s.Killed.PID, s.Killed.Command)
	}
	if s.Replaced {
		line("note", "the lock file was removed or replaced while that run holds the lock")
	}
	if s.Problem != nil {
		line("record", "cannot be used: %v", s.Problem)
	}
	for _, w := range s.Waiters {
		line("waiter", "%s", w.sentence())
	}
	if s.System.Type != "" {
		line("file system", "%s (%s)", s.System.Source, s.System.Type)
	}
	if local := s.System.HostLocal(); local != "" {
		line("warning", "%s", local)
	}
}

// encode writes a status as one JSON object, with the same facts.
func (s Status) encode(out io.Writer) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	problem, killed := "", (*int)(nil)
	if s.Problem != nil {
		problem = Printable(s.Problem.Error())
	}
	if s.Killed != nil {
		killed = &s.Killed.PID
	}
	_ = encoder.Encode(struct { // numbers and texts, which always encode
		Config   *string   `json:"config"`
		Lock     string    `json:"lock"`
		Exists   bool      `json:"lock_file_exists"`
		State    LockState `json:"state"`
		Replaced bool      `json:"lock_file_replaced"`
		Record   string    `json:"record"`
		Problem  *string   `json:"record_problem"`
		Killed   *int      `json:"killed_pid"`
		Holders  []process `json:"holders"`
		Waiters  []process `json:"waiters"`
		Type     *string   `json:"file_system"`
		Source   *string   `json:"file_system_source"`
		Local    *string   `json:"locks_local_because"`
	}{known(s.Config), s.Lock, s.Exists, s.State, s.Replaced, s.Place.Record(), known(problem), killed, s.inJSON(s.Holders), s.inJSON(s.Waiters),
		known(s.System.Type), known(Printable(s.System.Source)), known(s.System.HostLocal())})
}

// A process is a Holder in JSON; what is not known is null.
type process struct {
	PID     int     `json:"pid"`
	State   State   `json:"state"`
	Started *string `json:"started"`
	Age     *int64  `json:"age_seconds"`
	Command string  `json:"cmd"`
	User    *string `json:"user"`
	Host    *string `json:"host"`
	Folder  *string `json:"cwd"`
	Source  Source  `json:"source"`
	Left    *int    `json:"left_behind_by_pid"`
	Unseen  bool    `json:"unseen"`
}

// known is a text in JSON, null when it is empty.
func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (s Status) inJSON(holders []Holder) []process {
	list := make([]process, 0, len(holders)) // never null
	for _, h := range holders {
		p := process{PID: h.PID, State: h.State, Command: h.Command, User: known(h.User), Host: known(h.Host), Folder: known(h.Folder), Source: h.Source, Unseen: h.Unseen}
		if !h.Started.IsZero() {
			p.Started = known(Timestamp(h.Started))
		}
		if age, ok := h.age(); ok {
			seconds := int64(age / time.Second)
			p.Age = &seconds
		}
		if s.Killed != nil && slices.Contains(h.takers, s.Killed.PID) {
			p.Left = &s.Killed.PID
		}
		list = append(list, p)
	}
	return list
}
