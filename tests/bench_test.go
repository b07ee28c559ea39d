package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A bench measures dcelock beside flock(1) and beside bash's own locking.
type bench struct {
	*testing.T
	table
	rounds   int           // how often the shortest things are measured; longer ones less often
	window   time.Duration // how long idle processes are watched
	crowd    int           // how many other processes are about where there are many
	many     int           // how many runs wait at once where many do
	shrug    string        // a program that does nothing
	messages *os.File      // of the processes that are measured
}

// TestBench prints one table (make bench). BENCH names the binary that is
// measured; without it there is one quick round with the binary of the tests,
// which shows that everything measured still works.
func TestBench(t *testing.T) {
	measured := os.Getenv("BENCH")
	if _, err := exec.LookPath("jq"); err != nil {
		missing := "script-lock.sh needs jq; get it with: apt-get install jq"
		if measured != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	b := bench{T: t, rounds: 1, window: 20 * time.Millisecond, crowd: 20, many: 5}
	b.print = func(line string) { t.Log(line) }
	if measured != "" {
		tested := binary
		binary = measured
		defer func() { binary = tested }()
		b.rounds, b.window, b.crowd, b.many = 300, 5*time.Second, 2000, 300
		if rounds := os.Getenv("ROUNDS"); rounds != "" {
			var err error
			if b.rounds, err = strconv.Atoi(rounds); err != nil || b.rounds < 1 {
				t.Fatalf("ROUNDS=%s is not a number of rounds", rounds)
			}
		}
		b.print = func(line string) { fmt.Println(line) }
	}
	var err error
	if b.shrug, err = exec.LookPath("true"); err != nil { // by its path: looking it up is not what is measured
		t.Fatal(err)
	}
	b.messages = create(t, t.TempDir()+"/messages")
	defer b.messages.Close()

	b.print(fmt.Sprintf("%d processors, %s, %s, %s; %d rounds\n", runtime.NumCPU(),
		b.firstLine("uname", "-sr"), b.firstLine("flock", "--version"), b.firstLine("bash", "--version"), b.rounds))
	b.head()
	for _, part := range []struct {
		name    string
		measure func()
	}{{"run", b.uncontended}, {"refusal", b.refusals}, {"hand-over", b.handOvers}, {"waiters", b.manyWaiters}, {"idle", b.idle}, {"size", b.size}} {
		if only := os.Getenv("PART"); only == "" || only == part.name {
			part.measure()
		}
	}
}

// firstLine is the first line that a command prints.
func (b *bench) firstLine(argv ...string) string {
	line, _, _ := strings.Cut(call{argv: argv}.run(b.T).stdout, "\n")
	return line
}

// compare measures the contestants one after the other, again and again, so
// that whatever changes on the machine meanwhile hits all of them alike. The
// order is another one each time, as what ran just before makes a difference: a
// program of many threads is slower where the other processors were asleep.
func (b *bench) compare(what string, rounds int, contestants ...*contestant) {
	rounds = max(rounds, 1)
	warmUp := rounds / 10
	for _, c := range contestants {
		c.samples = nil
	}
	for round := range warmUp + rounds {
		for _, i := range rand.Perm(len(contestants)) {
			c := contestants[i]
			if sample := c.measure(); round >= warmUp {
				c.samples = append(c.samples, sample)
			}
		}
	}
	b.part(what, contestants)
}

// timed is a contestant that is a process, from its start to its end, which
// must be with this status; in milliseconds.
func (b *bench) timed(name string, c call, status int, targets ...target) *contestant {
	return &contestant{name: name, targets: targets, measure: func() float64 {
		cmd := exec.Command(c.argv[0], c.argv[1:]...)
		cmd.Dir, cmd.Env, cmd.Stderr = c.dir, append(os.Environ(), c.env...), b.messages
		begin := time.Now()
		err := cmd.Run()
		took := time.Since(begin)
		if cmd.ProcessState.ExitCode() != status {
			b.Fatalf("%q ended with %v, not with status %d:\n%s", c.argv, err, status, slurp(b.T, b.messages.Name()))
		}
		return milliseconds(took)
	}}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// newArchive is an archive with a config as people have it.
func (b *bench) newArchive() *archive {
	s := newArchive(b.T)
	write(b.T, s.a+"/config/scrape-targets.json", fmt.Sprintf(`{
  "archive_root": %q,
  "defaults": {"include_threads": "all", "include_voice_channels": false},
  "targets": [
    {
      "name": "KotOR_discord_msgs",
      "kind": "guild",
      "output_dir": "%[1]s/KotOR_discord_msgs",
      "guild_ids": [],
      "channel_ids": ["123456789012345678"],
      "guild_name_patterns": ["KotOR_discord_msgs", "KotOR"]
    },
    {"name": "discord_dms", "enabled": false, "kind": "dms", "disabled_reason": "Needs a user token."}
  ]
}
`, s.root))
	return s
}

// flock is a call of flock(1), and functions one of the script that locks for
// itself.
func (s *archive) flock(args ...string) call {
	return call{argv: append([]string{"flock"}, args...), dir: s.a}
}

func (s *archive) functions(command ...string) call {
	script, _ := os.Getwd()
	script += "/script-lock.sh"
	return call{argv: append([]string{script, "--config", s.a + "/config/scrape-targets.json"}, command...), dir: s.a}
}

// uncontended measures a run whose lock is free. Bash alone is there to be
// subtracted: a script that locks for itself would be run by bash anyway.
func (b *bench) uncontended() {
	s := b.newArchive()
	override := s.dcelock("--", b.shrug)
	override.env = []string{"DCE_SCRAPE_LOCK_FILE=" + s.lock}
	goals := []target{{1.75, theFlock}, {0.1, theBash}}
	b.compare("run, lock free (ms)", b.rounds,
		b.timed("no lock", call{argv: []string{b.shrug}}, 0),
		b.timed("flock -n", s.flock("-n", s.lock, b.shrug), 0),
		b.timed("dcelock, config", s.dcelock("--", b.shrug), 0, goals...),
		b.timed("dcelock, lock file named", override, 0, goals...),
		b.timed("bash functions", s.functions(b.shrug), 0),
		b.timed("bash alone", call{argv: []string{"bash", "-c", `"$0"; exit $?`, b.shrug}}, 0))
}

// refusals measures runs that are refused, on a quiet machine and on one with
// many processes, which the search for a holder has to look at.
func (b *bench) refusals() {
	plain, recorded, killed, left, scripted := b.newArchive(), b.newArchive(), b.newArchive(), b.newArchive(), b.newArchive()
	byFlock.hold(b, plain)
	byDcelock.hold(b, recorded)
	wrapper := byDcelock.hold(b, killed)
	wrapper.cmd.Process.Kill() // its command goes on, until the end of the input that both have
	<-wrapper.done
	b.hold(call{argv: []string{"bash", "-c", `exec 9>>"$0"; flock -n 9; echo ready; exec cat`, left.lock}})
	b.hold(scripted.functions(untilEnd...))

	refused := func(name string, s *archive, targets ...target) *contestant {
		return b.timed(name, s.dcelock("--", b.shrug), 1, targets...)
	}
	contestants := []*contestant{
		b.timed("flock -n", plain.flock("-n", plain.lock, b.shrug), 1),
		refused("dcelock, record", recorded, target{3, theFlock}),
		refused("dcelock, no record", plain),
		refused("dcelock, left by a killed one", killed),
		refused("dcelock, left without a record", left),
		// With the first refusal it removes the holder's record, so that it
		// has no more to print with the others.
		b.timed("bash functions", scripted.functions(b.shrug), 9),
	}
	b.compare("refusal (ms)", b.rounds/5, contestants...)

	// By a shell: this process would have a descriptor for each, and, being
	// an ancestor, each would be looked at.
	crowd := call{argv: []string{"bash", "-c", `exec 3<&0; for ((i = 0; i < $0; i++)); do read -r _ <&3 & done; echo ready; exec <&- 3<&-; wait`,
		strconv.Itoa(b.crowd)}}.start(b.T)
	crowd.sees("ready")
	b.compare(fmt.Sprintf("refusal, %d processes (ms)", b.crowd), b.rounds/5, contestants...)
	// One of the locks that others hold is of a process that is gone, so that
	// who holds it has to be searched for: it might be this lock, moved away.
	free := b.newArchive()
	b.compare(fmt.Sprintf("run, lock free, %d processes (ms)", b.crowd), b.rounds/20,
		b.timed("flock -n", free.flock("-n", free.lock, b.shrug), 0),
		b.timed("dcelock, another lock left", free.dcelock("--", b.shrug), 0))
	crowd.end() // which is the end of all of them, as it is when this process dies
	crowd.wait()
}
