package tests

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
)

// finish waits for the end of everything, and checks what must hold then.
func (c *contest) finish() {
	if c.users {
		os.Chmod(c.root, 0o777)
		os.Chmod(c.lock, 0o666)
		os.Chmod(c.meta, 0o644)
	}
	empty.inject(c)
	for _, x := range c.contenders {
		if !eventually(x.ended) {
			c.violated("%v, pid %d, does not end", x, x.process.cmd.Process.Pid)
			x.process.cmd.Process.Kill()
			<-x.process.done
		}
		c.event("%v has ended: %v", x, x.process.cmd.ProcessState)
	}
	for _, p := range gone(c.mark) {
		c.violated("%s of %v is left: pid %d", p.role, c.contenders[p.contender], p.pid)
	}
	c.readLog()
	c.checkFiles()
}

// readLog checks what the commands told, and each contender's end by it.
func (c *contest) readLog() {
	begun, ended := map[int]int{}, map[int]int{}
	for line := range strings.Lines(slurp(c.t, c.folder+"/log")) {
		var when int64
		var what, text string
		var id, pid int
		if n, _ := fmt.Sscan(line, &when, &what, &id, &pid); n != 4 {
			c.violated("the log has a line %q", line)
			continue
		}
		text = strings.TrimSpace(strings.SplitN(line, " ", 5)[4])
		switch what {
		case "begin":
			begun[id]++
			c.count.add("command", 1)
		case "end":
			ended[id]++
		case "overlap":
			c.violated("overlap: pid %d of contender %d %s", pid, id, text)
		default:
			// An inner wrapper that is killed is a command that ended, to
			// the outer one, which removes the record and ends; its
			// command goes on, with the lock.
			if strings.Contains(text, "record:") && id >= 0 && len(c.contenders[id].signals) > 0 {
				continue
			}
			c.violated("pid %d of contender %d: %s", pid, id, text)
		}
	}
	for _, x := range c.contenders {
		c.checkEnd(x, begun[x.id], ended[x.id])
	}
}

// checkEnd checks that a contender ended as documented (contract, "Signals and
// exit status"), and as what its command told.
func (c *contest) checkEnd(x *contender, begun, ended int) {
	state := x.process.cmd.ProcessState
	status := state.Sys().(syscall.WaitStatus)
	if begun > 1 || ended > begun {
		c.violated("%v: %d begins, %d ends", x, begun, ended)
	}
	if ended < begun && len(x.signals) == 0 {
		c.violated("%v: its command was ended by nobody", x)
	}
	if status.Signaled() {
		if !slices.Contains(x.signals, status.Signal()) {
			c.violated("%v died: %v, signals sent: %v", x, state, x.signals)
		}
		return
	}
	code := status.ExitStatus()
	// flock(1) and bash say by 128+N that their command was killed.
	byShell := slices.ContainsFunc(x.signals, func(sig syscall.Signal) bool { return code == 128+int(sig) })
	switch {
	case code == x.own:
		// Of one that was left behind, the end is not awaited.
		if x.kind != "leaves" && (begun != 1 || ended != 1) {
			c.violated("%v: status %d, %d begins, %d ends", x, code, begun, ended)
		}
	case code == x.refused:
		c.count.add("refused", 1)
		if begun != 0 && !(x.isOther() && len(x.signals) > 0) {
			c.violated("%v was refused, and its command ran", x)
		}
	case code == statusNestedRefused && x.kind == "nested in close" && !c.recordsKept && begun == 0 && strings.Contains(x.process.stderr(), "wait for itself"):
		// Neither a descriptor nor a record proves it to be nested.
		c.count.add("inner run refused, with nothing to prove that it is one", 1)
	case byShell:
	case code == 71 && !c.locksKept && strings.Contains(x.process.stderr(), "replaced again and again"):
		c.count.add("gave up: lock file replaced again and again", 1)
	case (c.users || c.disk) && begun == 0 && (x.isOther() || code == 73 || code == 66):
		c.count.add("the lock file could not be opened", 1)
	default:
		c.violated("%v: %v, %d begins", x, state, begun)
	}
}

// checkFiles checks what is in the archive root when nobody runs any more.
func (c *contest) checkFiles() {
	killed := func(x *contender) bool { return slices.Contains(x.signals, syscall.SIGKILL) }
	if text := slurp(c.t, c.meta); text != "" && c.recordsKept && !slices.ContainsFunc(c.contenders, killed) {
		c.violated("a record is left, though no wrapper was killed:\n%s", text)
	} else if text != "" && c.recordsKept {
		pid := 0
		_, _ = fmt.Sscanf(text, "pid=%d\n", &pid)
		i := slices.IndexFunc(c.contenders, func(x *contender) bool { return x.process.cmd.Process.Pid == pid })
		if i < 0 || !killed(c.contenders[i]) {
			c.violated("a record is left of a run that was not killed:\n%s", text)
		}
	}
	if exists(c.meta+".tmp") && c.recordsKept && !slices.ContainsFunc(c.contenders, killed) {
		c.violated("a temporary file is left, though no wrapper was killed")
	}
	if !c.lockIsFree() {
		c.violated("the lock is held, and nobody lives who could hold it")
	}
	// The next run finds nothing in its way, and leaves nothing.
	if r := c.dcelock("--", "true").run(c.t); r.status != 0 {
		c.violated("the next run ends with status %d: %s", r.status, r.stderr)
	}
	if r := c.dcelock("--status", "--json").run(c.t); r.status != 0 || !strings.Contains(r.stdout, `"free"`) {
		c.violated("the status after the end of all, %d: %s", r.status, r.stdout)
	}
	entries, err := os.ReadDir(c.root)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != ".dce-scrape.lock" && !c.put[name] {
			c.violated("%s is left in the archive root", name)
		}
	}
}
