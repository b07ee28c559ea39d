package lock

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// The policy (contract, "Signals and exit status"). Until there is a command, signals end dcelock by
// the kernel's default action (as PID 1, which has none, by os/signal), also in a system call that only
// a deadly one ends. From then on those that are passed on are the command's; the others end dcelock.
//
// They are received in one way: the main thread waits for them in rt_sigtimedwait(2), which tells
// where they are from. While it does not, the kernel gives them to another thread, as Go cannot
// block a signal in all: what os/signal receives so is sent on to the main thread, to be pending.

// Signals receives this process's signals.
type Signals struct {
	received []os.Signal   // what is passed on, unless it is ignored, and SIGCHLD
	set      unix.Sigset_t // the same
	callers  unix.Sigset_t // the mask that this process was started with
	handler  sigaction     // Go's, the same for every signal
	kept     atomic.Bool
	begun    sync.Once
	ready    chan struct{} // closed when os/signal misses none any more
}

// Attend gives signals their usual effect. It must be called on the main thread, which
// runs nothing else than the goroutine that calls it.
func Attend() *Signals {
	s := &Signals{handler: act(unix.SIGURG, nil), ready: make(chan struct{})}
	s.received = slices.DeleteFunc([]os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCHLD}, signal.Ignored)
	for _, sig := range s.received {
		s.set.Val[0] |= 1 << (sig.(syscall.Signal) - 1)
	}
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, nil, &s.callers)
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		// URG and CHLD are the runtime's own; messages to nobody end no run; and
		// PID 1 would be deaf to what it does not handle (pid_namespaces(7)).
		kept := sig == unix.SIGURG || sig == unix.SIGCHLD || sig == unix.SIGPIPE ||
			slices.Contains(s.received, os.Signal(sig)) && os.Getpid() == 1
		if !kept && act(sig, nil) == s.handler {
			act(sig, &sigaction{})
		}
	}
	if os.Getpid() == 1 { // which os/signal then lets signals end
		s.Prepare()
		<-s.ready
	}
	return s
}

// Prepare begins what Keep waits for, beside what else is done: os/signal takes half a
// millisecond for it and two threads, which a run that is refused does not need.
func (s *Signals) Prepare() { s.begun.Do(func() { go s.forward() }) }

// forward sends on to the main thread what the kernel gave to another one.
func (s *Signals) forward() {
	arrived := make(chan os.Signal, 64)
	signal.Notify(arrived, s.received...)
	close(s.ready)
	for sig := range arrived {
		switch {
		case s.kept.Load():
			_ = unix.Tgkill(os.Getpid(), os.Getpid(), sig.(syscall.Signal))
		case sig != unix.SIGCHLD: // that of a child from before the exec
			DieBy(sig.(syscall.Signal))
		}
	}
}

// Keep, on the main thread, makes signals wait for the command instead of ending this process.
func (s *Signals) Keep() {
	s.Prepare()
	<-s.ready
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &s.set, nil)
	s.kept.Store(true)
	for _, sig := range s.received {
		act(sig.(syscall.Signal), &s.handler)
	}
}

// Run runs a command and passes signals on; its errors are of kind CannotRun, NotFound and System.
// A signal from before ends it before it begins; one from meanwhile is passed on, whoever sent it.
func (s *Signals) Run(command Command) (status syscall.WaitStatus, err error) {
	s.Keep()
	atOnce := &unix.Timespec{}
	if sig, _ := s.next(atOnce); sig != 0 && sig != unix.SIGCHLD {
		return syscall.WaitStatus(sig), nil
	}
	// The command inherits the mask. What arrives meanwhile goes around by forward.
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &s.callers, nil)
	pid, err := command.start()
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &s.set, nil)
	if err != nil {
		return 0, err
	}
	for timeout := atOnce; ; {
		ended, err := syscall.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err != nil:
			return 0, fail(System, "waiting for command %s failed: %w", meta.Redact(command.Words[0]), err)
		case ended == pid:
			return status, nil
		case ended != 0:
			continue // an orphan's: as PID 1 they are this process's to take
		}
		switch sig, code := s.next(timeout); {
		case sig == 0:
			timeout = nil // all that had arrived is passed on
		case sig == unix.SIGCHLD:
		case timeout == nil && reachedBoth(sig, code, pid):
		default:
			_ = unix.Kill(pid, sig)
		}
	}
}

// next waits for a signal, as long as timeout allows, without end for nil, and
// tells where it is from: si_code of sigaction(2). It returns 0 for none.
func (s *Signals) next(timeout *unix.Timespec) (sig syscall.Signal, code int32) {
	var info unix.Siginfo
	_, _, _ = unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&s.set)),
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(timeout)), sigsetSize, 0, 0)
	return syscall.Signal(info.Signo), info.Code
}

// reachedBoth tells whether a terminal has sent a signal to this process's group and the command is
// in that. Of a terminal that is gone, the session's leader alone gets a HUP of its own.
func reachedBoth(sig syscall.Signal, code int32, command int) bool {
	// SI_KERNEL, as what a terminal sends; SI_TKILL, sent on by forward, which is not told.
	const fromKernel, fromForward = 0x80, -6
	group, _ := unix.Getpgid(command)
	session, _ := unix.Getsid(0)
	switch {
	case group != unix.Getpgrp():
		return false
	case sig == unix.SIGHUP:
		return code == fromKernel && session != os.Getpid()
	case sig != unix.SIGINT && sig != unix.SIGQUIT:
		return false
	case code == fromForward:
		// If it was typed, it went to the terminal's foreground group.
		tty, _ := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		defer unix.Close(tty)
		foreground, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
		return err == nil && foreground == group
	}
	return code == fromKernel
}

// DieBy ends this process by a signal, so that a shell sees the same death as without the prefix.
func DieBy(sig syscall.Signal) {
	// The command's core file, if there was one, is the one of interest.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// Not signal.Reset: the Go runtime keeps its own handler for some signals.
	act(sig, &sigaction{})
	// To this thread: of what is sent to the process, the main thread's sigtimedwait would take it.
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
	// Reached by the first process of a PID namespace, which signals do not end.
	os.Exit(128 + int(sig))
}

// sigaction is the kernel's struct sigaction; the zero one is the default.
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const sigsetSize = 8 // bytes, of the kernel's sigset_t

// act is rt_sigaction(2): it sets what a signal does, unless action is nil; before is what it did.
func act(sig syscall.Signal, action *sigaction) (before sigaction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(action)),
		uintptr(unsafe.Pointer(&before)), sigsetSize, 0, 0)
	return before
}
