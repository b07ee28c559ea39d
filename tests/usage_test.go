package tests

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	s := newArchive(t)
	for _, args := range [][]string{
		{}, {"--"}, {"-n"}, {"--config"}, {"--config="}, {"--config", "", "touch", "ran"},
		{"--confg", "c", "--", "touch", "ran"}, {"-x", "touch", "ran"}, {"-E", "256", "touch", "ran"},
		{"-E", "-1", "touch", "ran"}, {"-E", "x", "touch", "ran"}, {"-E"}, {"--inner-lock=maybe", "touch", "ran"},
		{"--nonblock=maybe", "touch", "ran"},
	} {
		r := s.dcelock(args...).run(t)
		r.wants(t, 64, "dcelock: ", "dcelock --help")
		if r.stdout != "" || exists(s.a+"/ran") || exists(s.lock) {
			t.Errorf("%q: printed %q, or ran, or locked", args, r.stdout)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	s := newArchive(t)
	for _, flag := range []string{"-h", "--help"} {
		r := s.dcelock(flag).run(t)
		r.wants(t, 0)
		if !strings.HasPrefix(r.stdout, "Usage: dcelock [flags] [--] COMMAND [ARG...]\n") || r.stderr != "" {
			t.Errorf("%s:\n%s%s", flag, r.stdout, r.stderr)
		}
		for _, text := range []string{"--config", "--nonblock", "--conflict-exit-code", "--close", "--inner-lock", "--quiet", "--verbose", "--version",
			"Examples:", "Exit status:", "64 ", "65 ", "66 ", "71 ", "73 ", "126, 127", "DCE_CONFIG_FILE", "DCE_SCRAPE_LOCK_FILE", "DCE_SKIP_SCRAPE_LOCK"} {
			if !strings.Contains(r.stdout, text) {
				t.Errorf("%s does not mention %s", flag, text)
			}
		}
		for line := range strings.Lines(r.stdout) {
			if len(line) > 87 {
				t.Errorf("%s: a line too long for a terminal: %s", flag, line)
			}
		}
	}
	for _, flag := range []string{"-V", "--version"} {
		r := s.dcelock(flag).run(t)
		if r.status != 0 || !regexp.MustCompile(`^dcelock \d+\.\d+\.\d+\n$`).MatchString(r.stdout) {
			t.Errorf("%s: %+v", flag, r)
		}
	}
	// Behind the command they are the command's.
	if r := s.dcelock("printf", "%s\n", "--help").run(t); r.stdout != "--help\n" {
		t.Errorf("echo --help: %+v", r)
	}
}

func TestQuietAndVerbose(t *testing.T) {
	s := newArchive(t)
	write(t, s.meta, "pid=2147483647\nstarted=2026-06-04T06:39:46Z\ncmd=x\n")
	if r := s.dcelock("--quiet", "--", "true").run(t); r.status != 0 || r.stderr != "" {
		t.Errorf("quiet: %+v", r)
	}
	s.dcelock("-v", "--", "true").run(t).wants(t, 0, "lock "+s.lock, "names archive_root "+s.root, "took the lock in ")
	s.hold()
	s.dcelock("--quiet", "--", "true").run(t).wants(t, 1, "already running", "Holder pid ")
}

func TestBinaryIsStatic(t *testing.T) {
	if len(buildFlags) > 0 {
		t.Skip("the race detector links the binary dynamically")
	}
	out, err := exec.Command("readelf", "-d", binary).CombinedOutput()
	if err != nil {
		t.Skipf("readelf is not to be had: %v", err)
	}
	if strings.Contains(string(out), "NEEDED") {
		t.Errorf("needs libraries:\n%s", out)
	}
}
