package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// deadPID is the pid of a process that has ended and been waited for.
func deadPID(t *testing.T) int {
	t.Helper()
	p := call{argv: []string{"true"}}.start(t)
	p.wait()
	return p.cmd.Process.Pid
}

func TestReclaim(t *testing.T) {
	s := newArchive(t)
	living := s.hold()
	record := slurp(t, s.meta) // of a process that lives on, with all its keys
	pid := living.cmd.Process.Pid
	boot, ticks := "boot_id="+s.key("boot_id"), "start_ticks="+s.key("start_ticks")
	namespace, host, started := "pid_ns="+s.key("pid_ns"), "host="+s.key("host"), "started="+s.key("started")
	otherBoot := strings.Replace(record, boot, "boot_id=00000000-1111-2222-3333-444444444444", 1)

	reclaims := fmt.Sprintf("warning: reclaiming scrape lock; previous holder pid %d is not running", pid)
	replaces := fmt.Sprintf("warning: replacing the record of pid %d", pid)
	dead := deadPID(t)
	for name, c := range map[string]struct{ record, message string }{
		"dead, by a script": {fmt.Sprintf("pid=%d\nstarted=2026-06-04T06:39:46Z\ncmd=x\n", dead), fmt.Sprintf("reclaiming scrape lock; previous holder pid %d is not running", dead)},
		"earlier boot":      {strings.Replace(otherBoot, started, "started=2001-01-01T00:00:00Z", 1), reclaims},
		// A host's name proves nothing, and it was not written before this boot.
		"another of that name": {otherBoot, replaces + " (cannot tell, on " + s.key("host") + "): the lock is free"},
		"reused pid":           {strings.Replace(record, ticks, "start_ticks=1", 1), reclaims},
		"other host":           {strings.Replace(strings.Replace(record, host, "host=elsewhere", 1), boot, "boot_id=0", 1), replaces + " (cannot tell, on elsewhere): the lock is free"},
		"other PID namespace":  {strings.Replace(record, namespace, "pid_ns=7", 1), replaces + " (cannot tell, on " + s.key("host") + "): the lock is free"},
		"living, by a script":  {fmt.Sprintf("pid=%d\nstarted=2026-06-04T06:39:46Z\ncmd=x\n", pid), replaces + " (running): the lock is free"},
		"no record at all":     {"hello\n", "replacing a record that cannot be used"},
		"empty":                {"", "replacing a record that cannot be used"},
		"a process group":      {"pid=-1\nstarted=x\ncmd=x\n", "replacing a record that cannot be used"},
		"larger than any":      {strings.Repeat("x", 65<<10), "is not a regular file that names a process"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			write(t, s.meta, c.record)
			s.dcelock("--", "bash", "-c", `grep -q "^pid=$PPID$" "$DCE_SCRAPE_LOCK_HELD.meta"`).run(t).wants(t, 0, c.message)
			s.free()

			// The same beside a lock that is held: it is never broken.
			holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
			holder.sees("ready")
			write(t, s.meta, c.record)
			r := s.dcelock("--", "touch", "ran").run(t)
			r.wants(t, 1, "already running")
			if exists(s.a+"/ran") || slurp(t, s.meta) != c.record {
				t.Error("the command ran, or the record was changed")
			}
			if strings.Contains(r.stderr, "reclaiming") {
				t.Errorf("reclaims a held lock:\n%s", r.stderr)
			}
		})
	}

	// With the lock file removed the folder's lock is still held, so that
	// nothing is reclaimed.
	os.Remove(s.lock)
	s.dcelock("--", "touch", "ran").run(t).wants(t, 1, "already running",
		fmt.Sprintf("Holder pid %d (running", pid), "removed or replaced")
	if exists(s.a+"/ran") || slurp(t, s.meta) != record {
		t.Error("the command ran, or the record was changed")
	}
	living.end()
	living.wait().wants(t, 0)
	s.free()
	s.dcelock("--", "true").run(t).wants(t, 0)
}

// wasKilled is how messages begin to tell of a run whose wrapper was killed.
func wasKilled(pid int) string { return fmt.Sprintf("dcelock: dcelock pid %d (started ", pid) }

// A wrapper that is killed outright leaves the lock to its command, and a
// record that the next run reclaims. Until then a refusal says just that, and
// how to stop what goes on.
func TestWrapperKilled(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	pid := holder.cmd.Process.Pid
	holder.cmd.Process.Kill()
	<-holder.done
	r := s.dcelock("--", "touch", "ran").run(t)
	left := pids(t, "fuser", s.lock)
	if len(left) != 1 {
		t.Fatalf("the lock file is open in %v", left)
	}
	r.wants(t, 1, "already running", wasKilled(pid), fmt.Sprintf("Holder pid %d (running, started ", left[0]), fmt.Sprintf("to stop it: kill %d\n", left[0]))
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
	if strings.Contains(r.stderr, "--close") || strings.Contains(r.stderr, fmt.Sprintf("Holder pid %d ", pid)) || strings.Contains(r.stderr, "left no record") {
		t.Errorf("misleads about a killed run:\n%s", r.stderr)
	}
	holder.end()
	if !eventually(s.lockIsFree) {
		t.Fatal("the lock stays held after the command's end")
	}
	s.dcelock("--", "true").run(t).wants(t, 0, fmt.Sprintf("reclaiming scrape lock; previous holder pid %d is not running", pid))
	s.free()
}
