package lock

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// lockName is the lock file's name in an archive root or a repository. A lock
// file of that name belongs to its folder, which is locked with it.
const lockName = ".dce-scrape.lock"

// A Location is the lock that a run has to take, and why that one.
type Location struct {
	meta.Place
	Config   string   // the config that was read; "" when DCE_SCRAPE_LOCK_FILE named the lock
	Reason   string   // why this lock, for people
	Warnings []string // what the operator should know of this choice
}

// Find tells which lock guards the archive root that a run of command, its
// words, writes to (contract, "Which lock"); config is what --config named, or
// "". It makes and changes nothing. Its errors are of kind BadConfig, Missing and System.
func Find(config string, command []string) (Location, error) {
	const fewest = 16 // descriptors; with fewer the Go runtime ends in a trace
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < fewest {
		return Location{}, fail(System, "the limit of open files is %d, and dcelock needs %d (see ulimit -n)", limit.Cur, fewest)
	}
	path := os.Getenv("DCE_SCRAPE_LOCK_FILE")
	if path == "" {
		return chooseConfig(config, command).location()
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

// chooseConfig applies the rules of which config counts, the first that names one.
func chooseConfig(flag string, command []string) source {
	if flag != "" {
		return source{flag, "named by --config"}
	}
	if variable := os.Getenv("DCE_CONFIG_FILE"); variable != "" {
		return source{variable, "named by DCE_CONFIG_FILE"}
	}
	if own, ok := configOf(command); ok {
		return own
	}
	return source{defaultConfig(repositoryRoot(".")), "the default of this checkout; name another with --config or DCE_CONFIG_FILE"}
}

// location is the lock that a config leads to.
func (s source) location() (Location, error) {
	s.path = absolute(s.path)
	root, _, err := readConfig(s)
	if err != nil {
		return Location{}, err
	}
	at := Location{Config: s.path, Reason: s.String() + " names archive_root " + root}
	named := root != ""
	if !named {
		root = repositoryRoot(s.path)
		at.Reason = s.String() + " names no archive_root, and " + root + " is its repository root"
	}
	// Not filepath.Join, which takes "link/.." for nothing, where the kernel
	// goes by what link leads to.
	at.Place = meta.Place{Folder: root, Lock: strings.TrimRight(root, "/") + "/" + lockName}
	if !named {
		at.Warnings = []string{fmt.Sprintf("%v names no archive_root; only this checkout is protected, by %s", s, at.Lock)}
		_, err = os.Stat(folderOf(at.Lock))
	}
	if err != nil {
		return Location{}, fail(Missing, "the repository root of lock file %s cannot be used: %w", at.Lock, bare(err))
	}
	return at, nil
}

// folderOf is the folder part of a path, "." where it has none. Not
// filepath.Dir, which takes "link/.." for nothing.
func folderOf(path string) string {
	return path[:strings.LastIndexByte(path, '/')+1] + "."
}
