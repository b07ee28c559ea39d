package lock

import (
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DieBy ends this process by signal, as the command that it ran was ended, so
// that a shell sees the same death with the prefix as without it. It does not
// return.
func DieBy(signal syscall.Signal) {
	// The command's core file, if there was one, is the one of interest.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// signal.Reset is not enough: the Go runtime keeps its own handler for
	// some signals. A zero sigaction is SIG_DFL, without flags or mask.
	var action [64]byte
	runtime.LockOSThread()
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	var set unix.Sigset_t
	set.Val[(signal-1)/64] = 1 << ((signal - 1) % 64)
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil)
	_ = unix.Kill(os.Getpid(), signal)
	// Another thread may be the one to die; this one has nothing to do.
	time.Sleep(time.Second)
	os.Exit(128 + int(signal))
}
