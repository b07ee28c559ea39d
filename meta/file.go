package meta

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSize bounds what is read of a record, in bytes. One that dcelock writes
// is a tenth of it at most.
const maxSize = 64 << 10

// Read reads the record at path. The error is fs.ErrNotExist where there is
// none; any other error means that something lies there which is no record.
// It never waits and never follows a link: whoever may write to the archive
// root may have put a FIFO or a link to /dev/zero there.
func Read(path string) (Record, error) {
	data, err := readFile(path)
	if err != nil {
		return Record{}, err
	}
	r, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s: is a symbolic link, not a record", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s: is not a regular file", path))
	}
	// The size may grow after a look at it; the limit holds all the same.
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if len(data) > maxSize {
		err = fmt.Errorf("%s: is larger than %d KiB", path, maxSize>>10)
	}
	return data, err
}

// Write puts r at path by writing a temporary file beside it and renaming it,
// so that a reader sees the whole record or none. Only the lock's holder may
// call it: the lock is what makes the temporary file's fixed name safe, and
// the fixed name is what keeps killed runs from piling up temporary files.
// Not synced to disk: a record outlives its boot only to be reclaimed.
func Write(path string, r Record) error {
	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Another user's, in a sticky folder: it stays there for good.
		temporary += "." + strconv.Itoa(r.PID)
	}
	err := writeNew(temporary, r.encode())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		os.Remove(temporary)
	}
	return err
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
	return errors.Join(err, f.Close())
}

// Remove removes the record at path when it is still r to the letter; another
// run's record, or none, is left as it is, without an error. Call it while
// the lock is held: then nobody else has a reason to write one in between.
func Remove(path string, r Record) error {
	data, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil || !bytes.Equal(data, r.encode()):
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
