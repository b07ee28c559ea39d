// Dcelock runs a command under the lock of a scrape archive, in the manner of
// flock(1), and says who holds the lock when it is taken.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"dcelock/lock"
	"dcelock/meta"
)

type commandLine struct {
	Config    string
	Wait      waitTime `aliases:"timeout" short:"w"`
	Nonblock  bool     `aliases:"nb,nonblocking" short:"n"`
	Conflict  uint8    `name:"conflict-exit-code" short:"E" default:"1"`
	Command   string   `short:"c"`
	Close     bool     `short:"o"`
	InnerLock string   `enum:"auto,skip,keep" default:"auto"`
	Exclusive bool     `short:"x"`
	E         bool     `short:"e"`
	Status    bool
	JSON      bool `name:"json"`
	Quiet     int  `type:"counter" short:"q"`
	Verbose   bool `short:"v"`
	Help      bool `short:"h"`
	Version   bool `short:"V"`

	Words []string `arg:"" optional:"" passthrough:"partial"`

	flags []string // as they were typed
	plain []string // each as --NAME or --NAME=VALUE
}

// The main thread receives the signals (lock.Signals).
func init() { runtime.LockOSThread() }

func main() {
	signals := lock.Attend()
	var line commandLine
	status := 0
	err := line.parse(os.Args[1:])
	if err == nil {
		status, err = line.run(signals)
	}
	if err != nil {
		status = line.report(err)
	}
	os.Exit(status)
}

// parse reads the flags, up to the first word that is none. kong is given no
// more words than flags can take: its time grows with their square.
func (line *commandLine) parse(args []string) error {
	few := args[:min(len(args), 100)]
	context, err := kong.Must(line, kong.Name("dcelock"), kong.NoDefaultHelp()).Parse(few)
	if err != nil {
		return usageError{errors.New(meta.BadFlag(err.Error()))}
	}
	for _, path := range context.Path {
		if f := path.Flag; f != nil {
			plain := "--" + f.Name
			if !f.IsBool() && !f.IsCounter() {
				plain += "=" + fmt.Sprint(context.FlagValue(f))
			}
			line.plain = append(line.plain, plain)
		}
	}
	// kong replaces what is not UTF-8 and leaves the -- to the command, so
	// that all words are taken as they came.
	line.flags = few[:len(few)-len(line.Words)]
	for _, flag := range line.flags {
		if value := flag[strings.IndexByte(flag, '=')+1:]; line.Config == strings.ToValidUTF8(value, "\uFFFD") {
			line.Config = value
		}
	}
	line.Words = args[len(line.flags):]
	if len(line.Words) > 0 && line.Words[0] == "--" {
		line.Words = line.Words[1:]
	}
	return nil
}

func (line *commandLine) has(flag string) bool {
	return slices.ContainsFunc(line.plain, func(f string) bool { return f == "--"+flag || strings.HasPrefix(f, "--"+flag+"=") })
}

// check refuses what cannot be meant, before anything is locked or looked for.
func (line *commandLine) check() error {
	switch {
	case line.has("command") && len(line.Words) == 0:
		line.Words = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh"), "-c", line.Command}
	case line.has("command"):
		return usageError{errors.New("-c takes the whole command as one word: quote it, or leave -c out")}
	}
	switch {
	case line.has("config") && line.Config == "":
		// Most likely an unset variable, and the default config may name another lock.
		return usageError{errors.New("--config: the file's name is empty")}
	case line.Status && len(line.Words) > 0:
		return usageError{errors.New("--status runs no command: leave one of the two out")}
	case line.Status:
		return line.without("--status", "wait", "nonblock", "conflict-exit-code", "close", "inner-lock")
	case line.JSON:
		return usageError{errors.New("--json goes with --status")}
	case len(line.Words) == 0:
		return usageError{errors.New("no command given")}
	case line.Words[0] != "" && strings.Trim(line.Words[0], "0123456789") == "", strings.HasSuffix(line.Words[0], ".lock"):
		return usageError{fmt.Errorf("%s looks like a lock file or a descriptor's number, as flock(1) takes one: dcelock finds the lock by a config, or DCE_SCRAPE_LOCK_FILE names it; give it the command alone", line.Words[0])}
	case line.Nonblock:
		return line.without("--nonblock", "wait")
	}
	return nil
}

// without refuses flags that mean nothing beside another.
func (line *commandLine) without(flag string, others ...string) error {
	i := slices.IndexFunc(others, line.has)
	if i < 0 {
		return nil
	}
	return usageError{fmt.Errorf("%s and --%s do not go together", flag, others[i])}
}

// run carries out what the command line asks for. The status is the command's
// own; a command that was killed by a signal takes dcelock with it.
func (line *commandLine) run(signals *lock.Signals) (status int, err error) {
	switch {
	case line.Help:
		return 0, lock.Printed(io.WriteString(os.Stdout, meta.Usage()))
	case line.Version:
		return 0, lock.Printed(fmt.Println("dcelock", meta.Version()))
	}
	if err := line.check(); err != nil {
		return 0, err
	}
	log := meta.Log{Out: meta.Stderr, Quiet: line.Quiet, Verbose: line.Verbose}
	// Set by an outer dcelock, the variable speaks to the runner inside it.
	unlocked := os.Getenv("DCE_SKIP_SCRAPE_LOCK") == "1" && os.Getenv("DCE_SCRAPE_LOCK_HELD") == ""
	if line.Status || !unlocked {
		return line.locked(signals, log)
	}
	log.Warn("running without any lock, because DCE_SKIP_SCRAPE_LOCK=1 is set")
	return ended(lock.RunUnlocked(line.Words, signals))
}

// locked runs the command under the lock, or says who holds that.
func (line *commandLine) locked(signals *lock.Signals, log meta.Log) (status int, err error) {
	wait, err := line.wait()
	if err != nil {
		return 0, err
	}
	at, err := lock.Find(line.Config, line.Words)
	if err != nil {
		return 0, err
	}
	for _, warning := range at.Warnings {
		log.Warn("%s", warning)
	}
	log.Detail("lock %s: %s", at.Lock, at.Reason)
	if line.Status {
		return line.status(at)
	}
	command, err := lock.LookUp(line.Words)
	if err != nil {
		return 0, err
	}
	held, err := lock.Take(at, line.Words, wait, log, signals)
	if err != nil {
		return 0, err
	}
	result, err := held.Run(command, lock.Options{Close: line.Close, Inner: lock.InnerLockFor(line.InnerLock, at, command, line.Close, log)}, signals)
	return ended(result, err)
}

// status prints what can be said of the lock.
func (line *commandLine) status(at lock.Location) (int, error) {
	status, err := lock.Inspect(at)
	if err != nil {
		return 0, err
	}
	if line.Quiet == 0 {
		err = lock.Printed(0, status.Print(os.Stdout, line.JSON))
	}
	if status.State == meta.Held {
		return 1, err
	}
	return 0, err
}

// wait is how long to wait for the lock.
func (line *commandLine) wait() (time.Duration, error) {
	text := os.Getenv("DCE_SCRAPE_LOCK_WAIT")
	if line.has("wait") || line.Nonblock || line.Status || text == "" {
		return time.Duration(line.Wait), nil
	}
	wait, err := lock.ParseWait(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("DCE_SCRAPE_LOCK_WAIT: %w", err)}
	}
	return wait, nil
}

type waitTime time.Duration

// UnmarshalText is how kong reads each value, also one that another beats.
func (w *waitTime) UnmarshalText(text []byte) error {
	wait, err := lock.ParseWait(string(text))
	*w = waitTime(wait)
	return err
}

// ended turns the end of a command into dcelock's own: the same exit status,
// or, without returning, death by the same signal.
func ended(result syscall.WaitStatus, err error) (int, error) {
	if err == nil && result.Signaled() {
		lock.DieBy(result.Signal())
	}
	return result.ExitStatus(), err
}

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() + " (see dcelock --help)" }

// report prints an error, and is the one place that turns errors into exit
// statuses.
func (line *commandLine) report(err error) int {
	log := meta.Log{Out: meta.Stderr}
	if held, ok := errors.AsType[*lock.HeldError](err); ok {
		for _, text := range held.Lines(meta.Again(line.flags, line.plain, line.Words)) {
			if line.Quiet < 2 {
				log.Line(text)
			}
		}
		return int(line.Conflict)
	}
	log.Line(meta.Redact(err.Error()))
	if _, ok := errors.AsType[usageError](err); ok {
		return 64 // EX_USAGE of sysexits.h, and so on below
	}
	if failed, ok := errors.AsType[*lock.Error](err); ok {
		return int(failed.Kind)
	}
	return 70 // EX_SOFTWARE: an error that no rule foresees
}
