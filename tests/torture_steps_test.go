package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A scenario is a run of dcelock that is stopped at every system call from the
// first that touches the archive root to its end.
type scenario struct {
	name  string
	flags []string
	// What has the lock when the run begins; nil where nobody has.
	holder func(*steps)
	waits  bool // the holder ends when the run waits for it; else it stays
	status bool // not a run, but a look at the lock

	removed bool // the holder's lock file and record are removed
}

var scenarios = []scenario{
	{name: "free lock"},
	{name: "close", flags: []string{"--close"}},
	{name: "dead run's record", holder: func(s *steps) {
		// What a run leaves that was killed while it wrote its record.
		s.create(s.meta, deadRecord+"cmd=x\n")
		s.create(s.meta+".tmp", deadRecord)
	}},
	{name: "wait", flags: []string{"--wait=forever"}, holder: (*steps).hold, waits: true},
	{name: "held lock", holder: (*steps).hold},
	{name: "removed lock", holder: (*steps).holdRemoved, removed: true},
	{name: "status of a held lock", holder: (*steps).hold, status: true},
	{name: "status of a removed lock", holder: (*steps).holdRemoved, removed: true, status: true},
}

const deadRecord = "pid=2147483646\nstarted=2026-06-04T06:39:46Z\n"

// TestTortureSteps injects each fault at each step of taking, holding and
// releasing the lock; in the short form, a few faults at a few steps.
func TestTortureSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes its time")
	}
	f := formOf(t)
	random := rand.New(rand.NewPCG(f.seed, 1<<32))
	count := newTally()
	numbers := map[uint64]bool{}
	begin := time.Now()
	steps, possible := 0, 0
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			s := newSteps(t, sc, f.seed, uint64(1<<32+i), count)
			s.numbers = numbers
			// The first run is without a fault, and counts the steps.
			s.trial(-1, stepFault{})
			if s.t.Failed() {
				return
			}
			length := s.step
			steps += length
			type pair struct {
				step  int
				fault stepFault
			}
			var pairs []pair
			for step := range length {
				for _, fault := range stepFaults() {
					pairs = append(pairs, pair{step, fault})
				}
			}
			all := len(pairs)
			random.Shuffle(all, func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
			if f.long {
				pairs = pairs[:min(all, 15*f.rounds)]
			} else {
				pairs = pairs[:5]
			}
			// Where the kernel's list of locks is read, which it gives in
			// pieces, what changes it is always injected.
			for _, step := range s.reads {
				if !f.long && !sc.removed {
					break
				}
				pairs = append(pairs, pair{step, otherLocks})
			}
			for _, p := range pairs {
				s.trial(p.step, p.fault)
			}
			t.Logf("%d steps, %d faults injected, of %d that are possible", length, len(pairs), all)
			possible += all
			if s.failed > 0 {
				t.Errorf("SEED=%d: %d of %d trials failed", f.seed, s.failed, len(pairs))
			}
		})
	}
	if f.thorough() && !t.Failed() {
		for _, fault := range stepFaults() {
			if count.sum("step: "+fault.name) == 0 {
				t.Errorf("never injected: %s", fault.name)
			}
		}
	}
	t.Logf("what happened:\n%v", count)
	t.Logf("SEED=%d: %d scenarios in %v, %d steps of %d different system calls, %d of %d possible faults injected (%d not reached), %d violations", f.seed, len(scenarios),
		time.Since(begin).Round(time.Second), steps, len(numbers), count.sum("step: "), possible, count.sum("not reached"), count.sum("violation"))
}

// steps is a contest of one scenario: one traced run, and what comes by.
type steps struct {
	*contest
	scenario
	numbers map[uint64]bool // of the system calls that were seen
	reads   []int           // the steps that read the kernel's list of locks
	failed  int             // trials

	// Of one trial:
	step       int // counts the steps of the traced run
	tracer     *tracer
	held       *process // what has the lock from the start
	visitor    *process
	began      bool // the visitor got the lock while the traced run stood still
	neighbours []int
}

func newSteps(t *testing.T, sc scenario, seed, number uint64, count *tally) *steps {
	t.Helper()
	return &steps{contest: newContest(t, mix{name: sc.name}, seed, number, count), scenario: sc}
}

// The ids of the commands.
const (
	idTraced = iota
	idHolder
	idVisitor
)

// own is the traced command's exit status.
const own = 42

func (s *steps) run(id int, long string, flags ...string) call {
	check := checkBothFD
	if slices.Contains(flags, "--close") {
		check = checkNoFD
	}
	c := s.dcelock(append(append(flags, "--"), s.command, s.folder, s.lock, fmt.Sprint(id), long, fmt.Sprint(own), check)...)
	c.env = tortureEnv(s.mark, id)
	return c
}

// hold starts a run that has the lock.
func (s *steps) hold() {
	s.held = s.run(idHolder, "told").start(s.t)
	s.held.sees("ready")
}

// holdRemoved starts a run whose lock file and record are then removed.
func (s *steps) holdRemoved() {
	s.hold()
	os.Remove(s.lock)
	os.Remove(s.meta)
}

// trial runs the scenario and injects the fault at a step.
func (s *steps) trial(step int, f stepFault) {
	os.Truncate(s.folder+"/log", 0)
	s.step, s.held, s.visitor, s.began = 0, nil, nil, false
	s.events, s.violations = nil, nil
	if s.holder != nil {
		s.holder(s)
	}
	if f.locks {
		s.lockNeighbours()
	}
	stderr := create(s.t, s.folder+"/err")
	defer stderr.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.t.Fatal(err)
	}
	defer null.Close()
	begun, injected := false, false
	var walk walk
	reading := false
	s.tracer = &tracer{}
	s.tracer.enter = func(call systemCall) {
		begun = begun || strings.HasPrefix(call.path, s.root)
		if !begun || call.isQuiet() || walk.tires(call) {
			return
		}
		if s.waits && call.isWait() {
			s.held.end()
			if s.visitor != nil {
				s.visitor.end()
			}
		}
		reading = call.path == "/proc/locks" || reading && call.number != unix.SYS_CLOSE
		if reading && call.number == unix.SYS_READ && step < 0 {
			s.reads = append(s.reads, s.step)
		}
		if s.numbers[call.number] = true; s.step == step {
			s.event("step %d, system call %d %s: %s", step, call.number, call.path, f.name)
			injected = true
			// On another thread, as this one's children are traced ones.
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.inject(f)
			}()
			<-done
		}
		s.step++
	}
	traced := s.run(idTraced, "0", s.flags...)
	if s.status {
		traced.argv = []string{binary, "--status"}
	}
	s.tracer.run(traced.argv, append(os.Environ(), traced.env...), traced.dir, []*os.File{null, stderr, stderr})
	if s.tracer.err != nil {
		s.t.Skipf("skipped: cannot trace a process: %v", s.tracer.err)
	}
	if step >= 0 && !injected {
		s.count.add("not reached", 1)
	} else if step >= 0 {
		s.count.add("step: "+f.name, 1)
	}
	s.unlockNeighbours()
	s.check(f)
	if len(s.violations) > 0 {
		s.failed++
		if s.failed <= 10 {
			s.t.Errorf("at step %d, %s:\n%s\nhistory:\n%s\nthe traced run printed:\n%s", step, f.name, strings.Join(s.violations, "\n"),
				strings.Join(s.history(), "\n"), slurp(s.t, stderr.Name()))
		}
	}
}
