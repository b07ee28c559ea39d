package meta

import (
	"strings"
	"testing"
)

func TestUsageFits(t *testing.T) {
	for width := 40; width <= 120; width++ {
		text := fit(usage, width)
		for line := range strings.Lines(text) {
			if len(line) > width+1 || strings.HasSuffix(line, " \n") {
				t.Errorf("in %d columns: %q", width, line)
			}
		}
		if got, want := strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(usage), " "); got != want {
			t.Errorf("in %d columns it says %q", width, got)
		}
	}
}
