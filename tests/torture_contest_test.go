package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A tally counts what happened, where it happened.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func newTally() *tally { return &tally{n: map[string]int{}} }

func (t *tally) add(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what] += n
}

// sum adds up the counts of everything whose name begins so.
func (t *tally) sum(begin string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for what, count := range t.n {
		if strings.HasPrefix(what, begin) {
			n += count
		}
	}
	return n
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for what, count := range t.n {
		lines = append(lines, fmt.Sprintf("%7d %s", count, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[8:], b[8:]) })
	return strings.Join(lines, "\n")
}

// A contest is an archive root on which contenders meet while faults happen.
type contest struct {
	*archive
	mix
	t          *testing.T
	rand       *rand.Rand // decides all that is decided
	mark       string     // of its processes
	folder     string     // of the judge and the log
	command    string
	count      *tally
	contenders []*contender
	events     []string // of this side, each begun with monotonic()
	violations []string
	prober     *process
	put        map[string]bool // names of files in the archive root that are the faults' own
}

func newContest(t *testing.T, m mix, seed, number uint64, count *tally) *contest {
	t.Helper()
	c := &contest{archive: newArchive(t), mix: m, t: t, rand: rand.New(rand.NewPCG(seed, number)),
		mark: fmt.Sprintf("%d.%d", os.Getpid(), number), command: tortureCommand(t), count: count, put: map[string]bool{}}
	c.folder = c.b
	for _, name := range []string{"/judge", "/log"} {
		write(t, c.folder+name, "")
		os.Chmod(c.folder+name, 0o666) // other users' commands too
	}
	if m.users {
		os.Chmod(c.root, 0o777)
	}
	if m.disk {
		mountSmall(t, c.root, c.rand.IntN(2) == 0)
	}
	return c
}

// mountSmall puts a file system of a few pages, or a few files, at path.
func mountSmall(t *testing.T, path string, fewFiles bool) {
	t.Helper()
	options := "size=32k"
	if fewFiles {
		options = "size=1m,nr_inodes=8"
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

func (c *contest) event(format string, args ...any) {
	c.events = append(c.events, fmt.Sprintf("%d %s", monotonic(), fmt.Sprintf(format, args...)))
}

func (c *contest) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.event("VIOLATION: %s", text)
	c.violations = append(c.violations, text)
	c.count.add("violation", 1)
}

// play lets a number of contenders meet, and faults happen all along.
func (c *contest) play(contenders int) {
	defer c.stopProber()
	if c.rand.IntN(2) == 0 {
		c.startProber()
	}
	const atOnce = 7
	after := 3 * contenders // faults after the last start; then there is peace
	for {
		live := 0
		for _, x := range c.contenders {
			if !x.ended() {
				live++
			}
		}
		left := contenders - len(c.contenders)
		switch pick := c.rand.IntN(10); {
		case left == 0 && (live == 0 || after == 0):
			return
		case left > 0 && live < atOnce && (pick < 5 || live == 0):
			c.startOne()
		case pick == 9:
			c.probe()
		case left == 0:
			after--
			fallthrough
		default:
			c.fault()
		}
		// Not a wait for anything, only another moment.
		time.Sleep(time.Duration(c.rand.IntN(3000)) * time.Microsecond)
	}
}

// report fails the test if there were violations, with all that is known.
func (c *contest) report(seed uint64) {
	if len(c.violations) == 0 {
		return
	}
	history := c.history()
	const most = 400
	if len(history) > most {
		history = append([]string{fmt.Sprintf("(the last %d of %d events)", most, len(history))}, history[len(history)-most:]...)
	}
	for _, x := range c.contenders {
		if text := x.process.stderr(); text != "" {
			history = append(history, fmt.Sprintf("contender %d printed:\n%s", x.id, text))
		}
	}
	c.t.Errorf("SEED=%d, mix %q, lock %s: %d violations:\n%s\nhistory:\n%s", seed, c.name, c.lock,
		len(c.violations), strings.Join(c.violations, "\n"), strings.Join(history, "\n"))
}

// history is what happened, this side's events and the commands' together, with
// times since the first one.
func (c *contest) history() []string {
	history := slices.Clone(c.events)
	for line := range strings.Lines(slurp(c.t, c.folder+"/log")) {
		history = append(history, "command: "+strings.TrimSuffix(line, "\n"))
	}
	when := func(line string) (ns int64) {
		_, _ = fmt.Sscan(strings.TrimPrefix(line, "command: "), &ns)
		return ns
	}
	slices.SortStableFunc(history, func(a, b string) int { return int(when(a) - when(b)) })
	for i, start := len(history)-1, when(history[0]); i >= 0; i-- {
		rest := strings.TrimLeft(strings.TrimPrefix(history[i], "command: "), "0123456789")
		if strings.HasPrefix(history[i], "command: ") {
			rest = " contender's" + rest
		}
		history[i] = fmt.Sprintf("%12.6f%s", float64(when(history[i])-start)/1e9, rest)
	}
	return history
}
