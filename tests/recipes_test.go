package tests

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// Every recipe of the README runs as it stands there, and what it runs, runs
// under the lock.
func TestRecipes(t *testing.T) {
	_, rest, _ := strings.Cut(slurp(t, "../README.md"), "\n## Recipes\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	var recipes []string
	for line := range strings.Lines(section) {
		if recipe, ok := strings.CutPrefix(line, "    "); ok {
			recipes = append(recipes, strings.TrimSpace(recipe))
		}
	}
	if len(recipes) != 8 {
		t.Fatalf("%d recipes found: %q", len(recipes), recipes)
	}
	for _, recipe := range recipes {
		t.Run(recipe, func(t *testing.T) {
			s := newArchive(t)
			os.MkdirAll(s.a+"/scripts", 0o755)
			os.MkdirAll(s.a+"/tests", 0o755)
			// Each stand-in notes whether the lock was held and which
			// variable it got, and fails when told to.
			stub := "#!/bin/sh\nflock -n " + s.lock + " true && state=free || state=held\n" +
				"echo \"${0##*/} $* $state skip=$DCE_SKIP_SCRAPE_LOCK\" >>" + s.a + "/ran\n[ -z \"$FAIL\" ]\n"
			for _, name := range []string{"scripts/run-discord-scrape-host.sh", "tests/run-all-smokes.sh", "salvage.sh", "audit.sh", "start-exporter-service.sh"} {
				write(t, s.a+"/"+name, stub)
				os.Chmod(s.a+"/"+name, 0o755)
			}
			write(t, s.a+"/scrape-targets.json", slurp(t, s.a+"/config/scrape-targets.json"))
			log := s.a + "/scrape.log"
			_, cron, isCron := strings.Cut(recipe, "* * cd /mnt/checkout && ")
			script := recipe
			if isCron {
				script = cron
			}
			c := call{argv: []string{"bash", "-c", script}, dir: s.a, env: []string{"HOME=" + s.a, "PATH=" + strings.TrimSuffix(binary, "/dcelock") + ":" + os.Getenv("PATH")}}
			if r := c.run(t); r.status != 0 || r.stdout+r.stderr != "" {
				t.Errorf("%+v", r)
			}
			want := "skip=1"
			if strings.Contains(recipe, "keep") {
				want = "skip="
			}
			lines := strings.Split(strings.TrimSpace(slurp(t, s.a+"/ran")), "\n")
			if n := strings.Count(recipe, ".sh"); len(lines) != n {
				t.Errorf("%d of %d commands ran: %q", len(lines), n, lines)
			}
			for _, line := range lines {
				if !strings.HasSuffix(line, " held "+want) {
					t.Errorf("ran otherwise: %s", line)
				}
			}
			s.free()

			// A failure inside is the recipe's failure.
			failing := c
			failing.env = append([]string{"FAIL=1"}, c.env...)
			if r := failing.run(t); r.status != 1 {
				t.Errorf("a failing command: %+v", r)
			}
			// And a held lock is said where the operator looks.
			s.hold()
			if strings.Contains(recipe, "--wait") {
				c.env = append(c.env, "DCE_SCRAPE_LOCK_WAIT=x") // which the flag beats
				c.argv[2] = "exec " + c.argv[2]
				p := c.start(t)
				waits(t, p)
				p.cmd.Process.Signal(syscall.SIGTERM)
				p.wait()
				return
			}
			r := c.run(t)
			if isCron {
				if r.status != 75 || !strings.Contains(slurp(t, log), "already running") {
					t.Errorf("contention: %+v, log %q", r, slurp(t, log))
				}
			} else {
				r.wants(t, 1, "already running")
			}
		})
	}
}
