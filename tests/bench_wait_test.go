package tests

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// limit is how long many runs may take together before the benchmark fails.
const limit = 5 * time.Minute

// A locker is a program that runs a command under the archive's lock, and waits
// for it.
type locker struct {
	name string
	call func(s *archive, command ...string) call
	says string // what it prints when it has begun to wait
}

var (
	byFlock   = locker{"flock", func(s *archive, command ...string) call { return s.flock(append([]string{s.lock}, command...)...) }, ""}
	byDcelock = locker{"dcelock", func(s *archive, command ...string) call {
		return s.dcelock(append([]string{"--wait=forever", "--"}, command...)...)
	}, "waiting until it ends"}
)

// untilEnd is a command that runs until the end of its standard input.
var untilEnd = []string{"sh", "-c", "echo ready; exec cat"}

// hold starts a call whose command is untilEnd, and waits until that runs.
func (b *bench) hold(c call) *process {
	p := c.start(b.T)
	p.sees("ready")
	return p
}

// hold starts a run that holds the archive's lock until its end is called.
func (l locker) hold(b *bench, s *archive) *process { return b.hold(l.call(s, untilEnd...)) }

// queued waits until n runs wait for the archive's lock, and have said so.
func (l locker) queued(b *bench, s *archive, p *process, n int) {
	// dcelock queues for the folder, flock(1) for the file.
	var inodes []string
	for _, path := range []string{s.root, s.lock} {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		inodes = append(inodes, fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino))
	}
	waiting := func() (n int) {
		for line := range strings.Lines(slurp(b.T, "/proc/locks")) {
			if strings.Contains(line, "-> FLOCK") && (strings.Contains(line, inodes[0]) || strings.Contains(line, inodes[1])) {
				n++
			}
		}
		return n
	}
	begin := time.Now()
	for waiting() != n || l.says != "" && strings.Count(p.stderr(), l.says) != n {
		if time.Since(begin) > limit {
			b.Fatalf("not %d but %d runs wait", n, waiting())
		}
		time.Sleep(time.Millisecond)
	}
}

// handOvers measures the time from the end of a holder's input, at which its
// command, cat, ends, to the first sign of a waiter's command. The ends of cat
// and the starts of sh are a part of it, in all the same.
func (b *bench) handOvers() {
	pair := func(from, to locker, targets ...target) *contestant {
		s := b.newArchive()
		return &contestant{name: from.name + " to " + to.name, targets: targets, measure: func() float64 { return b.handOver(s, from, to) }}
	}
	goal := target{1.3, theFlock}
	b.compare("hand-over to a waiting run (ms)", b.rounds/5,
		pair(byFlock, byFlock), pair(byDcelock, byDcelock, goal), pair(byFlock, byDcelock, goal), pair(byDcelock, byFlock, goal))
}

func (b *bench) handOver(s *archive, from, to locker) float64 {
	read, write, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	holder := from.hold(b, s)
	c := to.call(s, "sh", "-c", "echo >&3")
	c.files = []*os.File{write}
	waiter := c.start(b.T)
	write.Close()
	to.queued(b, s, waiter, 1)
	begin := time.Now()
	holder.end()
	n, err := read.Read(make([]byte, 1))
	took := time.Since(begin)
	if n == 0 {
		b.Fatalf("the waiter's command has not run (%v): %s", err, waiter.stderr())
	}
	holder.wait().wants(b.T, 0)
	waiter.wait().wants(b.T, 0)
	return milliseconds(took)
}

// manyWaiters measures the time from the end of a holder's command to the end
// of the last of many runs that waited for it.
func (b *bench) manyWaiters() {
	// By a shell: see the crowd of refusals.
	const script = `for ((i = 0; i < $0; i++)); do "$@" & pids+=($!); done; for pid in "${pids[@]}"; do wait "$pid" || exit; done`
	row := func(l locker, targets ...target) *contestant {
		s := b.newArchive()
		return &contestant{name: l.name, targets: targets, measure: func() float64 {
			holder := l.hold(b, s)
			run := l.call(s, b.shrug)
			run.argv = append([]string{"bash", "-c", script, strconv.Itoa(b.many)}, run.argv...)
			waiters := run.start(b.T)
			l.queued(b, s, waiters, b.many)
			begin := time.Now()
			holder.end()
			select {
			case <-waiters.done:
			case <-time.After(limit):
				b.Fatalf("%d waiting runs have not all run within %v", b.many, limit)
			}
			took := time.Since(begin)
			if status := waiters.cmd.ProcessState.ExitCode(); status != 0 {
				b.Fatalf("one of %d waiting runs ended with status %d", b.many, status)
			}
			holder.wait().wants(b.T, 0)
			return milliseconds(took)
		}}
	}
	b.compare(fmt.Sprintf("%d waiting runs, all of them (ms)", b.many), b.rounds/100, row(byFlock), row(byDcelock, target{2.5, theFlock}))
}
