package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWaitGetsTheLock(t *testing.T) {
	for _, flags := range [][]string{{"-w", "60"}, {"--wait", "1m"}, {"--timeout=0.5h"}, {"--wait=forever"}, nil} {
		s := newArchive(t)
		holder := s.hold()
		c := s.dcelock(append(flags, "--", "bash", "-c", `echo begun; grep ^pid= "$DCE_SCRAPE_LOCK_HELD.meta"; exit 4`)...)
		if flags == nil {
			c.env = []string{"DCE_SCRAPE_LOCK_WAIT=90s"}
		}
		p := c.start(t)
		waits(t, p)
		if !eventually(func() bool { return strings.Contains(p.stderr(), "waiting until it ends") }) {
			t.Fatalf("says nothing: %s", p.stderr())
		}
		if p.stdout() != "" {
			t.Error("the command runs while the lock is held")
		}
		holder.end()
		r := p.wait()
		r.wants(t, 4, fmt.Sprintf("Another scrape is already running (lock: %s); waiting until it ends", s.lock),
			fmt.Sprintf("Holder pid %d (running", holder.cmd.Process.Pid), "took the lock after waiting for ")
		if want := fmt.Sprintf("begun\npid=%d\n", p.cmd.Process.Pid); r.stdout != want {
			t.Errorf("printed %q, want %q", r.stdout, want)
		}
		s.free()
	}
}

// When the time is up, the refusal names the holder as it is then.
func TestWaitRunsOut(t *testing.T) {
	s := newArchive(t)
	first := s.hold()
	c := s.dcelock("-w", "2.5", "-E", "75", "--", "touch", "ran")
	begin := time.Now()
	p := c.start(t)
	if !eventually(func() bool {
		return strings.Contains(p.stderr(), fmt.Sprintf("Holder pid %d (running", first.cmd.Process.Pid))
	}) {
		t.Fatalf("does not say for whom it waits: %s", p.stderr())
	}
	// Its wrapper is killed, and the command holds the lock on.
	first.cmd.Process.Kill()
	<-first.done
	r := p.wait()
	if took := time.Since(begin); took < 2500*time.Millisecond {
		t.Errorf("waited %v", took)
	}
	r.wants(t, 75, "at most 2.5s", "dcelock: Another scrape is already running (lock: "+s.lock+")\n", wasKilled(first.cmd.Process.Pid), "gave up after waiting for 2.5s\n")
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

func TestWaitValues(t *testing.T) {
	s := newArchive(t)
	for _, value := range []string{"-1", "-1s", "x", "", "1e400", "NaN", "Inf", "-Inf", "9223372037", "1e10", "300000000h", "1 s", "forever!", "0x"} {
		s.dcelock("--wait="+value, "--", "touch", "ran").run(t).wants(t, 64, "--wait")
		c := s.dcelock("--", "touch", "ran")
		c.env = []string{"DCE_SCRAPE_LOCK_WAIT=" + value}
		if value != "" {
			c.run(t).wants(t, 64, "DCE_SCRAPE_LOCK_WAIT")
		}
	}
	s.dcelock("-n", "-w", "5", "--", "touch", "ran").run(t).wants(t, 64, "--nonblock", "--wait")
	if exists(s.a+"/ran") || exists(s.lock) {
		t.Error("the command ran, or a lock was made")
	}
	s.hold()
	for _, flags := range [][]string{{"-w", "0"}, {"-w", "0s"}, {"-w", "0.0"}, {"-n"}} {
		c := s.dcelock(append(flags, "--", "touch", "ran")...)
		c.env = []string{"DCE_SCRAPE_LOCK_WAIT=1h"}
		if r := c.run(t); r.status != 1 || strings.Contains(r.stderr, "waiting") {
			t.Errorf("%v: %+v", flags, r)
		}
	}
}

func TestQuietWait(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	p := s.dcelock("-q", "-w", "60", "--", "true").start(t)
	waits(t, p)
	holder.end()
	if r := p.wait(); r.status != 0 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

// On a terminal a line counts the time, and is gone in the end.
func TestWaitOnATerminal(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	term := s.dcelock("-w", "60", "--", "echo", "the command runs").onTerminal(t)
	of := fmt.Sprintf(" of 1m for pid %d", holder.cmd.Process.Pid)
	term.sees("dcelock: waiting 1s"+of, 1)
	term.sees("dcelock: waiting 2s"+of, 1)
	holder.end()
	term.wait()
	if !regexp.MustCompile(`waiting \d+s` + of + `\r\x1b\[Kdcelock: took the lock after waiting for [\d.]+m?s\r\nthe command runs\r\n$`).MatchString(term.text()) {
		t.Errorf("%q", term.text())
	}
}

// A signal ends the wait at once, in its usual way, and leaves nothing behind.
func TestSignalsEndTheWait(t *testing.T) {
	s := newArchive(t)
	s.hold()
	record := slurp(t, s.meta)
	for _, sig := range passedOn {
		p := s.dcelock("-w", "forever", "--", "touch", "ran").start(t)
		waits(t, p)
		p.cmd.Process.Signal(sig)
		if r := p.wait(); r.signal != sig || strings.Contains(r.stderr, "goroutine") {
			t.Errorf("%v: %+v", sig, r)
		}
	}
	if exists(s.a+"/ran") || slurp(t, s.meta) != record {
		t.Error("the command ran, or the record was changed")
	}
	if left, _ := filepath.Glob(s.root + "/.*"); len(left) != 2 {
		t.Errorf("files are left: %v", left)
	}
}

// Many waiters, one lock: each runs once, alone, and a killed one harms nobody.
func TestManyWaiters(t *testing.T) {
	many := 300
	if testing.Short() {
		many = 60
	}
	s := newArchive(t)
	holder := s.hold()
	command := append([]string{"-q", "-w", "forever", "--"}, s.alone()...)
	command[len(command)-2] = `echo "$PPID" >>"$0.log"; ` + command[len(command)-2]
	var waiters []*process
	for range many {
		waiters = append(waiters, s.dcelock(command...).start(t))
	}
	var killed []int
	for i, p := range waiters {
		waits(t, p)
		if i%10 == 0 {
			p.cmd.Process.Kill()
			killed = append(killed, i)
		}
	}
	holder.end()
	for i, p := range waiters {
		r := p.wait()
		if slices.Contains(killed, i) != (r.signal == syscall.SIGKILL) || r.signal == 0 && r.status != 0 {
			t.Errorf("waiter %d: %+v", i, r)
		}
	}
	ran := strings.Fields(slurp(t, s.b+"/alone.log"))
	slices.Sort(ran)
	if n := len(ran); n != many-len(killed) || len(slices.Compact(ran)) != n {
		t.Errorf("%d runs of %d waiters", n, many-len(killed))
	}
	s.free()
}

// A waiter gets the lock though others pass it on among them without an end.
func TestNoWaiterStarves(t *testing.T) {
	s := newArchive(t)
	for _, again := range []string{`"$0" -q -w forever -- true`, `"$0" -q -w forever -- true`, `flock "$1" true`, `flock "$1" true`} {
		loop := call{argv: []string{"bash", "-c", "echo ready; while ! test -e stop; do " + again + "; done", binary, s.lock}, dir: s.a}.start(t)
		loop.sees("ready")
		t.Cleanup(func() { write(t, s.a+"/stop", "") })
	}
	for range 10 {
		s.dcelock("-w", "forever", "--", "true").run(t).wants(t, 0)
	}
}

// In a log there is one line when another run has the lock, not one a second.
func TestHolderChangesWhileWaiting(t *testing.T) {
	s := newArchive(t)
	first := s.hold()
	second := s.dcelock("-q", "-w", "60", "--", "bash", "-c", "echo ready; read -r _; exit 0").start(t)
	waits(t, second)
	waiter := s.dcelock("-w", "60", "--", "true").start(t)
	waits(t, waiter)
	if !eventually(func() bool {
		return strings.Contains(waiter.stderr(), fmt.Sprintf("Holder pid %d (running", first.cmd.Process.Pid))
	}) {
		t.Fatalf("does not say for whom it waits:\n%s", waiter.stderr())
	}
	// Stopped, so that it is not the one which gets the lock.
	waiter.cmd.Process.Signal(syscall.SIGSTOP)
	first.end()
	second.sees("ready")
	waiter.cmd.Process.Signal(syscall.SIGCONT)
	named := fmt.Sprintf("dcelock: Holder pid %d (running, started ", second.cmd.Process.Pid)
	if !eventually(func() bool { return strings.Contains(waiter.stderr(), named) }) {
		t.Fatalf("the new holder is not named:\n%s", waiter.stderr())
	}
	begin := time.Now()
	if !eventually(func() bool { return time.Since(begin) > 2500*time.Millisecond }) { // is it said again?
		t.Fatal("no time has passed")
	}
	second.end()
	r := waiter.wait()
	r.wants(t, 0, "took the lock after waiting for ")
	said := map[string]int{}
	for line := range strings.Lines(r.stderr) {
		if name, _, ok := strings.Cut(line, " (running"); ok {
			said[name]++
		}
	}
	for name, times := range said {
		if times != 1 {
			t.Errorf("%s is named %d times:\n%s", name, times, r.stderr)
		}
	}
}

// Waiters for a lock file that is removed under its holder go over to the new
// one, and nobody runs beside the holder.
func TestWaitersSurviveRemoval(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	var waiters []*process
	for i := range 6 {
		p := s.dcelock(append([]string{"-w", "forever", "--"}, s.alone()...)...).start(t)
		waiters = append(waiters, p)
		if i < 3 {
			waits(t, p)
		} else if !eventually(func() bool { return strings.Contains(p.stderr(), "waiting until it ends") }) {
			t.Fatalf("does not wait: %s", p.stderr())
		}
		if i == 2 {
			os.Remove(s.lock)
		}
		if i == 4 {
			os.Remove(s.lock)
			os.Remove(s.meta)
		}
	}
	os.Mkdir(s.b+"/alone", 0o755) // as if the holder's command were one of them
	for _, p := range waiters {
		select {
		case <-p.done:
			t.Errorf("ran beside the holder: %+v", p.wait())
		default:
		}
	}
	os.Remove(s.b + "/alone")
	holder.end()
	for _, p := range waiters {
		if r := p.wait(); r.status != 0 {
			t.Errorf("%+v", r)
		}
	}
	s.free()
}

// A script that takes and releases the lock to see whether it can makes no run fail,
// unless it has had the lock for a tenth of a second, as it may where it is not given
// the processor; and a real holder is reported all the same.
func TestMomentaryHolders(t *testing.T) {
	for name, probe := range map[string]string{
		"flock -n FILE":      `while :; do flock -n "$0" true; test -e "$0.stop" && exit; done`,
		"its own descriptor": `while :; do exec 9>>"$0"; flock -n 9; exec 9>&-; test -e "$0.stop" && exit; done`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			prober := call{argv: []string{"bash", "-c", "echo ready; " + probe, s.lock}}.start(t)
			prober.sees("ready")
			for range 100 {
				begin := time.Now()
				if r := s.dcelock("--", "true").run(t); r.status != 0 && time.Since(begin) < 100*time.Millisecond {
					t.Errorf("%+v", r)
				}
			}
			s.hold("-w", "forever")
			s.dcelock("--", "true").run(t).wants(t, 1, "Holder pid ")
			write(t, s.lock+".stop", "")
			prober.wait()
		})
	}
}
