//go:build !race

package tests

// The binary as users have it: static.
var (
	buildFlags []string
	buildEnv   = []string{"CGO_ENABLED=0"}
)
