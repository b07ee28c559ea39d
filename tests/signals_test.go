package tests

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var passedOn = []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM}

func init() { helpers["tell-signals"] = tellSignals }

// tellSignals prints each signal that it gets, and ends at a line on its
// standard input, or the end of that, with status 7.
func tellSignals([]string) int {
	signals := make(chan os.Signal, 100)
	for _, sig := range passedOn {
		signal.Notify(signals, sig)
	}
	ended := make(chan bool)
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		close(ended)
	}()
	fmt.Printf("pid %d\nready\n", os.Getpid())
	for {
		select {
		case sig := <-signals:
			fmt.Printf("got %v\n", unix.SignalName(sig.(syscall.Signal)))
		case <-ended:
			return 7
		}
	}
}

// telling is a run whose command is tellSignals.
func (s *archive) telling(flags ...string) call {
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.dcelock(append(flags, "--", self)...)
	c.env = []string{"DCELOCK_TEST_HELPER=tell-signals"}
	return c
}

func TestSignalsReachTheCommand(t *testing.T) {
	s := newArchive(t)
	p := s.telling().start(t)
	p.sees("ready")
	for round := range 20 {
		for _, sig := range passedOn {
			p.cmd.Process.Signal(sig)
			got := "got " + unix.SignalName(sig) + "\n"
			if !eventually(func() bool { return strings.Count(p.stdout(), got) == round+1 }) {
				t.Fatalf("%v in round %d: the command has seen\n%s", sig, round, p.stdout())
			}
		}
		if s.lockIsFree() || s.key("pid") != fmt.Sprint(p.cmd.Process.Pid) {
			t.Fatal("the lock or the record went with a signal that the command survived")
		}
	}
	p.end()
	p.wait().wants(t, 7)
	if n := strings.Count(p.stdout(), "got "); n != 20*len(passedOn) {
		t.Errorf("%d signals were sent, %d arrived", 20*len(passedOn), n)
	}
	s.free()
}

// A signal that kills the command kills dcelock in the same way, with the
// record gone and without a trace or a core file of its own.
func TestFatalSignals(t *testing.T) {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGCONT, // ignored by default
			syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, // they stop
			32, 33: // the C library's own
			continue
		}
		s := newArchive(t)
		script := fmt.Sprintf("ulimit -c unlimited; kill -%d $$; echo survived", int(sig))
		bare := call{argv: []string{"sh", "-c", script}, dir: s.b}.run(t)
		r := s.dcelock("--", "sh", "-c", script).run(t)
		if r != bare || r.signal != sig {
			t.Errorf("signal %d: %+v, without the prefix %+v", sig, r, bare)
		}
		s.free()
		shell := call{argv: []string{"bash", "-c", `"$@"; echo $?`, "bash", binary, "--", "sh", "-c", script}, dir: s.a}.run(t)
		if want := fmt.Sprintf("%d\n", 128+int(sig)); shell.stdout != want {
			t.Errorf("signal %d: a shell's $? is %q", sig, shell.stdout)
		}
	}
}

// The signals that dcelock passes on, sent to it, end an ordinary command and
// then dcelock, as they would have ended the command.
func TestPassedOnSignalsEndTheRun(t *testing.T) {
	for _, sig := range passedOn {
		s := newArchive(t)
		p := s.dcelock("--", "sh", "-c", "echo ready; exec cat").start(t)
		p.sees("ready")
		p.cmd.Process.Signal(sig)
		if r := p.wait(); r.signal != sig || r.stderr != "" {
			t.Errorf("%v: %+v", sig, r)
		}
		s.free()
	}
}

// What was ignored stays ignored, as far as Go lets it: HUP and INT.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	s := newArchive(t)
	show := []string{"--", "grep", "SigIgn", "/proc/self/status"}
	for ignored, bits := range map[string]uint64{"HUP": 1, "INT": 2, "HUP INT": 3} {
		script := fmt.Sprintf(`trap '' %s; "$@"`, ignored)
		bare := call{argv: append([]string{"bash", "-c", script, "bash"}, show[1:]...)}.run(t)
		r := call{argv: append([]string{"bash", "-c", script, "bash", binary}, show...), dir: s.a}.run(t)
		var mask uint64
		fmt.Sscanf(r.stdout, "SigIgn: %x", &mask)
		if r.stdout != bare.stdout || mask&3 != bits {
			t.Errorf("%s: %q, without the prefix %q", ignored, r.stdout, bare.stdout)
		}
	}
	// And are not passed on to a command that would not ignore them.
	c := s.telling()
	c.argv = append([]string{"nohup"}, c.argv...)
	p := c.start(t)
	p.sees("ready")
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.sees("got SIGTERM")
	if strings.Contains(p.stdout(), "SIGHUP") {
		t.Errorf("an ignored signal was passed on: %s", p.stdout())
	}
}

// A key typed at the terminal reaches the command once; a signal sent to
// dcelock alone reaches it as well, in the foreground too.
func TestTerminalSignalsArriveOnce(t *testing.T) {
	s := newArchive(t)
	term := s.telling().onTerminal(t)
	term.sees("ready", 1)
	// One that comes while dcelock has not yet been given the processor for the
	// one before may be taken for a typed one.
	ready := func() {
		t.Helper()
		call := fmt.Sprintf("%d ", unix.SYS_RT_SIGTIMEDWAIT)
		if !eventually(func() bool {
			return strings.HasPrefix(slurp(t, fmt.Sprintf("/proc/%d/syscall", term.cmd.Process.Pid)), call)
		}) {
			t.Fatal("dcelock does not wait for signals")
		}
	}
	for round := 1; round <= 10; round++ {
		for i, name := range []string{"SIGINT", "SIGQUIT"} {
			ready()
			term.types("\x03\x1c"[i : i+1])
			term.sees("got "+name, 2*round-1)
			ready()
			term.cmd.Process.Signal([]os.Signal{syscall.SIGINT, syscall.SIGQUIT}[i])
			term.sees("got "+name, 2*round)
		}
	}
	ready()
	// Whatever was sent twice has arrived before this.
	term.cmd.Process.Signal(syscall.SIGTERM)
	term.sees("got SIGTERM", 1)
	term.types("\n")
	if status := term.wait(); status.ExitStatus() != 7 {
		t.Errorf("ended with %v", status)
	}
	if got := strings.Count(term.text(), "got "); got != 41 {
		t.Errorf("41 signals were sent, %d arrived:\n%s", got, term.text())
	}
	s.free()
}

// A loop in a shell stops at ^C, because dcelock dies of the signal.
func TestInterruptStopsALoop(t *testing.T) {
	s := newArchive(t)
	term := call{argv: []string{"bash", "-c", `for i in 1 2 3; do "$0" -- sh -c "echo round $i; exec cat"; done; echo "went on"`, binary}, dir: s.a}.onTerminal(t)
	term.sees("round 1", 1)
	term.types("\x03")
	if status := term.wait(); !status.Signaled() || status.Signal() != syscall.SIGINT || strings.Contains(term.text(), "round 2") {
		t.Errorf("ended with %v and shows:\n%s", status, term.text())
	}
	s.free()
}

// ^Z stops dcelock and its command, fg continues both, and the lock is held
// all the while.
func TestStopAndContinue(t *testing.T) {
	s := newArchive(t)
	term := call{argv: []string{"bash", "--norc", "--noprofile", "-i"}, dir: s.a, env: []string{"PS1=prompt> ", "HISTFILE="}}.onTerminal(t)
	term.sees("prompt> ", 1)
	term.types(binary + ` -- sh -c 'echo be''gun; read -r x; echo "re""ad $x"; exit 5'` + "\n")
	term.sees("begun", 1)
	term.types("\x1a")
	term.sees("Stopped", 1)
	if s.lockIsFree() {
		t.Error("the lock is free while the run is stopped")
	}
	term.types("fg\n")
	term.types("hello\n")
	term.sees("read hello", 1)
	term.types("echo stat''us $?\n")
	term.sees("status 5", 1)
	s.free()
	term.types("exit\n")
	term.wait()
}

// Signals that arrive while dcelock starts and ends leave no lock, no record,
// and no command behind; it dies of them, or its command does.
func TestSignalsAtAnyMoment(t *testing.T) {
	s := newArchive(t)
	// Without QUIT: until main begins, Go's run time answers it with a trace.
	sent := slices.DeleteFunc(slices.Clone(passedOn), func(sig syscall.Signal) bool { return sig == syscall.SIGQUIT })
	for round := range 100 {
		sig := sent[round%len(sent)]
		p := s.dcelock("--", "sh", "-c", "echo ran").start(t)
		for range round * 20 { // a moment that grows; not a wait for anything
			unix.Getppid()
		}
		p.cmd.Process.Signal(sig)
		r := p.wait()
		if r.signal != sig && r.status != 0 || r.stderr != "" {
			t.Errorf("%v: %+v", sig, r)
		}
		s.free()
	}
}

// As the first process of a PID namespace, which signals end only where it asks for
// them, dcelock is ended by them before there is a command, too.
func TestSignalsEndPIDOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a PID namespace")
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1} {
		s := newArchive(t)
		config := s.a + "/fifo"
		syscall.Mkfifo(config, 0o600)
		c := s.dcelock("--config", config, "--", "true")
		c.attr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		p := c.start(t)
		f, err := os.OpenFile(config, os.O_WRONLY, 0) // until it reads there
		if err != nil {
			t.Fatal(err)
		}
		p.cmd.Process.Signal(sig)
		if r := p.wait(); r.status != 128+int(sig) || r.stderr != "" {
			t.Errorf("%v: %+v", sig, r)
		}
		f.Close()
	}
}
