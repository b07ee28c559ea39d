package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A mix says which contenders and faults meet, and so what must hold.
type mix struct {
	name   string
	others bool // contenders that know nothing of records or removed lock files
	faults []fault

	// The documented limits ask for these.
	recordsKept bool // nobody meddles with records: every run has its own
	locksKept   bool // nobody removes the lock file
	users       bool // some contenders are another, unprivileged user's
	disk        bool // the archive root is a small file system
}

// A fault is injected at a random moment; it tells whether it took effect.
type fault struct {
	name   string
	inject func(*contest) bool
}

var mixes = []mix{
	// Everything that takes the lock by flock(2), undisturbed files.
	{name: "kills", faults: []fault{kill}, recordsKept: true, locksKept: true},
	// Self-locking runners remove the record even when they are refused, so
	// there the record is anybody's; flock(1) and runners lock whatever
	// lies at the path, so with them the lock file must stay where it is:
	// a removed one makes them overlap.
	{name: "runners", others: true, faults: []fault{kill, kill, removeRecord, moveRecord, spoilRecord}, locksKept: true},
	{name: "removed", faults: []fault{kill, kill, removeLock, replaceLock, moveLock, removeRecord, moveRecord, spoilRecord, removeBoth, removeBoth, moveBoth, moveBoth, replaceBoth, replaceBoth}},
	{name: "disk full", others: true, faults: []fault{kill, fill, fill, empty}, locksKept: true, disk: true},
	{name: "permissions", others: true, faults: []fault{kill, removeRecord, chmodRoot, chmodLock, chmodRecord, chmodBack, chmodBack}, locksKept: true, users: true},
	// The folder is one for all users, whatever each may see of the others.
	{name: "removed between users", faults: []fault{kill, kill, removeLock, replaceLock, moveLock, removeBoth, moveBoth, replaceBoth}, users: true},
}

func (m mix) needsRoot() bool { return m.users || m.disk }

// fault injects a random one.
func (c *contest) fault() {
	f := c.faults[c.rand.IntN(len(c.faults))]
	if f.inject(c) && f.name != "" {
		c.event("fault: %s", f.name)
		c.count.add("fault: "+f.name, 1)
	}
}

var (
	kill = fault{"", func(c *contest) bool { return c.kill() }}

	removeLock  = fault{"remove lock", func(c *contest) bool { return os.Remove(c.lock) == nil }}
	replaceLock = fault{"replace lock", func(c *contest) bool { return os.Remove(c.lock) == nil && c.create(c.lock, "") }}
	moveLock    = fault{"move lock aside", func(c *contest) bool { return c.aside(c.lock) }}

	removeRecord = fault{"remove record", func(c *contest) bool { return os.Remove(c.meta) == nil }}
	moveRecord   = fault{"move record aside", func(c *contest) bool { return c.aside(c.meta) }}
	spoilRecord  = fault{"spoil record", func(c *contest) bool {
		return os.Remove(c.meta) == nil && c.create(c.meta, []string{"", "pid=", "pid=2147483646\nstarted=x\ncmd=y\n"}[c.rand.IntN(3)])
	}}

	removeBoth = fault{"remove lock and record", func(c *contest) bool {
		record := os.Remove(c.meta) == nil
		return c.both(os.Remove(c.lock) == nil, record)
	}}
	replaceBoth = fault{"replace lock, remove record", func(c *contest) bool {
		lock := os.Remove(c.lock) == nil && c.create(c.lock, "")
		return c.both(lock, os.Remove(c.meta) == nil)
	}}

	moveBoth = fault{"move lock and record aside", func(c *contest) bool {
		lock := c.aside(c.lock)
		return c.both(lock, c.aside(c.meta))
	}}

	fill  = fault{"fill disk", func(c *contest) bool { return c.fill() }}
	empty = fault{"empty disk", func(c *contest) bool {
		files, _ := filepath.Glob(c.root + "/filler*")
		for _, path := range files {
			os.Remove(path)
		}
		return len(files) > 0
	}}

	chmodRoot   = fault{"chmod archive root", func(c *contest) bool { return c.chmod(c.root, 0o555, 0o711, 0) }}
	chmodLock   = fault{"chmod lock", func(c *contest) bool { return c.chmod(c.lock, 0o444, 0o600, 0) }}
	chmodRecord = fault{"chmod record", func(c *contest) bool { return c.chmod(c.meta, 0o600, 0) }}
	chmodBack   = fault{"chmod back", func(c *contest) bool { return c.chmod(c.root, 0o777) && c.chmod(c.lock, 0o666) }}
)

// both counts what was removed as one of two things, where it is the only one.
func (c *contest) both(lock, record bool) bool {
	switch {
	case lock && record:
		return true
	case lock:
		c.event("fault: remove lock (there is no record)")
		c.count.add("fault: "+removeLock.name, 1)
	case record:
		c.event("fault: remove record (there is no lock)")
		c.count.add("fault: "+removeRecord.name, 1)
	}
	return false
}

// create makes a file, unless a contender was faster.
func (c *contest) create(path, text string) bool {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return false
	}
	defer f.Close()
	f.Chmod(0o666)
	_, err = f.WriteString(text)
	return err == nil
}

// aside moves a file out of the way, under any name: as backups are named, under
// one that has nothing to do with it, or into a folder beside the archive root.
func (c *contest) aside(path string) bool {
	to := path + []string{".old", ".bak", ".stale", "~", ".2026-06-04"}[c.rand.IntN(5)]
	switch c.rand.IntN(3) {
	case 0:
		to = fmt.Sprintf("%s/aside-%x", c.root, c.rand.IntN(1<<16))
	case 1:
		to = fmt.Sprintf("%s/aside-%x", c.folder, c.rand.IntN(1<<16))
	}
	c.put[filepath.Base(to)] = true
	return os.Rename(path, to) == nil
}

func (c *contest) chmod(path string, modes ...os.FileMode) bool {
	return os.Chmod(path, modes[c.rand.IntN(len(modes))]) == nil
}

// fill uses up the disk's space and files; it tells whether none was left.
func (c *contest) fill() bool {
	for n := range 20 {
		f, err := os.OpenFile(fmt.Sprintf("%s/filler%d", c.root, n), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			_, err = f.Write(make([]byte, 1<<20))
			f.Close()
		}
		if err != nil && exists(c.root+"/filler0") {
			return true
		}
	}
	return false
}

// kill sends a signal to a random process of a random contender.
func (c *contest) kill() bool {
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[c.rand.IntN(3)]
	role := []string{roleWrapper, roleWaiter, roleCommand, roleOther}[c.rand.IntN(4)]
	found := slices.DeleteFunc(processes(c.mark), func(p marked) bool { return p.contender < 0 || p.role != role })
	if len(found) == 0 {
		return false
	}
	p := found[c.rand.IntN(len(found))]
	x := c.contenders[p.contender]
	isWrapper := p.role == roleWrapper || p.role == roleWaiter
	// With --close, SIGKILL to the wrapper frees the lock while its command
	// lives: README, "Limits".
	if sig == syscall.SIGKILL && isWrapper && x.closed {
		return false
	}
	if !p.signal(c.mark, sig) {
		return false
	}
	x.signals = append(x.signals, sig)
	c.event("%v: %v to its %s, pid %d", x, sig, p.role, p.pid)
	c.count.add(fmt.Sprintf("kill: %v to a %s", sig, p.role), 1)
	return true
}

// probe looks at the lock from outside, and knows what it must see while one
// command runs on from before until after the look.
func (c *contest) probe() {
	before := judgeOf(c.folder)
	kind := []string{"flock -n", "--status", "--status --json"}[c.rand.IntN(3)]
	var r result
	free, held := 0, 1
	switch kind {
	case "flock -n":
		if !c.locksKept {
			return // it looks at the path alone
		}
		r = call{argv: []string{"flock", "-n", c.lock, "true"}}.run(c.t)
	default:
		r = c.dcelock(strings.Fields(kind)...).run(c.t)
	}
	after := judgeOf(c.folder)
	c.count.add("probe: "+kind, 1)
	switch {
	case r.status != free && r.status != held && !(c.disk && kind == "flock -n"):
		c.violated("%s ends with status %d, signal %v: %s", kind, r.status, r.signal, r.stderr)
	case before > 0 && before == after && r.status != held && !(c.disk && kind == "flock -n"):
		c.violated("%s says the lock is free while pid %d runs: %s", kind, after, r.stdout)
	case kind == "--status --json":
		var told struct{ State string }
		if err := json.Unmarshal([]byte(r.stdout), &told); err != nil || (told.State == "held") != (r.status == held) {
			c.violated("%s: %v, status %d: %q", kind, err, r.status, r.stdout)
		}
	}
}
