package lock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// The folder that the lock lies in: a missing one is made where that is safe,
// and a drive that is not mounted is told apart, as a folder made in its place
// would be another archive (contract, "Which lock").

// makeFolder makes the folder that the lock lies in: all of an override's path,
// but only the last folder of an archive root's.
func (at Location) makeFolder(log meta.Log) error {
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
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil // another run made it meanwhile
	case err != nil:
		return fail(CannotOpen, "archive root %s is missing and cannot be made: %w", at.archiveRoot, bare(err))
	}
	log.Note("made the archive root %s, which was missing", at.archiveRoot)
	return nil
}

// checkFolder tells whether the folder can be used as it is; missing means that
// it is an archive root that is not there and may be made.
func (at Location) checkFolder() (missing bool, err error) {
	if at.archiveRoot == "" {
		if _, err := os.Stat(folderOf(at.Lock)); err != nil && at.Config != "" {
			return false, fail(Missing, "the repository root of lock file %s cannot be used: %w", at.Lock, bare(err))
		}
		return false, nil
	}
	root := strings.TrimRight(at.archiveRoot, "/")
	if point := unmounted(root); point != "" {
		return false, fail(Missing, "archive root %s lies on %s, which /etc/fstab names and which is not mounted now; is the drive mounted? (mount %s)", root, point, meta.Summary([]string{point}))
	}
	_, err = os.Stat(root + "/.")
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, syscall.ENOTDIR):
		if _, err := os.Lstat(root); err != nil {
			return false, fail(Missing, "archive root %s is missing, and its parent is not a folder", root)
		}
		return false, fail(CannotOpen, "archive root %s is not a folder", root)
	case errors.Is(err, fs.ErrPermission):
		return false, fail(Missing, "archive root %s cannot be reached: %w", root, bare(err))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fail(CannotOpen, "archive root %s cannot be used: %w", root, bare(err))
	}
	return checkParent(root)
}

// checkParent tells whether a missing archive root may be made.
func checkParent(root string) (missing bool, err error) {
	if target, err := os.Readlink(root); err == nil {
		return false, fail(Missing, "archive root %s is a link to %s, which is missing; is the drive mounted?", root, target)
	}
	parent := folderOf(root)
	entries, err := os.Open(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fail(Missing, "archive root %s is missing, and so is its parent folder; is the drive mounted? if no drive belongs there: mkdir -p %s", root, meta.Summary([]string{root}))
	}
	if err != nil {
		return true, nil // it may be entered and not be read
	}
	defer entries.Close()
	if list, _ := entries.Readdirnames(1); len(list) == 0 && !isMountPoint(parent) {
		return false, fail(Missing, "archive root %s is missing, and its parent folder is empty; is the drive mounted? if no drive belongs there: mkdir -p %s", root, meta.Summary([]string{root}))
	}
	return true, nil
}

// unmounted is a mount point of fstab(5), at or above a folder, that nothing is
// mounted on now; "" where there is none.
func unmounted(folder string) string {
	table, _ := os.ReadFile("/etc/fstab")
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		point := filepath.Clean(strings.ReplaceAll(fields[1], `\040`, " ")) // fstab(5) writes a space so
		if !strings.HasPrefix(point, "/") || point == "/" || !strings.HasPrefix(filepath.Clean(folder)+"/", point+"/") {
			continue
		}
		if !isMountPoint(point) {
			return point
		}
	}
	return ""
}

// isMountPoint tells whether something is mounted on a folder (statx(2), Linux
// 5.8); true where the kernel does not say.
func isMountPoint(folder string) bool {
	var info unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, folder, unix.AT_NO_AUTOMOUNT, 0, &info)
	known := info.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
	return err == nil && (!known || info.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0)
}
