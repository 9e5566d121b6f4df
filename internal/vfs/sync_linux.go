package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// Sync writes the file's bytes and what is needed to find them again, such as
// its length, but not its times: one journal commit less than fsync for a file
// that does not grow.
func (f osFile) Sync() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	var syncErr error
	err = raw.Control(func(fd uintptr) {
		// Only an interrupted call is made again: it has not reported any
		// failure of the disk yet.
		for syncErr = unix.EINTR; syncErr == unix.EINTR; {
			syncErr = unix.Fdatasync(int(fd))
		}
	})
	if err == nil {
		err = syncErr
	}
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}
