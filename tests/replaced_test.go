package tests

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// alone is a command that fails with status 99 when another one of its kind
// runs at the same time.
func (s *archive) alone() []string {
	return []string{"sh", "-c", `mkdir "$0" 2>/dev/null || exit 99; sleep 0; rmdir "$0"`, s.b + "/alone"}
}

// However often the lock file is removed, two commands never run at the same
// time, with the record left there and with the record removed as well.
func TestLockFileRemovedAgainAndAgain(t *testing.T) {
	t.Run("lock", func(t *testing.T) { removeAgainAndAgain(t, func(s *archive) { os.Remove(s.lock) }) })
	t.Run("lock and record", func(t *testing.T) {
		removeAgainAndAgain(t, func(s *archive) { os.Remove(s.lock); os.Remove(s.meta); os.Remove(s.meta + ".tmp") })
	})
	t.Run("moved aside", func(t *testing.T) {
		removeAgainAndAgain(t, func(s *archive) { os.Rename(s.lock, s.lock+".old"); os.Remove(s.meta) })
	})
}

func removeAgainAndAgain(t *testing.T, remove func(*archive)) {
	s := newArchive(t)
	stop := make(chan struct{})
	var remover, runs sync.WaitGroup
	remover.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				remove(s)
			}
		}
	})
	statuses := make(chan int, 1000)
	each := 30
	if testing.Short() {
		each = 8
	}
	for range 4 {
		runs.Go(func() {
			for range each {
				run := exec.Command(binary, append([]string{"-q", "--"}, s.alone()...)...)
				run.Dir = s.a
				run.Run() // the status tells
				statuses <- run.ProcessState.ExitCode()
			}
		})
	}
	runs.Wait()
	close(stop)
	remover.Wait()
	close(statuses)
	ended := map[int]int{}
	for status := range statuses {
		ended[status]++
	}
	// 71: given up, as the file was replaced again and again while it was locked.
	if ended[99] > 0 || ended[0]+ended[1]+ended[71] != 4*each {
		t.Errorf("how often the runs ended with which status: %v", ended)
	}
	s.dcelock("--", "true").run(t).wants(t, 0)
	s.free()
}

// A record that only its writer's umask kept from others would not tell them
// who holds the lock, and whose processes they may not look at.
func TestRecordIsReadableWhateverTheUmask(t *testing.T) {
	s := newArchive(t)
	os.Chmod(s.root, 0o777)
	c := s.dcelock("--", "bash", "-c", "echo ready; read -r _")
	c.argv = append([]string{"sh", "-c", `umask 077; exec "$@"`, "sh"}, c.argv...)
	p := c.start(t)
	p.sees("ready")
	os.Remove(s.lock)
	other := s.dcelock("--", "touch", s.root+"/ran")
	other.attr = asUser(t)
	other.run(t).wants(t, 1, fmt.Sprintf("Holder pid %d (running", p.cmd.Process.Pid))
	if exists(s.root + "/ran") {
		t.Error("the command ran")
	}
}

// A lock whose path only begins with this one's is a neighbour's.
func TestNeighboursLockIsNotInTheWay(t *testing.T) {
	s := newArchive(t)
	for _, name := range []string{"2", ".smoke", "s/other"} {
		os.MkdirAll(s.lock+"s", 0o755)
		holder := call{argv: []string{"flock", s.lock + name, "bash", "-c", "echo ready; read -r _"}}.start(t)
		holder.sees("ready")
		s.dcelock("--", "true").run(t).wants(t, 0)
	}
}

// The wrapper of a run is dead and not yet waited for: its command still holds
// the lock file that was removed.
func TestRemovedUnderAnUnreapedWrapper(t *testing.T) {
	s := newArchive(t)
	parent := call{argv: []string{"bash", "-c", `"$@" </dev/null & echo "wrapper $!"; exec cat`, "bash", binary, "--", "bash", "-c", "echo command $$; echo ready; read -r _ <" + s.a + "/go"}, dir: s.a}
	call{argv: []string{"mkfifo", s.a + "/go"}}.run(t)
	p := parent.start(t) // its exec'd cat waits for no child
	p.sees("ready")
	var pid int
	p.sees("wrapper")
	fmt.Sscanf(p.stdout()[strings.Index(p.stdout(), "wrapper"):], "wrapper %d", &pid)
	var command int
	fmt.Sscanf(p.stdout()[strings.Index(p.stdout(), "command"):], "command %d", &command)
	t.Cleanup(func() { syscall.Kill(command, syscall.SIGKILL) })
	syscall.Kill(pid, syscall.SIGKILL)
	if !eventually(func() bool { return strings.Contains(slurp(t, fmt.Sprintf("/proc/%d/stat", pid)), ") Z ") }) {
		t.Fatal("the wrapper is no zombie")
	}
	os.Remove(s.lock)
	s.dcelock("--", "touch", "ran").run(t).wants(t, 1, "removed or replaced", "(running, started ")
	if exists(s.a + "/ran") {
		t.Error("the command ran")
	}
}

// A lock file that was away meanwhile, or a copy of one, in the place of the one
// that is held lets nobody in.
func TestLockFileComesBack(t *testing.T) {
	for name, comesBack := range map[string]string{
		"itself":  `mv "$0.kept" "$0"`,
		"a link":  `ln -f "$0.kept" "$0"`,
		"a copy":  `cp -a "$0.kept" "$0.copy"; mv "$0.copy" "$0"`,
		"written": `cp -a "$0.kept" "$0.new"; rm "$0"; cat "$0.new" >"$0"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			s.dcelock("--", "true").run(t).wants(t, 0)
			os.Rename(s.lock, s.lock+".kept")
			holder := s.hold()
			call{argv: []string{"bash", "-ec", comesBack, s.lock}}.run(t).wants(t, 0)
			os.Remove(s.meta)
			s.dcelock("--", "touch", "ran").run(t).wants(t, 1, fmt.Sprintf("Holder pid %d (running", holder.cmd.Process.Pid), "removed or replaced")
			if exists(s.a + "/ran") {
				t.Error("the command ran")
			}
		})
	}
}
