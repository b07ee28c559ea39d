package tests

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A run from the other checkout is refused, and told who is in the way.
func TestTwoCheckoutsExcludeEachOther(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	second := s.dcelock("--", "touch", "ran")
	second.dir = s.b
	r := second.run(t)
	r.wants(t, 1,
		fmt.Sprintf("dcelock: Another scrape is already running (lock: %s)\n", s.lock),
		fmt.Sprintf("Holder pid %d (running, started %s): %s\n", holder.cmd.Process.Pid, s.key("started"), s.key("cmd")),
		"held for ", "by "+s.key("user"), "on "+s.key("host"), "in "+s.a,
		fmt.Sprintf("kill %d", holder.cmd.Process.Pid),
	)
	if strings.Contains(r.stderr, "rm ") || strings.Contains(r.stderr, "delete") {
		t.Errorf("advises to delete a file:\n%s", r.stderr)
	}
	if r.stdout != "" || exists(s.b+"/ran") {
		t.Error("the command ran")
	}
	// And the holder has noticed nothing.
	holder.end()
	holder.wait().wants(t, 0)
	if err := holder.stderr(); err != "" {
		t.Errorf("the holder printed %q", err)
	}
	second.run(t).wants(t, 0)
}

func TestConflictStatus(t *testing.T) {
	s := newArchive(t)
	s.hold()
	for _, status := range []int{0, 1, 2, 75, 255} {
		for _, flags := range [][]string{{"-E", fmt.Sprint(status)}, {"-nE" + fmt.Sprint(status)}, {"--nb", fmt.Sprintf("--conflict-exit-code=%d", status)}} {
			s.dcelock(append(flags, "--", "touch", "ran")...).run(t).wants(t, status, "already running")
		}
	}
	// A command's own status is not mistaken for a conflict, nor changed.
	other := newArchive(t)
	other.dcelock("-E", "75", "--", "bash", "-c", "exit 1").run(t).wants(t, 1)
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

// A flock(1) that holds the lock leaves no record, and is not contradicted.
func TestRefusalWithoutRecord(t *testing.T) {
	s := newArchive(t)
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
	holder.sees("ready")
	s.dcelock("-q", "--", "touch", "ran").run(t).wants(t, 1, "(lock: "+s.lock+")", "the holder left no record")
	if exists(s.meta) || exists(s.a+"/ran") {
		t.Error("a record was written, or the command ran")
	}
	holder.end()
	holder.wait()
	s.dcelock("--", "true").run(t).wants(t, 0)
}

func TestOverridesExclude(t *testing.T) {
	s := newArchive(t)
	named := func(c call) call {
		c.env = []string{"DCE_SCRAPE_LOCK_FILE=my.lock"}
		return c
	}
	holder := named(s.dcelock("--", "bash", "-c", "echo ready; read -r _")).start(t)
	holder.sees("ready")
	named(s.dcelock("--", "true")).run(t).wants(t, 1, "(lock: my.lock)")
	s.dcelock("--", "true").run(t).wants(t, 0) // the archive root's own lock is another
	named(s.dcelock("--", "true")).run(t).wants(t, 1)
}

func TestLockFilesThatCannotBeUsed(t *testing.T) {
	s := newArchive(t)
	run := func(t *testing.T, status int, messages ...string) {
		t.Helper()
		s.dcelock("--", "touch", "ran").run(t).wants(t, status, append(messages, s.lock)...)
		if exists(s.a+"/ran") || exists(s.meta) {
			t.Error("the command ran, or a record was written")
		}
	}
	os.Mkdir(s.lock, 0o755)
	run(t, 73, "is not a regular file")
	os.Remove(s.lock)
	call{argv: []string{"mkfifo", s.lock}}.run(t)
	run(t, 73, "is not a regular file")
	os.Remove(s.lock)
	os.Symlink("/dev/null", s.lock)
	run(t, 73, "is not a regular file")
	os.Remove(s.lock)
	os.Symlink(s.lock, s.lock)
	run(t, 73, "too many levels")
	os.Remove(s.lock)

	// One through a link is the file it leads to. Where that is missing, who
	// made the link would have this run make a file anywhere.
	os.Symlink(s.root+"/real.lock", s.lock)
	run(t, 73, s.root+"/real.lock")
	if exists(s.root + "/real.lock") {
		t.Error("a file was made through a link")
	}
	write(t, s.root+"/real.lock", "")
	s.dcelock("--", "bash", "-c", `! flock -n "$0" true`, s.root+"/real.lock").run(t).wants(t, 0)
	os.Remove(s.lock)

	os.Chmod(s.root, 0o555)
	c := s.dcelock("--", "touch", "/tmp/never")
	c.attr = asUser(t)
	c.run(t).wants(t, 73, s.lock, "permission denied")
	os.Chmod(s.root, 0o777)

	// Another user's file, first not to be written, then not even read.
	write(t, s.lock, "")
	os.Chmod(s.lock, 0o444)
	c = s.dcelock("--", "bash", "-c", `! flock -n "$DCE_SCRAPE_LOCK_HELD" true`)
	c.attr = asUser(t)
	c.run(t).wants(t, 0)
	if os.Geteuid() != 0 {
		return // the file is the user's own, and flock(2) needs no more than that
	}
	os.Chmod(s.lock, 0)
	c.run(t).wants(t, 73, s.lock, "permission denied")
}

// Nothing but EWOULDBLOCK is contention: where flock(2) itself fails there is
// no lock, so there is no run.
func TestNoDescriptors(t *testing.T) {
	s := newArchive(t)
	c := call{argv: []string{"bash", "-c", `ulimit -n 10; exec "$0" -- touch ran`, binary}, dir: s.a}
	c.run(t).wants(t, 71, "open files")
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

// What a refusal says to wait for the lock does so when it is typed.
func TestWaitingAdviceWorksWhenTyped(t *testing.T) {
	for _, flags := range [][]string{
		{"--"}, {}, {"-n", "--"}, {"--nb"}, {"-nE75", "--"}, {"-qn", "--"}, {"-w", "0.1", "--"}, {"--timeout=0.1"}, {"-E", "75", "--inner-lock=keep", "--"},
		{"--config", "config/scrape-targets.json"}, {"-c"},
	} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			s := newArchive(t)
			holder := s.hold()
			command := []string{"sh", "-c", `echo "$1"; exit 4`, "sh", "it's $HOME; *"}
			if slices.Contains(flags, "-c") {
				command = []string{`echo "it's \$HOME; *"; exit 4`}
			}
			r := s.dcelock(append(flags, command...)...).run(t)
			_, advice, found := strings.Cut(r.stderr, "dcelock: to wait for it: ")
			advice, _, _ = strings.Cut(advice, "\n")
			if !found {
				t.Fatalf("says nothing of waiting:\n%s", r.stderr)
			}
			if !strings.Contains(advice, "--wait 1h") {
				t.Errorf("not to wait: %s", advice)
			}
			p := call{argv: []string{"bash", "-c", "exec " + advice}, dir: s.a}.start(t)
			select {
			case <-p.done:
				t.Fatalf("%s: does not wait but %+v", advice, p.wait())
			case <-waiting(p):
			}
			// Longer than the wait that was given up, where there was one.
			if quiet := time.Now(); !eventually(func() bool { return time.Since(quiet) > 300*time.Millisecond }) {
				t.Fatal("no time has passed")
			}
			holder.end()
			if r := p.wait(); r.status != 4 || r.stdout != "it's $HOME; *\n" {
				t.Errorf("%s: %+v", advice, r)
			}
		})
	}
}

// A variable that stood in front of the command line says which lock, too.
func TestWaitingAdviceNamesTheVariables(t *testing.T) {
	for _, variable := range []string{"DCE_CONFIG_FILE=<a>/config/scrape-targets.json", "DCE_SCRAPE_LOCK_FILE=<root>/.dce-scrape.lock", "DCE_REPO_ROOT=<a>"} {
		s, other := newArchive(t), newArchive(t)
		holder := s.hold()
		refused := call{argv: []string{binary, "--", "echo", "ran"}, dir: other.a, env: s.fillAll([]string{variable})}.run(t)
		_, advice, _ := strings.Cut(refused.stderr, "dcelock: to wait for it: ")
		advice, _, _ = strings.Cut(advice, "\n")
		p := call{argv: []string{"bash", "-c", "exec " + advice}, dir: other.a}.start(t)
		select {
		case <-p.done:
			t.Errorf("%s: does not wait but %+v", advice, p.wait())
		case <-waiting(p):
			holder.end()
			p.wait().wants(t, 0)
		}
	}
}

// waiting is closed when the process sleeps in flock(2).
func waiting(p *process) <-chan struct{} {
	sleeps := make(chan struct{})
	go func() {
		if eventually(func() bool { return sleepsInFlock(p.cmd.Process.Pid) }) {
			close(sleeps)
		}
	}()
	return sleeps
}

// regexpKill matches the advice to stop a process.
func regexpKill(pid int) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`(?m)^dcelock: to stop it: (sudo )?kill( \d+)* ?\b%d\b`, pid))
}
