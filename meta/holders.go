package meta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	Holders  []Holder // the one that the record describes first
	Killed   *Record  // the run whose dcelock ended without a release, while what it started goes on
	Recorded *Record  // the record as it was read, whatever it is worth; nil when there is none
	Problem  error    // why a record that is there cannot be used
	Replaced bool     // the holders of the folder hold no lock on the file that is at its path now

	// Of a close look only.
	Waiters  []Holder   // processes that wait for the folder's or the file's lock
	System   FileSystem // where the lock lies
	Complete bool       // the kernel shows this process every holder that there is
}

// Look gives the view of a lock: all processes that hold the folder's or the
// file's lock, each once, but this one and those that only wait, and the record
// laid over them. With more files it looks for holders of those as well.
func Look(at Place, closely bool, more ...File) *View {
	v := &View{Place: at}
	files := append(at.files(), more...)
	folder, _ := FileAt(at.Folder)
	file, _ := FileAt(at.Lock)
	found, hidden := map[int][]descriptor{}, map[int]bool{}
	var onFile, elsewhere, held, inDoubt bool
	pids := processes()
	for _, pid := range pids {
		list, err := opened(pid, files)
		hidden[pid] = errors.Is(err, fs.ErrPermission)
		if !slices.ContainsFunc(list, isLocked) {
			found[pid] = list
			continue
		}
		// Who has the folder's lock and asks for the file's is one who waits.
		all, _ := descriptors(fmt.Sprint(pid), func(string, File) bool { return true })
		for _, d := range all {
			inDoubt = inDoubt || d.file == file && !d.locked
			onFile = onFile || d.file == file
			elsewhere = elsewhere || d.locked && d.file != file && d.file != folder
		}
		found[pid], held = list, true
	}
	var waits map[int]string
	var took map[int]bool
	if closely || inDoubt || !held {
		waits, took = v.list()
	}
	for _, pid := range pids {
		list, unseen := found[pid], hidden[pid] && took[pid]
		// Who waits for the file may have the folder, and waits all the same;
		// who has what it waits for holds up itself and everybody else.
		awaited, waiter := waits[pid]
		waiter = waiter && !slices.ContainsFunc(list, func(d descriptor) bool { return d.locked && d.lock.file == awaited })
		switch {
		case waiter && (hidden[pid] || len(list) > 0):
			v.Waiters = append(v.Waiters, describe(pid))
		case !waiter && (unseen || slices.ContainsFunc(list, isLocked)):
			h := describe(pid)
			h.Shown, h.Unseen = true, unseen
			for _, d := range list {
				h.takers = append(h.takers, d.lock.pid)
			}
			v.Holders = append(v.Holders, h)
		}
	}
	v.Replaced = elsewhere && !onFile && len(v.Holders) > 0
	v.layRecord()
	return v
}

func isLocked(d descriptor) bool { return d.locked }

// list reads the kernel's list of locks: the processes that wait for the folder
// or the file, and for which, and those that took one of their locks.
func (v *View) list() (waits map[int]string, took map[int]bool) {
	waits, took = map[int]string{}, map[int]bool{}
	v.System = FileSystemAt(filepath.Dir(v.Lock) + "/.")
	locks, whole := kernelLocks()
	// /proc has to show every process of the host.
	all := Self().PIDNamespace == firstPIDNamespace && procIsOurs()
	v.Complete = whole && all && v.System.Type != "" && !SharedType(v.System.Type)
	here := v.listed()
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
	alive := recorded.State.Alive()
	switch {
	case recorded.State == NotRunning:
		if len(v.TakenBy(record.PID)) > 0 {
			v.Killed = v.Recorded
		}
		return
	case alive && i >= 0:
		recorded.Shown, recorded.Unseen, recorded.takers = true, v.Holders[i].Unseen, v.Holders[i].takers
		v.Holders = slices.Delete(v.Holders, i, i+1)
	case alive && slices.ContainsFunc(v.Holders, func(h Holder) bool { return below(h.PID, record.PID) }):
	case alive:
		// Others hold it; or it is seen to hold nothing.
		if _, hidden := opened(record.PID, nil); len(v.Holders) > 0 || hidden == nil {
			return
		}
	case exists && record.LockID != "" && !strings.HasSuffix(record.LockID, fmt.Sprintf(":%d", file.Inode)):
		return // a copy's; the device is each host's own on a network file system
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
