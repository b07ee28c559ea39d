package tests

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestExitStatuses(t *testing.T) {
	s := newArchive(t)
	for status := range 256 {
		r := s.dcelock("--", "bash", "-c", fmt.Sprintf("exit %d", status)).run(t)
		if r.signal != 0 || r.status != status || r.stderr != "" {
			t.Errorf("exit %d: %+v", status, r)
		}
	}
	s.free()
}

func TestDeathBySignal(t *testing.T) {
	s := newArchive(t)
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGUSR1} {
		r := s.dcelock("--", "sh", "-c", fmt.Sprintf("kill -%d $$", signal)).run(t)
		if r.signal != signal || r.stderr != "" {
			t.Errorf("killed by %v: %+v", signal, r)
		}
		s.free()
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	s := newArchive(t)
	write(t, s.a+"/plain", "echo ran\n")
	write(t, s.a+"/garbage", "\x7fELF garbage")
	os.Chmod(s.a+"/garbage", 0o755)
	write(t, s.a+"/no-interpreter", "#!/no/such/interpreter\n")
	os.Chmod(s.a+"/no-interpreter", 0o755)
	for _, c := range []struct {
		command string
		path    string
		status  int
		message string
	}{
		{"no-such-command", "", 127, "no-such-command not found"},
		{"./no/such/command", "", 127, "./no/such/command not found"},
		{"./plain/command", "", 127, "./plain/command not found"},
		{"", "", 127, "name is empty"},
		{"echo hi", "", 127, `command "echo hi" not found: a command line in one word is run by -c`},
		{"./plain", "", 126, "permission denied"},
		{"plain", "/usr/bin:" + s.a, 126, "permission denied"},
		{s.a, "", 126, "permission denied"},
	} {
		run := s.dcelock("--", c.command)
		if c.path != "" {
			run.env = []string{"PATH=" + c.path}
		}
		run.run(t).wants(t, c.status, c.message)
		if exists(s.lock) {
			t.Errorf("%q: a lock was taken for a command that cannot run", c.command)
		}
	}
	// Only the attempt shows these.
	s.dcelock("--", "./no-interpreter").run(t).wants(t, 127, "interpreter")
	s.free()
	// The shell is given what the kernel does not know, and complains itself.
	if r := s.dcelock("--", "./garbage").run(t); r.status == 0 {
		t.Errorf("garbage ran: %+v", r)
	}
	s.free()
}

func TestCommandIsFoundAsByTheShell(t *testing.T) {
	s := newArchive(t)
	write(t, s.a+"/tool", "printf '%s|' \"$@\"; echo \"here $0\"\n") // no #!
	os.Chmod(s.a+"/tool", 0o755)
	for name, c := range map[string]struct {
		path, word, want string
	}{
		"by path":          {"/usr/bin:/bin", "./tool", "a b|here ./tool\n"},
		"in PATH":          {"/usr/bin:" + s.a, "tool", "a b|here " + s.a + "/tool\n"},
		"empty PATH entry": {"/usr/bin:", "tool", "a b|here ./tool\n"},
		"dot in PATH":      {".:/usr/bin", "tool", "a b|here ./tool\n"},
	} {
		run := s.dcelock("--", c.word, "a b")
		run.env = []string{"PATH=" + c.path}
		r := run.run(t)
		if r.status != 0 || r.stdout != c.want || r.stderr != "" {
			t.Errorf("%s: %+v, want %q", name, r, c.want)
		}
	}
}

func TestWordsReachTheCommandExactly(t *testing.T) {
	s := newArchive(t)
	print := []string{"bash", "-c", `printf '<%s>' "$@"`, "bash"}
	for _, words := range [][]string{
		{"--", "--config", "x", "-n", "--help", "-V", "--"},
		{"", " ", "\n", "a\nb", "", "-", "--=", "\xff"},
		{"$HOME", "*", `\`, `"`, "'", "@file", "${x}", "%s", "a,b", `\`, ","},
	} {
		for _, prefix := range [][]string{{"--"}, {"-n", "--"}, {}, {"--inner-lock", "keep"}} {
			r := s.dcelock(append(append(append([]string{}, prefix...), print...), words...)...).run(t)
			if want := "<" + strings.Join(words, "><") + ">"; r.status != 0 || r.stdout != want {
				t.Errorf("%q %q: %+v", prefix, words, r)
			}
		}
	}
}

func TestEnvironment(t *testing.T) {
	s := newArchive(t)
	for _, c := range []struct {
		flags, env []string
		want       string
	}{
		{nil, nil, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\nDCE_SKIP_SCRAPE_LOCK=1\n"},
		{[]string{"--inner-lock=auto"}, nil, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\nDCE_SKIP_SCRAPE_LOCK=1\n"},
		// It may outlive the lock, so its own locking stays on.
		{[]string{"--close"}, nil, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\n"},
		{[]string{"--close"}, []string{"DCE_SKIP_SCRAPE_LOCK=1", "DCE_SCRAPE_LOCK_HELD=x"}, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\n"},
		{[]string{"--close", "--inner-lock=skip"}, nil, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\nDCE_SKIP_SCRAPE_LOCK=1\n"},
		{[]string{"--inner-lock=skip"}, []string{"DCE_SKIP_SCRAPE_LOCK=0", "DCE_SCRAPE_LOCK_HELD=x"}, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\nDCE_SKIP_SCRAPE_LOCK=1\n"},
		{[]string{"--inner-lock=keep"}, nil, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\n"},
		{[]string{"--inner-lock=keep"}, []string{"DCE_SKIP_SCRAPE_LOCK=0"}, "DCE_SCRAPE_LOCK_HELD=" + s.lock + "\nDCE_SKIP_SCRAPE_LOCK=0\n"},
	} {
		run := s.dcelock(append(c.flags, "--", "bash", "-c", "env | grep ^DCE_ | sort")...)
		run.env = c.env
		if r := run.run(t); r.stdout != c.want {
			t.Errorf("%v %v: %q", c.flags, c.env, r.stdout)
		}
	}
}

// The command holds the lock by descriptors of its own, the folder's and the
// file's, unless --close. Their numbers are ones that no script uses.
func TestDescriptor(t *testing.T) {
	s := newArchive(t)
	list := `for fd in /proc/$$/fd/*; do
		for held in "$DCE_SCRAPE_LOCK_HELD" "${DCE_SCRAPE_LOCK_HELD%/*}"; do
			test "$(readlink $fd)" = "$held" && grep -q FLOCK /proc/$$/fdinfo/${fd##*/} && echo ${fd##*/} "$held"
		done
	done; exit 0`
	descriptors := func(r result) (of map[string]int) {
		of = map[string]int{}
		for line := range strings.Lines(r.stdout) {
			var fd int
			var path string
			if n, _ := fmt.Sscan(line, &fd, &path); n != 2 || of[path] != 0 {
				t.Errorf("the lock's descriptors in the command: %q", r.stdout)
			}
			of[path] = fd
		}
		return of
	}
	of := descriptors(s.dcelock("--", "bash", "-c", list).run(t))
	if len(of) != 2 || of[s.root] < 500 || of[s.lock] < 500 {
		t.Errorf("the lock's descriptors in the command: %v", of)
	}
	// Where the limit does not allow that, still out of a script's way.
	low := call{argv: []string{"bash", "-c", `ulimit -n 64; exec "$0" -- bash -c "$1"`, binary, list}, dir: s.a}
	if of = descriptors(low.run(t)); len(of) != 2 || of[s.root] < 10 || of[s.lock] < 10 {
		t.Errorf("the lock's descriptors in the command, with few to be had: %v", of)
	}
	// An override's folder may be anybody's; that of a lock file with the
	// usual name is locked with it, whoever named it.
	for name, want := range map[string]int{"/my.lock": 1, "/.dce-scrape.lock": 2} {
		named := s.dcelock("--", "bash", "-c", list)
		named.env = []string{"DCE_SCRAPE_LOCK_FILE=" + s.root + name}
		if of = descriptors(named.run(t)); len(of) != want || of[s.root+name] < 500 {
			t.Errorf("the descriptors under an override %s: %v", name, of)
		}
	}
	for _, flag := range []string{"-o", "--close"} {
		if r := s.dcelock(flag, "--", "bash", "-c", list).run(t); r.stdout != "" || r.status != 0 {
			t.Errorf("%s: the command has the lock's descriptor: %+v", flag, r)
		}
	}
	// With --close the lock goes with the wrapper.
	holder := s.hold("--close")
	holder.cmd.Process.Kill()
	<-holder.done
	if !eventually(s.lockIsFree) {
		t.Error("the command holds the lock in spite of --close")
	}
}
