package tests

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// The torture test can fail: commands that run without the lock are caught, and
// so is one that does not find what it looks for.
func TestTortureSeesWhatIsWrong(t *testing.T) {
	c := newContest(t, mix{name: "without a lock"}, 1, 1<<40, newTally())
	c.rand = rand.New(rand.NewPCG(1, 1))
	run := func(id int, long string, checks ...string) *process {
		unlocked := c.dcelock(append([]string{"-q", "--", c.command, c.folder, c.lock, "0", long, "42"}, checks...)...)
		unlocked.env = append(tortureEnv(c.mark, id), "DCE_SKIP_SCRAPE_LOCK=1")
		return unlocked.start(t)
	}
	first := run(0, "told", checkRecord, checkBothFD)
	first.sees("ready")
	if pid := judgeOf(c.folder); pid == 0 {
		t.Error("the judge does not see the command that runs")
	}
	second := run(0, "0")
	second.wait().wants(t, statusOverlap)
	first.end()
	first.wait().wants(t, 42)
	if left := gone(c.mark); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	c.contenders = []*contender{{kind: "plain", own: 42, process: first}}
	c.recordsKept = true
	c.readLog()
	for _, text := range []string{"overlap: ", "record: ", "descriptors: "} {
		if !strings.Contains(strings.Join(c.violations, "\n"), text) {
			t.Errorf("no violation %q in %q", text, c.violations)
		}
	}
	third := run(0, "told")
	third.sees("ready")
	if left := processes(c.mark); len(left) != 2 {
		t.Errorf("of a wrapper and its command these are seen: %v", left)
	}
	third.cmd.Process.Kill() // and its command is judged by its own end
	<-third.done
	if judgeOf(c.folder) == 0 {
		t.Error("the judge does not see the command whose wrapper was killed")
	}
	third.end()
	if left := gone(c.mark); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// A process is gone from sight a moment before its descriptors are closed.
	if !eventually(func() bool { return judgeOf(c.folder) == 0 }) {
		t.Errorf("judged to run: %d", judgeOf(c.folder))
	}
}
