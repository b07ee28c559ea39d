package tests

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer runs a program and stops it (ptrace(2)) where one of its threads, or
// a child of it that has not yet called execve, enters a system call. What it
// starts runs untraced from its execve on.
type tracer struct {
	enter func(systemCall) // called at each stop, while that thread stands still
	pid   int              // of the program
	end   unix.WaitStatus  // how it ended
	err   error
}

// A systemCall is one that a thread is about to make.
type systemCall struct {
	number uint64
	args   [6]uint64
	path   string // the path it names, of those that open, look and remove
}

// The kernel ties a traced process to the thread that traces it. That one must
// not have started other children before, or it would be told of their ends,
// too: so it is set aside before there are any.
var traced = func() chan<- func() {
	work, ready := make(chan func()), make(chan bool)
	go func() {
		runtime.LockOSThread()
		close(ready)
		for f := range work {
			f()
		}
	}()
	<-ready
	return work
}()

// run runs the program to its end.
func (tr *tracer) run(argv, env []string, dir string, files []*os.File) {
	done := make(chan struct{})
	traced <- func() {
		defer close(done)
		tr.err = tr.trace(argv, env, dir, files)
	}
	<-done
}

const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

func (tr *tracer) trace(argv, env []string, dir string, files []*os.File) error {
	process, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Env: env, Dir: dir, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return err
	}
	tr.pid = process.Pid
	defer process.Release()
	var status unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &status, unix.WALL, nil); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(tr.pid, traceOptions); err != nil {
		unix.Kill(tr.pid, unix.SIGKILL)
		return err
	}
	known := map[int]bool{tr.pid: true} // threads that have had their first stop
	next := unix.PtraceSyscall(tr.pid, 0)
	for next == nil || errors.Is(next, unix.ESRCH) { // killed while it stood still
		// This thread's own tracees alone: the other children are waited
		// for elsewhere.
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return err
		case !status.Stopped():
			if tid == tr.pid {
				tr.end = status
			}
			continue
		}
		deliver := 0
		switch sig := status.StopSignal(); {
		case sig == unix.SIGTRAP|0x80:
			if call, ok := entered(tid); ok {
				tr.enter(call)
			}
		case sig == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
			if tid != tr.pid {
				next = unix.PtraceDetach(tid)
				continue
			}
		case sig == unix.SIGTRAP && status.TrapCause() > 0:
		case sig == unix.SIGSTOP && !known[tid]:
			known[tid] = true // how a new thread or child begins
		default:
			deliver = int(sig)
		}
		next = unix.PtraceSyscall(tid, deliver)
	}
	unix.Kill(tr.pid, unix.SIGKILL)
	return next
}

// entered is the system call that a stopped thread enters; false when it stands
// at the end of one.
func entered(tid int) (call systemCall, ok bool) {
	var info struct { // ptrace_syscall_info, the same on every processor
		op      uint8
		_       [3]uint8
		arch    uint32
		ip, sp  uint64
		number  uint64
		args    [6]uint64
		retdata uint64
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return call, false
	}
	call = systemCall{number: info.number, args: info.args}
	switch info.number {
	case unix.SYS_OPENAT, unix.SYS_NEWFSTATAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_READLINKAT:
		call.path = textAt(tid, uintptr(info.args[1]))
	}
	return call, true
}

// textAt is the C string at an address of a stopped thread.
func textAt(tid int, address uintptr) string {
	var text [512]byte
	// A read stops at the end of a page: what lies behind may not be there.
	length := min(len(text), 4096-int(address%4096))
	local := []unix.Iovec{{Base: &text[0], Len: uint64(length)}}
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: address, Len: length}}, 0)
	if err != nil {
		return ""
	}
	if n < len(text) && !slices.Contains(text[:n], 0) {
		local = []unix.Iovec{{Base: &text[n], Len: uint64(len(text) - n)}}
		more, _ := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: address + uintptr(n), Len: len(text) - n}}, 0)
		n += max(more, 0)
	}
	for i, b := range text[:n] {
		if b == 0 {
			return string(text[:i])
		}
	}
	return ""
}

// isQuiet tells whether a system call is one by which a program minds its own
// threads, memory and signal masks: nothing outside can tell whether it was
// made, and how often a Go program makes it is chance.
func (call systemCall) isQuiet() bool {
	const cloneVFork = 0x4000 // of the call that starts the command
	switch call.number {
	case unix.SYS_CLONE:
		return call.args[0]&cloneVFork == 0
	case unix.SYS_FCNTL:
		return call.args[1] == unix.F_GETFL
	case unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_CTL, unix.SYS_SCHED_YIELD, unix.SYS_MADVISE,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGRETURN,
		unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_SIGALTSTACK, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_TGKILL, unix.SYS_SET_ROBUST_LIST,
		unix.SYS_RSEQ, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_CLOCK_NANOSLEEP,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_EXIT, unix.SYS_PRCTL:
		return true
	}
	return false
}

// A walk is a look at every descriptor of every process in /proc: as many calls
// as there are descriptors on the machine, of which each is like the others.
type walk struct{ calls int }

// tires tells, of each call in turn, whether it is one of a walk that has gone on
// for long enough.
func (w *walk) tires(call systemCall) bool {
	const enough = 25
	switch number := call.number; {
	case strings.HasPrefix(call.path, "/proc/") && call.path[6] >= '0' && call.path[6] <= '9':
		w.calls++
	case w.calls > 0 && call.path == "" && (number == unix.SYS_READ || number == unix.SYS_CLOSE || number == unix.SYS_FSTAT || number == unix.SYS_FCNTL || number == unix.SYS_GETDENTS64):
		w.calls++
	default:
		w.calls = 0
	}
	return w.calls > enough
}

// isWait tells whether a system call of dcelock is one by which it begins to
// wait for the lock: for the kernel to grant it, or for a process to end.
func (call systemCall) isWait() bool {
	return call.number == unix.SYS_FLOCK && call.args[1]&unix.LOCK_NB == 0 || call.number == unix.SYS_PIDFD_OPEN
}
