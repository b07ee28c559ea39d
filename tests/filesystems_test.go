package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fileSystems are the kinds that a test machine can mount, each with a script
// that mounts one at $1/m, using $1 for what it needs, and the tool that the
// script cannot do without.
var fileSystems = []struct{ kind, tool, script string }{
	{"tmpfs", "mount", `mount -t tmpfs none "$1/m"`},
	{"overlay", "mount", `mount -t tmpfs none "$1/m"; mkdir "$1/m/lower" "$1/m/upper" "$1/m/work"; cd "$1/m"
		mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none "$1/m"`},
	// In a subvolume, whose device stat gives differently from the kernel.
	{"btrfs", "mkfs.btrfs", `truncate -s 200M "$1/image"; mkfs.btrfs -q "$1/image"; mount -o loop "$1/image" "$1/m"
		btrfs -q subvolume create "$1/m/sub"; mount --bind "$1/m/sub" "$1/m"`},
	{"xfs", "mkfs.xfs", `truncate -s 320M "$1/image"; mkfs.xfs -q "$1/image"; mount -o loop "$1/image" "$1/m"`},
	{"fuse", "bindfs", `mkdir "$1/below"; bindfs "$1/below" "$1/m"`},
}

// onFileSystems runs a test on the test machine's own file system, and on each
// that can be mounted, with an archive root there.
func onFileSystems(t *testing.T, test func(t *testing.T, s *archive)) {
	t.Run("here", func(t *testing.T) { test(t, newArchive(t)) })
	for _, f := range fileSystems {
		t.Run(f.kind, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to mount")
			}
			if _, err := exec.LookPath(f.tool); err != nil {
				t.Skipf("%s is not installed", f.tool)
			}
			s := newArchive(t)
			folder := t.TempDir()
			os.Mkdir(folder+"/m", 0o755)
			t.Cleanup(func() {
				// What was mounted upon each other goes in turn.
				for exec.Command("umount", folder+"/m").Run() == nil {
				}
			})
			out, err := exec.Command("bash", "-ec", f.script, "bash", folder).CombinedOutput()
			if err != nil {
				t.Skipf("%s cannot be mounted here: %v: %s", f.kind, err, out)
			}
			os.Remove(s.root)
			os.Symlink(folder+"/m", s.root)
			test(t, s)
		})
	}
}

// pids are the numbers that a program prints, sorted.
func pids(t *testing.T, program ...string) (list []int) {
	t.Helper()
	r := call{argv: program}.run(t)
	for _, field := range strings.Fields(r.stdout) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("%q printed %s", program, r.stdout)
		}
		list = append(list, pid)
	}
	slices.Sort(list)
	return list
}

// The holders that --status names are those that fuser(1), lslocks(8) and ps(1)
// show, in every way to hold the lock and on every file system.
func TestHoldersAgreeWithOtherTools(t *testing.T) {
	for _, tool := range []struct{ name, pkg string }{{"fuser", "psmisc"}, {"lslocks", "util-linux"}, {"ps", "procps"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			t.Skipf("%s is not installed (apt-get install %s)", tool.name, tool.pkg)
		}
	}
	const until = "echo ready; read -r _; exit 0"
	situations := []struct {
		name    string
		command []string // $0 is the lock file where it is a script
		kill    bool     // the wrapper, before one looks

		takerLives bool
	}{
		{"dcelock", []string{binary, "--", "bash", "-c", until}, false, true},
		{"orphan", []string{binary, "--", "bash", "-c", until}, true, false},
		{"three in the background", []string{binary, "--", "bash", "-c", "exec 3<&0; for i in 1 2 3; do cat <&3 & done; " + until}, false, true},
		{"flock(1)", []string{"flock", "LOCK", "bash", "-c", until}, false, true},
		{"bash", []string{"bash", "-c", `exec {fd}>>"$0"; flock -n $fd; ` + until, "LOCK"}, false, false},
	}
	onFileSystems(t, func(t *testing.T, s *archive) {
		for _, situation := range situations {
			argv := slices.Clone(situation.command)
			for i := range argv {
				argv[i] = strings.Replace(argv[i], "LOCK", s.lock, 1)
			}
			p := call{argv: argv, dir: s.a}.start(t)
			p.sees("ready")
			if situation.kill {
				p.cmd.Process.Kill()
				<-p.done
			}
			j := s.json(t)
			var named []int
			for _, h := range j.Holders {
				if h.State == "running" {
					named = append(named, h.PID)
				}
			}
			slices.Sort(named)
			if want := pids(t, "fuser", s.lock); !slices.Equal(named, want) || len(want) == 0 || j.State != "held" {
				t.Errorf("%s: --status names %v, fuser %v", situation.name, named, want)
			}
			// lslocks names the taker, unless that is gone.
			seen := false
			real := strings.TrimSpace(call{argv: []string{"readlink", "-f", s.lock}}.run(t).stdout)
			// It reads /proc/locks too, which may lack a line when it is long.
			for tries := 0; tries < 5 && !seen; tries++ {
				for line := range strings.Lines(call{argv: []string{"lslocks", "-nu", "-o", "PID,PATH"}}.run(t).stdout) {
					pid, path, _ := strings.Cut(strings.TrimSpace(line), " ")
					if taker, _ := strconv.Atoi(pid); strings.TrimSpace(path) == real {
						seen = true
						if !slices.Contains(named, taker) {
							t.Errorf("%s: lslocks says %s", situation.name, line)
						}
					}
				}
			}
			if !seen && situation.takerLives {
				t.Errorf("%s: lslocks says nothing", situation.name)
			}
			for _, h := range j.Holders {
				if h.State != "running" {
					continue
				}
				pid := fmt.Sprint(h.PID)
				if user := strings.TrimSpace(call{argv: []string{"ps", "-o", "user:32=", "-p", pid}}.run(t).stdout); *h.User != user {
					t.Errorf("%s: user %s, ps says %s", situation.name, *h.User, user)
				}
				lstart := strings.TrimSpace(call{argv: []string{"ps", "-o", "lstart=", "-p", pid}}.run(t).stdout)
				began, err := time.ParseInLocation("Mon Jan _2 15:04:05 2006", lstart, time.Local)
				said, _ := time.Parse(time.RFC3339, *h.Started)
				// A record says when the lock was taken, ps when the process was started.
				if after := said.Sub(began); err != nil || after < -3*time.Second || after > patience {
					t.Errorf("%s: started %v, ps says %v (%v)", situation.name, said, began, err)
				}
				if cwd, _ := os.Readlink("/proc/" + pid + "/cwd"); *h.Cwd != cwd {
					t.Errorf("%s: in %s, really %s", situation.name, *h.Cwd, cwd)
				}
			}
			p.end()
			<-p.done
			if !eventually(s.lockIsFree) {
				t.Fatalf("%s: the lock stays held", situation.name)
			}
			os.Remove(s.meta)
		}
	})
}

// A run is refused, waited for, reclaimed and kept out by a removed lock file
// on every file system.
func TestFileSystems(t *testing.T) {
	onFileSystems(t, func(t *testing.T, s *archive) {
		holder := s.hold()
		named := fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid)
		s.dcelock("--", "touch", "ran").run(t).wants(t, 1, named)
		waiter := s.dcelock("-w", "60", "--", "true").start(t)
		waits(t, waiter)
		if j := s.json(t); len(j.Waiters) != 1 || j.Waiters[0].PID != waiter.cmd.Process.Pid {
			t.Errorf("waiters: %+v", j.Waiters)
		}
		holder.end()
		waiter.wait().wants(t, 0)
		s.free()
		for _, remove := range []func(){
			func() { os.Remove(s.lock) },
			func() { os.Remove(s.lock); os.Remove(s.meta) },
			func() { os.Rename(s.lock, s.lock+".old"); os.Remove(s.meta) },
		} {
			holder := s.hold()
			remove()
			s.dcelock("--", "touch", "ran").run(t).wants(t, 1, fmt.Sprintf("Holder pid %d (running", holder.cmd.Process.Pid), "removed or replaced")
			if facts, _ := s.status(t, 1); facts["state"] != "held (active scrape)" {
				t.Errorf("%v", facts)
			}
			holder.end()
			holder.wait().wants(t, 0)
		}
		s.dcelock("--", "bash", "-c", "kill -KILL $PPID; exit 0").run(t)
		if !eventually(s.lockIsFree) {
			t.Fatal("the lock stays held")
		}
		s.dcelock("--", "true").run(t).wants(t, 0, "reclaiming scrape lock")
		if exists(s.a + "/ran") {
			t.Error("a refused command ran")
		}
	})
}
