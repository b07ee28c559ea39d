package lock

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"dcelock/meta"
)

// A lock file that is removed or replaced while a run holds it leaves that run
// with a lock on a file that nobody finds any more, and the new file free.
// Two things keep a second run out (contract, "Taking, holding, releasing"):
// the record of the first, which names a live process and another inode; and,
// should the record be gone too, the kernel's view.

// supplanted explains, for a target whose lock is free, that a run holds an
// earlier lock file; nil when there is no such run, for which sure see search.
func (t target) supplanted() (held *HeldError, sure bool) {
	former, sure := t.formerHolders()
	if len(former) == 0 {
		return outlived(t.path, t.file), sure
	}
	held = &HeldError{Lock: t.path, Holders: former, Replaced: true}
	if record, err := meta.Read(meta.Path(t.path)); err == nil {
		held.describe(record)
	}
	return held, sure
}

// outlived explains that the recorded run goes on, though the lock on f, which is
// at path now, is free; nil when it does not.
func outlived(path string, f file) *HeldError {
	record, err := meta.Read(meta.Path(path))
	if err != nil {
		return nil
	}
	other := record.LockID != "" && record.LockID != f.id()
	if !record.Proven() && !(other && record.State() == meta.Running) {
		return nil
	}
	// Proven, with this very file: somebody called LOCK_UN on the descriptor
	// while the run goes on.
	held := &HeldError{Lock: path, Replaced: other}
	held.describe(record)
	return held
}

// asides are what is put behind the name of a file that is moved out of the way.
var asides = []string{".old", ".bak", ".orig", "~"}

// formerly matches descriptors of files that were at a path before: the link of
// one reads "PATH (deleted)", or PATH as backups are named. Not any longer name:
// a neighbour's lock is not this one's.
func formerly(real string) func(fd string) bool {
	return func(fd string) bool {
		link, err := os.Readlink(fd)
		name, deleted := strings.CutSuffix(link, " (deleted)")
		rest, ok := strings.CutPrefix(name, real)
		return err == nil && ok && (rest == "" && deleted || slices.Contains(asides, rest))
	}
}

// formerHolders are the processes that hold the lock of a file that was at the
// target's path before. The kernel's list of locks is short, and tells without
// a look at every process that there are none: when no other file of the file
// system is locked, or only files that the processes which took the locks have
// open. A lock whose taker is gone, or has closed the file, is another's by now.
func (t target) formerHolders() (found []Holder, sure bool) {
	former := formerly(t.real)
	if !t.whole {
		return search(former, 0, false)
	}
	sure = true
	for _, l := range t.other {
		elsewhere := func(fd string) bool {
			f, ok := fileBehind(fd)
			return ok && f.ino == l.ino && !former(fd)
		}
		_, ok, err := holds(strconv.Itoa(l.pid), elsewhere)
		if !ok && !mayNotLook(err) {
			return search(former, l.pid, false)
		}
		sure = sure && ok
	}
	return nil, sure
}
