package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode"
)

// Whatever lies where the record should, a run goes on, a refusal is a refusal,
// and nothing but printable text is printed.
func TestHostileRecords(t *testing.T) {
	const token = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB"
	self := os.Getpid()
	for name, put := range map[string]func(s *archive){
		"FIFO":           func(s *archive) { call{argv: []string{"mkfifo", s.meta}}.run(t) },
		"folder":         func(s *archive) { os.Mkdir(s.meta, 0o755) },
		"endless link":   func(s *archive) { os.Symlink("/dev/zero", s.meta) },
		"another's link": func(s *archive) { os.Symlink("/etc/shadow", s.meta) },
		"link to itself": func(s *archive) { os.Symlink(s.meta, s.meta) },
		"1 GB":           func(s *archive) { write(t, s.meta, "pid=1\n"); os.Truncate(s.meta, 1<<30) },
		"NUL bytes":      func(s *archive) { write(t, s.meta, strings.Repeat("\x00", 1000)) },
		"invalid UTF-8":  func(s *archive) { write(t, s.meta, "pid=2147483646\ncmd=\xff\xfe\xfd\n") },
		"no newline":     func(s *archive) { write(t, s.meta, "pid=2147483646") },
		"CRLF":           func(s *archive) { write(t, s.meta, "pid=2147483646\r\nstarted=x\r\ncmd=y\r\n") },
		"thousand pids":  func(s *archive) { write(t, s.meta, strings.Repeat("pid=2147483646\n", 1000)) },
		"pid 0":          func(s *archive) { write(t, s.meta, "pid=0\nstarted=x\ncmd=y\n") },
		"pid -1":         func(s *archive) { write(t, s.meta, "pid=-1\nstarted=x\ncmd=y\n") },
		"pid 1":          func(s *archive) { write(t, s.meta, "pid=1\nstarted=x\ncmd=y\n") },
		"pid 2^40":       func(s *archive) { write(t, s.meta, "pid=1099511627776\nstarted=x\ncmd=y\n") },
		"empty values":   func(s *archive) { write(t, s.meta, "pid=\nstarted=\ncmd=\n") },
		"escapes": func(s *archive) {
			write(t, s.meta, "pid=2147483646\nstarted=\x1b[2J\ncmd=\x1b]0;title\x07\x9b31m\u202e\nuser=\x1b[31m\nhost=\x07\ncwd=\r\n")
		},
		"future": func(s *archive) { write(t, s.meta, "pid=2147483646\nstarted=2999-01-01T00:00:00Z\ncmd=y\n") },
		"a living pid": func(s *archive) {
			write(t, s.meta, fmt.Sprintf("pid=%d\nstarted=x\ncmd=$(touch ran) `touch ran`\n", self))
		},
		"a secret": func(s *archive) { write(t, s.meta, "pid=2147483646\nstarted=x\ncmd=run --token S3CRET "+token+"\n") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			s.dcelock("--", "true").run(t)
			put(s)
			tame := func(r result) {
				t.Helper()
				for _, text := range []string{r.stdout, r.stderr} {
					if strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) }) || strings.Contains(text, "S3CRET") || strings.Contains(text, token) {
						t.Errorf("prints %q", text)
					}
				}
				if exists(s.a + "/ran") {
					t.Error("something was executed")
				}
			}
			status := s.dcelock("--status").run(t)
			status.wants(t, 0)
			tame(status)
			tame(s.dcelock("--status", "--json").run(t))

			holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _"}}.start(t)
			holder.sees("ready")
			r := s.dcelock("--", "touch", "ran").run(t)
			r.wants(t, 1, "already running (lock: "+s.lock+")", fmt.Sprintf("Holder pid %d (running, started ", holder.cmd.Process.Pid), fmt.Sprintf("kill %d", holder.cmd.Process.Pid))
			tame(r)
			if strings.Contains(r.stderr, "kill 1\n") || strings.Contains(r.stderr, "kill 1 ") || strings.Contains(r.stderr, fmt.Sprintf("kill %d ", self)) {
				t.Errorf("advises to stop a process that is not in the way:\n%s", r.stderr)
			}
			status = s.dcelock("--status").run(t)
			status.wants(t, 1)
			tame(status)
			holder.end()
			holder.wait()

			r = s.dcelock("--", "bash", "-c", "exit 5").run(t)
			r.wants(t, 5)
			tame(r)
			if info, err := os.Stat(s.meta); err == nil && !info.IsDir() {
				t.Errorf("the record is left: %v", info)
			}
		})
	}
}

// No secret of a command line reaches a message, where the kernel is who tells
// of it.
func TestSecretsInTheKernelsView(t *testing.T) {
	s := newArchive(t)
	holder := call{argv: []string{"flock", s.lock, "bash", "-c", "echo ready; read -r _; exit 0", "--token", "S3CRET", "DISCORD_TOKEN=S3CRET"}}.start(t)
	holder.sees("ready")
	waiter := call{argv: []string{"flock", s.lock, "true", "--password=S3CRET"}}.start(t)
	waits(t, waiter)
	for _, c := range []call{s.dcelock("--", "true"), s.dcelock("--status"), s.dcelock("--status", "--json")} {
		r := c.run(t)
		if text := r.stdout + r.stderr; strings.Contains(text, "S3CRET") || !strings.Contains(text, "--token ***") {
			t.Errorf("%v: %s", c.argv, text)
		}
	}
	holder.end()
	waiter.wait()
}
