package meta

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 815204 23\n"
	for line, want := range map[string]stat{
		"4242 (bash) S 17" + rest:           {'S', 17, 16, 815204},
		"4242 (a) S 9 9 9 (b)) Z 17" + rest: {'Z', 17, 16, 815204},
		"4242 ( \n) ) R 17" + rest:          {'R', 17, 16, 815204},
		"":                                  {}, ")": {}, "4242": {}, "4242 (bash) S 17": {},
	} {
		if got := parseStat(line); got != want {
			t.Errorf("parseStat(%q) = %+v", line, got)
		}
	}
}

// The processes are real ones; what is varied is what was recorded of them.
func TestState(t *testing.T) {
	self := Self()
	if self.PID != os.Getpid() || self.Host == "" || self.BootID == "" || self.StartTicks == 0 || self.PIDNamespace == 0 {
		t.Fatalf("Self() = %+v", self)
	}
	child := func() *exec.Cmd { // reads its standard input until it is closed
		cmd := exec.Command("cat")
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	living, dead := child(), child()
	defer living.Wait()
	defer living.Process.Kill()
	dead.Process.Kill()
	dead.Wait()
	alive := self
	alive.PID = living.Process.Pid
	if s := readStat(self.PID); s.parent != os.Getppid() {
		t.Fatalf("readStat: %+v", s)
	}
	alive.StartTicks = readStat(alive.PID).start

	with := func(p Process, change func(*Process)) Process { change(&p); return p }
	for name, c := range map[string]struct {
		p      Process
		want   State
		proven bool
	}{
		"alive":                       {alive, Running, true},
		"only a pid":                  {Process{PID: alive.PID}, Running, false},
		"dead":                        {with(alive, func(p *Process) { p.PID = dead.Process.Pid }), NotRunning, false},
		"dead, only a pid":            {Process{PID: dead.Process.Pid}, NotRunning, false},
		"no such pid":                 {Process{PID: 1<<31 - 1}, NotRunning, false},
		"reused":                      {with(alive, func(p *Process) { p.StartTicks++ }), NotRunning, false},
		"another boot":                {with(alive, func(p *Process) { p.BootID = "x" }), CannotTell, false},
		"another host":                {with(alive, func(p *Process) { p.Host, p.BootID = "x", "x" }), CannotTell, false},
		"another host, by a script":   {Process{PID: alive.PID, Host: "x"}, CannotTell, false},
		"another host name":           {with(alive, func(p *Process) { p.Host = "x" }), Running, true},
		"another namespace":           {with(alive, func(p *Process) { p.PIDNamespace++ }), CannotTell, false},
		"another boot and namespace":  {with(alive, func(p *Process) { p.BootID = "x"; p.PIDNamespace++ }), CannotTell, false},
		"this process":                {self, Running, true},
		"this one's pid, by a script": {Process{PID: self.PID}, NotRunning, false},
		"init":                        {Process{PID: 1}, Running, false},
	} {
		if state, proven := (Record{Process: c.p}).State(), (Record{Process: c.p}).Proven(); state != c.want || proven != c.proven {
			t.Errorf("%s: %s, proven %v; want %s, %v", name, state, proven, c.want, c.proven)
		}
	}

	// Of an earlier boot, where that can be told.
	before := bootTime().Add(-time.Hour)
	for _, c := range []struct {
		r    Record
		want State
	}{
		{Record{Process: with(self, func(p *Process) { p.BootID = "x" }), Started: before, FS: "ext4"}, NotRunning},
		{Record{Process: with(self, func(p *Process) { p.BootID = "x" }), Started: time.Now(), FS: "ext4"}, CannotTell},
		{Record{Process: with(self, func(p *Process) { p.BootID = "x" }), Started: before, FS: "nfs4"}, CannotTell},
		{Record{Process: with(self, func(p *Process) { p.BootID, p.Host = "x", "x" }), Started: before, FS: "ext4"}, CannotTell},
	} {
		if state := c.r.State(); state != c.want {
			t.Errorf("%+v is %s, want %s", c.r, state, c.want)
		}
	}

	// A zombie, which has a pid and a start time and does nothing any more.
	zombie := child()
	defer zombie.Wait()
	p := alive
	p.PID = zombie.Process.Pid
	p.StartTicks = readStat(p.PID).start
	zombie.Process.Kill()
	for readStat(p.PID).state != 'Z' {
	}
	if state := (Record{Process: p}).State(); state != NotRunning {
		t.Errorf("a zombie is %s", state)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("4242 (a b) c) S 1 4242 4242 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 815204 1 1 1")
	f.Add("1 (x) R")
	f.Add(")")
	f.Fuzz(func(t *testing.T, line string) {
		if s := parseStat(line); s != (stat{}) && len(strings.Fields(line)) < 20 {
			t.Errorf("parseStat(%q) = %+v", line, s)
		}
	})
}
