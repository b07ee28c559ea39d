package lock

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is what /proc/self/mountinfo tells of a mounted file system
// (proc_pid_mountinfo(5)).
type mount struct {
	device  string // of the superblock, in the form of /proc/locks: "fe:00"
	kind    string // of the file system: "ext4", "nfs4", "fuse.sshfs"
	source  string // what is mounted: a device, "server:/export"
	options []string
}

// overNetwork are the file systems whose locks other hosts may hold.
var overNetwork = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "gfs2", "ocfs2", "lustre", "gpfs", "afs", "9p"}

// withoutLocks are the FUSE file systems of remote storage that pass no locks
// on, so that the kernel keeps them to this host.
var withoutLocks = []string{"fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.davfs", "fuse.curlftpfs", "fuse.vmhgfs-fuse"}

// isShared tells whether processes of other hosts may hold locks there, which
// the kernel's list does not show.
func (m mount) isShared() bool {
	return slices.Contains(overNetwork, m.kind) || m.kind == "fuse" || strings.HasPrefix(m.kind, "fuse.")
}

// hostLocal says why flock(2) on this file system excludes processes of this
// host alone, though others may write there too; "" when it does not.
func (m mount) hostLocal() string {
	has := func(option string) bool { return slices.Contains(m.options, option) }
	switch m.kind {
	case "nfs", "nfs4": // nfs(5)
		for _, option := range []string{"nolock", "local_lock=flock", "local_lock=all"} {
			if has(option) {
				return "mounted with " + option
			}
		}
	case "cifs", "smb3": // mount.cifs(8)
		if has("nobrl") {
			return "mounted with nobrl"
		}
	case "9p": // the kernel's Documentation/filesystems/9p.rst
		if !has("version=9p2000.L") {
			return "mounted without version=9p2000.L"
		}
	}
	if slices.Contains(withoutLocks, m.kind) {
		return "it passes no locks on"
	}
	return ""
}

// mountOf finds the mount that a file lies on; a zero one where it cannot be told.
// By the mount's id (statx(2), Linux 5.8) and not by stat's device, which is
// another one on btrfs and overlay.
func mountOf(path string) mount {
	var info unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &info)
	if err != nil || info.Mask&unix.STATX_MNT_ID == 0 {
		return mount{}
	}
	id := strconv.FormatUint(info.Mnt_id, 10) + " "
	list, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, id) {
			m, _ := parseMount(line)
			return m
		}
	}
	return mount{}
}

// parseMount reads a line of mountinfo:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMount(line string) (mount, bool) {
	fields := strings.Fields(line)
	_, after, found := strings.Cut(line, " - ")
	super := strings.Fields(after)
	if len(fields) < 6 || !found || len(super) < 3 {
		return mount{}, false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
		return mount{}, false
	}
	return mount{
		device:  fmt.Sprintf("%02x:%02x", major, minor),
		kind:    super[0],
		source:  super[1],
		options: append(strings.Split(fields[5], ","), strings.Split(super[2], ",")...),
	}, true
}
