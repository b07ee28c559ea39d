package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// runner is a script that locks for itself, in the style of the project's host
// runner: bash's own descriptor, flock -n, the record, an EXIT trap that
// removes the record, also when the lock was not to be had.
const runner = `#!/usr/bin/env bash
set -u
lock=$1
shift
clean_up() { rm -f "$lock.meta"; }
if [[ ${DCE_SKIP_SCRAPE_LOCK:-0} != 1 ]]; then
  trap clean_up EXIT
  exec {fd}>>"$lock"
  if ! flock -n "$fd"; then
    echo "refused, holder $(grep -E '^pid=' "$lock.meta" | head -1 | cut -d= -f2-)" >&2
    exit 9
  fi
  printf 'pid=%s\nstarted=%s\ncmd=%s\n' $$ "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$0 $*" >"$lock.meta"
fi
"$@"
`

// runner is a call of the script with the archive's lock.
func (s *archive) runner(command ...string) call {
	s.t.Helper()
	path := s.b + "/runner.sh"
	write(s.t, path, runner)
	os.Chmod(path, 0o755)
	return call{argv: append([]string{path, s.lock}, command...), dir: s.b}
}

// under is inner with dcelock and its flags as a prefix, in the first checkout.
func (s *archive) under(inner call, flags ...string) call {
	c := s.dcelock(append(append(flags, "--"), inner.argv...)...)
	c.env = inner.env
	return c
}

var untilToldToEnd = []string{"bash", "-c", "echo ready; read -r _; exit 4"}

func TestSelfLockingRunner(t *testing.T) {
	s := newArchive(t)
	alone := s.runner(untilToldToEnd...)

	// Under the prefix it runs as ever, though the lock is held.
	p := s.under(alone).start(t)
	p.sees("ready")
	alone.run(t).wants(t, 9)
	r := alone.run(t) // by now the loser's trap has removed the record
	if !strings.Contains(r.stderr, "refused") || exists(s.meta) {
		t.Fatalf("this runner does not do what the test is about: %+v", r)
	}
	// The winner is not confused, and contenders still learn who it is.
	s.dcelock("--", "true").run(t).wants(t, 1, "already running", fmt.Sprintf("Holder pid %d (running", p.cmd.Process.Pid), "runner.sh")
	p.end()
	if r := p.wait(); r.status != 4 || r.stderr != "" {
		t.Errorf("the winner ended with %+v", r)
	}
	s.free()

	// With keep its own lock is on, and collides.
	r = s.under(alone, "--inner-lock=keep").run(t)
	if r.status != 9 || !strings.HasPrefix(r.stderr, "refused, holder ") {
		t.Errorf("keep: %+v", r)
	}
	s.free()

	// It excludes dcelock, which names it by its record.
	p = alone.start(t)
	p.sees("ready")
	s.dcelock("--", "touch", "ran").run(t).wants(t, 1, "already running",
		fmt.Sprintf("Holder pid %d (running, started %s): %s %s", p.cmd.Process.Pid, s.key("started"), alone.argv[0], "bash -c echo ready"))
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
	p.end()
	p.wait().wants(t, 4)
	s.free()
}

func TestNested(t *testing.T) {
	inner := `echo "$DCE_SCRAPE_LOCK_HELD"; grep -E "^pid=" "$DCE_SCRAPE_LOCK_HELD.meta"; ! flock -n "$DCE_SCRAPE_LOCK_HELD" true && echo held`
	for name, words := range map[string][]string{
		"directly":       {"DCELOCK", "--", "bash", "-c", inner},
		"three levels":   {"DCELOCK", "--", "DCELOCK", "--", "bash", "-c", inner},
		"through sh":     {"sh", "-c", `"$0" -- bash -c "$1"; exit $?`, "DCELOCK", inner},
		"env -i":         {"env", "-i", "DCELOCK", "--", "/usr/bin/env", "PATH=/usr/bin:/bin", "bash", "-c", inner},
		"setsid":         {"setsid", "-w", "DCELOCK", "--", "bash", "-c", inner},
		"closed inside":  {"bash", "-c", `for fd in /proc/$$/fd/*; do n=${fd##*/}; ((n > 9)) && eval "exec $n>&-"; done; "$0" -- bash -c "$1"`, "DCELOCK", inner},
		"variables lost": {"env", "-u", "DCE_SCRAPE_LOCK_HELD", "-u", "DCE_SKIP_SCRAPE_LOCK", "DCELOCK", "--", "bash", "-c", inner},
		"with keep":      {"DCELOCK", "--inner-lock=keep", "--", "bash", "-c", inner},
	} {
		for _, flag := range []string{"--inner-lock=skip", "--close", "--inner-lock=keep"} {
			t.Run(name+" "+flag, func(t *testing.T) {
				s := newArchive(t)
				argv := append([]string{}, words...)
				for i := range argv {
					argv[i] = strings.ReplaceAll(argv[i], "DCELOCK", binary)
				}
				// What the outer run shows after the inner one: its own
				// record, and the lock still held.
				after := `"$@"; status=$?; grep -E "^pid=" "$0.meta"; ! flock -n "$0" true && echo still; exit $status`
				p := s.dcelock(append([]string{flag, "--", "bash", "-c", after, s.lock}, argv...)...).start(t)
				p.end()
				r := p.wait()
				record := fmt.Sprintf("pid=%d\n", p.cmd.Process.Pid)
				if want := s.lock + "\n" + record + "held\n" + record + "still\n"; r.stdout != want || r.status != 0 || r.stderr != "" {
					t.Errorf("got %+v\nwant %s", r, want)
				}
				s.free()
			})
		}
	}
}

// The outer run is a self-locking runner, whose lock a flock(1) took that is
// long gone.
func TestNestedInARunner(t *testing.T) {
	s := newArchive(t)
	r := s.runner(binary, "--config", s.a+"/config/scrape-targets.json", "--", "bash", "-c", `grep -c runner.sh "$DCE_SCRAPE_LOCK_HELD.meta"; ! flock -n "$DCE_SCRAPE_LOCK_HELD" true && exit 6`).run(t)
	if r.status != 6 || r.stdout != "1\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	s.free()
}

// Another archive root inside is locked as usual, whatever came down from the
// outer run.
func TestOtherArchiveInside(t *testing.T) {
	s, other := newArchive(t), newArchive(t)
	inner := []string{binary, "--config", other.a + "/config/scrape-targets.json", "--", "bash", "-c", `! flock -n "$0" true && ! flock -n "$1" true && echo both`, s.lock, other.lock}
	// The outer run would go by the config that its command names, too.
	outer := []string{"--config", s.a + "/config/scrape-targets.json", "--"}
	if r := s.dcelock(append(outer, inner...)...).run(t); r.stdout != "both\n" || strings.Contains(r.stderr, "already running") {
		t.Errorf("%+v", r)
	}
	other.hold()
	s.dcelock(append(outer, inner...)...).run(t).wants(t, 1, "(lock: "+other.lock+")")
	s.free()
}

func TestVariablesAloneOpenNothing(t *testing.T) {
	s := newArchive(t)
	s.hold()
	for _, env := range [][]string{
		{"DCE_SCRAPE_LOCK_HELD=" + s.lock},
		{"DCE_SCRAPE_LOCK_HELD=" + s.lock, "DCE_SKIP_SCRAPE_LOCK=1"},
		{"DCE_SCRAPE_LOCK_HELD=x", "DCE_SKIP_SCRAPE_LOCK=1"},
	} {
		c := s.dcelock("--", "touch", "ran")
		c.env = env
		c.run(t).wants(t, 1, "already running")
	}
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

// What a command leaves running in the background holds the lock on, and is
// named, by the run that leaves it and by the one that is refused.
func TestLeftBehind(t *testing.T) {
	s := newArchive(t)
	go4 := s.a + "/go"
	call{argv: []string{"mkfifo", go4}}.run(t)
	leave := []string{"bash", "-c", `for i in 1 2 3; do bash -c 'echo up >>"$1.up"; read -r _ <"$1"' "left $i" "$0" <&- >&- 2>&- & echo $!; done; touch "$0.up"
		until [[ $(wc -l <"$0.up") -eq 3 ]]; do :; done; rm "$0.up"; exit 3`, go4}
	r := s.dcelock(append([]string{"--"}, leave...)...).run(t)
	pids := strings.Fields(r.stdout)
	if len(pids) != 3 {
		t.Fatalf("%+v", r)
	}
	t.Cleanup(func() { call{argv: append([]string{"kill"}, pids...)}.run(t) })
	r.wants(t, 3, "warning: the command left processes running that go on holding the lock", "pid "+pids[0], "pid "+pids[1], "pid "+pids[2], "'left 2'")
	if exists(s.meta) {
		t.Error("the record is left")
	}
	refusal := s.dcelock("--", "true").run(t)
	refusal.wants(t, 1, "left no record", "kill "+strings.Join(pids, " "))
	for _, pid := range pids {
		if strings.Count(refusal.stderr, "Holder pid "+pid+" (running, started ") != 1 {
			t.Errorf("does not name %s once:\n%s", pid, refusal.stderr)
		}
	}
	if n := strings.Count(refusal.stderr, "Holder pid "); n != 3 {
		t.Errorf("names %d holders:\n%s", n, refusal.stderr)
	}
	call{argv: append([]string{"kill"}, pids...)}.run(t)
	if !eventually(s.lockIsFree) {
		t.Error("the lock stays held after the end of what held it")
	}
	s.free()

	r = s.dcelock(append([]string{"--close", "--"}, leave...)...).run(t)
	pids = append(pids, strings.Fields(r.stdout)...)
	if r.status != 3 || r.stderr != "" {
		t.Errorf("--close: %+v", r)
	}
	s.free()
}

// A wrapper killed outright, while it starts or runs or ends: whatever its
// command still does is done under the lock, and the refusal tells the dead
// wrapper from the process that really holds it.
func TestWrapperKilledAtAnyMoment(t *testing.T) {
	s := newArchive(t)
	for round := range 60 {
		p := s.dcelock("--", "bash", "-c", `echo ready; read -r _; flock -n "$DCE_SCRAPE_LOCK_HELD" true && echo "ran without the lock"; exit 0`).start(t)
		if round%3 != 0 {
			begun := p.cmd.Process.Pid
			for range round { // not a wait for anything, only another moment
				exists(fmt.Sprintf("/proc/%d", begun))
			}
		} else {
			p.sees("ready")
		}
		p.cmd.Process.Kill()
		<-p.done
		if round%3 == 0 {
			r := s.dcelock("--", "true").run(t)
			r.wants(t, 1, wasKilled(p.cmd.Process.Pid), "was killed", "goes on: bash -c ", "(running, started ")
		}
		p.end()
		if !eventually(s.lockIsFree) {
			t.Fatal("the lock stays held with nobody alive behind it")
		}
		if out := p.stdout(); strings.Contains(out, "without") {
			t.Fatal(out)
		}
		r := s.dcelock("--", "true").run(t)
		r.wants(t, 0)
		if round%3 == 0 {
			r.wants(t, 0, fmt.Sprintf("reclaiming scrape lock; previous holder pid %d is not running", p.cmd.Process.Pid))
		}
		s.free()
	}
}
