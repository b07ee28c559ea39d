package meta

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The help has no line longer than the terminal, of 40 to 120 columns.
func TestUsageFits(t *testing.T) {
	terminal, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	stdout, dupErr := unix.Dup(1)
	if err != nil || dupErr != nil {
		t.Skip("no terminal:", err, dupErr)
	}
	defer unix.Close(terminal)
	defer unix.Close(stdout)
	defer unix.Dup3(stdout, 1, 0)
	if err := unix.Dup3(terminal, 1, 0); err != nil {
		t.Fatal(err)
	}
	for width := 40; width <= 120; width++ {
		if err := unix.IoctlSetWinsize(terminal, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(width)}); err != nil {
			t.Fatal(err)
		}
		text, longest := Usage(), 0
		for line := range strings.Lines(text) {
			longest = max(longest, len(line)-1)
		}
		if longest > width || longest < width-20 {
			t.Errorf("in %d columns the longest line has %d", width, longest)
		}
		if got := strings.Fields(text); strings.Join(got, " ") != strings.Join(strings.Fields(usage), " ") {
			t.Errorf("in %d columns it says %q", width, got)
		}
	}
}
