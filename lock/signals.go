package lock

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The policy (contract, "Signals and exit status"): until there is a command
// to pass them to, signals end dcelock as they end any program; from then on
// they are the command's. A terminal sends INT and QUIT to its whole
// foreground group, and then the command has them already. A signal that was
// ignored when dcelock started stays ignored, as far as Go lets that be seen.

// passedOn are the signals that the command gets.
var passedOn = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM}

// Signals receives this process's signals.
type Signals struct {
	mu      sync.Mutex
	kept    bool             // whether signals are the command's
	command int              // pid of the command, while it runs
	arrived []syscall.Signal // what the command gets when it starts, in order

	attended []os.Signal
	ready    chan struct{} // closed when no signal can be missed any more
}

// Attend begins to receive the signals of this process. It returns at once:
// setting that up takes the Go runtime a while, which is waited for only when it
// matters.
func Attend() *Signals {
	s := &Signals{ready: make(chan struct{})}
	for _, sig := range passedOn {
		if !signal.Ignored(sig) {
			s.attended = append(s.attended, sig)
		}
	}
	go func() {
		received := make(chan os.Signal, 64)
		signal.Notify(received, append(s.attended, unix.SIGCHLD)...)
		close(s.ready)
		for sig := range received {
			if sig == unix.SIGCHLD {
				_ = unix.Tgkill(os.Getpid(), os.Getpid(), unix.SIGCHLD) // for wait
				continue
			}
			// The runtime does not tell who sent it.
			s.receive(sig.(syscall.Signal), inForeground())
		}
	}()
	return s
}

const (
	sigsetSize = 8    // bytes, of the kernel's sigset_t
	siKernel   = 0x80 // SI_KERNEL of sigaction(2): not sent by a process
)

// receive acts on one signal.
func (s *Signals) receive(sig syscall.Signal, fromTerminal bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.kept:
		DieBy(sig)
	case s.command == 0:
		s.arrived = append(s.arrived, sig)
	case fromTerminal && (sig == unix.SIGINT || sig == unix.SIGQUIT):
	default:
		_ = unix.Kill(s.command, sig)
	}
}

// wait waits for the command, which has just been started, and passes signals
// on to it, those first that have arrived for it. What the terminal sent while it
// was being started is sent to it as well: it has no handler yet that could count.
//
// It must be called on the main thread, to which the kernel gives signals first;
// the others go through the Go runtime, which does not tell who sent them.
func (s *Signals) wait(command int) (status syscall.WaitStatus, err error) {
	var set unix.Sigset_t
	add(&set, unix.SIGCHLD)
	for _, sig := range s.attended {
		add(&set, sig.(syscall.Signal))
	}
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
	s.mu.Lock()
	s.command = command
	for _, sig := range s.arrived {
		_ = unix.Kill(command, sig)
	}
	s.mu.Unlock()
	for {
		// Locked, because once it is waited for its pid may be another's.
		s.mu.Lock()
		pid, err := syscall.Wait4(command, &status, unix.WNOHANG, nil)
		if pid == command || err != nil && err != unix.EINTR {
			s.command = 0
			s.mu.Unlock()
			return status, err
		}
		s.mu.Unlock()
		var info unix.Siginfo
		sig, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&info)), 0, sigsetSize, 0, 0)
		if errno == 0 && syscall.Signal(sig) != unix.SIGCHLD {
			s.receive(syscall.Signal(sig), info.Code == siKernel)
		}
	}
}

// keep makes signals wait for the command instead of ending the process.
func (s *Signals) keep() {
	<-s.ready
	s.mu.Lock()
	s.kept = true
	s.mu.Unlock()
}

// letGo undoes keep, for a process that waits again; it ends it if a signal has
// arrived meanwhile.
func (s *Signals) letGo() {
	s.mu.Lock()
	s.kept = false
	s.mu.Unlock()
	s.dieOfArrived(func() {})
}

// dieOfArrived ends this process if a signal has arrived for a command that is
// not yet started, after release.
func (s *Signals) dieOfArrived(release func()) {
	s.mu.Lock()
	arrived := s.arrived
	s.mu.Unlock()
	if len(arrived) > 0 {
		release()
		DieBy(arrived[0])
	}
}

// inForeground tells whether this process is in the foreground group of its
// terminal, which gets the signals that are typed there.
func inForeground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// DieBy ends this process by a signal, as its command was ended by it, so that
// a shell sees the same death with the prefix as without it. It does not
// return.
func DieBy(sig syscall.Signal) {
	// The command's core file, if there was one, is the one of interest.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// signal.Reset is not enough: the Go runtime keeps its own handler for
	// some signals. A zero sigaction is SIG_DFL, without flags or mask.
	var action [64]byte
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, sigsetSize, 0, 0)
	var set unix.Sigset_t
	add(&set, sig)
	// To this thread: sent to the process, the main thread's sigtimedwait
	// would take the signal.
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
	time.Sleep(time.Second) // not reached: the signal comes with the return from tgkill
	os.Exit(128 + int(sig))
}

// add adds a signal to a set (sigsetops(3)).
func add(set *unix.Sigset_t, sig syscall.Signal) {
	set.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
}
