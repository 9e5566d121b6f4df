//go:build unix && !aix && !solaris && !illumos

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// errWouldBlock is what lockFile returns if somebody else holds the lock.
var errWouldBlock error = unix.EWOULDBLOCK

// lockFile locks f for as long as it is open. The lock belongs to this opening
// of the file, so a second Lock in the same process is refused too.
func lockFile(f *os.File) error { return flock(f, unix.LOCK_EX) }

// lockFileShared locks f against lockFile, not against others like itself.
func lockFileShared(f *os.File) error { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	var lockErr error
	err = raw.Control(func(fd uintptr) {
		for lockErr = unix.EINTR; lockErr == unix.EINTR; {
			lockErr = unix.Flock(int(fd), how|unix.LOCK_NB)
		}
	})
	if err == nil {
		err = lockErr
	}
	if err != nil {
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return nil
}
