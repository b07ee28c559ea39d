package tests

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The lock is the archive root's folder and the file in it: whatever is done to
// the file and the record, no second run gets in beside a live one.
func TestTidiedUpUnderALiveRun(t *testing.T) {
	for name, tidy := range map[string]string{
		"lock file removed":         `rm "$0"`,
		"removed with its record":   `rm "$0" "$0.meta"`,
		"moved to any name":         `mv "$0" "$0.disabled-2026"`,
		"moved with its record":     `mv "$0" "$0.1"; mv "$0.meta" "$0.meta.1"`,
		"moved to another folder":   `mkdir "${0%/*}/aside"; mv "$0" "$0.meta" "${0%/*}/aside"`,
		"replaced by another":       `rm "$0" "$0.meta"; : >"$0"`,
		"replaced by a copy":        `cp -a "$0" "$0.new"; mv "$0.new" "$0"`,
		"exchanged with a neighbor": `: >"$0.x"; mv "$0" "$0.y"; mv "$0.x" "$0"`,
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wrapper killed %v", name, killed), func(t *testing.T) {
				s := newArchive(t)
				p := s.hold()
				if killed {
					p.cmd.Process.Kill()
					<-p.done
				}
				if r := (call{argv: []string{"bash", "-c", tidy, s.lock}}).run(t); r.status != 0 {
					t.Fatalf("%+v", r)
				}
				r := s.dcelock("--", "touch", "ran").run(t)
				r.wants(t, 1, "Another scrape is already running", "to stop it: kill ")
				if exists(s.a + "/ran") {
					t.Error("the command ran beside the first")
				}
				if r := s.dcelock("--status").run(t); r.status != 1 {
					t.Errorf("the status is %d:\n%s", r.status, r.stdout)
				}
				p.end()
				if !eventually(func() bool { return s.dcelock("-q", "--", "true").run(t).status == 0 }) {
					t.Error("no run can start after the end of the first")
				}
			})
		}
	}
}

// By another mount of the same folder, also from a PID namespace, the lock is
// the same one.
func TestOtherWayToTheArchive(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, namespace := range []string{"", "--pid --fork --mount-proc"} {
		s := newArchive(t)
		s.hold()
		os.Remove(s.lock)
		view := s.root + "-view"
		write(t, s.b+"/view.json", fmt.Sprintf(`{"archive_root": %q}`, view))
		script := `mkdir "$1" && mount --bind "$2" "$1" && exec "$3" --config "$4" -- touch "$5"`
		argv := append(append([]string{"unshare", "--mount"}, strings.Fields(namespace)...), "sh", "-c", script, "sh", view, s.root, binary, s.b+"/view.json", s.a+"/ran")
		call{argv: argv, dir: s.b}.run(t).wants(t, 1, "Another scrape is already running")
		if exists(s.a + "/ran") {
			t.Errorf("with %q the command ran beside the first", namespace)
		}
	}
}

// A record refuses nobody: neither one of a living process that has nothing to
// do with the archive, nor one that came with a copy of it.
func TestRecordAloneRefusesNobody(t *testing.T) {
	innocent := exec.Command("sleep", "60")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer innocent.Wait()
	defer innocent.Process.Kill()
	s := newArchive(t)
	write(t, s.meta, fmt.Sprintf("pid=%d\nstarted=2026-06-04T06:39:46Z\ncmd=x\nlock_id=1:2\n", innocent.Process.Pid))
	s.dcelock("--", "true").run(t).wants(t, 0, fmt.Sprintf("replacing the record of pid %d (running", innocent.Process.Pid))
	s.free()

	s.hold()
	if r := (call{argv: []string{"cp", "-a", s.root, s.root + "-copy"}}).run(t); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	write(t, s.b+"/copy.json", fmt.Sprintf(`{"archive_root": %q}`, s.root+"-copy"))
	s.dcelock("--config", s.b+"/copy.json", "--", "true").run(t).wants(t, 0)
}

// Whoever calls LOCK_UN in the command takes the file's lock from it, and a run
// that may wait does.
func TestWaitIsHonouredAfterAnUnlock(t *testing.T) {
	s := newArchive(t)
	p := s.dcelock("--", "bash", "-c", `for fd in /proc/$$/fd/*; do flock -u ${fd##*/}; done 2>/dev/null; echo ready; read -r _; exit 0`).start(t)
	p.sees("ready")
	waiter := s.dcelock("--wait", "60", "--", "true").start(t)
	select {
	case <-waiter.done:
		// The lock was given up altogether: then the run is not refused.
	case <-time.After(200 * time.Millisecond):
		p.end()
	}
	waiter.wait().wants(t, 0)
}

// A dangling link in the place of the lock file makes no file, wherever it leads.
func TestLinksMakeAndLockNothingElsewhere(t *testing.T) {
	s := newArchive(t)
	target := s.b + "/nologin"
	os.Symlink(target, s.lock)
	s.dcelock("--", "true").run(t).wants(t, 73, "is a link to "+target)
	if exists(target) {
		t.Error("the link's target was made")
	}
	if os.Geteuid() != 0 {
		return
	}
	write(t, target, "root's own")
	os.Lchown(s.lock, 65534, 65534)
	s.dcelock("--", "true").run(t).wants(t, 73, "another user's file")
}

// Probes by scripts, one after the other, refuse no run.
func TestProbesRefuseNobody(t *testing.T) {
	s := newArchive(t)
	s.dcelock("--", "true").run(t)
	for range 2 {
		p := call{argv: []string{"bash", "-c", `while [ -e "$1" ]; do flock -n "$0" true; flock -n "${0%/*}" true; done`, s.lock, s.b}}.start(t)
		t.Cleanup(func() { p.cmd.Process.Signal(syscall.SIGTERM) })
	}
	for range 20 {
		s.dcelock("-q", "--", "true").run(t).wants(t, 0)
	}
}

// Neither what a finished run left behind, nor a copy of the archive that a run
// made, makes two runs parts of one.
func TestNotNested(t *testing.T) {
	s := newArchive(t)
	daemon := `until [ -e "$0/go" ]; do :; done; "$1" -- touch "$0/ran" 2>"$0/err.new"; mv "$0/err.new" "$0/err"`
	s.dcelock("-q", "--", "bash", "-c", `setsid bash -c "$0" "$1" "$2" >/dev/null 2>&1 &`, daemon, s.a, binary).run(t).wants(t, 0)
	write(t, s.a+"/go", "")
	if !eventually(func() bool { return exists(s.a + "/err") }) {
		t.Fatal("what was left behind does not end")
	}
	if text := slurp(t, s.a+"/err"); exists(s.a+"/ran") || !strings.Contains(text, "already running") {
		t.Errorf("a run below what a finished run left behind:\n%s", text)
	}

	other := newArchive(t)
	write(t, other.b+"/copy.json", fmt.Sprintf(`{"archive_root": %q}`, other.root+"-copy"))
	script := `cp -a "$0" "$0-copy" && "$1" --config "$2" -- "$1" --config "$2" -- flock -n "$0-copy/.dce-scrape.lock" true`
	if r := other.dcelock("--config", other.a+"/config/scrape-targets.json", "--", "bash", "-c", script, other.root, binary, other.b+"/copy.json").run(t); r.status != 1 {
		t.Errorf("the copy's lock is free while its command runs: %+v", r)
	}
}
