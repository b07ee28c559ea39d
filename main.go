// Dcelock runs a command under the lock of a scrape archive, in the manner of
// flock(1), and says who holds the lock when it is taken.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"dcelock/lock"
)

const version = "0.1.0"

const notes = `
Examples:
  dcelock --config scrape-targets.json -- ./scripts/run-discord-scrape-host.sh scrape
      Scrape, unless another run, of any checkout, writes to the same archive.
  dcelock --wait 6h -- ./scripts/run-discord-scrape-host.sh scrape
      Wait for another run to end, six hours at most.
  dcelock --status
      Say who holds the lock.

Exit status:
  the command's own; death by the signal that killed the command
  126, 127  the command cannot be executed, was not found
  1         the lock is held, or the wait ran out (-E chooses another, not for
            --status)
  64        wrong usage
  65        the config is not what it should be
  66        the config, or the archive root's parent, is missing or unreadable
  71        the system refused: no locks on this file system, no descriptors,
            no processes
  73        the lock file cannot be opened or made

The lock is {archive_root}/.dce-scrape.lock, or the file that the variable
DCE_SCRAPE_LOCK_FILE names. DCE_SKIP_SCRAPE_LOCK=1 runs without a lock.
`

type commandLine struct {
	Config    fileName
	Wait      *waitTime `short:"w" aliases:"timeout"`
	Nonblock  bool      `short:"n" aliases:"nb,nonblocking"`
	Conflict  exitCode  `short:"E" name:"conflict-exit-code" default:"1"`
	Close     bool      `short:"o"`
	InnerLock string    `enum:"skip,keep" default:"skip"`
	Status    bool
	JSON      bool     `name:"json"`
	Quiet     bool     `short:"q"`
	Verbose   bool     `short:"v"`
	Version   bool     `short:"V"`
	Command   []string `arg:"" optional:"" passthrough:"partial" help:"The command and its words."`
}

// flagHelp is what --help says of the flags, in its order. Not in the tags above:
// kong reads those letter by letter at every start, which took it a fifth of a
// millisecond.
var flagHelp = []struct{ flag, group, placeholder, help string }{
	{"config", "Which lock:", "FILE", "Scrape config (JSON) that names archive_root. Default: $DCE_CONFIG_FILE, else config/scrape-targets.json under the repository root."},
	{"wait", "When it is held:", "TIME", "Wait so long for the lock: seconds (30, 0.5), a duration (90s, 2h), or forever. Default: $DCE_SCRAPE_LOCK_WAIT; without that, and for 0, as --nonblock."},
	{"nonblock", "When it is held:", "", "Fail at once when the lock is held; this is the default, and beats DCE_SCRAPE_LOCK_WAIT."},
	{"conflict-exit-code", "When it is held:", "N", "Exit status when the lock is held, 0 to 255. Default: 1."},
	{"close", "The command:", "", "The command does not inherit the lock's descriptor; for commands that start daemons."},
	{"inner-lock", "The command:", "skip|keep", "skip (the default) exports DCE_SKIP_SCRAPE_LOCK=1, so that a runner that locks for itself does not collide with this lock; keep leaves that to the runner."},
	{"status", "Instead of a command:", "", "Print who holds the lock; take nothing, run nothing. Exit status 0 when a run could start, 1 when the lock is held."},
	{"json", "Instead of a command:", "", "With --status: as one JSON object."},
	{"quiet", "Messages:", "", "Print errors only: no notes, no warnings."},
	{"verbose", "Messages:", "", "Also print which lock, why that one, and how long it took."},
	{"version", "Messages:", "", "Print the version."},
}

// The main thread passes signals on (lock.Signals).
func init() { runtime.LockOSThread() }

func main() {
	signals := lock.Attend()
	var line commandLine
	parser := kong.Must(&line, kong.Name("dcelock"), kong.Help(help),
		kong.Description("Run a command under the lock of its scrape archive, and say who holds the lock when it is taken."))
	status := 0
	_, err := parser.Parse(os.Args[1:])
	if err != nil {
		err = usageError{err}
	} else {
		status, err = line.run(signals)
	}
	if err != nil {
		lock.Log{Out: lock.Stderr}.Error(err)
		status = exitStatus(err, int(line.Conflict))
	}
	os.Exit(status)
}

// run carries out what the command line asks for. The status is the command's
// own; a command that was killed by a signal takes dcelock with it.
func (line *commandLine) run(signals *lock.Signals) (status int, err error) {
	if line.Version {
		fmt.Println("dcelock", version)
		return 0, nil
	}
	// kong replaces what is not UTF-8 in the words, so they are taken as
	// they came; and it leaves the -- before the command to the command.
	words := os.Args[len(os.Args)-len(line.Command):]
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	switch {
	case line.Status && len(words) > 0:
		return 0, usageError{errors.New("--status runs no command")}
	case line.JSON && !line.Status:
		return 0, usageError{errors.New("--json goes with --status")}
	case len(words) == 0 && !line.Status:
		return 0, usageError{errors.New("no command given")}
	}
	log := lock.Log{Out: lock.Stderr, Terminal: lock.IsTerminal(2), Quiet: line.Quiet, Verbose: line.Verbose}

	// Set by an outer dcelock, the variable speaks to the runner inside it.
	if !line.Status && os.Getenv("DCE_SKIP_SCRAPE_LOCK") == "1" && os.Getenv("DCE_SCRAPE_LOCK_HELD") == "" {
		log.Note("running without a lock, because DCE_SKIP_SCRAPE_LOCK=1 is set")
		command, err := lock.LookUp(words)
		if err != nil {
			return 0, err
		}
		return ended(lock.RunUnlocked(command, signals))
	}

	wait, err := line.wait()
	if err != nil {
		return 0, err
	}
	at, err := lock.Find(cmp.Or(string(line.Config), os.Getenv("DCE_CONFIG_FILE")))
	if err != nil {
		return 0, err
	}
	if at.Warning != "" {
		log.Warn("%s", at.Warning)
	}
	log.Detail("lock %s: %s", at.Lock, at.Reason)
	if line.Status {
		return line.status(at)
	}
	command, err := lock.LookUp(words)
	if err != nil {
		return 0, err
	}
	held, err := lock.Take(at, words, wait, log, signals)
	if err != nil {
		return 0, err
	}
	result, err := held.Run(command, lock.Options{Close: line.Close, InnerLock: line.InnerLock == "keep"}, signals)
	held.Release()
	return ended(result, err)
}

// status prints what can be said of the lock.
func (line *commandLine) status(at lock.Location) (int, error) {
	status, err := lock.Inspect(at)
	if err != nil {
		return 0, err
	}
	if status.State == lock.Held {
		return 1, status.Print(os.Stdout, line.JSON)
	}
	return 0, status.Print(os.Stdout, line.JSON)
}

// wait is how long to wait for the lock.
func (line *commandLine) wait() (time.Duration, error) {
	text := os.Getenv("DCE_SCRAPE_LOCK_WAIT")
	switch {
	case line.Wait != nil && line.Nonblock:
		return 0, usageError{errors.New("--wait and --nonblock exclude each other")}
	case line.Wait != nil:
		return time.Duration(*line.Wait), nil
	case line.Nonblock || line.Status || text == "":
		return 0, nil
	}
	wait, err := lock.ParseWait(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("DCE_SCRAPE_LOCK_WAIT: %w", err)}
	}
	return wait, nil
}

// ended turns the end of a command into dcelock's own: the same exit status,
// or, without returning, death by the same signal.
func ended(result syscall.WaitStatus, err error) (int, error) {
	if err == nil && result.Signaled() {
		lock.DieBy(result.Signal())
	}
	return result.ExitStatus(), err
}

// What flags take; UnmarshalText is how kong reads it.
type (
	fileName string
	waitTime time.Duration
	exitCode uint8
)

// UnmarshalText refuses an empty name: most likely an unset variable, and the
// default config may name another lock.
func (f *fileName) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("the file's name is empty")
	}
	*f = fileName(text)
	return nil
}

// UnmarshalText reads a time as lock.ParseWait does.
func (w *waitTime) UnmarshalText(text []byte) error {
	wait, err := lock.ParseWait(string(text))
	*w = waitTime(wait)
	return err
}

// UnmarshalText reads an exit status, 0 to 255.
func (c *exitCode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 8)
	if err != nil {
		return errors.New("not a number from 0 to 255")
	}
	*c = exitCode(n)
	return nil
}

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() + " (see dcelock --help)" }

// exitStatus is the one place that turns errors into exit statuses; conflict
// is the one for a held lock.
func exitStatus(err error, conflict int) int {
	if _, ok := errors.AsType[*lock.HeldError](err); ok {
		return conflict
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return 64 // EX_USAGE of sysexits.h, and so on below
	}
	if failed, ok := errors.AsType[*lock.Error](err); ok {
		return statuses[failed.Kind]
	}
	return 70 // EX_SOFTWARE: an error that no rule foresees
}

var statuses = map[lock.Kind]int{
	lock.BadConfig: 65, lock.Missing: 66, lock.System: 71, lock.CannotOpen: 73, lock.CannotRun: 126, lock.NotFound: 127,
}

// help is kong's own help with the texts above, and the usage line that this
// tool's users need, flags before the command.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	for _, flag := range ctx.Model.Flags {
		for _, h := range flagHelp {
			if h.flag == flag.Name {
				flag.Group, flag.PlaceHolder, flag.Help = &kong.Group{Key: h.group, Title: h.group}, h.placeholder, h.help
			}
		}
	}
	var text bytes.Buffer
	out := ctx.Stdout
	ctx.Stdout = &text
	err := kong.DefaultHelpPrinter(options, ctx)
	ctx.Stdout = out
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(text.String(), "\n")
	_, err = io.WriteString(out, "Usage: dcelock [flags] [--] COMMAND [ARG...]\n       dcelock --status [--json] [flags]\n"+rest+notes)
	return err
}
