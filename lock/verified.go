package lock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dcelock/meta"
)

// To look through the kernel's list of locks takes it some ten milliseconds after
// a pause (/proc/locks stops all locking, which waits for an RCU grace period).
// So a run that has made sure that nobody holds an earlier lock file marks the
// lock file with an extended attribute (xattr(7)), and the next one need not look.
//
// The mark says when it was set, and counts for as long as the file's ctime is
// that: whatever is done to its name, mode or attributes changes the ctime
// (inode(7)), a copy has one of its own, and to lock it changes nothing. It also
// says in which boot it was set, by whom, as users see different processes, and
// for which path. What it cannot see is a folder that was moved away and back.
const mark = "user.dcelock.verified"

// tick is the longest time, in nanoseconds, between two readings of the clock
// that ctime is taken from.
const tick = 10_000_000

// isVerified tells whether an earlier run has made sure of an open lock file.
func isVerified(fd int, path string) bool {
	var text [8192]byte
	n, err := unix.Fgetxattr(fd, mark, text[:])
	if err != nil {
		return false
	}
	var boot string
	var user int
	var at int64
	var info unix.Stat_t
	var where string
	if _, err := fmt.Sscanf(string(text[:n]), "%s %d %d %q", &boot, &user, &at, &where); err != nil || unix.Fstat(fd, &info) != nil {
		return false
	}
	since := info.Ctim.Nano() - at
	return where == realPath(path) && boot == meta.Self().BootID && (user == 0 || user == os.Geteuid()) && since >= 0 && since <= tick
}

// setVerified says that this run has made sure. Where that cannot be said, as on
// a file system without such attributes, every run looks for itself.
func setVerified(fd int, path string) {
	var now unix.Timespec
	if boot := meta.Self().BootID; boot != "" && unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) == nil {
		_ = unix.Fsetxattr(fd, mark, fmt.Appendf(nil, "%s %d %d %q", boot, os.Geteuid(), now.Nano(), realPath(path)), 0)
	}
}
