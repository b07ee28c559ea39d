package tests

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A form of the torture test: the short one is part of every test run; `make
// torture` sets ROUNDS, and runs the long one.
type form struct {
	seed   uint64
	rounds int
	long   bool
}

func formOf(t *testing.T) form {
	t.Helper()
	f := form{seed: uint64(time.Now().UnixNano()), rounds: 1}
	if text := os.Getenv("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED: %v", err)
		}
		f.seed = seed
	}
	if text := os.Getenv("ROUNDS"); text != "" {
		rounds, err := strconv.Atoi(text)
		if err != nil || rounds < 1 {
			t.Fatalf("ROUNDS=%s is not a number of rounds", text)
		}
		f.rounds, f.long = rounds, true
	}
	t.Logf("SEED=%d", f.seed)
	return f
}

// thorough tells whether a run is long enough for everything to have happened.
func (f form) thorough() bool { return f.long && f.rounds >= 8 }

// Many contenders of all kinds meet on a few archive roots, while faults are
// injected at random moments.
func TestTorture(t *testing.T) {
	f := formOf(t)
	count := newTally()
	begin := time.Now()
	able := mixes
	if os.Geteuid() != 0 {
		t.Log("skipped: full disks and other users, which need root")
		able = nil
		for _, m := range mixes {
			if !m.needsRoot() {
				able = append(able, m)
			}
		}
	}
	contenders := 12
	if f.long {
		contenders = 40
	}
	for round := range f.rounds {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			var contests []*contest
			if round%2 == 1 || !f.long {
				defer startNoise(t).end()
			}
			var playing sync.WaitGroup
			for i, m := range able {
				c := newContest(t, m, f.seed, uint64(round*len(mixes)+i), count)
				contests = append(contests, c)
				playing.Go(func() {
					c.play(contenders)
					c.finish()
				})
			}
			playing.Wait()
			for _, c := range contests {
				c.report(f.seed)
			}
		})
	}
	if f.thorough() {
		allHappened(t, able, count)
	}
	t.Logf("what happened:\n%v", count)
	t.Logf("SEED=%d: %d rounds in %v, %d runs, %d commands, %d refused, %d kills, %d removals, %d other faults, %d probes, %d violations", f.seed,
		f.rounds, time.Since(begin).Round(time.Second), count.sum("run:"), count.sum("command"), count.sum("refused"), count.sum("kill:"),
		count.sum("fault: remove")+count.sum("fault: replace")+count.sum("fault: move"),
		count.sum("fault: fill")+count.sum("fault: chmod")+count.sum("fault: spoil"), count.sum("probe:"), count.sum("violation"))
}

// allHappened fails the test unless each fault was injected, each kind of process
// killed, and each kind of contender started.
func allHappened(t *testing.T, able []mix, count *tally) {
	var wants []string
	for _, m := range able {
		for _, f := range m.faults {
			if f.name != "" {
				wants = append(wants, "fault: "+f.name)
			}
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		for _, role := range []string{roleWrapper, roleWaiter, roleCommand} {
			wants = append(wants, fmt.Sprintf("kill: %v to a %s", sig, role))
		}
	}
	for _, kind := range slices.Concat(dcelocks, others) {
		wants = append(wants, "run: "+kind)
	}
	for _, what := range wants {
		if count.sum(what) == 0 {
			t.Errorf("never happened: %s", what)
		}
	}
}
