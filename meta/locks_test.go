package meta

import (
	"strings"
	"testing"
	"time"
)

func TestParseLock(t *testing.T) {
	for line, want := range map[string]kernelLock{
		"1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF\n":            {pid: 4242, file: "fe:00:9978222"},
		"12: -> FLOCK  ADVISORY  WRITE 4250 00:2a:7 0 EOF":                {waits: true, pid: 4250, file: "00:2a:7"},
		"\t1: FLOCK  ADVISORY  READ  1 103:01:18446744073709551615 0 EOF": {shared: true, pid: 1, file: "103:01:18446744073709551615"},
		"3: FLOCK  ADVISORY  WRITE 0 fe:00:5 0 EOF":                       {file: "fe:00:5"},
	} {
		if got, ok := parseLock(line); !ok || got != want {
			t.Errorf("parseLock(%q) = %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "1:", "1: ->", "1: POSIX  ADVISORY  WRITE 4242 fe:00:5 0 EOF", "1: OFDLCK ADVISORY  WRITE -1 fe:00:5 0 EOF",
		"1: FLOCK  ADVISORY  WRITE x fe:00:5 0 EOF", "1: LEASE  ACTIVE    READ  1 fe:00:5 0 EOF"} {
		if got, ok := parseLock(line); ok {
			t.Errorf("parseLock(%q) = %+v", line, got)
		}
	}
}

// The lines are of the form that the kernel gives for such mounts.
func TestMounts(t *testing.T) {
	for line, want := range map[string]struct{ id, device, kind, local string }{
		"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n":                                                                   {"27", "fe:00", "ext4", ""},
		"40 1 259:257 /sub /data rw - btrfs /dev/nvme0n1 rw,subvol=/sub":                                                            {"40", "103:101", "btrfs", ""},
		"41 1 0:50 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=1024k":                                                           {"41", "00:32", "tmpfs", ""},
		"61 27 0:52 / /mnt/nas rw,relatime shared:3 - nfs4 nas:/a rw,vers=4.2,hard,proto=tcp,sec=sys,local_lock=none,addr=10.0.0.2": {"61", "00:34", "nfs4", ""},
		"61 27 0:52 / /mnt/nas rw,relatime - nfs nas:/a rw,vers=3,nolock,proto=tcp,local_lock=all,addr=10.0.0.2":                    {"61", "00:34", "nfs", "(nolock) passes no locks on to its server"},
		"61 27 0:52 / /mnt/nas rw,relatime - nfs nas:/a rw,vers=3,local_lock=flock,addr=10.0.0.2":                                   {"61", "00:34", "nfs", "(local_lock=flock) passes no locks on to its server"},
		"61 27 0:52 / /mnt/nas rw,relatime - nfs nas:/a rw,vers=3,local_lock=posix,addr=10.0.0.2":                                   {"61", "00:34", "nfs", ""},
		"62 27 0:53 / /mnt/smb rw,relatime - cifs //nas/a rw,vers=3.1.1,cache=strict,nobrl,soft":                                    {"62", "00:35", "cifs", "(nobrl) passes no locks on to its server"},
		"62 27 0:53 / /mnt/smb rw,relatime - cifs //nas/a rw,vers=3.1.1,cache=strict,soft":                                          {"62", "00:35", "cifs", ""},
		"63 27 0:54 / /mnt/with\\040space rw,nosuid,nodev master:1 shared:2 - fuse.sshfs op@h:/x rw,user_id=0,group_id=0":           {"63", "00:36", "fuse.sshfs", "(fuse.sshfs) passes no locks on to its server"},
		"63 27 8:1 / /mnt/ntfs rw - fuseblk /dev/sda1 rw,user_id=0":                                                                 {"63", "08:01", "fuseblk", ""},
		"64 27 0:55 / /host rw - 9p hostshare rw,access=any,trans=virtio":                                                           {"64", "00:37", "9p", ""},
		"64 27 0:55 / /host rw - 9p hostshare rw,trans=virtio,version=9p2000.L":                                                     {"64", "00:37", "9p", ""},
		"65 27 0:56 / /ceph rw - ceph 10.0.0.3:/ rw,name=admin,secret=<hidden>,acl":                                                 {"65", "00:38", "ceph", ""},
	} {
		m := parseMount(line)
		if m.device != want.device || m.Type != want.kind || !strings.Contains(m.HostLocal(), want.local) || (want.local == "") != (m.HostLocal() == "") {
			t.Errorf("parseMount(%q) = %+v; only of this host because %q", line, m, m.HostLocal())
		}
	}
	for _, line := range []string{"", " - ", "27 1 254:0 / / rw,relatime ext4", "27 1 x / / rw - ext4 a b", "27 1 254:0 / / rw - ext4", "- - - - - - - - -"} {
		if got := parseMount(line); got.Type != "" || got.device != "" {
			t.Errorf("parseMount(%q) = %+v", line, got)
		}
	}
}

func FuzzKernelTexts(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF")
	f.Add("1: -> FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF")
	f.Add("36 35 0:42 / /mnt rw,noatime master:1 - nfs4 h:/x rw,vers=4.2")
	f.Fuzz(func(t *testing.T, line string) {
		parseLock(line)
		if m := parseMount(line); (m.Type == "") != (m.device == "") || m.device != "" && len(m.device) < 5 {
			t.Errorf("parseMount(%q) = %+v", line, m)
		}
	})
}

func TestDuration(t *testing.T) {
	for d, want := range map[int64]string{0: "0s", 59: "59s", 60: "1m", 61: "1m1s", 3599: "59m59s", 3600: "1h", 7980: "2h13m", 172799: "47h59m", 172800: "2d", 208800: "2d10h", 1000000: "11d13h"} {
		if got := Duration(time.Duration(d) * time.Second); got != want {
			t.Errorf("%d seconds are %s, want %s", d, got, want)
		}
	}
}
