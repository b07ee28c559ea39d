// Package tests drives the built dcelock from outside, with real processes,
// real bash and the real flock(1).
package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the dcelock under test, built by TestMain.
var binary string

// patience is how long a test waits for an event before it fails.
const patience = time.Minute

func TestMain(m *testing.M) {
	if run := helpers[os.Getenv("DCELOCK_TEST_HELPER")]; run != nil {
		os.Exit(run(os.Args[1:]))
	}
	for _, tool := range []struct{ name, pkg string }{{"bash", "bash"}, {"flock", "util-linux"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			fmt.Fprintf(os.Stderr, "the tests need %s; get it with: apt-get install %s\n", tool.name, tool.pkg)
			os.Exit(1)
		}
	}
	// What the surroundings of the tests have set must not steer the runs.
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "DCE_") {
			os.Unsetenv(name)
		}
	}
	// What nohup(1) and a shell's background ignore must not be ignored below.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "dcelock-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	os.Chmod(folder, 0o755) // other users run the binary too
	binary = filepath.Join(folder, "dcelock")
	build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", binary, "..")...)
	build.Env = append(os.Environ(), buildEnv...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// helpers are programs that tests need and no common tool is. The test binary
// runs one when DCELOCK_TEST_HELPER names it.
var helpers = map[string]func(args []string) int{}

// A call is a program to run, with its surroundings.
type call struct {
	argv  []string
	dir   string
	env   []string // NAME=VALUE, in addition to the tests' own
	attr  *syscall.SysProcAttr
	files []*os.File // from descriptor 3 on
	stdin io.Reader
}

// A result is how a call ended and what it printed.
type result struct {
	status         int            // exit status; -1 after a death by signal
	signal         syscall.Signal // 0 after an exit
	stdout, stderr string
}

// A process is a call that was started.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	out, err string // files
	done     chan struct{}
}

// start starts a call. Its standard input stays open until end is called.
// Whatever happens, the process is gone when the test is.
func (c call) start(t *testing.T) *process {
	t.Helper()
	folder := t.TempDir()
	p := &process{t: t, cmd: exec.Command(c.argv[0], c.argv[1:]...), done: make(chan struct{}),
		out: filepath.Join(folder, "out"), err: filepath.Join(folder, "err")}
	p.cmd.Dir, p.cmd.SysProcAttr, p.cmd.ExtraFiles = c.dir, c.attr, c.files
	p.cmd.Env = append(os.Environ(), c.env...)
	stdout, stderr := create(t, p.out), create(t, p.err)
	defer stdout.Close()
	defer stderr.Close()
	// Plain files: the process's end is then seen at once, even when
	// something that it left behind still has them.
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	var read *os.File
	if c.stdin != nil {
		p.cmd.Stdin = c.stdin
	} else {
		var write *os.File
		var err error
		if read, write, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		p.cmd.Stdin, p.stdin = read, write
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end()
		select {
		case <-p.done:
		case <-time.After(patience):
			p.cmd.Process.Kill()
			<-p.done
		}
	})
	return p
}

// run runs a call to its end, with nothing on its standard input.
func (c call) run(t *testing.T) result {
	t.Helper()
	p := c.start(t)
	p.end()
	return p.wait()
}

// end closes the standard input of the process.
func (p *process) end() {
	if p.stdin != nil {
		p.stdin.Close()
	}
}

// wait waits until the process has ended.
func (p *process) wait() result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%q does not end; so far it printed:\n%s%s", p.cmd.Args, p.stdout(), p.stderr())
	}
	r := result{status: p.cmd.ProcessState.ExitCode(), stdout: p.stdout(), stderr: p.stderr()}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		r.signal = status.Signal()
	}
	return r
}

func (p *process) stdout() string { return slurp(p.t, p.out) }
func (p *process) stderr() string { return slurp(p.t, p.err) }

// sees waits until the process has printed text on standard output.
func (p *process) sees(text string) {
	p.t.Helper()
	if !eventually(func() bool { return strings.Contains(p.stdout(), text) }) {
		p.t.Fatalf("%q did not print %q but:\n%s%s", p.cmd.Args, text, p.stdout(), p.stderr())
	}
}

// eventually waits for a condition that nothing announces.
func eventually(holds func() bool) bool {
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// An archive is an archive root with two checkouts that share it.
type archive struct {
	t    *testing.T
	root string // the archive root
	lock string // its lock file
	meta string // the record of that
	a, b string // the checkouts
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	// Not t.TempDir, which other users may not enter.
	folder, err := os.MkdirTemp("", "dcelock-archive-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	os.Chmod(folder, 0o755)
	s := &archive{t: t, root: folder + "/archive", a: folder + "/a", b: folder + "/b"}
	s.lock = s.root + "/.dce-scrape.lock"
	s.meta = s.lock + ".meta"
	for _, dir := range []string{s.root, s.a + "/.git", s.a + "/config", s.b + "/.git", s.b + "/config"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, checkout := range []string{s.a, s.b} {
		write(t, checkout+"/config/scrape-targets.json", fmt.Sprintf(`{"archive_root": %q, "targets": []}`, s.root))
	}
	return s
}

// dcelock is a call of dcelock in the first checkout.
func (s *archive) dcelock(args ...string) call {
	return call{argv: append([]string{binary}, args...), dir: s.a}
}

// hold starts a run in the first checkout that holds the lock until its end is
// called, and waits until its command runs. flags go before the command.
func (s *archive) hold(flags ...string) *process {
	s.t.Helper()
	p := s.dcelock(append(flags, "--", "bash", "-c", "echo ready; read -r _; exit 0")...).start(s.t)
	p.sees("ready")
	return p
}

// free fails the test unless the lock can be taken and there is no record.
func (s *archive) free() {
	s.t.Helper()
	if !s.lockIsFree() {
		s.t.Errorf("the lock is still held")
	}
	if text := slurp(s.t, s.meta); text != "" {
		s.t.Errorf("a record is left:\n%s", text)
	}
}

func (s *archive) lockIsFree() bool {
	s.t.Helper()
	r := call{argv: []string{"flock", "-n", "-E", "9", s.lock, "true"}}.run(s.t)
	if r.status != 0 && r.status != 9 {
		s.t.Fatalf("flock: %+v", r)
	}
	return r.status == 0
}

// key is the value of a key in the record, got as the scripts get it.
func (s *archive) key(name string) string {
	s.t.Helper()
	r := call{argv: []string{"bash", "-c", `grep -E "^$1=" "$2" | head -1 | cut -d= -f2-`, "bash", name, s.meta}}.run(s.t)
	return strings.TrimSuffix(r.stdout, "\n")
}

// wants fails the test unless the result has this status and its messages
// hold all of these texts.
func (r result) wants(t *testing.T, status int, messages ...string) {
	t.Helper()
	if r.signal != 0 || r.status != status {
		t.Errorf("status %d, signal %v, want status %d; stderr:\n%s", r.status, r.signal, status, r.stderr)
	}
	for _, text := range messages {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("the messages lack %q:\n%s", text, r.stderr)
		}
	}
	for line := range strings.Lines(r.stderr) {
		if len(messages) > 0 && !strings.HasPrefix(line, "dcelock: ") {
			t.Errorf("a line without the prefix: %q", line)
		}
	}
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// slurp is what the file at path holds; "" when there is none.
func slurp(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
