// Dcelock runs a command under the lock of a scrape archive, in the manner of
// flock(1), and says who holds the lock when it is taken.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"dcelock/lock"
	"dcelock/meta"
)

type commandLine struct {
	Config    *string
	Wait      *lock.Wait `aliases:"timeout" short:"w" xor:"wait"`
	Nonblock  bool       `aliases:"nb,nonblocking" short:"n" xor:"wait"`
	Conflict  *uint8     `name:"conflict-exit-code" short:"E" xor:"conflict"`
	Command   *string    `short:"c"`
	Close     bool       `short:"o" xor:"close"`
	InnerLock *string    `enum:"auto,skip,keep" xor:"inner-lock"`
	Exclusive bool       `aliases:"e" short:"x"`
	Status    bool       `xor:"wait,conflict,close,inner-lock"`
	JSON      bool       `name:"json"`
	Quiet     int        `type:"counter" short:"q"`
	Verbose   bool       `short:"v"`
	Help      bool       `short:"h"`
	Version   bool       `short:"V"`

	Words []string `arg:"" optional:"" passthrough:"partial"`

	flags []string // as they were typed
}

// The main thread receives the signals (lock.Signals).
func init() { runtime.LockOSThread() }

func main() {
	signals := lock.Attend()
	var line commandLine
	var ended syscall.WaitStatus
	err := line.parse(os.Args[1:])
	if err == nil {
		ended, err = line.run(signals)
	}
	switch {
	case err != nil:
		os.Exit(line.report(err))
	case ended.Signaled():
		lock.DieBy(ended.Signal())
	}
	os.Exit(ended.ExitStatus())
}

// parse reads the flags, up to the first word that is none. kong is given no
// more words than flags can take: its time grows with their square.
func (line *commandLine) parse(args []string) error {
	few := args[:min(len(args), 100)]
	values := kong.KindMapper(reflect.String, kong.MapperFunc(asTyped))
	if _, err := kong.Must(line, kong.Name("dcelock"), kong.NoDefaultHelp(), values).Parse(few); err != nil {
		said := strings.Replace(err.Error(), "can't be used together", "do not go together", 1)
		return wrong("%s", meta.BadFlag(said))
	}
	// kong leaves the -- to the command.
	line.flags = few[:len(few)-len(line.Words)]
	line.Words = args[len(line.flags):]
	if len(line.Words) > 0 && line.Words[0] == "--" {
		line.Words = line.Words[1:]
	}
	return line.check()
}

// asTyped is a word for kong, which by itself replaces what is not UTF-8.
func asTyped(context *kong.DecodeContext, target reflect.Value) error {
	word, err := context.Scan.PopValue("text")
	target.SetString(word.String())
	return err
}

// check refuses what cannot be meant, before anything is locked or looked for.
func (line *commandLine) check() error {
	switch {
	case line.Help, line.Version:
	case line.Config != nil && *line.Config == "":
		// Most likely an unset variable, and the default config may name another lock.
		return wrong("--config: the file's name is empty")
	case line.Status && (len(line.Words) > 0 || line.Command != nil):
		return wrong("--status runs no command: leave one of the two out")
	case line.Status:
	case line.JSON:
		return wrong("--json goes with --status")
	case line.Command != nil && len(line.Words) > 0:
		return wrong("-c takes the whole command as one word: quote it, or leave -c out")
	case line.Command != nil:
		line.Words = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh"), "-c", *line.Command}
	case len(line.Words) == 0:
		return wrong("no command given")
	case looksLikeLock(line.Words):
		return wrong("%s looks like a lock file or a descriptor's number, as flock(1) takes one: dcelock finds "+
			"the lock by a config, or DCE_SCRAPE_LOCK_FILE names it; give it the command alone", line.Words[0])
	}
	return nil
}

// looksLikeLock tells whether words begin with a lock, as flock(1) has it: with the
// number of a descriptor, a lock file, or what is no program with -c behind it.
func looksLikeLock(words []string) bool {
	if len(words) > 1 && words[1] == "-c" {
		_, err := lock.LookUp(words)
		return err != nil
	}
	return words[0] != "" && strings.Trim(words[0], "0123456789") == "" || strings.HasSuffix(words[0], ".lock")
}

// run carries out what the command line asks for, and returns how the command
// ended, as wait(2) has it.
func (line *commandLine) run(signals *lock.Signals) (ended syscall.WaitStatus, err error) {
	switch {
	case line.Help:
		_, err = io.WriteString(os.Stdout, meta.Usage())
		return 0, err
	case line.Version:
		_, err = fmt.Println("dcelock", meta.Version())
		return 0, err
	}
	log := meta.Log{Quiet: line.Quiet, Verbose: line.Verbose}
	var command lock.Command
	if !line.Status {
		if command, err = lock.LookUp(line.Words); err != nil {
			return 0, err
		}
	}
	// Set by an outer dcelock, the variable speaks to the runner inside it.
	if os.Getenv("DCE_SKIP_SCRAPE_LOCK") == "1" && os.Getenv("DCE_SCRAPE_LOCK_HELD") == "" && !line.Status {
		log.Warn("running without any lock, because DCE_SKIP_SCRAPE_LOCK=1 is set")
		return signals.Run(command)
	}
	wait := cmp.Or(line.Wait, new(lock.Wait))
	if text := os.Getenv("DCE_SCRAPE_LOCK_WAIT"); text != "" && line.Wait == nil && !line.Nonblock && !line.Status {
		if err := wait.UnmarshalText([]byte(text)); err != nil {
			return 0, wrong("DCE_SCRAPE_LOCK_WAIT: %w", err)
		}
	}
	at, err := lock.Find(*cmp.Or(line.Config, new("")), line.Words)
	if err != nil {
		return 0, err
	}
	for _, warning := range at.Warnings {
		log.Warn("%s", warning)
	}
	log.Detail("lock %s: %s", at.Lock, at.Reason)
	if line.Status {
		status, err := lock.Inspect(at)
		if err == nil && line.Quiet == 0 {
			err = status.Print(os.Stdout, line.JSON)
		}
		if status.State == meta.Held {
			ended = 1 << 8 // an exit with status 1
		}
		return ended, err
	}
	held, err := lock.Take(at, line.Words, *wait, log, signals)
	if err != nil {
		return 0, err
	}
	return held.Run(command, line.Close, *cmp.Or(line.InnerLock, new("auto")), signals)
}

// wrong is the error of a command line that cannot be understood.
func wrong(format string, args ...any) error {
	return &lock.Error{Kind: lock.BadUsage, Err: fmt.Errorf(format+" (see dcelock --help)", args...)}
}

// report prints an error, and is the one place that turns errors into exit
// statuses.
func (line *commandLine) report(err error) int {
	log := meta.Log{}
	if held, ok := errors.AsType[*lock.HeldError](err); ok {
		for _, text := range held.Lines(meta.Again(line.flags, os.Args[1+len(line.flags):])) {
			if line.Quiet < 2 {
				log.Line(text)
			}
		}
		return int(*cmp.Or(line.Conflict, new(uint8(1))))
	}
	failed, ok := errors.AsType[*lock.Error](err)
	if !ok {
		err = fmt.Errorf("standard output cannot be written: %w", cmp.Or(errors.Unwrap(err), err))
		failed = &lock.Error{Kind: lock.System, Err: err}
	}
	log.Line(meta.Redact(failed.Error()))
	return int(failed.Kind)
}
