package lock

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dcelock/meta"
)

// All that dcelock itself says goes through this file (contract, "Messages"):
// to standard error, each line beginning "dcelock: ", printable whatever the
// paths and records behind it hold. Standard output is the command's.

// A Log prints messages. The zero Log may not be used.
type Log struct {
	Out     io.Writer
	Quiet   bool // errors only
	Verbose bool // details as well
}

func (l Log) line(text string) { fmt.Fprintln(l.Out, "dcelock: "+meta.Printable(text)) }

// Note says what the operator may like to know.
func (l Log) Note(format string, args ...any) {
	if !l.Quiet {
		l.line(fmt.Sprintf(format, args...))
	}
}

// Warn says what the operator should know.
func (l Log) Warn(format string, args ...any) { l.Note("warning: "+format, args...) }

// Detail says what only --verbose asks for.
func (l Log) Detail(format string, args ...any) {
	if l.Verbose {
		l.Note(format, args...)
	}
}

// Error prints err, and for a held lock who holds it and what can be done.
func (l Log) Error(err error) {
	l.line(err.Error())
	if held := new(HeldError); errors.As(err, &held) {
		for _, text := range held.details(time.Now()) {
			l.line(text)
		}
	}
}

// details are the lines that follow the first line of a refusal.
func (e *HeldError) details(now time.Time) []string {
	if e.Holder == nil {
		why := "the holder left no record"
		if e.err != nil {
			why = "the holder's record cannot be used: " + e.err.Error()
		}
		return []string{why, "to see which processes have the lock file open: fuser -v " + meta.Summary([]string{e.Lock})}
	}
	h := e.Holder
	lines := []string{fmt.Sprintf("Holder pid %d (%s, started %s): %s", h.PID, e.State, timestamp(h.Started), h.Command)}
	var about []string
	if age := now.Sub(h.Started); !h.Started.IsZero() && age >= 0 {
		about = append(about, "held for "+duration(age))
	}
	for _, known := range []struct{ label, value string }{{"by ", h.User}, {"on ", h.Host}, {"in ", h.Folder}} {
		if known.value != "" {
			about = append(about, known.label+known.value)
		}
	}
	if len(about) > 0 {
		lines = append(lines, strings.Join(about, ", "))
	}
	if e.Replaced {
		lines = append(lines, "the lock file was removed or replaced while that run holds it")
	}
	switch e.State {
	case meta.Running:
		lines = append(lines, fmt.Sprintf("wait until it ends, or stop it: kill %d", h.PID))
	case meta.NotRunning:
		lines = append(lines, "what it started still holds the lock; to see it: fuser -v "+meta.Summary([]string{e.Lock}))
	case meta.CannotTell:
		lines = append(lines, "it runs elsewhere (another host or container): look for it there, or wait until it ends")
	}
	return lines
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// duration is d as people say it: its two largest units.
func duration(d time.Duration) string {
	s := int(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 60*60:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 48*60*60:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}
