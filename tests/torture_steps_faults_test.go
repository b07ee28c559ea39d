package tests

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A step fault is what happens while the run stands still.
type stepFault struct {
	name    string
	signal  syscall.Signal // to the run
	files   *fault
	visitor string // another run that comes by, after what happened to the files
	after   *fault // what happens to the files behind the visitor
	locks   bool   // other files' locks are given back
}

// The visitors.
const (
	passes = "a run passes" // to its end
	stays  = "a run stays"  // if it gets the lock, until the first one waits or ends
	queues = "a run waits"
	probes = "flock -n"
)

// otherLocks is the fault that makes the kernel's list of locks a shorter one.
var otherLocks = stepFault{name: "other files are unlocked", locks: true}

// stepFaults are all of them.
func stepFaults() (all []stepFault) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		all = append(all, stepFault{name: unix.SignalName(sig), signal: sig})
	}
	for _, visitor := range []string{passes, stays, queues, probes} {
		all = append(all, stepFault{name: visitor, visitor: visitor})
	}
	for _, files := range []*fault{&removeLock, &replaceLock, &moveLock, &removeRecord, &removeBoth, &moveBoth} {
		all = append(all, stepFault{name: files.name, files: files})
		for _, visitor := range []string{passes, stays, queues} {
			all = append(all, stepFault{name: files.name + ", " + visitor, files: files, visitor: visitor})
		}
	}
	for _, files := range []*fault{&removeLock, &replaceLock, &moveLock} {
		all = append(all, stepFault{name: files.name + ", a run stays, " + removeRecord.name, files: files, visitor: stays, after: &removeRecord})
	}
	return append(all, otherLocks)
}

// inject makes the fault happen; the traced run stands still meanwhile.
func (s *steps) inject(f stepFault) {
	if f.signal != 0 {
		if err := unix.Kill(s.tracer.pid, f.signal); err != nil {
			s.violated("kill: %v", err)
		}
	}
	if f.files != nil && f.files.inject(s.contest) {
		s.count.add("fault: "+f.files.name, 1)
	}
	if f.locks {
		s.unlockNeighbours()
	}
	if f.visitor != "" {
		s.visit(f.visitor, f.files != nil && f.files != &removeRecord)
	}
	if f.after != nil && f.after.inject(s.contest) {
		s.count.add("fault: "+f.after.name, 1)
	}
}

// visit lets another run come by, and checks that it gets the lock if, and only
// if, nobody has it.
func (s *steps) visit(visitor string, removed bool) {
	look := s.lockHolders
	if visitor == probes {
		look = s.fileHolders // flock(1) knows of no folder
	}
	before := look()
	r := result{}
	switch visitor {
	case probes:
		r = call{argv: []string{"flock", "-n", "-E1", s.lock, "true"}}.run(s.t)
		s.began = r.status == 0
	case passes:
		r = s.run(idVisitor, "0").run(s.t)
		s.began = r.status == own
	case stays:
		s.visitor = s.run(idVisitor, "told").start(s.t)
	case queues:
		s.visitor = s.run(idVisitor, "0", "--wait=forever").start(s.t)
		s.visitor.end()
	}
	if s.visitor != nil {
		if !eventually(func() bool {
			select {
			case <-s.visitor.done:
				return true
			default:
				return s.visitor.stdout() != "" || strings.Contains(s.visitor.stderr(), "waiting until")
			}
		}) {
			s.violated("the other run does not begin, wait or end:\n%s", s.visitor.stderr())
			return
		}
		r = result{stdout: s.visitor.stdout(), stderr: s.visitor.stderr()}
		s.began = strings.Contains(slurp(s.t, s.folder+"/log"), fmt.Sprintf(" begin %d ", idVisitor))
	}
	after := look()
	s.event("the other run: %s, got the lock: %v, holders %v", visitor, s.began, before)
	wants := len(before) == 0
	switch {
	case fmt.Sprint(before) != fmt.Sprint(after): // a holder has ended, or a thread that does not stand still was given the lock
		s.count.add("undecided, as the lock changed hands meanwhile", 1)
	case visitor == probes && (removed || s.removed):
	case s.began != wants:
		s.violated("the other run got the lock: %v, though the holders are %v: %s", s.began, before, r.stderr)
	case !s.began && (visitor == passes || visitor == stays) && !slices.ContainsFunc(before, func(pid int) bool {
		return strings.Contains(r.stderr, fmt.Sprintf("Holder pid %d (", pid))
	}):
		s.violated("the refusal names none of pids %v: %s", before, r.stderr)
	}
	if s.began {
		s.count.add("visitor: let in", 1)
	} else {
		s.count.add("visitor: kept out", 1)
	}
}

// lockHolders are the runs that hold the folder's or the file's lock, and
// fileHolders those that hold the file's, or that of one that was there before,
// by the kernel's view of their descriptors: pids, sorted, without the visitor's.
func (s *steps) lockHolders() []int { return s.holders(true) }
func (s *steps) fileHolders() []int { return s.holders(false) }

func (s *steps) holders(folders bool) (pids []int) {
	for _, p := range processes(s.mark) {
		if p.contender == idVisitor {
			continue
		}
		folder := fmt.Sprintf("/proc/%d/", p.pid)
		entries, _ := os.ReadDir(folder + "fd")
		for _, entry := range entries {
			link, _ := os.Readlink(folder + "fd/" + entry.Name())
			info, _ := os.ReadFile(folder + "fdinfo/" + entry.Name())
			if (strings.HasPrefix(link, s.lock) || folders && link == s.root) && strings.Contains(string(info), "FLOCK") && !strings.Contains(string(info), "->") && !slices.Contains(pids, p.pid) {
				pids = append(pids, p.pid)
			}
		}
	}
	slices.Sort(pids)
	return pids
}

// lockNeighbours locks many files of another file system, which the kernel then
// lists before the locks that are there already, whichever processor's list
// those are on; it may be that the list is longer than what one read(2) gives.
func (s *steps) lockNeighbours() {
	folder, err := os.MkdirTemp("/dev/shm", "dcelock-neighbours-")
	if err != nil {
		folder = s.t.TempDir() // then of the same one
	}
	defer os.RemoveAll(folder) // the files live on with their descriptors
	runtime.LockOSThread()
	var old, one unix.CPUSet
	_ = unix.SchedGetaffinity(0, &old)
	for cpu := range runtime.NumCPU() {
		one.Zero()
		one.Set(cpu)
		_ = unix.SchedSetaffinity(0, &one)
		for n := range 30 {
			fd, err := unix.Open(fmt.Sprintf("%s/%d.%d", folder, cpu, n), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if err != nil {
				continue
			}
			_ = unix.Flock(fd, unix.LOCK_EX)
			s.neighbours = append(s.neighbours, fd)
		}
	}
	_ = unix.SchedSetaffinity(0, &old)
	runtime.UnlockOSThread()
}

func (s *steps) unlockNeighbours() {
	for _, fd := range s.neighbours {
		_ = unix.Flock(fd, unix.LOCK_UN) // whoever has a copy, just forked
		unix.Close(fd)
	}
	s.neighbours = nil
}
