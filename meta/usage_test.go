package meta

import (
	"strings"
	"testing"
)

// The help has no line longer than a terminal of 80 columns, and says all.
func TestUsageFits(t *testing.T) {
	text := Usage()
	for line := range strings.Lines(text) {
		if len(line) > 80+1 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if got := strings.Fields(text); strings.Join(got, " ") != strings.Join(strings.Fields(usage), " ") {
		t.Errorf("it says %q", got)
	}
}
