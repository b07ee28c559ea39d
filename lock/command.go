package lock

import (
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
	Words []string // as the caller gave them; Words[0] names the program
	path  string   // the program's file
}

// LookUp finds the program of a command as execvp(3) does, so that a missing
// one is known before anything is locked. Its errors are of kind NotFound and
// CannotRun.
func LookUp(words []string) (Command, error) {
	name := words[0]
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return Command{}, cannotRun(name, err)
		}
		return Command{words, name}, nil
	}
	search, ok := os.LookupEnv("PATH")
	if !ok {
		search = "/bin:/usr/bin" // confstr(3), _CS_PATH
	}
	found := error(unix.ENOENT)
	for folder := range strings.SplitSeq(search, ":") {
		if folder == "" {
			folder = "." // environ(7): an empty one is the working directory
		}
		path := folder + "/" + name
		err := executable(path)
		if err == nil && name != "" {
			return Command{words, path}, nil
		}
		if errors.Is(err, unix.EACCES) {
			found = err // as execvp, go on, but remember that one was there
		}
	}
	return Command{}, cannotRun(name, found)
}

// executable tells whether path is a file that this user may execute.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return bare(err)
	case info.IsDir():
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// noResources are the errors with which the system refuses a new process, or a
// descriptor with a number that its limit allows.
var noResources = []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EBADF}

func cannotRun(name string, err error) error {
	name = meta.Redact(name) // a variable in front of a command is easily put here
	switch {
	case name == "":
		return fail(NotFound, "the command's name is empty")
	case strings.Contains(name, "=") && !strings.Contains(name, "/"):
		return fail(NotFound, "command %s not found: it sets a variable; put it in front of dcelock, or put env behind --", name)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fail(NotFound, "command %s not found", name)
	}
	return fail(CannotRun, "command %s cannot be executed: %w", name, err)
}

// start starts the command with the given environment and files, by their
// numbers; what the caller left open beyond these is the command's too. Its errors
// are of kind CannotRun, NotFound and System.
func (c Command) start(environment []string, files []uintptr) (pid int, err error) {
	// Not os.StartProcess, which looks first, with a process of its own,
	// whether the kernel has pidfds.
	attr := &syscall.ProcAttr{Env: environment, Files: files}
	pid, err = syscall.ForkExec(c.path, c.Words, attr)
	if errors.Is(err, unix.ENOEXEC) {
		// A script without #!, which execvp(3) gives to the shell.
		words := append([]string{"/bin/sh", c.path}, c.Words[1:]...)
		pid, err = syscall.ForkExec(words[0], words, attr)
	}
	switch {
	case err == nil:
		return pid, nil
	case slices.ContainsFunc(noResources, func(none error) bool { return errors.Is(err, none) }):
		return 0, fail(System, "no process for command %s: %w", meta.Redact(c.Words[0]), err)
	case errors.Is(err, unix.ENOENT) && executable(c.path) == nil:
		return 0, fail(NotFound, "the interpreter of command %s, which its first line names, was not found", meta.Redact(c.Words[0]))
	}
	return 0, cannotRun(c.Words[0], err)
}
