package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

func lockText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLockNamesItsHolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first, err := vfs.OS{}.Lock(name, "pid 1")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = vfs.OS{}.Lock(name, "pid 2")
	var locked *vfs.LockedError
	if !errors.As(err, &locked) || !errors.Is(err, vfs.ErrLocked) || locked.Holder != "pid 1" {
		t.Fatalf("second Lock: %v", err)
	}
	after, err := os.Stat(name)
	if err != nil || !after.ModTime().Equal(before.ModTime()) || lockText(t, name) != "pid 1\n" {
		t.Fatalf("the second Lock touched the file: %v, %q", err, lockText(t, name))
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	second, err := vfs.OS{}.Lock(name, "pid 2")
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Undo(); err != nil {
		t.Fatal(err)
	}
	if got := lockText(t, name); got != "" {
		t.Fatalf("Undo left %q", got)
	}
}

func TestUndoneLockLeavesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	l, err := vfs.OS{}.Lock(name, "pid 1")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Undo(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Undo left the file: %v", err)
	}
	if err := os.WriteFile(name, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = (vfs.OS{}).Lock(name, "pid 1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Undo(); err != nil {
		t.Fatal(err)
	}
	if got := lockText(t, name); got != "as it was" {
		t.Fatalf("Undo left %q", got)
	}
}

func TestOSFile(t *testing.T) {
	var osFS vfs.OS
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if _, err := osFS.Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open: %v", err)
	}
	f, err := osFS.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := osFS.Create(name, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Create: %v", err)
	}
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{f.Sync(), f.Truncate(4), f.Sync(), osFS.SyncDir(dir), osFS.Rename(name, name+"2")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	info, err := osFS.Stat(name + "2")
	if err != nil || info.SizeBytes != 4 || info.Mode.Perm() != 0o600 {
		t.Fatalf("Stat: %+v, %v", info, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("ReadAt of a closed file: %v", err)
	}
}

func TestLinkAndReadDir(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(b, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (vfs.OS{}).Link(b, a); err != nil {
		t.Fatal(err)
	}
	if err := (vfs.OS{}).Link(b, a); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("Link to a name that is taken: %v", err)
	}
	if err := (vfs.OS{}).Link(b+"2", a+"2"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Link of a file that is not there: %v", err)
	}
	names, err := vfs.OS{}.ReadDir(dir)
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Fatalf("ReadDir: %q, %v", names, err)
	}
	if err := (vfs.OS{}).Remove(b); err != nil || lockText(t, a) != "text" {
		t.Fatalf("after Remove: %v, %q", err, lockText(t, a))
	}
	if _, err := (vfs.OS{}).ReadDir(dir + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("ReadDir of a directory that is not there: %v", err)
	}
}
