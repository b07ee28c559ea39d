package meta

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A FileSystem is what proc_pid_mountinfo(5) tells of a mounted one; zero where it tells nothing.
type FileSystem struct {
	Type    string // "ext4", "nfs4", "fuse.sshfs"
	Source  string // what is mounted: a device, "server:/export"
	device  string // of the superblock, in the form of /proc/locks: "fe:00"
	options []string
}

// TypeAt is the type of the file system that an open file lies on, of the usual ones by their magic
// numbers (statfs(2)): a look at mountinfo takes longer than all else that is asked of the system.
func TypeAt(fd int, path string) string {
	usual := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs"}
	var info unix.Statfs_t
	if err := unix.Fstatfs(fd, &info); err == nil && usual[info.Type] != "" {
		return usual[info.Type]
	}
	return FileSystemAt(path).Type
}

// FileSystemAt is the file system that a path lies on, found by the mount's id
// (statx(2), Linux 5.8): stat's device is another one on btrfs and overlay.
func FileSystemAt(path string) (found FileSystem) {
	var info unix.Statx_t // of no path, the mount's id is 0, which no mount has that one can see
	_ = unix.Statx(unix.AT_FDCWD, path, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &info)
	list, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, strconv.FormatUint(info.Mnt_id, 10)+" ") {
			found = parseMount(line)
		}
	}
	return found
}

// parseMount reads a line of mountinfo:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMount(line string) FileSystem {
	mount, super, _ := strings.Cut(line, " - ")
	fields := strings.Fields(super)
	var id, parent, major, minor uint32
	_, err := fmt.Sscanf(mount, "%d %d %d:%d", &id, &parent, &major, &minor)
	if err != nil || len(fields) < 3 {
		return FileSystem{}
	}
	return FileSystem{fields[0], fields[1], fmt.Sprintf("%02x:%02x", major, minor), strings.Split(fields[2], ",")}
}

// SharedType tells of a file system's type whether other hosts or mounts may have own locks there.
func SharedType(name string) bool {
	network := []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "gfs2", "ocfs2", "lustre", "gpfs", "afs", "9p", "virtiofs"}
	return slices.Contains(network, name) || name == "fuse" || strings.HasPrefix(name, "fuse.")
}

// HostLocal says why a lock here excludes this host's runs alone, though others may write; or "".
func (fs FileSystem) HostLocal() string {
	// Mount options (nfs(5), mount.cifs(8)), and types that leave locks to the kernel.
	local := []string{"nolock", "local_lock=flock", "local_lock=all", "nobrl", "fuse.sshfs", "fuse.rclone", "fuse.s3fs",
		"fuse.gcsfuse", "fuse.goofys", "fuse.davfs", "fuse.curlftpfs", "fuse.vmhgfs-fuse"}
	for _, why := range append(fs.options, fs.Type) {
		if slices.Contains(local, why) {
			return fmt.Sprintf("the lock keeps out runs of this host only, because %s (%s) passes no locks on to its server; "+
				"make sure that no other host scrapes into the same archive", Printable(fs.Source), why)
		}
	}
	return ""
}
