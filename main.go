// Dcelock runs a command under a scrape archive's lock, as flock(1) would, or says who has it.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"dcelock/lock"
	"dcelock/meta"
)

type commandLine struct {
	config, command            *string
	wait                       *lock.Wait
	nonblock, close, exclusive bool
	conflict                   uint8
	innerLock                  string
	status, json               bool
	quiet                      int
	verbose, help, version     bool

	words []string // the command's
	flags []string // as they were typed
}

// grammar is what kong parses by. It is not left to kong to read it from struct tags: that
// takes longer than the lock and the record, and links a third more code.
func (line *commandLine) grammar() *kong.Kong {
	asTyped := kong.MapperFunc(func(context *kong.DecodeContext, target reflect.Value) error {
		word, err := context.Scan.PopValue("text") // kong's own replaces what is not UTF-8
		target.SetString(word.String())
		return err
	})
	mappers := kong.NewRegistry().RegisterDefaults().RegisterKind(reflect.String, asTyped)
	value := func(target any, kind, name string) *kong.Value {
		field := reflect.ValueOf(target).Elem()
		return &kong.Value{Name: name, Target: field, Mapper: mappers.ForNamedValue(kind, field), Tag: &kong.Tag{Type: kind}}
	}
	node := &kong.Node{Tag: &kong.Tag{}}
	flag := func(target any, kind string, short rune, names ...string) {
		v := value(target, kind, names[0])
		v.Flag = &kong.Flag{Value: v, Short: short, Aliases: names[1:]}
		node.Flags = append(node.Flags, v.Flag)
	}
	flag(&line.config, "", 0, "config")
	flag(&line.wait, "", 'w', "wait", "timeout")
	flag(&line.nonblock, "", 'n', "nonblock", "nb", "nonblocking")
	flag(&line.conflict, "", 'E', "conflict-exit-code")
	flag(&line.command, "", 'c', "command")
	flag(&line.close, "", 'o', "close")
	flag(&line.innerLock, "", 0, "inner-lock")
	flag(&line.exclusive, "", 'x', "exclusive", "e")
	flag(&line.status, "", 0, "status")
	flag(&line.json, "", 0, "json")
	flag(&line.quiet, "counter", 'q', "quiet")
	flag(&line.verbose, "", 'v', "verbose")
	flag(&line.help, "", 'h', "help")
	flag(&line.version, "", 'V', "version")
	words := value(&line.words, "", "words")
	words.Passthrough, words.Tag.Sep = true, -1 // with its commas
	node.Positional = []*kong.Value{words}
	return &kong.Kong{Model: &kong.Application{Node: node}}
}

// The main thread receives the signals (lock.Signals).
func init() { runtime.LockOSThread() }

func main() {
	signals := lock.Attend()
	line := commandLine{conflict: 1, innerLock: "auto"}
	ended, err := line.run(os.Args[1:], signals)
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
	context, err := kong.Trace(line.grammar(), few)
	if err = cmp.Or(err, context.Error); err != nil {
		return wrong("%s", meta.BadFlag(err.Error()))
	}
	_, _ = context.Apply()
	// kong leaves the -- to the command.
	line.flags = few[:len(few)-len(line.words)]
	line.words = args[len(line.flags):]
	if len(line.words) > 0 && line.words[0] == "--" {
		line.words = line.words[1:]
	}
	return line.check()
}

// check refuses what cannot be meant, before anything is locked or looked for.
func (line *commandLine) check() error {
	switch {
	case line.help, line.version:
	case line.config != nil && *line.config == "":
		// Most likely an unset variable, and the default config may name another lock.
		return wrong("--config: the file's name is empty")
	case line.wait != nil && line.nonblock:
		return wrong("--wait and --nonblock do not go together")
	case !slices.Contains([]string{"auto", "skip", "keep"}, line.innerLock):
		return wrong("--inner-lock is auto, skip or keep")
	case line.status && (len(line.words) > 0 || line.command != nil):
		return wrong("--status runs no command: leave one of the two out")
	case line.status && (line.wait != nil || line.nonblock || line.close || line.conflict != 1 || line.innerLock != "auto"):
		return wrong("--status takes no lock: the flags of a run do not go together with it")
	case line.status:
	case line.json:
		return wrong("--json goes with --status")
	case line.command != nil && len(line.words) > 0:
		return wrong("-c takes the whole command as one word: quote it, or leave -c out")
	case line.command != nil:
		line.words = []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh"), "-c", *line.command}
	case len(line.words) == 0:
		return wrong("no command given")
	case looksLikeLock(line.words):
		return wrong("%s looks like a lock file or a descriptor's number, as flock(1) takes one: dcelock finds "+
			"the lock by a config, or DCE_SCRAPE_LOCK_FILE names it; give it the command alone", line.words[0])
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

// run carries out what the arguments ask for; ended is how the command ended, as of wait(2).
func (line *commandLine) run(args []string, signals *lock.Signals) (ended syscall.WaitStatus, err error) {
	switch err = line.parse(args); {
	case err != nil:
		return 0, err
	case line.help:
		_, err = fmt.Print(meta.Usage())
		return 0, err
	case line.version:
		_, err = fmt.Println("dcelock", meta.Version())
		return 0, err
	}
	log := meta.Log{Quiet: line.quiet, Verbose: line.verbose}
	var command lock.Command
	if !line.status {
		if command, err = lock.LookUp(line.words); err != nil {
			return 0, err
		}
	}
	// Set by an outer dcelock, the variable speaks to the runner inside it.
	if os.Getenv("DCE_SKIP_SCRAPE_LOCK") == "1" && os.Getenv("DCE_SCRAPE_LOCK_HELD") == "" && !line.status {
		log.Warn("running without any lock, because DCE_SKIP_SCRAPE_LOCK=1 is set")
		return signals.Run(command)
	}
	wait := cmp.Or(line.wait, new(lock.Wait))
	if text := os.Getenv("DCE_SCRAPE_LOCK_WAIT"); text != "" && line.wait == nil && !line.nonblock && !line.status {
		if err := wait.UnmarshalText([]byte(text)); err != nil {
			return 0, wrong("DCE_SCRAPE_LOCK_WAIT: %w", err)
		}
	}
	at, err := lock.Find(*cmp.Or(line.config, new("")), line.words)
	if err != nil {
		return 0, err
	}
	for _, warning := range at.Warnings {
		log.Warn("%s", warning)
	}
	log.Detail("lock %s: %s", at.Lock, at.Reason)
	if line.status {
		status, err := lock.Inspect(at)
		if err == nil && line.quiet == 0 {
			err = status.Print(os.Stdout, line.json)
		}
		if status.State == meta.Held {
			ended = 1 << 8 // an exit with status 1
		}
		return ended, err
	}
	held, err := lock.Take(at, *wait, log, signals)
	if err != nil {
		return 0, err
	}
	return held.Run(command, line.close, line.innerLock)
}

// wrong is the error of a command line that cannot be understood.
func wrong(format string, args ...any) error {
	return &lock.Error{Kind: lock.BadUsage, Err: fmt.Errorf(format+" (see dcelock --help)", args...)}
}

// report prints an error, and is the one place that turns errors into exit statuses.
func (line *commandLine) report(err error) int {
	log := meta.Log{}
	if held, ok := errors.AsType[*lock.HeldError](err); ok {
		for _, text := range held.Lines(meta.Again(line.flags, os.Args[1+len(line.flags):])) {
			if line.quiet < 2 {
				log.Line(text)
			}
		}
		return int(line.conflict)
	}
	failed, ok := errors.AsType[*lock.Error](err)
	if !ok {
		err = fmt.Errorf("standard output cannot be written: %w", cmp.Or(errors.Unwrap(err), err))
		failed = &lock.Error{Kind: lock.System, Err: err}
	}
	log.Line(meta.Redact(failed.Error()))
	return int(failed.Kind)
}
