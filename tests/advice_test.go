package tests

import (
	"strings"
	"syscall"
	"testing"
)

// What a refusal advises works when it is typed: it names every process that
// holds the lock, so that the lock is free afterwards.
func TestAdviceStopsTheHolder(t *testing.T) {
	const script = `echo ready; read -r _; exit 0`
	plain := func(s *archive) call { return s.dcelock("--", "bash", "-c", script) }
	for name, c := range map[string]struct {
		holder func(s *archive) call
		then   func(p *process)
	}{
		"a runner":       {plain, nil},
		"a pipeline":     {func(s *archive) call { return s.dcelock("-c", `{ `+script+`; } | cat | cat | cat | cat`) }, nil},
		"under timeout":  {func(s *archive) call { return s.dcelock("--", "timeout", "60", "bash", "-c", script) }, nil},
		"a plain flock":  {func(s *archive) call { return call{argv: []string{"flock", s.lock, "bash", "-c", script}} }, nil},
		"killed wrapper": {plain, func(p *process) { p.cmd.Process.Kill(); <-p.done }},
		"stopped":        {plain, func(p *process) { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			holder := c.holder(s)
			holder.attr = &syscall.SysProcAttr{Setpgid: true}
			p := holder.start(t)
			p.sees("ready")
			if c.then != nil {
				c.then(p)
			}
			r := s.dcelock("--", "true").run(t)
			r.wants(t, 1, "to wait for it: "+binary+" --wait 1h -- true", "to stop it: kill ")
			if name == "stopped" && !strings.Contains(r.stderr, "(stopped, started ") {
				t.Errorf("a stopped holder is not called so:\n%s", r.stderr)
			}
			_, advice, _ := strings.Cut(r.stderr, "to stop it: ")
			call{argv: []string{"bash", "-c", advice}}.run(t).wants(t, 0)
			if !eventually(s.lockIsFree) {
				t.Errorf("the lock is held after %s", advice)
			}
			s.dcelock("-q", "--", "true").run(t).wants(t, 0)
		})
	}
}
