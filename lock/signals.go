package lock

import (
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The policy (contract, "Signals and exit status"). Until there is a command,
// signals end dcelock by the kernel's default action and without a handler of
// Go's: also where it is stuck in a system call that only a deadly signal ends.
// From then on those of passedOn are the command's, and the others end dcelock.
//
// They are received in one way: the main thread waits for them in
// rt_sigtimedwait(2), which tells where they are from. The kernel gives them to
// that thread while it waits there, and else to one of the others, as Go has no
// way to block a signal in all of them: what os/signal receives so is sent on to
// the main thread, where it stays pending.

// passedOn are the signals that the command gets.
var passedOn = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM}

// Signals receives this process's signals.
type Signals struct {
	attended []os.Signal                  // passedOn, but those that are ignored
	set      unix.Sigset_t                // attended, and SIGCHLD
	callers  unix.Sigset_t                // the mask that this process was started with
	handlers map[syscall.Signal]sigaction // Go's, which Keep puts back
	kept     atomic.Bool
	ready    chan struct{} // closed when os/signal misses none any more
}

// Attend gives signals their usual effect, and sets up what Keep needs, which
// takes the Go runtime a while, beside what else is done. It must be called on
// the main thread, which runs nothing else than the goroutine that calls it.
func Attend() *Signals {
	s := &Signals{handlers: map[syscall.Signal]sigaction{}, ready: make(chan struct{})}
	// The end of a child from before the exec waits for Keep like any.
	add(&s.set, unix.SIGCHLD)
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &s.set, &s.callers)
	for _, sig := range passedOn {
		if !signal.Ignored(sig) {
			s.attended = append(s.attended, sig)
			add(&s.set, sig.(syscall.Signal))
		}
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		action := actionOf(sig)
		switch {
		case action.handler == sigDefault, action.handler == sigIgnore:
		case sig == unix.SIGURG, sig == unix.SIGCHLD, sig == unix.SIGPIPE:
			// The runtime's own; and messages to nobody end no run.
		case os.Getpid() == 1 && slices.Contains(passedOn, os.Signal(sig)):
			// It would be deaf to them (pid_namespaces(7)): forward ends it.
		default:
			s.handlers[sig] = action
			setAction(sig, sigaction{})
		}
	}
	go s.forward()
	return s
}

// forward sends on to the main thread what the kernel gave to another one.
func (s *Signals) forward() {
	received := make(chan os.Signal, 64)
	signal.Notify(received, append(s.attended, unix.SIGCHLD)...)
	close(s.ready)
	for sig := range received {
		if !s.kept.Load() && sig != unix.SIGCHLD {
			DieBy(sig.(syscall.Signal))
		}
		_ = unix.Tgkill(os.Getpid(), os.Getpid(), sig.(syscall.Signal))
	}
}

// Keep makes the signals of passedOn wait for the command instead of ending
// this process. It must be called on the main thread.
func (s *Signals) Keep() {
	<-s.ready
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &s.set, nil)
	s.kept.Store(true)
	for _, sig := range s.attended {
		if handler, ok := s.handlers[sig.(syscall.Signal)]; ok {
			setAction(sig.(syscall.Signal), handler)
		}
	}
}

// unblocked calls start, which starts the command, with the mask that the caller
// of dcelock had: the command inherits it. What arrives meanwhile goes around by
// forward until it is blocked again.
func (s *Signals) unblocked(start func()) {
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &s.callers, nil)
	start()
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &s.set, nil)
}

// dieOfArrived ends this process, after release, if a signal has arrived for a
// command that is not yet started.
func (s *Signals) dieOfArrived(release func()) {
	for {
		switch sig, _, ok := s.next(&unix.Timespec{}); {
		case !ok:
			return
		case sig != unix.SIGCHLD:
			release()
			DieBy(sig)
		}
	}
}

// wait waits for the command, which has just been started, and passes signals
// on to it. What has arrived while it was being started is passed on wherever it
// came from: the command may not have been there when the terminal sent it.
func (s *Signals) wait(command int) (status syscall.WaitStatus, err error) {
	timeout := &unix.Timespec{}
	for {
		ended, err := reap(command, &status)
		if ended || err != nil {
			return status, err
		}
		sig, origin, ok := s.next(timeout)
		switch {
		case !ok:
			timeout = nil
		case sig == unix.SIGCHLD:
		case timeout == nil && reachedBoth(sig, origin, command):
		default:
			_ = unix.Kill(command, sig)
		}
	}
}

// reap takes the status of the command, if it has ended. As the first process
// of a PID namespace it takes those of the orphans as well, which are its to take.
func reap(command int, status *syscall.WaitStatus) (ended bool, err error) {
	whom := command
	if os.Getpid() == 1 {
		whom = -1
	}
	for {
		var s syscall.WaitStatus
		pid, err := syscall.Wait4(whom, &s, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return ended, err
		case pid == command:
			*status, ended = s, true
			return true, nil
		}
	}
}

// Where a signal is from: si_code of sigaction(2).
const (
	fromKernel  = 0x80 // SI_KERNEL, as what a terminal sends
	fromForward = -6   // SI_TKILL: sent on by forward, to which os/signal does not tell it
)

// next waits for a signal, as long as timeout allows, without end for nil.
func (s *Signals) next(timeout *unix.Timespec) (sig syscall.Signal, origin int32, ok bool) {
	for {
		var info unix.Siginfo
		n, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&s.set)), uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(timeout)), sigsetSize, 0, 0)
		switch {
		case errno == 0:
			return syscall.Signal(n), info.Code, true
		case errno == unix.EAGAIN:
			return 0, 0, false
		}
	}
}

// reachedBoth tells whether a terminal has sent a signal to this process's group
// and the command is in that. Of a terminal that is gone, the session's leader
// alone gets a HUP of its own.
func reachedBoth(sig syscall.Signal, origin int32, command int) bool {
	if group, err := unix.Getpgid(command); err != nil || group != unix.Getpgrp() {
		return false
	}
	switch sig {
	case unix.SIGINT, unix.SIGQUIT:
		return origin == fromKernel || origin == fromForward && inForeground()
	case unix.SIGHUP:
		session, err := unix.Getsid(0)
		return origin == fromKernel && err == nil && session != os.Getpid()
	}
	return false
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
	// some signals.
	setAction(sig, sigaction{})
	var set unix.Sigset_t
	add(&set, sig)
	// To this thread: sent to the process, the main thread's sigtimedwait
	// would take the signal.
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
	// Reached by the first process of a PID namespace, which signals do not end.
	os.Exit(128 + int(sig))
}

// sigaction is the kernel's struct sigaction (rt_sigaction(2)).
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	sigDefault = 0
	sigIgnore  = 1
	sigsetSize = 8 // bytes, of the kernel's sigset_t
)

func actionOf(sig syscall.Signal) (action sigaction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&action)), sigsetSize, 0, 0)
	return action
}

func setAction(sig syscall.Signal, action sigaction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, sigsetSize, 0, 0)
}

// add adds a signal to a set (sigsetops(3)).
func add(set *unix.Sigset_t, sig syscall.Signal) { set.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64) }
