package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// status is what --status prints, by key; of several lines the first counts, as
// for the scripts.
func (s *archive) status(t *testing.T, want int) (map[string]string, result) {
	t.Helper()
	r := s.dcelock("--status").run(t)
	r.wants(t, want)
	if r.stderr != "" {
		t.Errorf("--status says %s", r.stderr)
	}
	facts := map[string]string{}
	for line := range strings.Lines(r.stdout) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Errorf("not one fact a line: %q", line)
		}
		if facts[key] == "" {
			facts[key] = value
		}
	}
	return facts, r
}

type jsonProcess struct {
	PID     int
	State   string
	Started *string
	Age     *int `json:"age_seconds"`
	Cmd     string
	User    *string
	Host    *string
	Cwd     *string
	Source  string
	Left    *int `json:"left_behind_by_pid"`
	Unseen  bool
}

type jsonStatus struct {
	Config   *string
	Lock     string
	Exists   bool `json:"lock_file_exists"`
	State    string
	Replaced bool `json:"lock_file_replaced"`
	Record   string
	Problem  *string `json:"record_problem"`
	Killed   *int    `json:"killed_pid"`
	Holders  []jsonProcess
	Waiters  []jsonProcess
	Kind     *string `json:"file_system"`
	Device   *string `json:"file_system_source"`
	Local    *string `json:"locks_local_because"`
}

func (s *archive) json(t *testing.T) jsonStatus {
	t.Helper()
	r := s.dcelock("--status", "--json").run(t)
	var status jsonStatus
	decoder := json.NewDecoder(strings.NewReader(r.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&status); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	if want := map[string]int{"free": 0, "stale": 0, "held": 1}[status.State]; r.status != want || r.stderr != "" {
		t.Errorf("state %s: %+v", status.State, r)
	}
	if status.Lock != s.lock || status.Record != s.meta || status.Config == nil || *status.Config != s.a+"/config/scrape-targets.json" || status.Kind == nil || status.Device == nil || status.Holders == nil || status.Waiters == nil {
		t.Errorf("incomplete: %s", r.stdout)
	}
	return status
}

func TestStatus(t *testing.T) {
	s := newArchive(t)
	_, r := s.status(t, 0)
	if want := fmt.Sprintf("config: %s/config/scrape-targets.json\nlock: %s\nstate: free (no lock file)\nfile system: ", s.a, s.lock); !strings.HasPrefix(r.stdout, want) {
		t.Errorf("got\n%swant\n%s", r.stdout, want)
	}
	if j := s.json(t); j.State != "free" || j.Exists || exists(s.lock) {
		t.Errorf("%+v", j)
	}

	s.dcelock("--", "true").run(t)
	var facts map[string]string
	if facts, _ = s.status(t, 0); facts["state"] != "free (lock file present but not held)" {
		t.Errorf("%v", facts)
	}
	if j := s.json(t); j.State != "free" || !j.Exists {
		t.Errorf("%+v", j)
	}

	holder := s.hold()
	pid := holder.cmd.Process.Pid
	facts, r = s.status(t, 1)
	want := fmt.Sprintf("config: %s/config/scrape-targets.json\nlock: %s\nstate: held (active scrape)\nholder: pid %d (running, started %s)\ncmd: %s\nabout: held for ",
		s.a, s.lock, pid, s.key("started"), s.key("cmd"))
	if !strings.HasPrefix(r.stdout, want) {
		t.Errorf("got\n%swant\n%s…", r.stdout, want)
	}
	for key, part := range map[string]string{"by": s.key("user"), "on": s.key("host"), "in": s.a} {
		if !strings.Contains(facts["about"], key+" "+part) {
			t.Errorf("%q lacks %s %s", facts["about"], key, part)
		}
	}
	// A second process waits.
	waiter := call{argv: []string{"flock", s.lock, "true"}}.start(t)
	waits(t, waiter)
	if facts, _ = s.status(t, 1); !strings.HasPrefix(facts["waiter"], fmt.Sprintf("pid %d (running, started ", waiter.cmd.Process.Pid)) {
		t.Errorf("%v", facts)
	}
	j := s.json(t)
	if len(j.Holders) != 2 || j.Holders[1].Source != "kernel" || len(j.Waiters) != 1 || j.Waiters[0].PID != waiter.cmd.Process.Pid {
		t.Fatalf("%+v", j)
	}
	h := j.Holders[0]
	if h.PID != pid || h.State != "running" || h.Source != "record" || *h.Started != s.key("started") || h.Cmd != s.key("cmd") ||
		*h.User != s.key("user") || *h.Host != s.key("host") || *h.Cwd != s.a || *h.Age < 0 || h.Left != nil {
		t.Errorf("%+v", h)
	}

	if j.Killed != nil {
		t.Errorf("%d was killed: %+v", *j.Killed, j)
	}

	// The wrapper is killed: that is said, and the holder is the process
	// that really holds the lock, left behind by it.
	holder.cmd.Process.Kill()
	<-holder.done
	j = s.json(t)
	if j.State != "held" || j.Killed == nil || *j.Killed != pid || len(j.Holders) != 1 || j.Holders[0].PID == pid ||
		j.Holders[0].Source != "kernel" || j.Holders[0].State != "running" || j.Holders[0].Left == nil || *j.Holders[0].Left != pid {
		t.Errorf("%+v", j)
	}
	if facts, r = s.status(t, 1); facts["state"] != "held (active scrape)" || !strings.Contains(r.stdout, fmt.Sprintf("note: dcelock pid %d (started ", pid)) {
		t.Errorf("%s", r.stdout)
	}
	holder.end()
	waiter.wait()
	if !eventually(s.lockIsFree) {
		t.Fatal("the lock stays held")
	}
	if facts, _ = s.status(t, 0); facts["state"] != fmt.Sprintf("stale (reclaimable; holder pid %d is not running)", pid) {
		t.Errorf("%v", facts)
	}
	if j = s.json(t); j.State != "stale" || len(j.Holders) != 1 || j.Holders[0].State != "not running" {
		t.Errorf("%+v", j)
	}
	s.dcelock("--", "true").run(t).wants(t, 0, "reclaiming")
}

func TestStatusOfReplacedLockFile(t *testing.T) {
	for name, remove := range map[string]func(s *archive){
		"removed":                 func(s *archive) { os.Remove(s.lock) },
		"replaced":                func(s *archive) { os.Remove(s.lock); write(t, s.lock, "") },
		"moved aside":             func(s *archive) { os.Rename(s.lock, s.lock+".old") },
		"removed with the record": func(s *archive) { os.Remove(s.lock); os.Remove(s.meta) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			holder := s.hold()
			remove(s)
			if facts, r := s.status(t, 1); facts["state"] != "held (active scrape)" || !strings.Contains(r.stdout, "removed or replaced") ||
				!strings.HasPrefix(facts["holder"], fmt.Sprintf("pid %d (running", holder.cmd.Process.Pid)) {
				t.Errorf("%s", r.stdout)
			}
			if j := s.json(t); !j.Replaced {
				t.Errorf("%+v", j)
			}
			s.dcelock("--", "touch", "ran").run(t).wants(t, 1, "already running", "removed or replaced", fmt.Sprintf("kill %d", holder.cmd.Process.Pid))
			if exists(s.a + "/ran") {
				t.Error("the command ran")
			}
			holder.end()
			holder.wait().wants(t, 0)
			s.dcelock("--", "true").run(t).wants(t, 0)
			s.free()
		})
	}
}

func TestStatusErrors(t *testing.T) {
	s := newArchive(t)
	s.dcelock("--status", "--", "true").run(t).wants(t, 64, "--status")
	s.dcelock("--json", "--", "true").run(t).wants(t, 64, "--status")
	s.dcelock("--status", "--config", "nowhere.json").run(t).wants(t, 66, "nowhere.json")
	s.config(`{"archive_root": "x"}`)
	s.dcelock("--status").run(t).wants(t, 65, "not an absolute path")
	s.config(`{"archive_root": "<root>/no/where"}`)
	s.dcelock("--status").run(t).wants(t, 66, "is the drive mounted?")
	s.config(`{"archive_root": "<root>/new"}`)
	s.dcelock("--status").run(t).wants(t, 66, "is the drive mounted?", "mkdir -p "+s.root+"/new")
	write(t, s.root+"/neighbour", "")
	if r := s.dcelock("--status").run(t); r.status != 0 || !strings.Contains(r.stdout, "free (no lock file)") || exists(s.root+"/new") {
		t.Errorf("%+v", r)
	}
}

// What cannot be printed is an error, not a status.
func TestStatusToAFullDisk(t *testing.T) {
	s := newArchive(t)
	for _, flags := range []string{"--status", "--status --json"} {
		call{argv: []string{"bash", "-c", `"$0" $1 >/dev/full`, binary, flags}, dir: s.a}.run(t).wants(t, 71, "standard output")
	}
}

// A loop of --status makes no run fail, and makes no flock call.
func TestStatusTakesNothing(t *testing.T) {
	s := newArchive(t)
	loop := call{argv: []string{"bash", "-c", `echo ready; while ! test -e "$1"; do "$0" --status >/dev/null || exit; done; echo done`, binary, s.a + "/stop"}, dir: s.a,
		env: []string{"DCE_SCRAPE_LOCK_FILE=" + s.root + "/probed.lock"}}.start(t)
	loop.sees("ready")
	for range 100 {
		c := s.dcelock("--", "true")
		c.env = []string{"DCE_SCRAPE_LOCK_FILE=" + s.root + "/probed.lock"}
		c.run(t).wants(t, 0)
	}
	write(t, s.a+"/stop", "")
	loop.wait()

	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed, so the system calls are not looked at")
	}
	s.hold()
	r := call{argv: []string{"strace", "-f", "-qq", "-o", s.a + "/trace", binary, "--status"}, dir: s.a}.run(t)
	trace := slurp(t, s.a+"/trace")
	if r.status != 1 || !strings.Contains(trace, "/proc/locks") {
		t.Skipf("strace does not work here: %+v", r)
	}
	for _, call := range []string{"flock(", "F_SETLK", "F_OFD_SETLK", "O_CREAT", "unlink", "rename"} {
		if strings.Contains(trace, call) {
			t.Errorf("--status calls %s", call)
		}
	}
}

// asRoot is the command that shows the superuser who holds the lock.
func (s *archive) asRoot() string {
	return "sudo env DCE_SCRAPE_LOCK_FILE=" + s.lock + " " + binary + " --status\n"
}

// The other user's process may not be looked at, and is named all the same.
func TestOtherUsersHolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be two users")
	}
	s := newArchive(t)
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
	holder.sees("ready")
	os.Chmod(s.lock, 0o666)
	c := s.dcelock("--", "true")
	c.attr = asUser(t)
	c.run(t).wants(t, 1, "left no record", fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid), "flock "+s.lock, "by root, took the lock, its other processes cannot be seen",
		s.asRoot(), fmt.Sprintf("to stop it: sudo kill %d\n", holder.cmd.Process.Pid))
	status := s.dcelock("--status", "--json")
	status.attr = c.attr
	if r := status.run(t); r.status != 1 || !strings.Contains(r.stdout, `"unseen":true`) {
		t.Errorf("%+v", r)
	}
	// With the process that took the lock gone, nobody can be named.
	holder.cmd.Process.Kill()
	<-holder.done
	r := c.run(t)
	r.wants(t, 1, "no process can be seen that holds it", s.asRoot())
	if strings.Contains(r.stderr, "Holder") {
		t.Errorf("%s", r.stderr)
	}
}

// Another PID namespace numbers processes in its own way.
func TestOtherPIDNamespace(t *testing.T) {
	s := newArchive(t)
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	inside := s.dcelock("--", "bash", "-c", "echo ready; read -r _; exit 0")
	inside.attr = attr
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a PID namespace")
	}
	p := inside.start(t)
	p.sees("ready")
	if s.key("pid") != "1" {
		t.Fatalf("the record does not give the pid of the other namespace:\n%s", slurp(t, s.meta))
	}
	r := s.dcelock("--", "true").run(t)
	r.wants(t, 1, "Holder pid 1 (cannot tell, started ", fmt.Sprintf("Holder pid %d (running, started ", p.cmd.Process.Pid))
	if strings.Contains(r.stderr, "kill 1 ") || strings.HasSuffix(r.stderr, "kill 1\n") {
		t.Errorf("advises to kill init:\n%s", r.stderr)
	}
	p.end()
	p.wait().wants(t, 0)

	// And from the inside, with the /proc of the outside.
	outer := s.hold()
	seen := s.dcelock("--", "true")
	seen.attr = attr
	r = seen.run(t)
	r.wants(t, 1, fmt.Sprintf("Holder pid %d (cannot tell, started ", outer.cmd.Process.Pid))
}

func init() {
	// churn takes and releases many locks of its own until its input ends.
	helpers["churn"] = func(args []string) int {
		var files []*os.File
		for i := range 200 {
			f, err := os.Create(fmt.Sprintf("%s/%d", args[0], i))
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			files = append(files, f)
		}
		ended := make(chan struct{})
		go func() {
			os.Stdin.Read(make([]byte, 1))
			close(ended)
		}()
		fmt.Println("ready")
		for {
			for _, how := range []int{syscall.LOCK_EX, syscall.LOCK_UN} {
				for _, f := range files {
					syscall.Flock(int(f.Fd()), how)
				}
			}
			select {
			case <-ended:
				return 0
			default:
			}
		}
	}
}

// The kernel's list of locks is no snapshot when it is long: a lock that is held
// may be missing from it, and is found all the same.
func TestManyLocksComeAndGo(t *testing.T) {
	s := newArchive(t)
	churn := call{argv: []string{os.Args[0], t.TempDir()}, env: []string{"DCELOCK_TEST_HELPER=churn"}}.start(t)
	churn.sees("ready")
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
	holder.sees("ready")
	for range 40 {
		if r := s.dcelock("--status").run(t); r.status != 1 || !strings.Contains(r.stdout, fmt.Sprintf("holder: pid %d (running", holder.cmd.Process.Pid)) {
			t.Errorf("%+v", r)
		}
	}
	os.Remove(s.lock)
	for range 20 {
		s.dcelock("--", "true").run(t).wants(t, 1, fmt.Sprintf("Holder pid %d (running", holder.cmd.Process.Pid))
	}
}

// Nor may root look at it where it lacks the capability, as in a container; the
// kernel's list names it.
func TestHolderThatRootMayNotLookAt(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and setpriv(1)")
	}
	s := newArchive(t)
	write(t, s.lock, "")
	os.Chmod(s.lock, 0o666)
	c := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}, attr: asUser(t)}
	holder := c.start(t)
	holder.sees("ready")
	run := s.dcelock("--", "true")
	run.argv = append([]string{setpriv, "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"}, run.argv...)
	run.run(t).wants(t, 1, fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid), "its other processes cannot be seen")
}
