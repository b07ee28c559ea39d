//go:build race

package tests

import "os"

// Under `go test -race` the binary watches itself for data races too: it then
// exits with status 66 and a report.
var (
	buildFlags = []string{"-race"}
	buildEnv   []string
)

// The detector's run time would sleep a second at each exit.
func init() { os.Setenv("GORACE", "atexit_sleep_ms=0") }
