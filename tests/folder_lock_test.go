package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the lock of the archive root itself promises (contract, "What is locked,
// and the record"): whatever is done to the files in it, no second run gets in,
// and no record keeps one out.

// needsRoot skips a test of what only root can set up.
func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, " + why)
	}
}

// refused fails the test unless a call of dcelock, which lacks its command, is
// kept out and says these things.
func (s *archive) refused(c call, messages ...string) result {
	s.t.Helper()
	c.argv = append(slices.Clone(c.argv), "touch", s.b+"/ran")
	r := c.run(s.t)
	r.wants(s.t, 1, append(messages, "already running")...)
	if exists(s.b + "/ran") {
		s.t.Error("the command ran")
		os.Remove(s.b + "/ran")
	}
	return r
}

// onlyChild is the pid of a process's one child.
func onlyChild(t *testing.T, pid int) (child int) {
	t.Helper()
	if !eventually(func() bool {
		list := call{argv: []string{"pgrep", "-P", strconv.Itoa(pid)}}.run(t).stdout
		n, _ := fmt.Sscan(list, &child)
		return n == 1
	}) {
		t.Fatalf("pid %d has no child", pid)
	}
	return child
}

// Moved aside under any name, to any place, with its record or without: the lock
// file lets nobody in, while the run goes on and while only what a killed one had
// started does.
func TestFilesMovedAside(t *testing.T) {
	rename := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Error(err)
		}
	}
	for what, move := range map[string]func(s *archive){
		"backup":           func(s *archive) { rename(s.lock, s.lock+".old") },
		"stale":            func(s *archive) { rename(s.lock, s.lock+".stale") },
		"number":           func(s *archive) { rename(s.lock, s.lock+".1") },
		"another name":     func(s *archive) { rename(s.lock, s.root+"/x") },
		"another folder":   func(s *archive) { rename(s.lock, s.b+"/.dce-scrape.lock") },
		"both":             func(s *archive) { rename(s.lock, s.root+"/x"); rename(s.meta, s.root+"/y") },
		"both, far away":   func(s *archive) { rename(s.lock, s.b+"/x"); rename(s.meta, s.b+"/y") },
		"both exchanged":   func(s *archive) { rename(s.lock, s.b+"/x"); rename(s.meta, s.lock) },
		"both, a new file": func(s *archive) { rename(s.lock, s.b+"/x"); rename(s.meta, s.b+"/y"); write(t, s.lock, "") },
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", what, killed), func(t *testing.T) {
				s := newArchive(t)
				holder := s.hold()
				shown := holder.cmd.Process.Pid
				if killed {
					shown = onlyChild(t, shown)
					holder.cmd.Process.Kill()
					<-holder.done
				}
				move(s)
				r := s.refused(s.dcelock("--"), fmt.Sprintf("Holder pid %d (running, started ", shown), "removed or replaced")
				if !regexpKill(shown).MatchString(r.stderr) {
					t.Errorf("does not say how to stop pid %d:\n%s", shown, r.stderr)
				}
				if j := s.json(t); j.State != "held" || !j.Replaced || !slices.ContainsFunc(j.Holders, func(h jsonProcess) bool { return h.PID == shown }) {
					t.Errorf("%+v", j)
				}
				// Nor is one that waits let in before the end.
				waiter := s.dcelock("-w", "60", "--", "true").start(t)
				waits(t, waiter)
				holder.end()
				waiter.wait().wants(t, 0)
				s.dcelock("--", "true").run(t).wants(t, 0)
				s.free()
			})
		}
	}
}

// One folder has one lock, by whatever path and in whatever namespace: through a
// bind mount, read-only or not, and in a container that shares it.
func TestOneFolderByOtherWays(t *testing.T) {
	needsRoot(t, "to mount, and to make namespaces")
	here := func(s *archive) call { return s.dcelock("--") }
	bound := func(options string) func(s *archive) call {
		return func(s *archive) call {
			view := s.fill("<dir>") + "/view"
			os.Mkdir(view, 0o755)
			if out, err := exec.Command("sh", "-ec", `mount --bind "$0" "$1"; test -z "$2" || mount -o "remount,bind,$2" "$1"`, s.root, view, options).CombinedOutput(); err != nil {
				s.t.Skipf("skipped: cannot mount: %v: %s", err, out)
			}
			s.t.Cleanup(func() { exec.Command("umount", view).Run() })
			write(s.t, s.b+"/config/scrape-targets.json", fmt.Sprintf(`{"archive_root": %q}`, view))
			c := s.dcelock("--")
			c.dir = s.b
			return c
		}
	}
	inside := []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
	container := func(s *archive) call {
		c := s.dcelock("--")
		c.argv = append(slices.Clone(inside), c.argv...)
		return c
	}
	for name, c := range map[string]struct {
		holder []string // in front of the holder
		second func(s *archive) call
	}{
		"bind mount":              {nil, bound("")},
		"read-only bind mount":    {nil, bound("ro")},
		"from a container":        {nil, container},
		"holder in a container":   {inside, here},
		"containers side by side": {inside, container},
	} {
		for _, removed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, removed %v", name, removed), func(t *testing.T) {
				s := newArchive(t)
				second := c.second(s)
				holder := call{argv: append(slices.Clone(c.holder), binary, "--", "bash", "-c", "echo ready; read -r _; exit 0"), dir: s.a}.start(t)
				holder.sees("ready")
				if removed {
					os.Remove(s.lock)
					os.Remove(s.meta)
				}
				r := s.refused(second)
				if strings.Contains(r.stderr, "kill 1\n") || strings.Contains(r.stderr, "kill 1 ") {
					t.Errorf("advises to kill init:\n%s", r.stderr)
				}
				status := second
				status.argv = append(slices.Clone(second.argv[:len(second.argv)-1]), "--status")
				if r := status.run(t); r.status != 1 || !strings.Contains(r.stdout, "state: held (active scrape)\n") {
					t.Errorf("%+v", r)
				}
				holder.end()
				holder.wait().wants(t, 0)
				s.dcelock("--", "true").run(t).wants(t, 0)
				s.free()
			})
		}
	}
}

// A process whose main thread has ended shows its descriptors under its other
// threads alone; it holds the lock, and is named.
func TestHolderWithoutMainThread(t *testing.T) {
	if exec.Command("python3", "-c", "import ctypes, threading").Run() != nil {
		t.Skip("python3 is not to be had")
	}
	s := newArchive(t)
	const program = `
import ctypes, os, sys, threading
def rest():
    while open("/proc/self/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
        pass
    print("ready", os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=rest).start()
ctypes.CDLL(None).pthread_exit(None)
`
	holder := s.dcelock("--", "python3", "-c", program).start(t)
	holder.sees("\n") // the whole line
	var pid int
	fmt.Sscanf(holder.stdout(), "ready %d", &pid)
	s.refused(s.dcelock("--"), fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid), strconv.Itoa(pid))
	holder.cmd.Process.Kill()
	<-holder.done
	for _, remove := range []string{"", s.lock, s.meta} {
		os.Remove(remove)
		s.refused(s.dcelock("--"), fmt.Sprintf("Holder pid %d (running, started ", pid), fmt.Sprintf("to stop it: kill %d\n", pid))
		if j := s.json(t); j.State != "held" || len(j.Holders) != 1 || j.Holders[0].PID != pid {
			t.Errorf("%+v", j)
		}
	}
	holder.end()
	if !eventually(func() bool { return s.dcelock("-q", "--", "true").run(t).status == 0 }) {
		t.Error("the lock stays held after its end")
	}
}

// A copy of an archive is another archive, the record that was copied with it
// notwithstanding.
func TestCopyOfALiveArchiveIsFree(t *testing.T) {
	s := newArchive(t)
	holder := s.hold()
	copied := s.fill("<dir>") + "/copy"
	call{argv: []string{"cp", "-a", s.root, copied}}.run(t).wants(t, 0)
	write(t, s.b+"/config/scrape-targets.json", fmt.Sprintf(`{"archive_root": %q}`, copied))
	of := func(words ...string) call {
		c := s.dcelock(words...)
		c.dir = s.b
		return c
	}
	if r := of("--status").run(t); r.status != 0 || !strings.Contains(r.stdout, "state: free (lock file present but not held)\n") {
		t.Errorf("%+v", r)
	}
	of("--", "bash", "-c", `grep -q "^pid=$PPID$" "$DCE_SCRAPE_LOCK_HELD.meta"`).run(t).wants(t, 0, fmt.Sprintf("replacing the record of pid %d (running", holder.cmd.Process.Pid))
	if exists(copied + "/.dce-scrape.lock.meta") {
		t.Error("a record is left in the copy")
	}
	s.refused(s.dcelock("--"), fmt.Sprintf("Holder pid %d (running", holder.cmd.Process.Pid))
}

// A record that names a living process which does not hold the lock refuses
// nobody, however well it is written.
func TestRecordRefusesNobody(t *testing.T) {
	elsewhere := newArchive(t)
	innocent := elsewhere.hold()
	pid := innocent.cmd.Process.Pid
	complete := slurp(t, elsewhere.meta)
	for name, record := range map[string]string{
		"complete":        complete,
		"of another file": strings.Replace(complete, "lock_id="+elsewhere.key("lock_id"), "lock_id=1:2", 1),
		"short":           fmt.Sprintf("pid=%d\nstarted=2026-06-04T06:39:46Z\ncmd=x\n", pid),
		"init's":          "pid=1\nstarted=2026-06-04T06:39:46Z\ncmd=x\n",
	} {
		for _, present := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, lock file %v", name, present), func(t *testing.T) {
				s := newArchive(t)
				if present {
					write(t, s.lock, "")
				}
				write(t, s.meta, record)
				if facts, r := s.status(t, 0); !strings.HasPrefix(facts["state"], "free (") {
					t.Errorf("%s", r.stdout)
				}
				of, _, _ := strings.Cut(strings.TrimPrefix(record, "pid="), "\n")
				r := s.dcelock("--", "true").run(t)
				r.wants(t, 0, "warning: replacing the record of pid "+of+" (running")
				if strings.Contains(r.stderr, "Holder pid") || strings.Contains(r.stderr, "reclaiming") {
					t.Errorf("%s", r.stderr)
				}
				s.free()
				// Nor does a waiting run wait for it.
				write(t, s.meta, record)
				s.dcelock("-w", "forever", "--", "true").run(t).wants(t, 0)
				s.free()
			})
		}
	}
	// With the lock held by somebody else, it is that one who is named, and
	// only that one who is to be stopped.
	s := newArchive(t)
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
	holder.sees("ready")
	write(t, s.meta, complete)
	r := s.refused(s.dcelock("--"), fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid))
	if regexpKill(pid).MatchString(r.stderr) || !regexpKill(holder.cmd.Process.Pid).MatchString(r.stderr) {
		t.Errorf("advises to stop a process that is not in the way:\n%s", r.stderr)
	}
}

// A command that unlocks what it inherited has the lock no more; a run that may
// wait waits for it, or goes on, and does not give up before its time.
func TestCommandThatUnlocks(t *testing.T) {
	for name, which := range map[string]string{"file": "LOCK", "folder": "FOLDER", "both": "LOCK|FOLDER"} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			unlock := `for fd in /proc/$$/fd/*; do case $(readlink $fd) in ` + strings.NewReplacer("LOCK", s.lock, "FOLDER", s.root).Replace(which) + `) flock -u ${fd##*/};; esac; done; echo ready; read -r _; exit 0`
			holder := s.dcelock("--", "bash", "-c", unlock).start(t)
			holder.sees("ready")
			waiter := s.dcelock("--wait=60", "--", "true").start(t)
			// The one is free when both are unlocked; else it waits.
			if name != "both" {
				waits(t, waiter)
			}
			holder.end()
			waiter.wait().wants(t, 0)
			holder.wait()
			s.free()
		})
	}
}

// Nothing is done to a file that a link in the place of the lock file leads to,
// unless it is there and the link's maker owns it.
func TestLinksInTheLocksPlace(t *testing.T) {
	needsRoot(t, "to be two users")
	for name, c := range map[string]struct {
		target string
		maker  string
		status int
	}{
		"dangling":            {"<a>/missing", "65534", 73},
		"dangling, one's own": {"<a>/missing", "0", 73},
		"another's file":      {"<a>/file", "65534", 73},
		"one's own file":      {"<a>/file", "0", 0},
		"their own file":      {"<a>/theirs", "65534", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			write(t, s.a+"/file", "precious")
			write(t, s.a+"/theirs", "")
			os.Chown(s.a+"/theirs", 65534, 65534)
			os.Symlink(s.fill(c.target), s.lock)
			maker, _ := strconv.Atoi(c.maker)
			os.Lchown(s.lock, maker, maker)
			before := s.tree()
			s.dcelock("--status").run(t).wants(t, c.status)
			r := s.dcelock("--", "bash", "-c", `flock -n "$0" true || echo locked`, s.a+"/file").run(t)
			if c.status != 0 {
				r.wants(t, c.status, s.lock)
			}
			if after := s.tree(); r.status != c.status || (r.stdout == "locked\n") != (c.target == "<a>/file" && c.status == 0) || after != before || slurp(t, s.a+"/file") != "precious" {
				t.Errorf("%+v\nfiles before:\n%s\nafter:\n%s", r, before, after)
			}
		})
	}
}

// A file that is now a FIFO, now a regular file, keeps no run from its end.
func TestFIFOFlickers(t *testing.T) {
	s := newArchive(t)
	fifo, file := s.root+"/fifo", s.root+"/file"
	stop := make(chan struct{})
	var flicker sync.WaitGroup
	flicker.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = syscall.Mkfifo(fifo, 0o444)
			_ = os.Rename(fifo, s.lock)
			_ = os.WriteFile(file, nil, 0o444)
			_ = os.Rename(file, s.lock)
		}
	})
	defer flicker.Wait()
	defer close(stop)
	ended := map[int]int{}
	for i := range 150 {
		c := s.dcelock("-q", "--", "true")
		if i%2 == 1 {
			c = s.dcelock("--status")
		}
		c.attr = asUser(t)
		r := c.run(t) // which fails the test when it does not end
		ended[r.status]++
	}
	if len(ended) == 0 || ended[0]+ended[71]+ended[73] != 150 {
		t.Errorf("how often the runs ended with which status: %v", ended)
	}
}

// Two that lock and unlock again and again, to see whether they can, make no run
// fail, unless they, too, have had the lock for a tenth of a second.
func TestProbesRefuseNobody(t *testing.T) {
	s := newArchive(t)
	write(t, s.lock, "")
	for range 2 {
		p := call{argv: []string{"bash", "-c", `echo ready; until read -r -t 0; do flock -n "$0" true; done`, s.lock}}.start(t)
		p.sees("ready")
	}
	for range 100 {
		begin := time.Now()
		if r := s.dcelock("--", "true").run(t); r.status != 0 && time.Since(begin) < 100*time.Millisecond {
			t.Errorf("%+v", r)
		}
	}
}

// Where it may be a momentary holder, a run has waited in the kernel's queue for a
// tenth of a second before it is refused; where the record's own process is seen
// to hold the lock, it is told at once.
func TestRunQueuesBeforeItIsRefused(t *testing.T) {
	s := newArchive(t)
	c := s.dcelock("--")
	if os.Geteuid() == 0 { // before whatever else a busy machine does
		c.argv = append([]string{"nice", "-n", "-20"}, c.argv...)
	}
	refusal := func() time.Duration {
		begin := time.Now()
		s.refused(c)
		return time.Since(begin)
	}
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
	holder.sees("ready")
	fastest := min(refusal(), refusal(), refusal())
	if fastest < 100*time.Millisecond {
		t.Errorf("refused after %v", fastest)
	}
	holder.end()
	holder.wait()
	s.hold()
	// A busy machine takes longer, but not longer by the tenth of a second each time.
	if !eventually(func() bool { return refusal() < fastest-50*time.Millisecond }) {
		t.Errorf("beside a recorded holder, never refused sooner than after %v", fastest)
	}
}

// However lock file and record are removed and moved about during a contest of
// runs, two commands never run at the same time.
func TestFilesComeAndGoDuringAContest(t *testing.T) {
	s := newArchive(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	stop := make(chan struct{})
	var meddler, runs sync.WaitGroup
	meddler.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(random.IntN(3000)) * time.Microsecond): // another moment
			}
			aside := fmt.Sprintf("%s/%x", []string{s.root, s.b}[random.IntN(2)], random.Uint64())
			switch random.IntN(6) {
			case 0:
				os.Remove(s.lock)
			case 1:
				os.Remove(s.meta)
			case 2:
				os.Remove(s.lock)
				os.Remove(s.meta)
			case 3:
				os.Rename(s.lock, aside)
			case 4:
				os.Rename(s.lock, aside)
				os.Rename(s.meta, aside+".meta")
			case 5:
				os.Rename(s.meta, s.lock)
			}
		}
	})
	statuses := make(chan int, 1000)
	for i := range 5 {
		runs.Go(func() {
			for range 30 {
				flags := [][]string{{"-q", "--"}, {"-q", "--wait=60", "--"}}[i%2]
				run := exec.Command(binary, append(flags, s.alone()...)...)
				run.Dir = []string{s.a, s.b}[i%2]
				run.Run() // the status tells
				statuses <- run.ProcessState.ExitCode()
			}
		})
	}
	runs.Wait()
	close(stop)
	meddler.Wait()
	close(statuses)
	ended := map[int]int{}
	for status := range statuses {
		ended[status]++
	}
	if ended[99] > 0 || ended[0] < 60 || ended[0]+ended[1] != 150 {
		t.Errorf("seed %d: how often the runs ended with which status: %v", seed, ended)
	}
	os.Remove(s.meta) // which may have been moved about
	s.dcelock("--", "true").run(t).wants(t, 0)
	s.free()
}

// A script's lock file that was removed is looked for by its name: the script is
// the holder, and is named.
func TestScriptsRemovedLockFile(t *testing.T) {
	s := newArchive(t)
	for _, env := range [][]string{nil, {"DCE_SCRAPE_LOCK_FILE=" + s.root + "/my.lock"}} {
		path := s.lock
		if env != nil {
			path = s.root + "/my.lock"
		}
		holder := call{argv: []string{"flock", path, "bash", "-c", "echo ready; read -r _"}}.start(t)
		holder.sees("ready")
		neighbour := call{argv: []string{"flock", path + "2", "bash", "-c", "echo ready; read -r _"}}.start(t)
		neighbour.sees("ready")
		os.Remove(path)
		os.Remove(path + "2")
		c := s.dcelock("--")
		c.env = env
		s.refused(c, fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid))
		status := s.dcelock("--status")
		status.env = env
		if r := status.run(t); r.status != 1 || !strings.Contains(r.stdout, fmt.Sprintf("holder: pid %d (running", holder.cmd.Process.Pid)) {
			t.Errorf("%+v", r)
		}
		holder.end()
		holder.wait()
		c.argv = append(c.argv, "true")
		c.run(t).wants(t, 0)
	}
}
