package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { helpers["torture-noise"] = noise }

// noise locks and unlocks files of its own until its standard input ends, as a
// busy host does: the kernel's list of locks changes while it is read.
func noise(args []string) int {
	var fds []int
	for n := range 40 {
		fd, err := unix.Open(filepath.Join(args[0], fmt.Sprint("noise", n)), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fds = append(fds, fd)
	}
	told := make(chan bool)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(told)
	}()
	fmt.Println("ready")
	for {
		select {
		case <-told:
			return 0
		case <-time.After(50 * time.Microsecond):
			how := []int{unix.LOCK_EX | unix.LOCK_NB, unix.LOCK_UN}[rand.IntN(2)]
			_ = unix.Flock(fds[rand.IntN(len(fds))], how)
		}
	}
}

// startNoise starts noise on the file system of the archives.
func startNoise(t *testing.T) *process {
	t.Helper()
	folder, err := os.MkdirTemp("", "dcelock-noise-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	p := call{argv: []string{tortureCommand(t), folder}, env: []string{"DCELOCK_TEST_HELPER=torture-noise"}}.start(t)
	p.sees("ready")
	return p
}
