package lock

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// A Command is a program and its words, looked up and not yet started.
type Command struct {
	Words []string  // as the caller gave them; Words[0] names the program
	path  string    // the program's file
	files []uintptr // by their numbers, and what the caller left open beyond them
}

// LookUp finds the program of a command as execvp(3) does, so that a missing one is
// known before anything is locked. Its errors are of kind NotFound and CannotRun.
func LookUp(words []string) (Command, error) {
	paths := words[:1]
	if !strings.Contains(words[0], "/") {
		paths = strings.Split(cmp.Or(os.Getenv("PATH"), "/bin:/usr/bin"), ":") // confstr(3), _CS_PATH; so where it is empty
		for i, folder := range paths {
			paths[i] = cmp.Or(folder, ".") + "/" + words[0] // environ(7): an empty one is the working directory
		}
	}
	var refused error
	for _, path := range paths {
		err := executable(path)
		if err == nil {
			return Command{words, path, []uintptr{0, 1, 2}}, nil
		}
		if !errors.Is(refused, unix.EACCES) { // as execvp, go on, but remember that one was there
			refused = err
		}
	}
	return Command{}, cannotRun(words[0], refused)
}

// executable tells whether path is a file that this user may execute.
func executable(path string) error {
	if exists(path + "/.") {
		return unix.EACCES // a folder
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

func cannotRun(name string, err error) error {
	name = meta.Redact(name) // a variable in front of a command is easily put here
	switch {
	case name == "":
		return fail(NotFound, "the command's name is empty")
	case strings.Contains(name, "=") && !strings.Contains(name, "/"):
		return fail(NotFound, "command %s not found: it sets a variable; put it in front of dcelock, or put env behind --", name)
	case strings.Contains(name, " ") && !strings.Contains(name, "/"):
		return fail(NotFound, "command %q not found: a command line in one word is run by -c", name)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fail(NotFound, "command %s not found", name)
	}
	return fail(CannotRun, "command %s cannot be executed: %w", name, err)
}

// start starts the command. Its errors are of kind CannotRun, NotFound and System.
func (c Command) start() (pid int, err error) {
	// Not os.StartProcess, which first tries by a process of its own whether there are pidfds.
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: c.files}
	pid, err = syscall.ForkExec(c.path, c.Words, attr)
	if errors.Is(err, unix.ENOEXEC) {
		// A script without #!, which execvp(3) gives to the shell.
		words := append([]string{"/bin/sh", c.path}, c.Words[1:]...)
		pid, err = syscall.ForkExec(words[0], words, attr)
	}
	switch {
	case err == nil:
		return pid, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE),
		errors.Is(err, unix.EBADF): // a descriptor's number that the limit does not allow
		return 0, fail(System, "no process for command %s: %w", meta.Redact(c.Words[0]), err)
	case errors.Is(err, unix.ENOENT) && executable(c.path) == nil:
		return 0, fail(NotFound, "the interpreter of command %s, which its first line names, was not found", meta.Redact(c.Words[0]))
	}
	return 0, cannotRun(c.Words[0], err)
}

// Run runs command under the lock, as Signals.Run does, and releases the lock at its end. With
// close the command does not inherit the lock; inner is "skip", "keep" or "auto" (--inner-lock).
func (l *Lock) Run(command Command, close bool, inner string) (syscall.WaitStatus, error) {
	l.signals.Prepare()
	_ = os.Setenv(heldVariable, l.at.Lock)
	switch {
	case inner == "keep":
	case inner == "skip" || !close && !l.guardsAnother(command.Words):
		_ = os.Setenv(skipVariable, "1")
	default: // an outer dcelock may have set it for another lock
		_ = os.Unsetenv(skipVariable)
	}
	if l.nested {
		return l.signals.Run(command)
	}
	if !close {
		command.files = handedOn(l.folder, l.file)
	}
	defer l.Release()
	l.writeRecord(command.Words)
	return l.signals.Run(command)
}

// handedOn are the command's files, by their numbers: the caller's as they are, and the lock's, -1
// for one that is not locked, from 500 on, or from 10 on where the limit is low: scripts name 0 to 10,
// 99, 100, 200. The child moves them: several threads would wait ten milliseconds for a larger table.
func handedOn(locks ...int) []uintptr {
	var limit unix.Rlimit
	lowest := 500
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(lowest+10) { // a fork needs some, too
		lowest = 10
	}
	files, callers := []uintptr{0, 1, 2}, inheritable()
	for len(locks) > 0 {
		fd := len(files)
		switch {
		case slices.Contains(callers, fd):
		case fd >= lowest:
			fd, locks = locks[0], locks[1:]
		default:
			fd = -1
		}
		files = append(files, uintptr(fd))
	}
	return files
}

// inheritable are the descriptors that this process has inherited, and its command inherits
// in turn: what it opened itself is closed on exec. Without /proc, as far as they mostly go.
func inheritable() []int {
	fds, err := meta.Numbers("/proc/self/fd")
	for fd := 0; err != nil && fd < 1024; fd++ {
		fds = append(fds, fd)
	}
	return slices.DeleteFunc(fds, func(fd int) bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err != nil || flags&unix.FD_CLOEXEC != 0
	})
}
