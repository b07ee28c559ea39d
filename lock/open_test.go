package lock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file that somebody has a lease on is opened when that is given back.
func TestOpenWaitsForALease(t *testing.T) {
	path := t.TempDir() + "/lock"
	holder, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(holder)
	if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		fd, err := openFile(path, false)
		unix.Close(fd)
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened what is lent out: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
