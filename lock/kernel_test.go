package lock

import (
	"testing"
	"time"
)

func TestParseLock(t *testing.T) {
	for line, want := range map[string]kernelLock{
		"1: FLOCK  ADVISORY  WRITE 4242 fe:00:9978222 0 EOF\n":            {false, 4242, "fe:00", 9978222},
		"12: -> FLOCK  ADVISORY  WRITE 4250 00:2a:7 0 EOF":                {true, 4250, "00:2a", 7},
		"\t1: FLOCK  ADVISORY  READ  1 103:01:18446744073709551615 0 EOF": {false, 1, "103:01", 18446744073709551615},
		"3: FLOCK  ADVISORY  WRITE 0 fe:00:5 0 EOF":                       {false, 0, "fe:00", 5},
	} {
		if got, ok := parseLock(line); !ok || got != want {
			t.Errorf("parseLock(%q) = %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "1:", "1: ->", "1: POSIX  ADVISORY  WRITE 4242 fe:00:5 0 EOF", "1: OFDLCK ADVISORY  WRITE -1 fe:00:5 0 EOF",
		"1: FLOCK  ADVISORY  WRITE x fe:00:5 0 EOF", "1: FLOCK  ADVISORY  WRITE 1 5 0 EOF", "1: FLOCK  ADVISORY  WRITE 1 fe:00:x 0 EOF", "1: LEASE  ACTIVE    READ  1 fe:00:5 0 EOF"} {
		if got, ok := parseLock(line); ok {
			t.Errorf("parseLock(%q) = %+v", line, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mount{
		"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n":                             {"27", "fe:00", "ext4"},
		"36 35 0:42 / /mnt\\040x rw,noatime master:1 shared:2 - fuse.sshfs h:/x rw,user_id=0": {"36", "00:2a", "fuse.sshfs"},
		"40 1 259:257 /sub /data rw - btrfs /dev/nvme0n1 rw,subvol=/sub":                      {"40", "103:101", "btrfs"},
	} {
		if got, ok := parseMount(line); !ok || got != want {
			t.Errorf("parseMount(%q) = %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", " - ", "27 1 254:0 / / rw,relatime ext4", "27 1 x / / rw - ext4 a b", "- - - - - - - - -"} {
		if got, ok := parseMount(line); ok {
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
		if m, ok := parseMount(line); ok && (m.id == "" || m.kind == "" || len(m.device) < 5) {
			t.Errorf("parseMount(%q) = %+v", line, m)
		}
	})
}

func TestDuration(t *testing.T) {
	for d, want := range map[int64]string{0: "0s", 59: "59s", 60: "1m0s", 3599: "59m59s", 3600: "1h0m", 7980: "2h13m", 172799: "47h59m", 172800: "2d0h", 1000000: "11d13h"} {
		if got := duration(time.Duration(d) * time.Second); got != want {
			t.Errorf("%d seconds are %s, want %s", d, got, want)
		}
	}
}
