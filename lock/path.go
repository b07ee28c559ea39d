package lock

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is the lock file's name in an archive root or a repository.
const lockName = ".dce-scrape.lock"

// A Location is the lock file that a run has to take, and why that one.
type Location struct {
	Lock    string // path of the lock file
	Config  string // the config that was read; "" when DCE_SCRAPE_LOCK_FILE named the lock
	Reason  string // why this lock, for people
	Warning string // what the operator should know of this choice; mostly ""

	archiveRoot string // the folder that Config names; "" when it names none
}

// Find tells which lock file guards the archive root that config names
// (contract, "Which file is locked"); config is the file the caller was told
// to use, or "" for the default one. It makes and changes nothing. Its errors
// are of kind BadConfig and Missing.
func Find(config string) (Location, error) {
	if path := os.Getenv("DCE_SCRAPE_LOCK_FILE"); path != "" {
		return Location{Lock: path, Reason: "DCE_SCRAPE_LOCK_FILE names it"}, nil
	}
	named := config
	if named == "" {
		repository, err := repositoryRoot(named)
		if err != nil {
			return Location{}, err
		}
		config = filepath.Join(repository, "config", "scrape-targets.json")
	}
	root, err := readConfig(config)
	if err != nil {
		return Location{}, err
	}
	if root == "" {
		repository, err := repositoryRoot(named)
		if err != nil {
			return Location{}, err
		}
		return Location{
			Lock:    inFolder(repository),
			Config:  config,
			Reason:  "config " + config + " names no archive_root, and " + repository + " is its repository root",
			Warning: fmt.Sprintf("config %s names no archive_root; only this checkout is protected, by %s", config, inFolder(repository)),
		}, nil
	}
	return Location{
		Lock:        inFolder(root),
		Config:      config,
		Reason:      "config " + config + " names archive_root " + root,
		archiveRoot: root,
	}, nil
}

// inFolder is the lock file of a folder. Not filepath.Join, which takes
// "link/.." for nothing, where the kernel goes by what link leads to.
func inFolder(folder string) string {
	return strings.TrimRight(folder, "/") + "/" + lockName
}

// repositoryRoot is DCE_REPO_ROOT; else the nearest folder that holds .git, at
// or above the config's folder or, where no config was named, the working
// directory; else that folder itself. Links on the way are resolved, so that
// one checkout has one root however it is reached.
func repositoryRoot(config string) (string, error) {
	root := os.Getenv("DCE_REPO_ROOT")
	start, err := physical(cmp.Or(root, folderOf(config)))
	if err != nil {
		return "", fail(Missing, "the working directory cannot be told: %w (name the config by an absolute path)", bare(err))
	}
	if root != "" {
		return start, nil
	}
	for folder := start; ; folder = filepath.Dir(folder) {
		if _, err := os.Lstat(filepath.Join(folder, ".git")); err == nil {
			return folder, nil
		}
		if folder == "/" {
			return start, nil
		}
	}
}

// folderOf is the folder part of a path, "." where it has none. Not
// filepath.Dir, for the reason at inFolder.
func folderOf(path string) string {
	return path[:strings.LastIndexByte(path, '/')+1] + "."
}

// physical is the absolute path of a folder, without links; of one that does
// not exist, as far as it can be told.
func physical(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		// os.Getwd goes by the variable PWD, which may lead through links.
		cwd, err := syscall.Getwd()
		if err != nil {
			return "", err
		}
		path = cwd + "/" + path
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved, nil
	}
	return filepath.Clean(path), nil
}

// makeFolder makes the folder that the lock file lies in, where that is safe:
// all of an override's path, but only the last folder of an archive root's. A
// missing parent is most likely a drive that is not mounted, and a folder made
// there would be another archive root.
func (at Location) makeFolder(log Log) error {
	if at.Config == "" {
		if err := os.MkdirAll(folderOf(at.Lock), 0o777); err != nil {
			return fail(CannotOpen, "the folder of lock file %s cannot be made: %w", at.Lock, err)
		}
		return nil
	}
	missing, err := at.checkFolder()
	if !missing {
		return err
	}
	err = os.Mkdir(strings.TrimRight(at.archiveRoot, "/"), 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil // another run made it meanwhile
	}
	if err != nil {
		return fail(CannotOpen, "archive root %s is missing and cannot be made: %w", at.archiveRoot, bare(err))
	}
	log.Note("made the archive root %s, which was missing", at.archiveRoot)
	return nil
}

// checkFolder tells whether the archive root can be used as it is; missing means
// that it is not there, and may be made.
func (at Location) checkFolder() (missing bool, err error) {
	if at.archiveRoot == "" {
		if _, err := os.Stat(folderOf(at.Lock)); err != nil && at.Config != "" {
			return false, fail(Missing, "the repository root of lock file %s cannot be used: %w", at.Lock, bare(err))
		}
		return false, nil
	}
	root := strings.TrimRight(at.archiveRoot, "/")
	_, err = os.Stat(root + "/.")
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, syscall.ENOTDIR):
		if _, err := os.Lstat(root); err != nil {
			return false, fail(Missing, "archive root %s is missing, and its parent is not a folder", at.archiveRoot)
		}
		return false, fail(CannotOpen, "archive root %s is not a folder", at.archiveRoot)
	case errors.Is(err, fs.ErrPermission):
		return false, fail(Missing, "archive root %s cannot be reached: %w", at.archiveRoot, bare(err))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fail(CannotOpen, "archive root %s cannot be used: %w", at.archiveRoot, bare(err))
	}
	if target, err := os.Readlink(root); err == nil {
		return false, fail(Missing, "archive root %s is a link to %s, which is missing; is the drive mounted?", at.archiveRoot, target)
	}
	if _, err := os.Stat(folderOf(root)); err != nil {
		return false, fail(Missing, "archive root %s is missing, and so is its parent folder; is the drive mounted?", at.archiveRoot)
	}
	return true, nil
}
