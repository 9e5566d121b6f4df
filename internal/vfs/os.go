package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// OS is the file system of the operating system.
type OS struct{}

var _ FS = OS{}

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, os.O_RDONLY, 0) }

// OpenReadWrite implements FS.
func (OS) OpenReadWrite(name string) (File, error) { return openOS(name, os.O_RDWR, 0) }

// Create implements FS.
func (OS) Create(name string, perm fs.FileMode) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}

// Mkdir implements FS.
func (OS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// Rename implements FS.
func (OS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

// Link implements FS.
func (OS) Link(oldName, newName string) error { return os.Link(oldName, newName) }

// ReadDir implements FS.
func (OS) ReadDir(name string) ([]string, error) {
	d, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// Stat implements FS.
func (OS) Stat(name string) (Info, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	return Info{SizeBytes: fi.Size(), Mode: fi.Mode()}, nil
}

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

type osFile struct {
	*os.File
}

func openOS(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// lockAttempts bounds how often Lock starts again because somebody removed the
// lock file between its opening and its locking.
const lockAttempts = 100

// Lock implements FS with an advisory lock of the whole file (flock). The
// kernel drops it when the process ends, however it ends.
func (OS) Lock(name, holder string) (Lock, error) {
	for range lockAttempts {
		l, again, err := tryLock(name, holder)
		if err != nil {
			return nil, err
		}
		if !again {
			return l, nil
		}
	}
	return nil, &LockedError{Name: name}
}

// tryLock makes one attempt; again is true if the file it locked is no longer
// the one that has the name.
func tryLock(name, holder string) (l *osLock, again bool, err error) {
	f, created, err := openLockFile(name)
	if err != nil {
		return nil, false, err
	}
	if err := lockFile(f); err != nil {
		if errors.Is(err, errWouldBlock) {
			err = &LockedError{Name: name, Holder: strings.TrimSpace(string(readHolder(f)))}
		}
		// A file we made and somebody else locked meanwhile is theirs now.
		return nil, false, errors.Join(err, f.Close())
	}
	if same, err := hasName(f, name); err != nil || !same {
		return nil, true, errors.Join(err, f.Close())
	}
	l = &osLock{f: f, name: name, created: created, before: readHolder(f)}
	if err := l.write([]byte(holder + "\n")); err != nil {
		return nil, false, errors.Join(err, l.Undo())
	}
	return l, false, nil
}

func openLockFile(name string) (f *os.File, created bool, err error) {
	f, err = os.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, false, err
	}
	f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) { // somebody was faster
		f, err = os.OpenFile(name, os.O_RDWR, 0)
		return f, false, err
	}
	return f, err == nil, err
}

// hasName tells whether name still leads to f.
func hasName(f *os.File, name string) (bool, error) {
	opened, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(opened, named), nil
}

func readHolder(f *os.File) []byte {
	buf := make([]byte, MaxHolderBytes)
	n, _ := io.ReadFull(io.NewSectionReader(f, 0, MaxHolderBytes), buf) // best effort: text for people
	return buf[:n]
}

type osLock struct {
	f       *os.File
	name    string
	created bool
	before  []byte
}

func (l *osLock) write(text []byte) error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt(text, 0)
	return err
}

func (l *osLock) Unlock() error { return errors.Join(l.f.Truncate(0), l.f.Close()) }

func (l *osLock) Undo() error {
	if l.created {
		// Removed while it is locked: whoever waits for it sees that the name
		// leads elsewhere and starts again.
		return errors.Join(os.Remove(l.name), l.f.Close())
	}
	return errors.Join(l.write(l.before), l.f.Close())
}
