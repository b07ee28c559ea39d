package meta

import (
	"os"
	"strings"
	"testing"
	"time"
)

// How long a holder has had the lock is told in the two largest units, and not at
// all where the clock makes it impossible.
func TestAgeOfAHolder(t *testing.T) {
	for ago, want := range map[time.Duration]string{
		42 * time.Second:                          "held for 42s, by op",
		2*time.Hour + 13*time.Minute:              "held for 2h13m, by op",
		11*24*time.Hour + 13*time.Hour:            "held for 11d13h, by op",
		-time.Hour:                                "by op",
		time.Since(time.Unix(0, 0)) - time.Minute: "by op",
	} {
		started := time.Now().Add(-ago - time.Second/2)
		h := Holder{Record: Record{User: "op", Started: started}, State: CannotTell, Source: FromRecord}
		if got := h.about(); got != want {
			t.Errorf("%v ago: %q, not %q", ago, got, want)
		}
	}
	// One that is seen to run cannot have taken the lock before this host was started.
	h := Holder{Record: Record{Process: Process{PID: os.Getpid()}, Started: bootTime().Add(-time.Hour)}, State: Running, Source: FromRecord}
	if got := h.about(); strings.Contains(got, "held for") {
		t.Errorf("before the boot: %q", got)
	}
}
