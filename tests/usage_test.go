package tests

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestUsageErrors(t *testing.T) {
	s := newArchive(t)
	for _, args := range [][]string{
		{}, {"--"}, {"-n"}, {"--config"}, {"--config="}, {"--config", "", "touch", "ran"},
		{"--confg", "c", "--", "touch", "ran"}, {"-y", "touch", "ran"}, {"-E", "256", "touch", "ran"},
		{"-E", "-1", "touch", "ran"}, {"-E", "x", "touch", "ran"}, {"-E"}, {"--inner-lock=maybe", "touch", "ran"},
		{"--nonblock=maybe", "touch", "ran"}, {"-c", "touch ran", "touch", "ran"}, {"-n", "-w", "5", "touch", "ran"},
		{"--status", "touch", "ran"}, {"--status", "-w", "5"}, {"--status", "-n"}, {"--status", "--close"}, {"--json"}, {"--json", "touch", "ran"},
		// What flock(1) has, and there is not here.
		{"-s", "touch", "ran"}, {"--shared", "touch", "ran"}, {"-u", "touch", "ran"}, {"-F", "touch", "ran"}, {"--fcntl", "touch", "ran"},
		{"9", "touch", "ran"}, {"my.lock", "touch", "ran"}, {"/tmp/scrape", "-c", "touch ran"},
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
		for _, text := range []string{"--config", "--nonblock", "--conflict-exit-code", "--close", "--inner-lock", "--quiet", "--verbose", "--version", "--wait", "--command", "--status", "--json", "--exclusive",
			"Examples:", "Exit status:", "64 ", "65 ", "66 ", "71 ", "73 ", "126, 127", "DCE_CONFIG_FILE", "DCE_SCRAPE_LOCK_FILE", "DCE_SKIP_SCRAPE_LOCK"} {
			if !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), text) {
				t.Errorf("%s does not mention %s", flag, text)
			}
		}
		for line := range strings.Lines(r.stdout) {
			if len(line) > 81 {
				t.Errorf("%s: a line too long for a terminal: %s", flag, line)
			}
		}
	}
	for _, flag := range []string{"-V", "--version"} {
		r := s.dcelock(flag).run(t)
		// The tests' own build may be of no checkout.
		if r.status != 0 || !regexp.MustCompile(`^dcelock (v\d+\.\d+\.\d+\S*|\(devel\))\n$`).MatchString(r.stdout) {
			t.Errorf("%s: %+v", flag, r)
		}
	}
	// Behind the command they are the command's.
	if r := s.dcelock("printf", "%s\n", "--help").run(t); r.stdout != "--help\n" {
		t.Errorf("echo --help: %+v", r)
	}
}

// The version is the tag that the source has, or the commit, and tells of a tree
// that was changed.
func TestVersionIsTheSources(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a few times")
	}
	for _, tool := range []string{"git", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	folder := t.TempDir()
	call{argv: []string{"bash", "-c", `mkdir "$0/source" "$0/tar" && cd .. && cp -r main.go go.mod go.sum lock meta Makefile .gitignore .gitattributes "$0/source"`, folder}}.run(t).wants(t, 0)
	build := func(change, in, want string) {
		t.Helper()
		script := "(cd source && " + change + ") >&2 && rm -f " + in + "/dcelock && make -s -C " + in + " >&2 && exec " + in + "/dcelock --version"
		if r := (call{argv: []string{"bash", "-c", script}, dir: folder,
			env: []string{"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x"}}).run(t); r.status != 0 || !regexp.MustCompile(want).MatchString(r.stdout) {
			t.Errorf("%s: %+v, want %s", change, r, want)
		}
	}
	build("git init -q && git add -A && git commit -qm one && git tag v1.2.3", "source", `^dcelock v1\.2\.3\n$`)
	build("git archive HEAD | tar x -C ../tar", "tar", `^dcelock v1\.2\.3\n$`)
	build("echo // >>main.go", "source", `^dcelock v1\.2\.3.*dirty\n$`)
	build("git commit -qam two", "source", `^dcelock v.*[0-9a-f]{12}\n$`)
	if os.Geteuid() == 0 {
		build("chown -R nobody .", "source", `^dcelock v.*[0-9a-f]{12}\n$`)
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
