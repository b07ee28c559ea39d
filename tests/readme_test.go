package tests

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// recipes are the commands of the README's section "Use".
func recipes(t *testing.T) (commands []string) {
	t.Helper()
	_, rest, _ := strings.Cut(slurp(t, "../README.md"), "\n## Use\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// scraper makes a checkout of stand-ins: each notes whether the lock was held and
// which variable it got, and fails when told to.
func scraper(t *testing.T) *archive {
	t.Helper()
	s := newArchive(t)
	os.MkdirAll(s.a+"/scripts", 0o755)
	stub := "#!/bin/sh\nflock -n " + s.lock + " true && state=free || state=held\n" +
		"echo \"${0##*/} $* $state skip=$DCE_SKIP_SCRAPE_LOCK\" >>" + s.a + "/ran\n[ -z \"$FAIL\" ]\n"
	os.MkdirAll(s.a+"/tests", 0o755)
	for _, name := range []string{"scripts/run-discord-scrape-host.sh", "salvage.sh", "audit.sh", "start-exporter-service.sh", "tests/run-all-smokes.sh"} {
		write(t, s.a+"/"+name, stub)
		os.Chmod(s.a+"/"+name, 0o755)
	}
	return s
}

// Every command line of the README that runs the scraper does as it stands there,
// and what it runs, runs under the lock.
func TestRecipes(t *testing.T) {
	var lines []string
	for _, command := range recipes(t) {
		if strings.HasPrefix(command, "dcelock ") && strings.Contains(command, ".sh") {
			lines = append(lines, command)
		}
	}
	if len(lines) != 6 {
		t.Fatalf("%d recipes found: %q", len(lines), lines)
	}
	for _, recipe := range lines {
		t.Run(recipe, func(t *testing.T) { runRecipe(t, scraper(t), recipe) })
	}
}

func runRecipe(t *testing.T, s *archive, recipe string) {
	t.Helper()
	c := call{argv: []string{"bash", "-c", recipe}, dir: s.a, env: []string{"HOME=" + s.a, "PATH=" + strings.TrimSuffix(binary, "/dcelock") + ":" + os.Getenv("PATH")}}
	if r := c.run(t); r.status != 0 || r.stdout+r.stderr != "" {
		t.Errorf("%+v", r)
	}
	want := " held skip=1"
	if strings.Contains(recipe, "--close") {
		want = " held skip=" // a daemon outlives the lock
	}
	ran := strings.Split(strings.TrimSpace(slurp(t, s.a+"/ran")), "\n")
	if n := strings.Count(recipe, ".sh"); len(ran) != n || slices.ContainsFunc(ran, func(line string) bool { return !strings.HasSuffix(line, want) }) {
		t.Errorf("%d commands ran as %q", n, ran)
	}
	s.free()

	failing := c
	failing.env = append([]string{"FAIL=1"}, c.env...)
	if r := failing.run(t); r.status != 1 {
		t.Errorf("a failing command: %+v", r)
	}
	s.hold()
	if !strings.Contains(recipe, "--wait") {
		c.run(t).wants(t, 1, "already running")
		return
	}
	c.argv[2] = "exec " + c.argv[2]
	p := c.start(t)
	waits(t, p)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
}

// What the README's sentences tell to type does what they say.
func TestCommandsInSentences(t *testing.T) {
	var typed []string
	for _, code := range regexp.MustCompile("`(dcelock [^`]*)`").FindAllStringSubmatch(slurp(t, "../README.md"), -1) {
		if strings.Contains(code[1], " -- ") || strings.Contains(code[1], "--status") {
			typed = append(typed, code[1])
		}
	}
	if len(typed) < 3 {
		t.Fatalf("%q", typed)
	}
	s := scraper(t)
	for _, command := range typed {
		c := call{argv: []string{"bash", "-c", command}, dir: s.a, env: []string{"PATH=" + strings.TrimSuffix(binary, "/dcelock") + ":" + os.Getenv("PATH")}}
		if r := c.run(t); r.status != 0 || r.stderr != "" {
			t.Errorf("%s: %+v", command, r)
		}
	}
	if ran := slurp(t, s.a+"/ran"); !strings.Contains(ran, "run-all-smokes.sh  held skip=\n") {
		t.Errorf("%q", ran)
	}
}

// The first steps, in an empty folder: the second run is refused, and the status
// says why.
func TestFirstSteps(t *testing.T) {
	var script []string
	for _, command := range recipes(t) {
		if strings.Contains(command, "scrape-targets.json") {
			script = append(script, command)
		}
	}
	if len(script) != 4 {
		t.Fatalf("%q", script)
	}
	// The run in the background is ended when all has been seen.
	text := strings.Join(script, "\n") + "\nkill $!\nwait"
	r := call{argv: []string{"bash", "-c", text}, dir: t.TempDir(), env: []string{"PATH=" + strings.TrimSuffix(binary, "/dcelock") + ":" + os.Getenv("PATH")}}.run(t)
	if !strings.Contains(r.stderr, "already running") || strings.Contains(r.stdout, "never") || !strings.Contains(r.stdout, "state: held (active scrape)") {
		t.Errorf("%+v", r)
	}
}

// Cron's line, with the surroundings that cron gives it: a held lock is told
// apart by its status, and said on standard error, which cron mails.
func TestCronLine(t *testing.T) {
	var path, line string
	for _, command := range recipes(t) {
		if strings.HasPrefix(command, "PATH=") {
			path = strings.TrimPrefix(command, "PATH=")
		}
		if _, rest, ok := strings.Cut(command, "* * cd /mnt/checkout && "); ok {
			line = rest
		}
	}
	if !strings.HasPrefix(path, "/usr/local/bin:") || line == "" {
		t.Fatalf("PATH %q, line %q", path, line)
	}
	s := scraper(t)
	c := call{argv: []string{"env", "-i", "HOME=" + s.a, "SHELL=/bin/sh", "PATH=" + strings.TrimSuffix(binary, "/dcelock") + strings.TrimPrefix(path, "/usr/local/bin"), "sh", "-c", line}, dir: s.a}
	if r := c.run(t); r.status != 0 || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	s.hold()
	c.run(t).wants(t, 75, "already running")
	c.argv[len(c.argv)-1] = strings.Replace(line, "-E 75", "-qq -E 0", 1)
	if r := c.run(t); r.status != 0 || r.stdout+r.stderr != "" {
		t.Errorf("with -qq -E 0: %+v", r)
	}
}

// The unit is one that systemd takes.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	var unit []string
	for _, command := range recipes(t) {
		if len(unit) > 0 || command == "[Service]" {
			if unit = append(unit, command); strings.HasPrefix(command, "KillMode=") {
				break
			}
		}
	}
	path := t.TempDir() + "/scrape.service"
	text := strings.ReplaceAll(strings.Join(unit, "\n"), "/usr/local/bin/dcelock", binary)
	write(t, path, strings.ReplaceAll(text, "/mnt/checkout/scripts/run-discord-scrape-host.sh", "/bin/true")+"\n")
	if r := (call{argv: []string{analyze, "verify", path}}).run(t); r.status != 0 {
		t.Errorf("%+v", r)
	}
}
