package meta

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A Log prints all that dcelock itself says (contract, "Messages"): each line
// begins with "dcelock: ", and is printable whatever the paths and records behind
// it hold. The zero Log may not be used.
type Log struct {
	Out     io.Writer
	Quiet   int // once: no notes; twice: nothing when the lock is held
	Verbose bool
}

// Stderr is standard error. Not os.Stderr, which ends the process when a pipe
// there is broken: the command's end, and its status, are worth more.
var Stderr io.Writer = standardError{}

type standardError struct{}

func (standardError) Write(text []byte) (int, error) { return unix.Write(2, text) }

// Line prints a line whatever is asked for: errors.
func (l Log) Line(text string) { fmt.Fprintln(l.Out, "dcelock: "+Printable(text)) }

// Warn says that an archive may be at risk.
func (l Log) Warn(format string, args ...any) { l.Line("warning: " + fmt.Sprintf(format, args...)) }

// Note says what the operator may like to know.
func (l Log) Note(format string, args ...any) {
	if l.Quiet == 0 {
		l.Line(fmt.Sprintf(format, args...))
	}
}

// Detail says what only --verbose asks for.
func (l Log) Detail(format string, args ...any) {
	if l.Verbose {
		l.Note(format, args...)
	}
}
