package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"dcelock/meta"
)

// A Status is what can be said of a lock without taking it (contract,
// "Status").
type Status struct {
	Location
	State    LockState
	Exists   bool // whether there is a lock file
	Replaced bool // whether the holders hold an earlier lock file
	Holders  []Holder
	Waiters  []Holder
	Problem  string // why a record that is there cannot be used; mostly ""
	mount    mount  // where the lock file lies
}

// A LockState says whether a lock can be taken.
type LockState string

// The states of a lock.
const (
	Free  LockState = "free"
	Stale LockState = "stale" // free, and the record names a process that does not run
	Held  LockState = "held"
)

// Inspect looks at the lock at a location. It opens no lock file and takes no
// lock, not for a moment. Its errors are those that a run would end with
// before it takes the lock: of kind Missing and CannotOpen.
func Inspect(at Location) (Status, error) {
	if _, err := at.checkFolder(); err != nil {
		return Status{}, err
	}
	if err := checkRegular(at.Lock); err != nil {
		return Status{}, err
	}
	t := look(at.Lock)
	s := Status{Location: at, State: Free, Exists: t.exists, Waiters: t.waiters(), mount: t.mount}
	record, err := meta.Read(meta.Path(at.Lock))
	var state meta.State
	switch {
	case err == nil:
		state = record.State()
	case !errors.Is(err, fs.ErrNotExist):
		s.Problem = err.Error()
	}

	held, _ := t.supplanted()
	if t.taker() != 0 || !t.complete() && len(t.holders(false)) > 0 {
		held = t.heldBy(true)
	}
	recorded := []Holder{{Record: record, State: state, Source: FromRecord, Taker: record.PID}}
	switch {
	case held != nil:
		s.State, s.Holders, s.Replaced = Held, held.Holders, held.Replaced
	case state == meta.CannotTell && !t.complete():
		// The kernel here does not see all holders, and nothing proves
		// that this one is gone.
		s.State, s.Holders = Held, recorded
	case state == meta.NotRunning:
		s.State, s.Holders = Stale, recorded
	}
	return s, nil
}

// Print writes a status, as text or as one JSON object, all at once. Its error is
// of kind System.
func (s Status) Print(out io.Writer, asJSON bool) error {
	var b bytes.Buffer
	if asJSON {
		s.encode(&b)
	} else {
		s.describe(&b)
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return fail(System, "the status cannot be printed: %w", bare(err))
	}
	return nil
}

// describe writes a status as text, one fact a line. The first five lines are
// read by scripts.
func (s Status) describe(out io.Writer) {
	line := func(key, format string, args ...any) {
		fmt.Fprintf(out, "%s: %s\n", key, meta.Printable(fmt.Sprintf(format, args...)))
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
	if s.State == Held {
		for _, h := range s.Holders {
			line("holder", "%s", h.summary())
			line("cmd", "%s", h.Command)
			if about := h.about(); about != "" {
				line("about", "%s", about)
			}
		}
	}
	if s.Replaced {
		line("note", "the lock file was removed or replaced while that run holds it")
	}
	if s.Problem != "" {
		line("record", "cannot be used: %s", s.Problem)
	}
	for _, w := range s.Waiters {
		line("waiter", "%s", w.sentence())
	}
	if s.mount.kind != "" {
		line("file system", "%s (%s)", s.mount.source, s.mount.kind)
	}
	if local := s.mount.hostLocal(); local != "" {
		line("warning", "the lock holds on this host alone: %s", local)
	}
}

// encode writes a status as one JSON object, with the same facts.
func (s Status) encode(out io.Writer) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(struct { // numbers and texts, which always encode
		Config   *string   `json:"config"`
		Lock     string    `json:"lock"`
		Exists   bool      `json:"lock_file_exists"`
		State    LockState `json:"state"`
		Replaced bool      `json:"lock_file_replaced"`
		Record   string    `json:"record"`
		Problem  *string   `json:"record_problem"`
		Holders  []process `json:"holders"`
		Waiters  []process `json:"waiters"`
		Kind     *string   `json:"file_system"`
		Local    *string   `json:"locks_local_because"`
	}{known(s.Config), s.Lock, s.Exists, s.State, s.Replaced, meta.Path(s.Lock), known(meta.Printable(s.Problem)), processes(s.Holders), processes(s.Waiters),
		known(s.mount.kind), known(s.mount.hostLocal())})
}

// A process is a Holder in JSON; what is not known is null.
type process struct {
	PID     int        `json:"pid"`
	State   meta.State `json:"state"`
	Started *string    `json:"started"`
	Age     *int64     `json:"age_seconds"`
	Command string     `json:"cmd"`
	User    *string    `json:"user"`
	Host    *string    `json:"host"`
	Folder  *string    `json:"cwd"`
	Source  Source     `json:"source"`
	Left    *int       `json:"left_behind_by_pid"`
	Unseen  bool       `json:"unseen"`
}

// known is a text in JSON, null when it is empty.
func known(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func processes(holders []Holder) []process {
	list := make([]process, 0, len(holders)) // never null
	for _, h := range holders {
		p := process{PID: h.PID, State: h.State, Command: h.Command, User: known(h.User), Host: known(h.Host), Folder: known(h.Folder), Source: h.Source, Unseen: h.Unseen}
		if !h.Started.IsZero() {
			age := int64(time.Since(h.Started) / time.Second)
			p.Started = known(timestamp(h.Started))
			if age >= 0 && h.State != meta.NotRunning {
				p.Age = &age
			}
		}
		if h.leftBehind() {
			p.Left = &h.Taker
		}
		list = append(list, p)
	}
	return list
}
