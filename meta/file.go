package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Path is where the record of a lock file lies.
func Path(lockFile string) string { return lockFile + ".meta" }

// maxSize bounds what is read of a record, in bytes. One that dcelock writes
// is a tenth of it at most.
const maxSize = 64 << 10

// Read reads the record at path. The error is fs.ErrNotExist where there is
// none; any other error means that something lies there which is no record.
// It never waits and never follows a link: whoever may write to the archive
// root may have put a FIFO or a link to /dev/zero there.
func Read(path string) (Record, error) {
	data, local, err := readFile(path)
	if err != nil {
		return Record{}, err
	}
	r, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	r.local = local
	return r, nil
}

// readFile reads what lies at path, and tells whether that is a file system of
// this host.
func readFile(path string) (data []byte, local bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, false, fmt.Errorf("%s: is a symbolic link, not a record", path)
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s: is not a regular file", path)
	}
	// The size may grow after the stat; the limit holds all the same.
	data, err = io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, false, err
	}
	if len(data) > maxSize {
		return nil, false, fmt.Errorf("%s: is larger than %d KiB", path, maxSize>>10)
	}
	_, local = TypeAt(int(f.Fd()), path)
	return data, local, nil
}

// Write puts r at path by writing a temporary file beside it and renaming it,
// so that a reader sees the whole record or none. Only the lock's holder may
// call it: the lock is what makes the temporary file's fixed name safe, and
// the fixed name is what keeps killed runs from piling up temporary files.
// Not synced to disk: a record outlives its boot only to be reclaimed.
func Write(path string, r Record) error {
	temporary := path + ".tmp"
	err := writeNew(temporary, r.encode())
	if errors.Is(err, fs.ErrExist) && os.Remove(temporary) != nil {
		// Another user's, in a sticky folder: it stays there for good.
		temporary += "." + strconv.Itoa(r.PID)
	}
	if errors.Is(err, fs.ErrExist) {
		err = writeNew(temporary, r.encode())
	}
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return err
	}
	return nil
}

// writeNew creates path, and never writes through a link that somebody put there.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	// Whatever the umask: a record that others cannot read explains nothing
	// to them.
	err = f.Chmod(0o644)
	if err == nil {
		_, err = f.Write(data)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// Remove removes the record at path when it is still r to the letter; another
// run's record, or none, is left as it is, without an error. Call it while
// the lock is held: then nobody else has a reason to write one in between.
func Remove(path string, r Record) error {
	data, _, err := readFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err != nil || !bytes.Equal(data, r.encode()) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
