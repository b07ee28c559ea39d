package meta

import (
	"cmp"
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

// A Holder is a process that holds a lock, or waits for one.
type Holder struct {
	Record
	State  State
	Source string // FromRecord or FromKernel
	Shown  bool   // the kernel shows that it holds the lock
	Unseen bool   // known from the kernel's list alone: it may not be looked at

	takers []int // pids of the processes that took the locks it has
}

// FromRecord and FromKernel are where a Holder is known from: the record that it
// wrote, or the kernel's own view in /proc.
const FromRecord, FromKernel = "record", "kernel"

// A View is what can be seen of a lock at one moment, without touching it: the
// one answer to "who holds it?" for a refusal, a wait and a status.
type View struct {
	Place
	System   FileSystem // where the lock lies
	Holders  []Holder   // the one that the record describes first
	Killed   *Record    // the run whose dcelock ended without a release, while what it started goes on
	Recorded *Record    // the record as it was read, whatever it is worth; nil when there is none
	Problem  error      // why a record that is there cannot be used
	Replaced bool       // the holders of the folder hold no lock on the file that is at its path now
	Waiters  []Holder   // processes that wait for the folder's or the file's lock; of a close look only
	Complete bool       // the kernel shows this process every holder that there is; of a close look only
}

// Look gives the view of a lock: all processes that hold the folder's or the
// file's lock, each once, but this one and those that only wait, and the record
// laid over them. It looks for holders of more files as well: the one that this
// process asked for may be at its path no more.
func Look(at Place, closely bool, more ...File) *View {
	v := &View{Place: at, System: FileSystemAt(filepath.Dir(at.Lock) + "/.")}
	files := append(at.files(), more...)
	folder, file := files[0], files[1]
	locks, opens, hidden := map[int][]kernelLock{}, map[int]bool{}, map[int]bool{}
	var held, inDoubt, onFile, elsewhere bool
	pids := processes()
	for _, pid := range pids {
		all, err := descriptors(pid)
		hidden[pid] = errors.Is(err, fs.ErrPermission)
		if locks[pid], opens[pid] = locksOn(files, all); len(locks[pid]) == 0 {
			continue
		}
		held = true
		for _, d := range all {
			switch _, locked := d.lock(); {
			case d.file == file:
				// Who has the folder's lock and asks for the file's is one who waits.
				inDoubt, onFile = inDoubt || !locked, true
			case locked && d.file != folder:
				elsewhere = true
			}
		}
	}
	var list []kernelLock
	if closely || inDoubt || !held {
		list, v.Complete = at.listed()
		// /proc has to show every process of the host.
		all := Self().PIDNamespace == firstPIDNamespace && procIsOurs()
		v.Complete = v.Complete && all && v.System.Type != "" && !SharedType(v.System.Type)
	}
	for _, pid := range pids {
		var waits, took bool
		for _, l := range list {
			// Who waits for the file may have the folder, and waits all the same;
			// who has what it waits for holds up itself and everybody else.
			itself := slices.ContainsFunc(locks[pid], func(own kernelLock) bool { return own.file == l.file })
			waits = waits || l.pid == pid && l.waits && !itself
			took = took || l.pid == pid && !l.waits
		}
		switch unseen := hidden[pid] && took; {
		case waits && (hidden[pid] || opens[pid]):
			v.Waiters = append(v.Waiters, describe(pid))
		case unseen || len(locks[pid]) > 0:
			h := describe(pid)
			h.Shown, h.Unseen = true, unseen
			for _, l := range locks[pid] {
				h.takers = append(h.takers, l.pid)
			}
			v.Holders = append(v.Holders, h)
		}
	}
	// Who was first is the run, the others what it has started.
	slices.SortStableFunc(v.Holders, func(a, b Holder) int { return cmp.Compare(a.StartTicks, b.StartTicks) })
	v.Replaced = elsewhere && !onFile && len(v.Holders) > 0
	v.layRecord()
	return v
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
	switch i := slices.IndexFunc(v.Holders, func(h Holder) bool { return h.PID == record.PID }); {
	case recorded.State == NotRunning:
		if len(v.TakenBy(record.PID)) > 0 {
			v.Killed = v.Recorded
		}
		return
	case recorded.State == CannotTell:
		// A copy's is left out; the device is each host's own on a network file system.
		file, exists := FileAt(v.Lock)
		if exists && record.LockID != "" && !strings.HasSuffix(record.LockID, fmt.Sprintf(":%d", file.Inode)) {
			return
		}
	case i >= 0:
		recorded.Shown, recorded.Unseen, recorded.takers = true, v.Holders[i].Unseen, v.Holders[i].takers
		v.Holders = slices.Delete(v.Holders, i, i+1)
	case slices.ContainsFunc(v.Holders, func(h Holder) bool {
		above, _ := Ancestors(h.PID)
		return slices.Contains(above, record.PID)
	}):
	case len(v.Holders) > 0:
		return // others hold it
	default:
		_, hidden := descriptors(record.PID)
		if recorded.Shown = record.Viewed(v.System.Type); hidden == nil && !recorded.Shown {
			return // it is seen to hold nothing
		}
	}
	v.Holders = slices.Insert(v.Holders, 0, recorded)
}

// Viewed tells whether the recorded process is proven to run and may hold the lock by
// another view of the same files, which has locks of its own (bindfs, mergerfs, sshfs
// beside the folder itself); system is the type of the file system from here.
func (r Record) Viewed(system string) bool {
	return (SharedType(r.FS) || SharedType(system)) && r.PID != os.Getpid() && r.Proven()
}

// TakenBy are the holders of a lock that a process took.
func (v *View) TakenBy(pid int) []Holder {
	return slices.DeleteFunc(slices.Clone(v.Holders), func(h Holder) bool { return !slices.Contains(h.takers, pid) })
}
