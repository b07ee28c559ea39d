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

// What a command is given in a pipe is there for it, though dcelock goes by the
// command's config and env file.
func TestPipesAreTheCommands(t *testing.T) {
	for _, option := range []string{"--env-file", "--config"} {
		s := newArchive(t)
		r := call{argv: []string{"bash", "-c", `"$0" -- bash -c 'cat "$2"' x "$1" <(echo FOO=1)`, binary, option}, dir: s.a}.run(t)
		if r.status != 0 || r.stdout != "FOO=1\n" {
			t.Errorf("%s: %+v", option, r)
		}
	}
}
