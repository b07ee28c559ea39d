package lock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Holder is a process that holds a lock, or waits for one, and how that is
// known.
type Holder struct {
	meta.Record
	State  meta.State
	Source Source
	Taker  int  // pid of the process that took the lock, as far as known; 0 where not
	Unseen bool // known from the list of locks alone: it may not be looked at
}

// leftBehind tells whether the process that took the lock has ended, and h holds
// it on.
func (h Holder) leftBehind() bool {
	return h.Taker > 0 && h.Taker != h.PID && errors.Is(unix.Kill(h.Taker, 0), unix.ESRCH)
}

// A Source is where a Holder is known from.
type Source string

// The sources: the record that it wrote, or the kernel's own view in /proc.
const (
	FromRecord Source = "record"
	FromKernel Source = "kernel"
)

// A target is a lock file as it is looked at from outside: nothing here takes
// the lock, not for a moment.
type target struct {
	path   string // as the user knows it
	real   string // as the kernel does: absolute, without links
	file   file
	exists bool
	mount  mount // zero when it cannot be told

	held, waiting, other []kernelLock // on the target; held on other files of its file system
	whole                bool         // whether the kernel's list of locks, which these are from, is
}

func look(path string) target {
	t := target{path: path}
	t.file, t.exists = fileAt(path)
	where := path
	if !t.exists {
		where = folderOf(path)
	}
	t.mount = mountOf(where)
	t.real = realPath(path)
	locks, whole := kernelLocks()
	t.whole = whole
	for _, l := range locks {
		here := t.exists && l.ino == t.file.ino
		switch {
		case t.mount.device != "" && l.device != t.mount.device:
		case here && l.waits:
			t.waiting = append(t.waiting, l)
		case here:
			t.held = append(t.held, l)
		case !l.waits:
			t.other = append(t.other, l)
		}
	}
	return t
}

// realPath is a lock file's path as the kernel shows it: absolute, without links.
func realPath(path string) string {
	folder, _ := physical(folderOf(path))
	real := strings.TrimSuffix(folder, "/") + "/" + filepath.Base(path)
	if resolved, err := filepath.EvalSymlinks(real); err == nil {
		return resolved
	}
	return real
}

// taker is the pid of the process that took the lock on the target; 0 when the
// kernel lists none, as it does for one of another PID namespace.
func (t target) taker() int {
	if len(t.held) == 0 {
		return 0
	}
	return t.held[0].pid
}

// complete tells whether the kernel's list shows every lock on the target that
// there is: all of this host's are shown in its first PID namespace alone.
func (t target) complete() bool {
	const first = 0xEFFFFFFC // PROC_PID_INIT_INO of the kernel's proc_ns.h
	return t.whole && meta.Self().PIDNamespace == first && !t.mount.isShared()
}

// holders are the processes that hold the target's lock, as far as this process
// may see: all of them, or those that are soon found.
func (t target) holders(all bool) (found []Holder) {
	if !t.exists {
		return nil
	}
	near := 0
	for _, l := range t.held {
		// This process may be given the lock after it gave up waiting.
		if l.pid == os.Getpid() {
			continue
		}
		near = l.pid
		if _, ok, err := holds(strconv.Itoa(l.pid), t.file.is); ok || mayNotLook(err) {
			found = addProcess(found, l.pid, l.pid)
			if len(found) > 0 {
				found[len(found)-1].Unseen = !ok
			}
		}
	}
	if len(found) == 0 || all {
		more, _ := search(t.file.is, near, all)
		found = append(found, more...)
	}
	byPID := func(a, b Holder) int { return a.PID - b.PID }
	slices.SortStableFunc(found, byPID)
	return slices.CompactFunc(found, func(a, b Holder) bool { return a.PID == b.PID })
}

// waiters are the processes that wait for the target's lock.
func (t target) waiters() (found []Holder) {
	for _, l := range t.waiting {
		found = addProcess(found, l.pid, 0)
	}
	return found
}

// addProcess adds what the kernel tells of a process, if there still is one.
func addProcess(list []Holder, pid, taker int) []Holder {
	record, err := meta.Describe(pid)
	if err != nil {
		return list
	}
	return append(list, Holder{Record: record, State: meta.Running, Source: FromKernel, Taker: taker})
}

// soon is how long the search goes on for more holders when some are found, and
// not all are asked for.
const soon = 5 * time.Millisecond

// search finds the processes that hold a flock(2) lock on a file that matches, in
// the order of their pids; this process itself is not among them. It looks at
// every descriptor of every process, or, where not all are asked for, first at
// those whose pids are near that of the process that took the lock, as its
// descendants' mostly are. Where none are found, sure says that there are none:
// that there was no process it may not look at.
func search(match func(fd string) bool, near int, all bool) (found []Holder, sure bool) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	distance := func(pid int) int { return max(pid-near, near-pid) }
	slices.SortFunc(pids, func(a, b int) int { return distance(a) - distance(b) })
	begin := time.Now()
	sure = true
	for _, pid := range pids {
		if !all && len(found) > 0 && time.Since(begin) > soon {
			break
		}
		l, ok, err := holds(strconv.Itoa(pid), match)
		if ok {
			found = addProcess(found, pid, l.pid)
		}
		// The host's own init may be closed to all, and runs no scrape.
		sure = sure && (pid == 1 || !mayNotLook(err))
	}
	slices.SortFunc(found, func(a, b Holder) int { return a.PID - b.PID })
	return found, sure
}

// heldAbove tells whether the run that holds the lock, on the file that is at
// path or one that was there before, is one that this process is part of:
// whether one of its ancestors, or it itself where self is asked for, has the
// lock in the kernel's view, or, where that cannot be had, by the identity in the
// record. Never by a variable, which anybody can set and any child inherits.
func heldAbove(path string, self bool) bool {
	f, _ := fileAt(path)
	former := formerly(realPath(path))
	match := func(fd string) bool { return f.is(fd) || former(fd) }
	above := meta.Ancestors()
	var look []string
	if self {
		look = append(look, "self")
	}
	for _, pid := range above {
		look = append(look, strconv.Itoa(pid))
	}
	for _, pid := range look {
		// A shared lock lets others in: it makes nobody the only one.
		if l, ok, _ := holds(pid, match); ok && !l.shared {
			return true
		}
	}
	record, err := meta.Read(meta.Path(path))
	return err == nil && record.Proven() && slices.Contains(above, record.PID)
}

// explain explains a lock that is held.
func explain(path string) *HeldError {
	if held := recorded(path); held != nil {
		return held
	}
	return look(path).heldBy(false)
}

// recorded explains a lock that is held by the process that its record names, if
// that can be seen at that process alone: the kernel's list takes long.
func recorded(path string) *HeldError {
	record, err := meta.Read(meta.Path(path))
	if err != nil || !record.Proven() {
		return nil
	}
	f, _ := fileAt(path)
	if _, ok, _ := holds(strconv.Itoa(record.PID), f.is); !ok {
		return nil
	}
	held := &HeldError{Lock: path}
	held.describe(record)
	return held
}

// heldBy explains a lock that is held, by its record and by the kernel's view.
func (t target) heldBy(all bool) *HeldError {
	held := &HeldError{Lock: t.path, Holders: t.holders(all)}
	record, err := meta.Read(meta.Path(t.path))
	switch {
	case err == nil:
		held.describe(record)
	case !errors.Is(err, fs.ErrNotExist):
		held.err = err
	}
	return held
}

// describe puts a record in front of the holders, in place of the one that it
// describes. A record of a run before, which has nothing to do with them, is left
// out: one whose process does not run and took none of their locks, or whose pid
// may be another process's by now.
func (e *HeldError) describe(record meta.Record) {
	recorded := Holder{Record: record, State: record.State(), Source: FromRecord, Taker: record.PID}
	i := slices.IndexFunc(e.Holders, func(h Holder) bool { return h.PID == record.PID })
	switch {
	case i >= 0:
		e.Holders = slices.Delete(e.Holders, i, i+1)
	case len(e.Holders) > 0 && recorded.State == meta.Running && !record.Proven(),
		len(e.Holders) > 0 && recorded.State == meta.NotRunning &&
			!slices.ContainsFunc(e.Holders, func(h Holder) bool { return h.Taker == record.PID }):
		return
	}
	e.Holders = slices.Insert(e.Holders, 0, recorded)
}
