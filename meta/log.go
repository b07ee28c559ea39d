package meta

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A Log prints all that dcelock itself says (contract, "Messages"), printable
// whatever the paths and records behind it hold.
type Log struct {
	Quiet   int // once: no notes; twice: nothing when the lock is held
	Verbose bool
}

// Write writes to standard error as it is. Not to os.Stderr, which ends the process
// when a pipe there is broken: the command's end, and its status, are worth more.
func (Log) Write(text []byte) (int, error) { return unix.Write(2, text) }

// Line prints a line whatever is asked for: errors.
func (l Log) Line(text string) { fmt.Fprintln(l, "dcelock: "+Printable(text)) }

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
