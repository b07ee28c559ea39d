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

	archiveRoot string // the folder that Config names; "" when it names none
}

// Find tells which lock guards the archive root that a run of command, its
// words, writes to (contract, "Which lock"); config is what --config named, or
// "". It makes and changes nothing. Its errors are of kind BadConfig, Missing and System.
func Find(config string, command []string) (Location, error) {
	// With fewer descriptors the Go runtime ends in a trace.
	const fewest = 16
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < fewest {
		return Location{}, fail(System, "the limit of open files is %d, and dcelock needs %d (see ulimit -n)", limit.Cur, fewest)
	}
	if path := os.Getenv("DCE_SCRAPE_LOCK_FILE"); path != "" {
		at := Location{Place: meta.Place{Lock: path}, Reason: "DCE_SCRAPE_LOCK_FILE names it"}
		if filepath.Base(path) == lockName {
			at.Folder = folderOf(path)
		}
		if !strings.HasPrefix(path, "/") {
			at.Warnings = append(at.Warnings, fmt.Sprintf("DCE_SCRAPE_LOCK_FILE is %s, which is another lock in every working directory; make it an absolute path", meta.Summary([]string{path})))
		}
		return at, nil
	}
	chosen, err := chooseConfig(config, command)
	if err != nil {
		return Location{}, err
	}
	return chosen.location()
}

// A source is a config, and which rule named it.
type source struct {
	path string // absolute
	rule string
}

func (s source) String() string { return fmt.Sprintf("config %s (%s)", s.path, s.rule) }

// chooseConfig applies the rules of which config counts, the first that names one.
func chooseConfig(flag string, command []string) (source, error) {
	variable := os.Getenv("DCE_CONFIG_FILE")
	switch {
	case flag != "":
		return source{absolute(flag), "named by --config"}, nil
	case variable != "":
		return source{absolute(variable), "named by DCE_CONFIG_FILE"}, nil
	}
	if own, ok := configOf(command); ok {
		return own, nil
	}
	here, err := physical(".")
	if err != nil {
		return source{}, fail(Missing, "the working directory cannot be told: %w (name the config by an absolute path)", bare(err))
	}
	return source{defaultConfig(repositoryRoot(here)), "the default of this checkout; name another with --config or DCE_CONFIG_FILE"}, nil
}

// location is the lock that a config leads to.
func (s source) location() (Location, error) {
	root, err := readConfig(s)
	if err != nil {
		return Location{}, err
	}
	at := Location{Config: s.path, Reason: s.String() + " names archive_root " + root, archiveRoot: root}
	if root == "" {
		root = repositoryRoot(realFolder(s.path))
		at.Reason = s.String() + " names no archive_root, and " + root + " is its repository root"
		at.Warnings = []string{fmt.Sprintf("%v names no archive_root; only this checkout is protected, by %s", s, inFolder(root))}
	}
	at.Place = meta.Place{Folder: root, Lock: inFolder(root)}
	return at, nil
}

// same tells whether two locations are one lock, by whatever paths.
func (at Location) same(other Location) bool {
	if at.Lock == other.Lock {
		return true
	}
	a, inFolder := meta.FileAt(at.Folder)
	b, _ := meta.FileAt(other.Folder)
	if at.Folder != "" && other.Folder != "" && inFolder {
		return a == b
	}
	a, exists := meta.FileAt(at.Lock)
	b, _ = meta.FileAt(other.Lock)
	return exists && a == b
}

// inFolder is the lock file of a folder. Not filepath.Join, which takes
// "link/.." for nothing, where the kernel goes by what link leads to.
func inFolder(folder string) string {
	return strings.TrimRight(folder, "/") + "/" + lockName
}

// folderOf is the folder part of a path, "." where it has none. Not
// filepath.Dir, for the reason at inFolder.
func folderOf(path string) string {
	return path[:strings.LastIndexByte(path, '/')+1] + "."
}
