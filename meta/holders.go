package meta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Place is where a lock lies: the lock file, and the folder that is locked as
// well, "" where it is not (contract, "What is locked, and the record").
type Place struct {
	Folder string
	Lock   string
}

// Record is where the record of this lock lies.
func (at Place) Record() string { return at.Lock + ".meta" }

// files are the folder and the file, as far as they exist.
func (at Place) files() (found []File) {
	for _, path := range []string{at.Folder, at.Lock} {
		if f, ok := FileAt(path); ok {
			found = append(found, f)
		}
	}
	return found
}

// A Holder is a process that holds a lock, or waits for one, and how that is
// known.
type Holder struct {
	Record
	State  State
	Source Source
	Shown  bool // the kernel shows that it holds the lock
	Unseen bool // known from the kernel's list alone: it may not be looked at

	takers []int // pids of the processes that took the locks it has
}

// A Source is where a Holder is known from.
type Source string

// The sources: the record that it wrote, or the kernel's own view in /proc.
const (
	FromRecord Source = "record"
	FromKernel Source = "kernel"
)

// A View is what can be seen of a lock at one moment, without touching it: the
// one answer to "who holds it?" for a refusal, a wait and a status.
type View struct {
	Place
	Holders  []Holder   // the one that the record describes first
	Waiters  []Holder   // processes that wait for the folder's or the file's lock
	Killed   *Record    // the run whose dcelock ended without a release, while what it started goes on
	Recorded *Record    // the record as it was read, whatever it is worth; nil when there is none
	Problem  error      // why a record that is there cannot be used
	Replaced bool       // the holders of the folder hold no lock on the file that is at its path now
	System   FileSystem // where the lock lies
	Complete bool       // the kernel shows this process every holder that there is
}

// Look gives the view of a lock: all processes that hold the folder's or the
// file's lock, each once, but this one and those that only wait, and the record
// laid over them. With more files it looks for holders of those as well.
func Look(at Place, more ...File) *View { return look(at, false, more) }

// LookClosely is Look, and tells of the waiters, of the file system, and whether
// the view is complete.
func LookClosely(at Place, more ...File) *View { return look(at, true, more) }

func look(at Place, closely bool, more []File) *View {
	v := &View{Place: at}
	match := isAny(append(at.files(), more...))
	folder, _ := FileAt(at.Folder)
	file, _ := FileAt(at.Lock)
	found, hidden := map[int][]descriptor{}, map[int]bool{}
	pids := processes()
	inDoubt, ofFile, gone := closely, false, false
	for _, pid := range pids {
		list, err := locked(strconv.Itoa(pid), match)
		hidden[pid] = errors.Is(err, fs.ErrPermission)
		if len(list) == 0 {
			continue
		}
		found[pid] = list
		has := func(f File) bool {
			return slices.ContainsFunc(list, func(d descriptor) bool { return d.lock.file.inode == f.Inode })
		}
		ofFile = ofFile || has(file)
		// The folder's lock alone is that of one which waits for the file, or
		// is about to ask for it; with another one, its file is gone from here.
		all, _ := locked(strconv.Itoa(pid), func(string) bool { return true })
		inDoubt = inDoubt || len(all) == 1 && has(folder)
		gone = gone || !has(file) && (len(all) > 1 || !has(folder))
	}
	var waits map[int]listed
	var took map[int]bool
	if inDoubt || len(found) == 0 {
		waits, took = v.list()
	}
	for _, pid := range pids {
		// Who waits for the file may have the folder, and waits all the same;
		// who has what it waits for holds up itself and everybody else.
		awaited, waiter := waits[pid]
		waiter = waiter && !slices.ContainsFunc(found[pid], func(d descriptor) bool { return d.lock.file == awaited })
		switch unseen := hidden[pid] && took[pid]; {
		case waiter && (hidden[pid] || opens(pid, match)):
			v.Waiters = append(v.Waiters, describe(pid))
		case !waiter && (len(found[pid]) > 0 || unseen):
			h := describe(pid)
			h.Shown, h.Unseen = true, unseen
			for _, d := range found[pid] {
				h.takers = append(h.takers, d.lock.pid)
			}
			v.Holders = append(v.Holders, h)
		}
	}
	v.Replaced = gone && len(v.Holders) > 0 && !ofFile
	v.layRecord()
	return v
}

// list reads the kernel's list of locks, which takes it some ten milliseconds to
// give: the processes that wait for the folder or the file, and for which, and
// those that took one of their locks.
func (v *View) list() (waits map[int]listed, took map[int]bool) {
	waits, took = map[int]listed{}, map[int]bool{}
	v.System = FileSystemAt(filepath.Dir(v.Lock) + "/.")
	locks, whole := kernelLocks()
	v.Complete = whole && SeesAll() && !v.System.Shared() && v.System.Type != ""
	here := listedAs(v.Place)
	for _, l := range locks {
		switch {
		case !slices.Contains(here, l.file) || l.pid == os.Getpid():
		case l.waits:
			waits[l.pid] = l.file
		default:
			took[l.pid] = true
		}
	}
	return waits, took
}

// layRecord lays the record over the holders. It describes a holder that is the
// recorded process, or one below it, as a script's subshell is; or it says that
// the recorded dcelock was killed. One that has nothing to do with the holders,
// as of a run before or of a copied archive, is left out.
func (v *View) layRecord() {
	record, err := Read(v.Place.Record())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.Problem = err
		}
		return
	}
	v.Recorded = &record
	recorded := Holder{Record: record, State: record.State(), Source: FromRecord}
	file, exists := FileAt(v.Lock)
	i := slices.IndexFunc(v.Holders, func(h Holder) bool { return h.PID == record.PID })
	switch {
	case recorded.State.Alive() && i >= 0:
		recorded.Shown, recorded.Unseen, recorded.takers = true, v.Holders[i].Unseen, v.Holders[i].takers
		v.Holders = slices.Delete(v.Holders, i, i+1)
	case recorded.State.Alive() && slices.ContainsFunc(v.Holders, func(h Holder) bool { return below(h.PID, record.PID) }):
	case recorded.State == NotRunning:
		if slices.ContainsFunc(v.Holders, func(h Holder) bool { return slices.Contains(h.takers, record.PID) }) {
			v.Killed = v.Recorded
		}
		return
	case recorded.State == CannotTell && exists && record.LockID != "" && !strings.HasSuffix(record.LockID, fmt.Sprintf(":%d", file.Inode)):
		return // a copy's; the device is each host's own on a network file system
	case recorded.State.Alive():
		if len(v.Holders) > 0 || !MayHold(record.PID, v.Place) {
			return
		}
	}
	v.Holders = slices.Insert(v.Holders, 0, recorded)
}

// ByRecord is the view with the recorded process as the one holder, for when
// something else than what the kernel shows has it held.
func (v *View) ByRecord() *View {
	v.Holders = nil
	if r := v.Recorded; r != nil {
		v.Holders = []Holder{{Record: *r, State: r.State(), Source: FromRecord, Shown: r.Proven()}}
	}
	return v
}

// TakenBy are the holders of a lock that a process took.
func (v *View) TakenBy(pid int) []Holder {
	return slices.DeleteFunc(slices.Clone(v.Holders), func(h Holder) bool { return !slices.Contains(h.takers, pid) })
}
