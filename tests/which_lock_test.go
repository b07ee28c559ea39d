package tests

import (
	"os"
	"strings"
	"testing"
)

// Each case runs a command that prints the lock it runs under.
func TestWhichLock(t *testing.T) {
	tell := []string{"--", "bash", "-c", `echo "$DCE_SCRAPE_LOCK_HELD"; test -e "$DCE_SCRAPE_LOCK_HELD" && ! flock -n "$DCE_SCRAPE_LOCK_HELD" true && echo held`}
	cases := []struct {
		name    string
		prepare func(s *archive)
		dir     string
		env     []string
		flags   []string
		want    string // as fill takes it
		message string
	}{
		{name: "default config", want: "<root>/.dce-scrape.lock"},
		{name: "from a folder below", dir: "<a>/config", want: "<root>/.dce-scrape.lock"},
		{name: "named config, relative", flags: []string{"--config", "config/scrape-targets.json"}, want: "<root>/.dce-scrape.lock"},
		{name: "named config from elsewhere", dir: "/", flags: []string{"--config=<b>/config/scrape-targets.json"}, want: "<root>/.dce-scrape.lock"},
		{name: "config in the environment", dir: "/", env: []string{"DCE_CONFIG_FILE=<b>/config/scrape-targets.json"}, want: "<root>/.dce-scrape.lock"},
		{name: "the flag beats the environment", env: []string{"DCE_CONFIG_FILE=/nowhere.json"}, flags: []string{"--config", "<b>/config/scrape-targets.json"}, want: "<root>/.dce-scrape.lock"},
		{name: "repository root in the environment", dir: "/", env: []string{"DCE_REPO_ROOT=<b>"}, want: "<root>/.dce-scrape.lock"},
		{name: "empty variables are unset ones", env: []string{"DCE_CONFIG_FILE=", "DCE_REPO_ROOT=", "DCE_SCRAPE_LOCK_FILE="}, want: "<root>/.dce-scrape.lock"},
		{name: "override", env: []string{"DCE_SCRAPE_LOCK_FILE=<dir>/deep/er/my.lock"}, flags: []string{"--config", "/nowhere.json"}, want: "<dir>/deep/er/my.lock", message: "made the folder <dir>/deep/er, which was missing"},
		{name: "byte order mark", prepare: func(s *archive) { s.config("\uFEFF" + `{"archive_root": "<root>"}`) }, want: "<root>/.dce-scrape.lock"},
		{name: "trailing slashes", prepare: func(s *archive) { s.config(`{"archive_root": "<root>//"}`) }, want: "<root>/.dce-scrape.lock"},
		{name: "home", env: []string{"HOME=<dir>"}, prepare: func(s *archive) { s.config(`{"archive_root": "~/archive"}`) }, want: "<root>/.dce-scrape.lock"},
		{name: "dots behind a link", prepare: func(s *archive) {
			os.MkdirAll(s.a+"/far/away", 0o755)
			os.Symlink(s.a+"/far/away", s.root+"/link")
			s.config(`{"archive_root": "<root>/link/.."}`)
		}, want: "<root>/link/../.dce-scrape.lock"},
		{name: "archive root missing", prepare: func(s *archive) { write(t, s.root+"/neighbour", ""); s.config(`{"archive_root": "<root>/new"}`) }, want: "<root>/new/.dce-scrape.lock", message: "<root>/new"},
		{name: "no archive_root", prepare: func(s *archive) { s.config(`{"targets": []}`) }, want: "<a>/.dce-scrape.lock", message: "only this checkout is protected"},
		{name: "null archive_root", prepare: func(s *archive) { s.config(`{"archive_root": null}`) }, want: "<a>/.dce-scrape.lock", message: "only this checkout is protected"},
		{name: "empty archive_root", prepare: func(s *archive) { s.config(`{"archive_root": ""}`) }, want: "<a>/.dce-scrape.lock", message: "only this checkout is protected"},
		{name: "keys are matched exactly", prepare: func(s *archive) { s.config(`{"Archive_Root": "/elsewhere"}`) }, want: "<a>/.dce-scrape.lock", message: "only this checkout is protected"},
		{name: "no archive_root and no repository", prepare: func(s *archive) { s.config(`{}`); os.Remove(s.a + "/.git") }, dir: "/",
			flags: []string{"--config", "<a>/config/scrape-targets.json"}, want: "<a>/.dce-scrape.lock", message: "only this checkout is protected"},
		{name: "no archive_root, root in the environment", prepare: func(s *archive) { s.config(`{}`) }, env: []string{"DCE_REPO_ROOT=<b>"},
			flags: []string{"--config", "config/scrape-targets.json"}, want: "<b>/.dce-scrape.lock", message: "only this checkout is protected"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newArchive(t)
			if c.prepare != nil {
				c.prepare(s)
			}
			run := s.dcelock(append(s.fillAll(c.flags), tell...)...)
			run.env = s.fillAll(c.env)
			if c.dir != "" {
				run.dir = s.fill(c.dir)
			}
			r := run.run(t)
			if c.message == "" {
				r.wants(t, 0)
				if r.stderr != "" {
					t.Errorf("messages without need: %s", r.stderr)
				}
			} else {
				r.wants(t, 0, s.fill(c.message))
			}
			if want := s.fill(c.want) + "\nheld\n"; r.stdout != want {
				t.Errorf("ran under %q, want %q", r.stdout, want)
			}
		})
	}
}

// config writes the first checkout's config.
func (s *archive) config(text string) {
	s.t.Helper()
	write(s.t, s.a+"/config/scrape-targets.json", s.fill(text))
}

// fill puts the archive's folders in place of <root>, <a>, <b>, and <dir>,
// the folder around them.
func (s *archive) fill(text string) string {
	return strings.NewReplacer("<root>", s.root, "<a>", s.a, "<b>", s.b, "<dir>", strings.TrimSuffix(s.root, "/archive")).Replace(text)
}

func (s *archive) fillAll(texts []string) []string {
	var filled []string
	for _, text := range texts {
		filled = append(filled, s.fill(text))
	}
	return filled
}

func TestBadConfigLocksNothing(t *testing.T) {
	const absent = "\x00absent"
	cases := []struct {
		name, text string
		status     int
		message    string
	}{
		{"missing", absent, 66, "no such file"},
		{"empty", "", 65, "not valid JSON: line 1: unexpected end"},
		{"white space", " \n\t", 65, "line 2: unexpected end"},
		{"truncated", "{\n  \"archive_root\":\n", 65, "line 3: unexpected end"},
		{"two documents", `{"archive_root": "<root>"} {}`, 65, "not valid JSON"},
		{"array", `["<root>"]`, 65, "not a JSON object"},
		{"null", `null`, 65, "not a JSON object"},
		{"string", `"<root>"`, 65, "not a JSON object"},
		{"number for archive_root", `{"archive_root": 42}`, 65, "archive_root is not a string"},
		{"list for archive_root", `{"archive_root": ["<root>"]}`, 65, "archive_root is not a string"},
		{"relative archive_root", `{"archive_root": "archive"}`, 65, `"archive" is not an absolute path`},
		{"another user's home", `{"archive_root": "~op/archive"}`, 65, `"~op/archive" is not an absolute path`},
		{"NUL in archive_root", `{"archive_root": "<root>\u0000x"}`, 65, "NUL"},
		{"not UTF-8", "{\"archive_root\": \"<root>/\xff\"}", 65, "not UTF-8"},
		{"drive not mounted", `{"archive_root": "<root>/mnt/drive/archive"}`, 66, "is the drive mounted?"},
		{"parent of archive root empty", `{"archive_root": "<root>/empty/archive"}`, 66, "mkdir -p <root>/empty/archive"},
		{"white space at archive_root's ends", `{"archive_root": "<root> "}`, 65, "white space"},
		{"archive root a file", `{"archive_root": "<root>/file"}`, 73, "cannot be used: not a directory"},
		{"archive root below a file", `{"archive_root": "<root>/file/archive"}`, 66, "cannot be used: not a directory"},
		{"archive root a dangling link", `{"archive_root": "<root>/dangling"}`, 66, "is the drive mounted?"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newArchive(t)
			write(t, s.root+"/file", "")
			os.Mkdir(s.root+"/empty", 0o755)
			os.Symlink("/nowhere/at/all", s.root+"/dangling")
			s.config(c.text)
			named := "config/scrape-targets.json"
			if c.text == absent {
				os.Remove(s.a + "/config/scrape-targets.json")
			} else if c.status != 65 {
				named = s.root
			}
			before := s.tree()
			r := s.dcelock("--", "bash", "-c", "touch ran").run(t)
			r.wants(t, c.status, s.fill(c.message), named)
			if c.status == 66 && strings.Contains(c.text, "/archive") && !strings.Contains(c.text, "file") && !strings.Contains(r.stderr, "is the drive mounted?") {
				t.Errorf("does not ask for the drive: %s", r.stderr)
			}
			if after := s.tree(); after != before {
				t.Errorf("files before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// tree lists every file around the archive.
func (s *archive) tree() string {
	s.t.Helper()
	return call{argv: []string{"find", s.fill("<dir>")}}.run(s.t).stdout
}

func TestConfigFolderOrUnreadable(t *testing.T) {
	s := newArchive(t)
	s.dcelock("--config", "config", "--", "true").run(t).wants(t, 66, s.a+"/config", "is a directory")
	path := s.a + "/config/scrape-targets.json"
	os.Chmod(path, 0)
	run := s.dcelock("--", "bash", "-c", "echo ran")
	run.attr = asUser(t)
	r := run.run(t)
	r.wants(t, 66, path, "permission denied")
	if r.stdout != "" || exists(s.lock) {
		t.Errorf("the command ran, or a lock was made: %q", r.stdout)
	}
}

// A repository root that is missing is not made: it may be on a drive that is
// not mounted.
func TestMissingRepositoryRoot(t *testing.T) {
	s := newArchive(t)
	s.config("{}")
	for _, args := range [][]string{{"--", "true"}, {"--status"}} {
		c := s.dcelock(append([]string{"--config", "config/scrape-targets.json"}, args...)...)
		c.env = []string{"DCE_REPO_ROOT=" + s.root + "/no/such"}
		c.run(t).wants(t, 66, s.root+"/no/such")
	}
	if exists(s.root + "/no") {
		t.Error("the folder was made")
	}
}

func TestSkip(t *testing.T) {
	s := newArchive(t)
	s.hold()
	run := s.dcelock("--config", "/nowhere.json", "--", "bash", "-c", "env | grep ^DCE_SKIP; exit 3")
	run.env = []string{"DCE_SKIP_SCRAPE_LOCK=1", "DCE_SCRAPE_LOCK_WAIT=bad"}
	r := run.run(t)
	r.wants(t, 3, "without any lock")
	if r.stdout != "DCE_SKIP_SCRAPE_LOCK=1\n" {
		t.Errorf("variables: %q", r.stdout)
	}
	for _, value := range []string{"", "0", "yes", "true", "11"} {
		run := s.dcelock("--", "true")
		run.env = []string{"DCE_SKIP_SCRAPE_LOCK=" + value}
		run.run(t).wants(t, 1, "already running")
	}
}
