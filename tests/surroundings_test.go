package tests

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
)

// prefixes are the ways to run a command that are compared: without a prefix,
// under flock(1), and under dcelock.
func (s *archive) prefixes() map[string][]string {
	return map[string][]string{
		"bare":          nil,
		"flock":         {"flock", s.root + "/other.lock"},
		"dcelock":       {binary, "--"},
		"dcelock close": {binary, "--close", "--"},
	}
}

// What a command can see of its surroundings is the same with and without the
// prefix. Each script's output is compared line by line.
func TestSurroundings(t *testing.T) {
	for name, script := range map[string]string{
		"status":            `grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|Seccomp|NoNewPrivs|Cap|Cpus_allowed_list|CoreDumping|THP)' /proc/self/status`,
		"limits":            `cat /proc/self/limits; ulimit -Sa; ulimit -Ha`,
		"low limits":        `ulimit -Sn 64; exec "$@" cat /proc/self/limits`,
		"priority":          `nice -n 5 "$@" nice`,
		"umask":             `umask 027; "$@" sh -c umask`,
		"folder":            `cd /usr; "$@" pwd; cd "$HOME"; "$@" readlink /proc/self/cwd`,
		"group":             `"$@" sh -c 'test $(ps -o pgid= -p $$) = $(ps -o pgid= -p $PPID) && ps -o sid= -p $$'`,
		"descriptors":       `exec 3</dev/null 4>/dev/zero 9<>/dev/null 5<&-; "$@" bash -c 'for fd in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$fd || echo none; done' | sed "s/[0-9]\+/N/g"`,
		"substitution":      `"$@" cat <(echo one) <(echo two); "$@" cat <<<three; exec {fd}<<<four; "$@" cat /dev/fd/$fd; exec 9<<<five; "$@" cat <&9`,
		"here":              "\"$@\" cat <<EOF\nline one\nline two\nEOF",
		"broken pipe":       `"$@" yes | head -1; echo ${PIPESTATUS[@]}; "$@" sh -c 'yes; echo $? >&2' | head -1`,
		"pipeline":          `printf 'b\na\n' | "$@" sort | cat; "$@" false | true; echo ${PIPESTATUS[@]}; true | "$@" false; echo ${PIPESTATUS[@]}`,
		"pipefail":          `"$@" bash -o pipefail -c 'false | true'; echo $?`,
		"environment":       `A=1 B= 'C=x y' "$@" env | grep -vE '^(_|DCE_.*|SHLVL)='`,
		"empty environment": `env -i DCE_REPO_ROOT="$PWD" "$@" env | grep -v ^DCE_`,
		"program name":      `"$@" sh -c 'echo "$0"'; "$@" cat /proc/self/cmdline | tr '\0' ' '`,
		"timeout":           `timeout 0.2 "$@" sh -c 'exec cat' </dev/zero >/dev/null; echo $?`,
		"exec":              `exec "$@" sh -c 'exit 42'`,
		"background":        `"$@" sh -c 'exit 3' & wait $!; echo $?`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			results := map[string]result{}
			for prefix, words := range s.prefixes() {
				if words == nil {
					words = []string{"env", "--"}
				}
				if prefix == "flock" && name == "descriptors" {
					continue // the lock is at 3
				}
				c := call{argv: append([]string{"bash", "-c", script, "bash"}, words...), dir: s.a,
					env: []string{"DCE_REPO_ROOT=" + s.a}}
				results[prefix] = c.run(t)
			}
			bare := results["bare"]
			if bare.stdout == "" && bare.status == 0 {
				t.Fatalf("the script shows nothing: %+v", bare)
			}
			for prefix, r := range results {
				if r != bare {
					t.Errorf("%s:\n%s\nwithout a prefix:\n%s", prefix, show(r), show(bare))
				}
			}
		})
	}
}

func show(r result) string {
	return fmt.Sprintf("status %d, signal %v\n%s%s", r.status, r.signal, r.stdout, r.stderr)
}

// On a terminal the command still has the terminal.
func TestTerminalStaysTheCommands(t *testing.T) {
	for _, prefix := range []string{"", binary + " -- "} {
		s := newArchive(t)
		term := call{argv: []string{"bash", "-c", prefix + `sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo all; read -r x; echo "read $x"; stty size'`}, dir: s.a}.onTerminal(t)
		term.sees("all", 1)
		term.types("hello\n")
		term.sees("read hello", 1)
		term.sees("0 0", 1)
		term.wait()
	}
}

func TestBytesPassThrough(t *testing.T) {
	s := newArchive(t)
	data := make([]byte, 1<<20)
	rand.Read(data)
	in := s.a + "/in"
	write(t, in, string(data))
	r := call{argv: []string{"bash", "-c", `"$0" -- cat <"$1" | "$0" -- cat`, binary, in}, dir: s.a, env: []string{"DCE_SKIP_SCRAPE_LOCK=1"}}.run(t)
	if !bytes.Equal([]byte(r.stdout), data) {
		t.Errorf("%d bytes went in, others came out", len(data))
	}
}

// Standard streams are the caller's own, not copies.
func TestStreamsAreTheCallersOwn(t *testing.T) {
	s := newArchive(t)
	p := s.dcelock("--", "bash", "-c", `echo $PPID; for fd in 0 1 2; do test /proc/$$/fd/$fd -ef /proc/$PPID/fd/$fd && echo same; done`).start(t)
	p.end()
	if r := p.wait(); strings.Count(r.stdout, "same") != 3 {
		t.Errorf("%+v", r)
	}
}

// Nothing but the lock is added to the command's descriptors: the folder's and
// the file's.
func TestNothingElseIsInherited(t *testing.T) {
	s := newArchive(t)
	count := `ls /proc/self/fd | wc -l`
	bare := call{argv: []string{"bash", "-c", count}}.run(t).stdout
	var n, m int
	fmt.Sscan(bare, &n)
	fmt.Sscan(s.dcelock("--", "bash", "-c", count).run(t).stdout, &m)
	if n == 0 || m != n+2 {
		t.Errorf("%d descriptors without the prefix, %d with it", n, m)
	}
}

// Messages to a reader that is gone cost the run nothing.
func TestMessagesToNobody(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		status int
	}{
		"warning before": {`echo "pid=2147483647" >"$1.meta"; "$0" -v -- bash -c 'echo ran >"$0"; exit 5' "$2"`, 5},
		"message behind": {`"$0" -v -- bash -c 'read -r _ <"$1"; echo ran >"$0"; exit 5' "$2" <(:)`, 5},
		"refusal":        {`echo ran >"$2"; "$0" -E 75 -- true`, 75},
		"usage error":    {`echo ran >"$2"; "$0" -E`, 64},
	} {
		t.Run(name, func(t *testing.T) {
			s := newArchive(t)
			if name == "refusal" {
				s.hold()
			}
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			read.Close()
			defer write.Close()
			r := call{argv: []string{"bash", "-c", "exec 2>&3 3>&-; " + c.script, binary, s.lock, s.a + "/ran"}, dir: s.a, files: []*os.File{write}}.run(t)
			if r.status != c.status || slurp(t, s.a+"/ran") != "ran\n" {
				t.Errorf("%+v, ran %q", r, slurp(t, s.a+"/ran"))
			}
			if name != "refusal" {
				s.free()
			}
		})
	}
}
