package tests

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// When a run is part of the one that holds the lock, so that it runs at once, and
// when it only looks like one (contract, "Taking, holding, releasing").

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

// Nor is it in its way that another dcelock waits, with the folder's lock, for the
// script to end, and that the script's record is gone.
func TestNestedInARunnerThatIsWaitedFor(t *testing.T) {
	s := newArchive(t)
	config := s.a + "/config/scrape-targets.json"
	outer := s.runner("bash", "-c", `echo ready; read -r _; rm "$0.meta"; "$1" --config "$2" -- echo inner`, s.lock, binary, config).start(t)
	outer.sees("ready")
	waiter := s.dcelock("-q", "--wait", "forever", "--", "true").start(t)
	waits(t, waiter)
	outer.end()
	if r := outer.wait(); r.status != 0 || r.stdout != "ready\ninner\n" {
		t.Errorf("%+v", r)
	}
	waiter.wait().wants(t, 0)
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

// A nested run never waits, and so never hangs.
func TestNestedDoesNotWait(t *testing.T) {
	s := newArchive(t)
	if r := s.dcelock("--", binary, "-w", "forever", "--", "echo", "inner").run(t); r.stdout != "inner\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

// An ancestor with a shared lock is not the only one who runs.
func TestSharedLockAboveIsNotNested(t *testing.T) {
	s := newArchive(t)
	call{argv: []string{"flock", "-s", s.lock, binary, "--config", s.a + "/config/scrape-targets.json", "--", "touch", s.a + "/ran"}}.run(t).wants(t, 1, "already running")
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

// excludeEachOther is a script of bash -c, with DCELOCK CONFIG FILE behind it. It
// starts two runs at once, and prints of each that it runs, or how it ended,
// sorted.
const excludeEachOther = `
mkfifo "$2.ended" "$2.go"
exec 7<>"$2.ended" 8<>"$2.go"
job() { "$0" --config "$1" -- sh -c 'echo runs >&7; read -r _ <&8' >&7 2>"$2.err.$3"; echo "status $?" >&7; }
job "$@" 1 & job "$@" 2 &
read -r one <&7; read -r two <&7
printf '%s\n' "$one" "$two" | sort | paste -sd,
printf 'x\nx\n' >&8; wait
grep -h . "$2".err.* >&2; exit 0
`

// A process that PID 1 has adopted is not part of PID 1's run, as one is that a
// container's shell has started in the background.
func TestAdoptedIsNotNested(t *testing.T) {
	needsRoot(t, "to make a PID namespace")
	for name, env := range map[string][]string{
		"":                      nil,
		"with another variable": {"DCE_SCRAPE_LOCK_HELD=/elsewhere", "DCE_SKIP_SCRAPE_LOCK=1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			holder := call{argv: []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child", binary, "--", "bash", "-c", "echo ready; read -r _; exit 0"}, dir: s.a}.start(t)
			holder.sees("ready")
			init := onlyChild(t, holder.cmd.Process.Pid)
			// Its own parent has ended before it begins.
			c := call{argv: []string{"nsenter", "-t", fmt.Sprint(init), "-p", "-m", "bash", "-c",
				`setsid bash -c 'until [[ $(ps -o ppid= -p $$) -eq 1 ]]; do :; done; echo "adopted by $(ps -o comm= -p 1)"; "$@"; echo "status $?"' bash "$@" & exit 0`,
				"bash", binary, "--config", s.a + "/config/scrape-targets.json", "--", "touch", s.a + "/ran"}, dir: s.b, env: env}.start(t)
			c.sees("status 1\n")
			if !strings.HasPrefix(c.stdout(), "adopted by dcelock\n") || !strings.Contains(c.stderr(), "already running") || exists(s.a+"/ran") {
				t.Errorf("%s%s", c.stdout(), c.stderr())
			}
			// What PID 1's own command starts is part of its run, as before.
			holder.end()
			holder.wait().wants(t, 0)
		})
	}
}

// A copy of the archive that a run makes is no part of what it holds: two runs on
// the copy, started by the one run, exclude each other.
func TestCopyInsideARunIsNotNested(t *testing.T) {
	s := newArchive(t)
	copied := s.fill("<dir>") + "/copy"
	write(t, s.b+"/config/scrape-targets.json", fmt.Sprintf(`{"archive_root": %q}`, copied))
	r := s.dcelock("--config", "config/scrape-targets.json", "--", "bash", "-c", `cp -a "$1" "$2"; grep -q "^pid=$PPID$" "$2/.dce-scrape.lock.meta" || exit 3; shift 2; bash -c "$@"`, "bash",
		s.root, copied, excludeEachOther, binary, s.b+"/config/scrape-targets.json", s.b+"/job").run(t)
	if r.status != 0 || r.stdout != "runs,status 1\n" || !strings.Contains(r.stderr, "already running (lock: "+copied+"/.dce-scrape.lock)") {
		t.Errorf("%+v", r)
	}
	s.free()
}

// A daemon that a run has left behind has its descriptors, and is no part of a
// run any more, as that has ended: a dcelock that it starts is refused, does not
// wait for itself, and says how to go on.
func TestDaemonOfAFinishedRunIsNotNested(t *testing.T) {
	daemon := `setsid bash -c 'echo $$ >"$1.pid"; read -r _ <"$1"; "${@:2}" >"$1.out" 2>&1; echo "status $?" >>"$1.out"; read -r _ <"$1"' bash "$@" </dev/null >/dev/null 2>&1 & exit 0`
	start := func(s *archive, flags, inner []string) (goOn func(), told func() string) {
		t, path := s.t, s.a+"/go"
		call{argv: []string{"mkfifo", path}}.run(t)
		t.Cleanup(func() { call{argv: []string{"kill", "-KILL", strings.TrimSpace(slurp(t, path+".pid"))}}.run(t) })
		argv := append(append(flags, "--config", s.a+"/config/scrape-targets.json", "--", "bash", "-c", daemon, "bash", path), inner...)
		s.dcelock(argv...).run(t).wants(t, 0)
		if exists(s.meta) {
			t.Error("a record is left")
		}
		goOn = func() { write(t, path, "go\n") } // waits for the daemon
		return goOn, func() string {
			if !eventually(func() bool { return strings.Contains("\n"+slurp(t, path+".out"), "\nstatus ") }) {
				t.Fatalf("does not end: %s", slurp(t, path+".out"))
			}
			return slurp(t, path+".out")
		}
	}
	for _, flags := range [][]string{nil, {"--wait", "forever"}} {
		for _, variables := range [][]string{nil, {"env", "-u", "DCE_SCRAPE_LOCK_HELD", "-u", "DCE_SKIP_SCRAPE_LOCK"}} {
			t.Run(fmt.Sprint(flags, variables), func(t *testing.T) {
				s := newArchive(t)
				inner := append(append(append([]string{}, variables...), binary), append(flags, "--config", s.a+"/config/scrape-targets.json", "--", "touch", s.a+"/ran")...)
				goOn, told := start(s, nil, inner)
				goOn()
				out := told()
				if exists(s.a+"/ran") || !strings.HasSuffix(out, "status 1\n") || !strings.Contains(out, "already running") || !strings.Contains(out, "wait for itself") {
					t.Errorf("%s", out)
				}
				if strings.Contains(out, "kill ") {
					t.Errorf("advises to kill its own ancestors:\n%s", out)
				}
			})
		}
	}
	// With --close the lock went with the run, and the daemon's own runs
	// exclude each other as anybody's.
	t.Run("--close", func(t *testing.T) {
		s := newArchive(t)
		goOn, told := start(s, []string{"--close"}, []string{"bash", "-c", excludeEachOther, binary, s.a + "/config/scrape-targets.json", s.b + "/job"})
		s.free()
		goOn()
		if out := told(); !strings.HasPrefix(out, "runs,status 1\n") || !strings.Contains(out, "already running") {
			t.Errorf("%s", out)
		}
		s.free()
	})
}

// Who was there before dcelock took the lock is no part of its run, though it is
// below it: a job of the shell that has become dcelock by exec.
func TestJobFromBeforeTheExecIsNotNested(t *testing.T) {
	s := newArchive(t)
	go1 := s.a + "/go"
	call{argv: []string{"mkfifo", go1}}.run(t)
	p := call{argv: []string{"bash", "-c", `(read -r _ <"$2"; "$0" -- touch ran; echo "job $?") & exec "$0" -- bash -c "echo ready; read -r _; exit 0" "$1"`, binary, "x", go1}, dir: s.a}.start(t)
	p.sees("ready")
	write(t, go1, "go\n")
	p.sees("job 1")
	p.end()
	p.wait().wants(t, 0)
	if exists(s.a + "/ran") {
		t.Error("the job ran")
	}
}

// A run that is part of a script's has the folder's lock, which the script has not,
// so that no other dcelock comes in by a lock file that was replaced.
func TestNestedInAScriptKeepsTheFolder(t *testing.T) {
	s := newArchive(t)
	write(t, s.lock, "")
	config := s.a + "/config/scrape-targets.json"
	p := call{argv: []string{"flock", "-n", s.lock, binary, "--config", config, "--", "bash", "-c", "echo ready; read -r _; exit 0"}}.start(t)
	p.sees("ready")
	os.Remove(s.lock)
	write(t, s.lock, "")
	s.dcelock("--", "true").run(t).wants(t, 1, "already running")
	p.end()
	p.wait().wants(t, 0)
}

// While the run goes on, what it has started is part of it, and what is started
// beside it is not, whatever the lock file and the record have become.
func TestNestedWithFilesRemoved(t *testing.T) {
	for name, remove := range map[string]string{
		"lock": `rm "$0"`, "record": `rm "$0.meta"`, "both": `rm "$0" "$0.meta"`, "moved": `mv "$0" "$0.x"; mv "$0.meta" "$0.y"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			config := s.a + "/config/scrape-targets.json"
			p := s.dcelock("--config", config, "--", "bash", "-c", remove+`; "$1" --wait forever --config "$2" -- echo inner; echo ready; read -r _; exit 0`, s.lock, binary, config).start(t)
			p.sees("ready")
			if p.stdout() != "inner\nready\n" || strings.Contains(p.stderr(), "already running") {
				t.Errorf("%s%s", p.stdout(), p.stderr())
			}
			s.refused(s.dcelock("--"))
			p.end()
			p.wait()
			os.Remove(s.meta)
			s.dcelock("--", "true").run(t).wants(t, 0)
			s.free()
		})
	}
}

// It is part of it even where the archive root is closed to it in the middle of its
// asking: what it asked the kernel for, not what can be found at the path, is looked for.
func TestNestedWhileTheFolderIsClosed(t *testing.T) {
	s := newArchive(t)
	write(t, s.lock, "")
	os.Chmod(s.lock, 0o666)
	stop := make(chan struct{})
	var closing sync.WaitGroup
	closing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.Chmod(s.root, 0o711)
				time.Sleep(4 * time.Millisecond)
				os.Chmod(s.root, 0)
				time.Sleep(400 * time.Microsecond)
			}
		}
	})
	c := s.dcelock("--close", "--", binary, "-E", "76", "--", "true")
	c.attr = asUser(t)
	for range 100 {
		if r := c.run(t); r.status != 0 && r.status != 73 && r.status != 66 {
			t.Errorf("%+v", r)
		}
	}
	close(stop)
	closing.Wait()
	os.Chmod(s.root, 0o755)
}
