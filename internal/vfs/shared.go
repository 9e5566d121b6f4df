package vfs

import (
	"errors"
	"os"
	"strings"
)

// LockShared keeps Lock from succeeding on an existing lock file until Unlock, and
// changes nothing on disk: for whoever reads what must not be written to
// meanwhile. Several may hold it. It returns a *LockedError if Lock was faster, and
// fs.ErrNotExist if there is no such file, so that nobody holds it.
//
// It is no part of FS: only the real file system has readers of this kind.
func LockShared(name string) (unlock func() error, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := lockFileShared(f); err != nil {
		if errors.Is(err, errWouldBlock) {
			err = &LockedError{Name: name, Holder: strings.TrimSpace(string(readHolder(f)))}
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
