package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A contender is a run, of dcelock or of something else that takes the lock.
type contender struct {
	id      int
	kind    string
	own     int // its command's exit status
	refused int // its exit status when the lock is held
	closed  bool
	nobody  bool
	process *process
	signals []syscall.Signal // what was sent to its processes
}

func (x *contender) ended() bool {
	select {
	case <-x.process.done:
		return true
	default:
		return false
	}
}

func (x *contender) String() string { return fmt.Sprintf("contender %d (%s)", x.id, x.kind) }

// The kinds of contenders. Those that know nothing of records, and of removed
// lock files, are others.
var (
	dcelocks = []string{"plain", "plain", "wait", "wait", "forever", "close", "nested", "nested wait", "nested in close", "runner inside", "leaves"}
	others   = []string{"flock", "flock wait", "runner", "nested in runner"}
)

// statusNestedRefused is the exit status of an inner dcelock that is refused,
// which is wrong wherever something proves that it is part of the outer run.
const statusNestedRefused = 76

// startOne starts a contender of a random kind.
func (c *contest) startOne() {
	kinds := dcelocks
	if c.others {
		kinds = slices.Concat(dcelocks, others, others)
	}
	x := &contender{id: len(c.contenders), own: 40 + c.rand.IntN(10), refused: 1}
	x.kind = kinds[c.rand.IntN(len(kinds))]
	long := fmt.Sprint(c.rand.IntN(1 + c.rand.IntN(60000)))
	wait := fmt.Sprintf("--wait=%.3f", c.rand.Float64())

	fds := checkBothFD
	if c.users {
		fds = checkFileFD // the folder may be one that this user may not read
	}
	if strings.Contains(x.kind, "close") {
		fds, x.closed = checkNoFD, true
	}
	inner := []string{c.command, c.folder, c.lock, fmt.Sprint(x.id), long, fmt.Sprint(x.own)}
	if !slices.Contains(others, x.kind) {
		inner = append(inner, fds)
		if c.recordsKept && x.kind != "leaves" {
			inner = append(inner, checkRecord)
		}
	}
	if x.kind == "leaves" {
		// Of a command that the wrapper's end leaves behind, only the
		// lock remains. It sees its standard input end at once.
		inner = []string{"sh", "-c", `"$@" & exit ` + fmt.Sprint(x.own), "sh", c.command, c.folder, c.lock, fmt.Sprint(x.id), long, "0", fds}
	}
	own := append([]string{binary, fmt.Sprintf("-E%d", statusNestedRefused), "--config", c.a + "/config/scrape-targets.json", "--"}, inner...)
	var call call
	flags := []string{}
	if c.rand.IntN(3) == 0 {
		x.refused = 75
		flags = append(flags, "-E75")
	}
	switch x.kind {
	case "plain", "leaves":
		call = c.dcelock(append(append(flags, "--"), inner...)...)
	case "close":
		call = c.dcelock(append(append(flags, "--close", "--"), inner...)...)
	case "wait":
		call = c.dcelock(append(append(flags, wait, "--"), inner...)...)
	case "forever":
		call = c.dcelock(append(append(flags, "--wait=forever", "--"), inner...)...)
	case "nested":
		call = c.dcelock(append(append(flags, "--"), own...)...)
	case "nested wait":
		call = c.dcelock(append(append(flags, wait, "--"), own...)...)
	case "nested in close":
		call = c.dcelock(append(append(flags, "--close", "--"), own...)...)
	case "runner inside":
		call = c.dcelock(append(append(flags, "--"), c.runnerOf(inner)...)...)
	case "flock":
		x.refused = 1
		call.argv = append([]string{"flock", "-n", c.lock}, inner...)
	case "flock wait":
		x.refused = 1
		call.argv = append([]string{"flock", "-w", fmt.Sprintf("%.3f", c.rand.Float64()), c.lock}, inner...)
	case "runner":
		x.refused = 9
		call.argv = c.runnerOf(inner)
	case "nested in runner":
		x.refused = 9
		call.argv = c.runnerOf(own)
	}
	call.dir = []string{c.a, c.b}[c.rand.IntN(2)]
	if strings.HasPrefix(call.argv[0], "/") && call.argv[0] == binary && call.dir == c.b && c.rand.IntN(2) == 0 {
		call.env = append(call.env, "DCE_SCRAPE_LOCK_FILE="+c.lock)
	}
	if c.users && c.rand.IntN(2) == 0 {
		x.nobody = true
		call.attr = asUser(c.t)
	}
	call.env = append(call.env, tortureEnv(c.mark, x.id)...)
	x.process = call.start(c.t)
	x.process.end()
	c.contenders = append(c.contenders, x)
	c.event("%v starts as pid %d", x, x.process.cmd.Process.Pid)
	c.count.add("run: "+x.kind, 1)
}

// runnerOf is the call of a script that locks for itself (runner_test.go).
func (c *contest) runnerOf(command []string) []string {
	path := c.folder + "/runner.sh"
	if !exists(path) {
		write(c.t, path+".new", runner)
		os.Chmod(path+".new", 0o755)
		os.Rename(path+".new", path)
	}
	return append([]string{path, c.lock}, command...)
}

// isOther tells whether a contender takes the lock by other means than dcelock.
func (x *contender) isOther() bool { return slices.Contains(others, x.kind) }

// startProber starts a loop of flock(1)s that lock and unlock, as status scripts
// do to see whether they can.
func (c *contest) startProber() {
	stop := filepath.Join(c.folder, "stop")
	c.prober = call{argv: []string{"bash", "-c", `while [[ ! -e $1 ]]; do flock -n "$0" true; n=$((n+1)); read -r -t 0.003 _ <>"$2"; done; echo "$n"`, c.lock, stop, c.pipe()},
		env: tortureEnv(c.mark, -1)}.start(c.t)
}

// pipe is a FIFO that nobody writes to.
func (c *contest) pipe() string {
	path := filepath.Join(c.folder, "pipe")
	_ = syscall.Mkfifo(path, 0o600)
	return path
}

func (c *contest) stopProber() {
	if c.prober == nil {
		return
	}
	write(c.t, filepath.Join(c.folder, "stop"), "")
	if r := c.prober.wait(); r.status == 0 {
		n := 0
		_, _ = fmt.Sscan(r.stdout, &n)
		c.count.add("probe: flock -n, in a loop", n)
	}
	c.prober = nil
}
