package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// lockName is a lock file's name in a folder that is locked with it: archive root or repository.
const lockName = ".dce-scrape.lock"

// A Location is the lock that a run has to take, and why that one.
type Location struct {
	meta.Place
	Config   string   // the config that was read; "" when DCE_SCRAPE_LOCK_FILE named the lock
	Reason   string   // why this lock, for people
	Warnings []string // what the operator should know of this choice
}

// Find tells which lock a run of command has to take (contract, "Which lock"); config is what
// --config named, or "". It changes nothing. Its errors are of kind BadConfig, Missing and System.
func Find(config string, command []string) (Location, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < 24 { // with fewer the Go runtime ends in a trace
		return Location{}, fail(System, "the limit of open files is %d, and dcelock needs 24 (see ulimit -n)", limit.Cur)
	}
	path, variable := os.Getenv("DCE_SCRAPE_LOCK_FILE"), os.Getenv("DCE_CONFIG_FILE")
	switch {
	case path != "":
	case config != "":
		return source{config, "named by --config"}.location()
	case variable != "":
		return source{variable, "named by DCE_CONFIG_FILE"}.location()
	default:
		own, _ := ownFiles(command)
		ofCheckout := source{defaultConfig(repositoryRoot(".")),
			"the default of this checkout; name another with --config or DCE_CONFIG_FILE"}
		return cmp.Or(own, ofCheckout).location()
	}
	at := Location{Place: meta.Place{Lock: path}, Reason: "DCE_SCRAPE_LOCK_FILE names it"}
	if filepath.Base(path) == lockName {
		at.Folder = folderOf(path)
	}
	if !strings.HasPrefix(path, "/") {
		at.Warnings = append(at.Warnings, fmt.Sprintf("DCE_SCRAPE_LOCK_FILE is %s, which is another lock in every working directory; make it an absolute path", meta.Summary([]string{path})))
	}
	return at, nil
}

// location is the lock that a config leads to.
func (s source) location() (Location, error) {
	s.path = absolute(s.path)
	root, _, err := readConfig(s)
	if err != nil {
		return Location{}, err
	}
	at := Location{Config: s.path, Reason: s.String() + " names archive_root " + root}
	if root == "" {
		root = repositoryRoot(s.path)
		at.Reason = s.String() + " names no archive_root; only this checkout is protected, by " + root + "/" + lockName
		at.Warnings = []string{at.Reason}
		if !exists(root + "/.") { // DCE_REPO_ROOT may name what is not there
			return Location{}, fail(Missing, "%v names no archive_root, and its repository root %s is missing or not a folder", s, root)
		}
	}
	at.Place = meta.Place{Folder: root, Lock: strings.TrimRight(root, "/") + "/" + lockName}
	return at, nil
}

func defaultConfig(root string) string { return filepath.Join(root, "config", "scrape-targets.json") }

// repositoryRoot is DCE_REPO_ROOT; else the nearest folder at or above start that holds .git; else
// the parent of a config folder; else start's folder. Without links: one checkout has one root.
func repositoryRoot(start string) string {
	variable := os.Getenv("DCE_REPO_ROOT")
	folder := absolute(cmp.Or(variable, start))
	if resolved, err := filepath.EvalSymlinks(folder); err == nil {
		folder = resolved
	}
	if variable != "" {
		return folder
	}
	if !exists(folder + "/.") {
		folder = filepath.Dir(folder)
	}
	for above, below := folder, ""; above != below; above, below = filepath.Dir(above), above {
		if exists(above + "/.git") {
			return above
		}
	}
	return filepath.Clean(strings.TrimSuffix(folder, "/config") + "/")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// folderOf is the folder part of a path, "." where it has none. By hand, as is what
// follows: filepath takes "link/.." for nothing, the kernel goes where link leads.
func folderOf(path string) string {
	return path[:strings.LastIndexByte(path, '/')+1] + "."
}

// absolute is path made absolute as it stands, for what is said of it to be found from anywhere.
func absolute(path string) string {
	if cwd, err := os.Getwd(); err == nil && !strings.HasPrefix(path, "/") {
		return cwd + "/" + strings.TrimPrefix(path, "./")
	}
	return path
}

// A source is a config, and which rule named it.
type source struct{ path, rule string }

func (s source) String() string { return fmt.Sprintf("config %s (%s)", s.path, s.rule) }

// readConfig reads archive_root from a scrape config: "" where it is absent, null or empty. names:
// it is a JSON object with one, sound or not. What is not sound is an error, never another lock.
func readConfig(from source) (root string, names bool, err error) {
	data, err := os.ReadFile(from.path)
	if err != nil {
		return "", false, fail(Missing, "%v cannot be read: %w", from, errors.Unwrap(err))
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	var config map[string]json.RawMessage // struct keys are matched without regard to case
	err = json.Unmarshal(data, &config)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return "", false, fail(BadConfig, "%v is not valid JSON: line %d: %w", from, line, err)
	}
	if err != nil || config == nil {
		return "", false, fail(BadConfig, "%v is not a JSON object", from)
	}
	value, names := config["archive_root"]
	isText := !names || json.Unmarshal(value, &root) == nil
	if home, err := os.UserHomeDir(); err == nil && strings.HasPrefix(root+"/", "~/") {
		root = home + root[1:]
	}
	switch {
	case !utf8.Valid(data): // which encoding/json would replace, and lock another path
		err = fail(BadConfig, "%v is not UTF-8 text", from)
	case !isText:
		err = fail(BadConfig, "%v: archive_root is not a string", from)
	case strings.TrimSpace(root) != root: // which scripts that read the same config drop, as they do NUL
		err = fail(BadConfig, "%v: archive_root %q has white space at its ends; take it out", from, root)
	case strings.ContainsRune(root, 0):
		err = fail(BadConfig, "%v: archive_root %q holds a NUL character", from, root)
	case root != "" && root[0] != '/': // another lock in every working directory
		err = fail(BadConfig, "%v: archive_root %q is not an absolute path; begin it with /, or with ~/ where HOME is set", from, root)
	}
	return root, names, err
}
