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
type Place struct{ Folder, Lock string }

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

// FromRecord and FromKernel are where a Holder is known from.
const FromRecord, FromKernel = "record", "kernel"

// A View is what can be seen of a lock at one moment, untouched: the one answer to "who holds it?".
type View struct {
	Place
	System   FileSystem // where the lock lies
	Holders  []Holder   // the one that the record describes first
	Killed   *Record    // the run whose dcelock ended without a release, while what it started goes on
	Recorded *Record    // the record as it was read, whatever it is worth; nil when there is none
	Problem  string     // why a record that is there cannot be used
	Replaced bool       // the holders of the folder hold no lock on the file that is at its path now
	Waiters  []Holder   // processes that wait for the folder's or the file's lock; of a close look only
	Complete bool       // the kernel shows this process every holder that there is; of a close look only
}

// Look views a lock: all other processes that hold the lock of the folder, the file or more files
// (what was asked for may be at its path no more), each once, with the record laid over them.
func Look(at Place, closely bool, more ...File) *View {
	v := &View{Place: at, System: FileSystemAt(filepath.Dir(at.Lock) + "/.")}
	files := append(at.files(), more...)
	var list []kernelLock
	if closely {
		list, v.Complete = at.listed()
		// In the first PID namespace, which has this inode, /proc shows every process of the host.
		v.Complete = v.Complete && Self().PIDNamespace == 0xEFFFFFFC && v.System.Type != "" && !SharedType(v.System.Type)
	}
	var inDoubt, onFile, elsewhere bool
	for _, pid := range processes() {
		all, err := descriptors(pid)
		locks, opens := locksOn(files, all)
		var waits, took bool
		for _, l := range list {
			// Who waits for the file may have the folder, and waits all the same;
			// who has what it waits for holds up itself and everybody else.
			itself := slices.ContainsFunc(locks, func(own kernelLock) bool { return own.file == l.file })
			waits = waits || l.pid == pid && l.waits && !itself
			took = took || l.pid == pid && !l.waits
		}
		hidden := errors.Is(err, fs.ErrPermission)
		switch unseen := hidden && took; {
		case waits && (hidden || opens):
			v.Waiters = append(v.Waiters, describe(pid))
		case unseen || len(locks) > 0:
			h := describe(pid)
			h.Shown, h.Unseen = true, unseen
			for _, l := range locks {
				h.takers = append(h.takers, l.pid)
			}
			v.Holders = append(v.Holders, h)
			for _, d := range all {
				_, locked := d.lock()
				// Who has the folder's lock and asks for the file's is one who waits.
				inDoubt = inDoubt || d.file == files[1] && !locked
				onFile = onFile || d.file == files[1]
				elsewhere = elsewhere || locked && !slices.Contains(files[:2], d.file)
			}
		}
	}
	// One that took a lock has ended, or may not be seen.
	v.Complete = v.Complete && (len(list) == 0 || len(v.Holders) > 0)
	if !closely && (inDoubt || len(v.Holders) == 0) {
		return Look(at, true, more...)
	}
	// Who was first is the run, the others what it has started.
	slices.SortStableFunc(v.Holders, func(a, b Holder) int { return cmp.Compare(a.StartTicks, b.StartTicks) })
	// Not if a holder has just made the file that is there now.
	v.Replaced = elsewhere && !onFile && slices.Equal(at.files(), files[:2])
	v.layRecord()
	return v
}

// layRecord lays the record over the holders: on one that is its process or below that (a script's
// subshell), or beside them for a dcelock that was killed. A former run's or a copy's is left out.
func (v *View) layRecord() {
	record, err := Read(v.Place.Record())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.Problem = err.Error()
		}
		return
	}
	v.Recorded = &record
	recorded := Holder{Record: record, State: record.State(), Source: FromRecord}
	switch i := slices.IndexFunc(v.Holders, func(h Holder) bool { return h.PID == record.PID }); {
	case recorded.State == NotRunning:
		if v.LeftBy(record.PID) != "" {
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

// Viewed tells whether the recorded process is proven to run, has locks, and may hold this one by
// another view of the files with locks of its own (bindfs, mergerfs); system is the type here.
func (r Record) Viewed(system string) bool {
	if !SharedType(r.FS) && !SharedType(system) || r.PID == os.Getpid() || !r.Proven() {
		return false
	}
	all, err := descriptors(r.PID)
	return err != nil || slices.ContainsFunc(all, func(d descriptor) bool { _, locked := d.lock(); return locked })
}

// LeftBy names the holders of a lock that a process took, "" for none.
func (v *View) LeftBy(pid int) (names string) {
	for _, h := range v.Holders {
		if slices.Contains(h.takers, pid) {
			names += fmt.Sprintf(", pid %d (%s)", h.PID, h.Command)
		}
	}
	return strings.TrimPrefix(names, ", ")
}
