package lock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// makeFolder makes the folder that the lock lies in, where it is missing (contract,
// "Which lock"): all of an override's path, but only the last of an archive root's.
func (at Location) makeFolder(log meta.Log) error {
	missing, err := at.checkFolder()
	if err != nil || !missing {
		return err
	}
	mkdir, folder := os.MkdirAll, strings.TrimSuffix(folderOf(at.Lock), "/.")
	if at.Config != "" {
		mkdir = os.Mkdir // a drive may have gone since
	}
	if err := mkdir(folder, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return fail(CannotOpen, "the folder of lock file %s cannot be made: %w", at.Lock, err)
	}
	log.Note("made the folder %s, which was missing", folder)
	return nil
}

// checkFolder tells whether the folder can be used as it is; missing: it may be made. An archive
// root may not where a drive seems not to be mounted, as it would be another than that on it.
func (at Location) checkFolder() (missing bool, err error) {
	_, err = os.Stat(folderOf(at.Lock))
	missing = errors.Is(err, fs.ErrNotExist)
	root := strings.TrimRight(at.Folder, "/")
	if point := unmounted(root); point != "" {
		return false, fail(Missing, "archive root %s lies on %s, which /etc/fstab names and which is not mounted now; is the drive mounted? (mount %s)", root, point, meta.Summary([]string{point}))
	}
	switch {
	case err == nil:
		return false, nil
	case at.Config == "":
		return missing, nil // any other fault shows when the lock file is opened
	case !missing:
		kind := Missing // for its parent's sake
		if exists(root) {
			kind = CannotOpen
		}
		return false, fail(kind, "archive root %s cannot be used: %w", root, errors.Unwrap(err))
	}
	if target, err := os.Readlink(root); err == nil {
		return false, fail(Missing, "archive root %s is a link to %s, which is missing; is the drive mounted?", root, target)
	}
	parent := folderOf(root)
	list, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 && !isMountPoint(parent) {
		return false, fail(Missing, "archive root %s is missing, and its parent folder is missing or empty; is the drive mounted? if no drive belongs there: mkdir -p %s", root, meta.Summary([]string{root}))
	}
	return true, nil // also where the parent may be entered and not be read
}

// unmounted is a mount point of fstab(5) at or above a folder, with nothing mounted now; or "".
func unmounted(folder string) string {
	table, _ := os.ReadFile("/etc/fstab")
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		point := filepath.Clean(strings.ReplaceAll(fields[1], `\040`, " ")) // fstab(5) writes a space so
		if strings.HasPrefix(filepath.Clean(folder)+"/", point+"/") && !isMountPoint(point) {
			return point
		}
	}
	return ""
}

// isMountPoint tells whether a folder is one (statx(2), Linux 5.8); true where that does not say.
func isMountPoint(folder string) bool {
	var info unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, folder, unix.AT_NO_AUTOMOUNT, 0, &info)
	return err == nil && info.Attributes_mask&^info.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0
}
