package tests

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRecordWhileHeld(t *testing.T) {
	s := newArchive(t)
	before := time.Now().UTC().Truncate(time.Second)
	holder := s.hold()
	text := slurp(t, s.meta)

	pid := holder.cmd.Process.Pid
	var started string
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || lines[0] != fmt.Sprintf("pid=%d", pid) || !strings.HasPrefix(lines[1], "started=") ||
		lines[2] != `cmd=bash -c 'echo ready; read -r _; exit 0'` {
		t.Errorf("the first three lines are not the promised ones:\n%s", text)
	}
	started = s.key("started")
	if when, err := time.Parse("2006-01-02T15:04:05Z", started); err != nil || when.Before(before) || when.After(time.Now()) {
		t.Errorf("started %q, the run began after %v (%v)", started, before, err)
	}
	var info syscall.Stat_t
	if err := syscall.Stat(s.lock, &info); err != nil {
		t.Fatal(err)
	}
	hostname, _ := os.Hostname()
	boot := strings.TrimSpace(slurp(t, "/proc/sys/kernel/random/boot_id"))
	stat := slurp(t, fmt.Sprintf("/proc/%d/stat", pid))
	ticks := strings.Fields(stat[strings.LastIndex(stat, ")"):])[22-2]
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	for key, want := range map[string]string{
		"host": hostname, "cwd": s.a, "boot_id": boot, "start_ticks": ticks,
		"pid_ns":  regexp.MustCompile(`\d+`).FindString(namespace),
		"lock_id": fmt.Sprintf("%d:%d", info.Dev, info.Ino),
		"user":    strings.TrimSpace(call{argv: []string{"id", "-un"}}.run(t).stdout),
	} {
		if got := s.key(key); got != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	if info.Size != 0 || info.Mode&0o777 != 0o666&^uint32(umask()) {
		t.Errorf("the lock file has %d bytes and mode %o", info.Size, info.Mode)
	}
	if s.lockIsFree() {
		t.Error("flock(1) takes the lock of a running scrape")
	}
	holder.end()
	holder.wait().wants(t, 0)
	s.free()
	if !exists(s.lock) {
		t.Error("the lock file was removed")
	}
}

func umask() int {
	old := syscall.Umask(0)
	syscall.Umask(old)
	return old
}

// The record is gone, and the lock free, after every end of a command.
func TestRecordIsGone(t *testing.T) {
	for name, argv := range map[string][]string{
		"success":        {"true"},
		"failure":        {"false"},
		"killed":         {"bash", "-c", "kill -9 $$"},
		"not started":    {"./no-interpreter"},
		"removed itself": {"bash", "-c", `rm "$DCE_SCRAPE_LOCK_HELD.meta"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			write(t, s.a+"/no-interpreter", "#!/no/such/interpreter\n")
			os.Chmod(s.a+"/no-interpreter", 0o755)
			r := s.dcelock(append([]string{"--"}, argv...)...).run(t)
			if exists(s.meta) || exists(s.meta+".tmp") {
				t.Errorf("a record is left:\n%s", slurp(t, s.meta))
			}
			s.free()
			if strings.Contains(r.stderr, "warning") {
				t.Errorf("a complaint: %s", r.stderr)
			}
		})
	}
}

// Somebody who has the lock next finds no record of the run before, at any
// moment: the record goes while the lock is still held.
func TestRecordIsGoneBeforeTheLockIsFree(t *testing.T) {
	s := newArchive(t)
	for range 20 {
		holder := s.hold()
		next := call{argv: []string{"flock", s.lock, "bash", "-c", `test ! -e "$0.meta" && echo clean`, s.lock}}.start(t)
		waits(t, next)
		holder.end()
		if r := next.wait(); r.stdout != "clean\n" {
			t.Fatalf("the lock was free while the record was there: %+v", r)
		}
		holder.wait()
	}
}

// waits returns when the process sleeps in flock(2).
func waits(t *testing.T, p *process) {
	t.Helper()
	if !eventually(func() bool { return sleepsInFlock(p.cmd.Process.Pid) }) {
		t.Fatalf("%q does not wait for a lock: %s", p.cmd.Args, p.stderr())
	}
}

func sleepsInFlock(pid int) bool {
	list, _ := os.ReadFile("/proc/locks")
	return regexp.MustCompile(`-> FLOCK .* ` + strconv.Itoa(pid) + ` `).Match(list)
}

// Another run's record is left alone, whatever became of one's own.
func TestForeignRecordIsLeftAlone(t *testing.T) {
	s := newArchive(t)
	const foreign = "pid=1\nstarted=2026-06-04T06:39:46Z\ncmd=somebody else\n"
	holder := s.hold()
	write(t, s.meta, foreign)
	holder.end()
	holder.wait().wants(t, 0)
	if text := slurp(t, s.meta); text != foreign {
		t.Errorf("the record is now %q", text)
	}
}

func TestRecordShowsTheCommandWithoutItsSecrets(t *testing.T) {
	s := newArchive(t)
	show := "cat \"$DCE_SCRAPE_LOCK_HELD.meta\""
	token := "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB"
	r := s.dcelock("--", "bash", "-c", show, "two\nlines", "", "it's", "\x1b[2J\xff", "pid=7", "--token", "s3cret", "DISCORD_TOKEN=s3cret", token).run(t)
	r.wants(t, 0)
	want := `cmd=bash -c 'cat "$DCE_SCRAPE_LOCK_HELD.meta"' $'two\nlines' '' 'it'\''s' $'\033[2J\377' pid=7 --token *** DISCORD_TOKEN=*** ***`
	if line := strings.Split(r.stdout, "\n")[2]; line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	if n := strings.Count(r.stdout, "\npid="); n != 0 {
		t.Errorf("%d more pid lines:\n%s", n, r.stdout)
	}

	r = s.dcelock("--", "bash", "-c", show, strings.Repeat("ü", 4000)).run(t)
	line := strings.TrimPrefix(strings.Split(r.stdout, "\n")[2], "cmd=")
	if len(line) > 500 || len(line) < 490 || !strings.HasSuffix(line, "ü…") {
		t.Errorf("%d bytes: %s", len(line), line)
	}
}

// The temporary file cannot be turned against another file, and one that a
// killed run left behind is in nobody's way.
func TestTemporaryFileIsNotFollowed(t *testing.T) {
	s := newArchive(t)
	victim := s.a + "/victim"
	write(t, victim, "precious")
	os.Symlink(victim, s.meta+".tmp")
	s.dcelock("--", "bash", "-c", `grep -q ^pid= "$DCE_SCRAPE_LOCK_HELD.meta"`).run(t).wants(t, 0)
	write(t, s.meta+".tmp", "left behind")
	s.dcelock("--", "bash", "-c", `grep -q ^pid= "$DCE_SCRAPE_LOCK_HELD.meta"`).run(t).wants(t, 0)
	if text := slurp(t, victim); text != "precious" {
		t.Errorf("the file behind the link is now %q", text)
	}
	s.free()
}

// Where the record cannot be written the command runs all the same, warned.
func TestRecordCannotBeWritten(t *testing.T) {
	t.Run("folder in the way", func(t *testing.T) {
		s := newArchive(t)
		os.MkdirAll(s.meta+"/full", 0o755)
		s.dcelock("--", "bash", "-c", "exit 5").run(t).wants(t, 5, "warning: the record of this run cannot be written")
		// Nor can it be read by the next one, who is refused all the same.
		s.hold()
		s.dcelock("--", "true").run(t).wants(t, 1, "already running", "is not a regular file")
	})
	t.Run("read-only folder", func(t *testing.T) {
		s := newArchive(t)
		write(t, s.lock, "")
		os.Chmod(s.lock, 0o666)
		os.Chmod(s.root, 0o555)
		run := s.dcelock("--", "bash", "-c", "exit 5")
		run.attr = asUser(t)
		run.run(t).wants(t, 5, "warning: the record of this run cannot be written", "permission denied")
	})
	t.Run("disk full", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("mounting a small tmpfs needs root")
		}
		s := newArchive(t)
		if err := syscall.Mount("tmpfs", s.root, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("a tmpfs cannot be mounted here: %v", err)
		}
		defer syscall.Unmount(s.root, 0)
		call{argv: []string{"dd", "if=/dev/zero", "of=" + s.root + "/filler", "bs=4k"}}.run(t)
		// A dead holder's record must not stay and lie about this run.
		r := s.dcelock("--", "bash", "-c", `ls -A "$0"; ! flock -n "$DCE_SCRAPE_LOCK_HELD" true`, s.root).run(t)
		r.wants(t, 0, "warning: the record of this run cannot be written", "no space left")
		if r.stdout != ".dce-scrape.lock\nfiller\n" {
			t.Errorf("files during the run: %q", r.stdout)
		}
	})
}
