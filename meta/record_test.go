package meta

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRecordReadsBack(t *testing.T) {
	r := Record{
		Process: Process{PID: 4242, Host: "mybox", BootID: "3f0c", StartTicks: 815204, PIDNamespace: 4026531836},
		Started: time.Date(2026, 6, 4, 6, 39, 46, 0, time.UTC),
		Command: "./run.sh scrape", User: "op", Folder: "/mnt/a b=c", LockID: "65024:9978222", FS: "ext4",
	}
	const text = "pid=4242\nstarted=2026-06-04T06:39:46Z\ncmd=./run.sh scrape\nhost=mybox\nuser=op\ncwd=/mnt/a b=c\n" +
		"boot_id=3f0c\nstart_ticks=815204\ntaken_ticks=0\nlast_pid=0\npid_ns=4026531836\nlock_id=65024:9978222\nfs=ext4\n"
	if got := r.encode(); got != text {
		t.Errorf("encode:\n%s", got)
	}
	if got, ok := parse([]byte(text)); !ok || got != r {
		t.Errorf("parse: %+v, %v", got, ok)
	}
	r.Folder = "/a\nb"
	if got := r.encode(); !strings.Contains(got, "\ncwd=/a?b\n") {
		t.Errorf("not a line each:\n%s", got)
	}
}

func TestParseUntrusted(t *testing.T) {
	bad := []string{"", "\n", "pid", "pid=", "pid=0", "pid=-1", "pid=1099511627776", "pid=2147483648", "pid=x", "pid=1 2", "xpid=4", "PID=4", " pid=4",
		"pid=0\npid=4", strings.Repeat("\x00", 100), "cmd=pid=4"}
	for _, text := range bad {
		if r, ok := parse([]byte(text)); ok {
			t.Errorf("parse(%q) = %+v", text, r)
		}
	}
	type seen struct {
		pid              int
		started, command string
	}
	for text, want := range map[string]seen{
		"pid=4": {4, "0001-01-01T00:00:00Z", "unknown"},
		"pid=4\r\nstarted=2026-06-04T08:39:46+02:00\r\ncmd=x y\r\n":    {4, "2026-06-04T06:39:46Z", "x y"},
		"pid=4\nstarted=2026-06-04T06:39:46.9Z\ncmd=x":                 {4, "2026-06-04T06:39:46Z", "x"},
		"cmd=late\nnonsense\n=\nk=v\npid=4\npid=5\ncmd=no\nstarted=no": {4, "0001-01-01T00:00:00Z", "late"},
		"pid=4\ncmd=\x1b[2Jx\xff\x00y":                                 {4, "0001-01-01T00:00:00Z", "?[2Jx??y"},
		"pid=4\ncmd=run --token S3CRET":                                {4, "0001-01-01T00:00:00Z", "run --token ***"},
		"pid=4\ncmd=":                                                  {4, "0001-01-01T00:00:00Z", "unknown"},
	} {
		r, ok := parse([]byte(text))
		if got := (seen{r.PID, r.Started.UTC().Format(time.RFC3339), r.Command}); !ok || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", text, got, ok, want)
		}
	}
	if r, ok := parse([]byte("pid=4\ncmd=" + strings.Repeat("x", 60000))); !ok || len(r.Command) > maxSummary {
		t.Errorf("a command of %d bytes, %v", len(r.Command), ok)
	}
	long := strings.Repeat("x", 60000)
	r, ok := parse([]byte("pid=4\nhost=" + long + "\nuser=TOKEN=S3CRET\ncwd=/a/" + aToken + "/b\n"))
	if !ok || len(r.Host) > maxSummary || r.User != "TOKEN=***" || r.Folder != "/a/***" {
		t.Errorf("%+v, %v", r, ok)
	}
}

var tokenShape = regexp.MustCompile(`[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27}|mfa\.[\w-]{20}`)

// aToken has the shape of a Discord token.
const aToken = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB"

func TestRemoveOnlyItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.meta")
	mine, other := Record{Process: Process{PID: 7}}, Record{Process: Process{PID: 8}}
	if err := Remove(path, mine); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	if err := Write(path, other); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path, mine); err != nil {
		t.Errorf("another's: %v", err)
	}
	if r, err := Read(path); err != nil || r.PID != 8 {
		t.Errorf("another's record: %+v, %v", r, err)
	}
	if err := Remove(path, other); err != nil {
		t.Errorf("its own: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("its own is still there")
	}
}

// Whatever lies where a record should: reading it ends, and what comes out of
// it is safe to print and to look up.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"pid=4242\nstarted=2026-06-04T06:39:46Z\ncmd=./run.sh scrape\nhost=mybox\nuser=op\ncwd=/\nboot_id=x\nstart_ticks=1\npid_ns=2\nlock_id=3:4\n",
		"", "\x00\x00", "pid=4\r\ncmd=x\r\n", "pid=0\n", "pid=-1\n", "pid=1", "pid=1099511627776", strings.Repeat("pid=7\n", 1000),
		"pid=4\ncmd=\x1b[2J\x9b31m\xff\u202e\n", "pid=4\nstarted=9999-12-31T23:59:59Z\nhost=\x07\nuser=\x1b]0;x\x07\ncwd=\n", "pid=4\nstart_ticks=-1\npid_ns=99999999999999999999\n",
		"pid=4\ncmd=run --token S3CRET " + aToken + "\n", "pid=1\nstarted=0000-01-01T0:00:00Z\nboot_id=\xa2",
		"pid=1\ncmd=B%000000000000000000000000.000000.00000000000000000000000000000000000000",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, ok := parse(data)
		if !ok {
			return
		}
		if r.PID < 1 || r.PID >= 1<<31 {
			t.Errorf("pid %d", r.PID)
		}
		for _, text := range []string{r.Command, r.Host, r.User, r.Folder, r.BootID, r.LockID, r.FS} {
			if Printable(text) != text || len(text) > maxSummary || tokenShape.MatchString(text) {
				t.Errorf("%d bytes: %q", len(text), text)
			}
		}
		if r.Command == "" {
			t.Error("no command")
		}
		// Written and read again it is the same record.
		if year := r.Started.UTC().Year(); !r.Started.IsZero() && year >= 0 && year <= 9999 {
			if again, ok := parse([]byte(r.encode())); !ok || again.Process != r.Process || !again.Started.Equal(r.Started) {
				t.Errorf("%+v is read back as %+v, %v", r, again, ok)
			}
		}
	})
}

func FuzzSummary(f *testing.F) {
	f.Add("run", "--token", "x")
	f.Add("sh", "-c", "a='b \"c\nTOKEN=x")
	f.Add("\xff", "\x00", strings.Repeat("ü", 300))
	f.Fuzz(func(t *testing.T, a, b, c string) {
		s := Summary([]string{a, b, c})
		if Printable(s) != s || len(s) > maxSummary || tokenShape.MatchString(s) {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	})
}
