package memfs_test

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
)

func create(t *testing.T, m *memfs.FS, name, text string) vfs.File {
	t.Helper()
	f, err := m.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, 0, text)
	return f
}

func write(t *testing.T, f vfs.File, at int64, text string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, m *memfs.FS, want map[string]string) {
	t.Helper()
	got := m.Files()
	if len(got) != len(want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	for name, text := range want {
		if data, ok := got[name]; !ok || string(data) != text {
			t.Fatalf("files %q, want %q", got, want)
		}
	}
}

func TestOnlyWhatWasSyncedSurvives(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "one")
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{})
	must(t, f.Sync()) // the bytes, not the name
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{})
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": "one"})
	must(t, m.SyncDir("/"))
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one"})

	write(t, f, 1, "NE more")
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one"})
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": "oNE more"})
	must(t, f.Truncate(2))
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one"})
	must(t, f.Sync())
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "oN"})

	g := create(t, m, "/b", "two")
	must(t, g.Sync())
	must(t, m.Rename("/b", "/a"))
	check(t, m, map[string]string{"/a": "two"})
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "oN"})
	must(t, m.SyncDir("/"))
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "two"})
	must(t, m.Remove("/a"))
	check(t, m, map[string]string{})
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "two"})
}

func TestSectorsAreLostOneByOne(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "")
	must(t, m.SyncDir("/"))
	text := make([]byte, 2*vfs.SectorSize+10)
	for i := range text {
		text[i] = 'x'
	}
	write(t, f, 0, string(text))
	seen := make(map[string]bool)
	for bits := range uint64(16) {
		data := m.CrashClone(&memfs.Subset{Bits: bits}).Files()["/a"]
		pattern := ""
		for at := 0; at < len(data); at += vfs.SectorSize {
			pattern += map[byte]string{'x': "x", 0: "0"}[data[at]]
		}
		seen[pattern] = true
	}
	for _, want := range []string{"", "x", "xx", "xxx", "0x", "00x", "x0x", "0xx", "000", "x00", "xx0", "0x0"} {
		if !seen[want] {
			t.Errorf("no crash leaves the sectors %q; those seen: %v", want, seen)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("impossible: %v", seen)
	}
}

func TestForgottenSync(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "")
	must(t, m.SyncDir("/"))
	write(t, f, 0, "one")
	m.Hook = func(op memfs.Op) memfs.Verdict { return memfs.Verdict{Err: syscall.EIO, Forget: true} }
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	m.Hook = nil
	must(t, f.Sync())
	check(t, m, map[string]string{"/a": "one"})
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": ""})
	write(t, f, 0, "one")
	must(t, f.Sync())
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": "one"})
}

func TestHookStopsTheMachine(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "")
	must(t, m.SyncDir("/"))
	at := m.Ops() + 1
	m.Hook = func(op memfs.Op) memfs.Verdict { return memfs.Verdict{Crash: op.N == at, Short: 2} }
	if n, err := f.WriteAt([]byte("abc"), 0); n != 2 || !errors.Is(err, memfs.ErrCrashed) {
		t.Fatal(n, err)
	}
	for _, err := range []error{f.Sync(), f.Truncate(0), m.Remove("/a"), m.SyncDir("/"), m.Mkdir("/d", 0o700)} {
		if !errors.Is(err, memfs.ErrCrashed) {
			t.Error(err)
		}
	}
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": "ab"})
}

func TestLock(t *testing.T) {
	m := memfs.New()
	l, err := m.Lock("/lock", "me")
	must(t, err)
	_, err = m.Lock("/lock", "you")
	var locked *vfs.LockedError
	if !errors.As(err, &locked) || locked.Holder != "me" {
		t.Fatal(err)
	}
	must(t, l.Undo())
	if _, err := m.Stat("/lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l, err = m.Lock("/lock", "you")
	must(t, err)
	must(t, l.Unlock())
	check(t, m, map[string]string{"/lock": ""})
}

func TestLinkIsASecondName(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "one")
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	if err := m.Link("/c", "/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, m.Link("/a", "/b"))
	if err := m.Link("/a", "/b"); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	check(t, m, map[string]string{"/a": "one", "/b": "one"})
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one"})
	must(t, m.SyncDir("/"))
	write(t, f, 0, "two")
	check(t, m, map[string]string{"/a": "two", "/b": "two"})
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one", "/b": "one"})
	check(t, m.CrashClone(memfs.LoseNothing), map[string]string{"/a": "two", "/b": "two"})
	after := m.CrashClone(memfs.LoseNothing) // still one file
	g, err := after.OpenReadWrite("/b")
	must(t, err)
	write(t, g, 0, "six")
	check(t, after, map[string]string{"/a": "six", "/b": "six"})
	must(t, m.Rename("/b", "/c"))
	must(t, m.Remove("/a"))
	check(t, m, map[string]string{"/c": "two"})
	names, err := m.ReadDir("/")
	if err != nil || !slices.Equal(names, []string{"c"}) {
		t.Fatal(names, err)
	}
	if _, err := m.ReadDir("/c"); !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	if _, err := m.ReadDir("/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestRestartLosesNothingYet(t *testing.T) {
	m := memfs.New()
	f := create(t, m, "/a", "one")
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	_, err := m.Lock("/lock", "me")
	must(t, err)
	m.Hook = func(op memfs.Op) memfs.Verdict { return memfs.Verdict{Crash: op.Kind == memfs.Sync} }
	write(t, f, 0, "two")
	if err := f.Sync(); !errors.Is(err, memfs.ErrCrashed) {
		t.Fatal(err)
	}
	m.Restart()
	_, err = m.Lock("/lock", "you")
	must(t, err)
	check(t, m, map[string]string{"/a": "two", "/lock": "you"})
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "one"})
	g, err := m.Open("/a")
	must(t, err)
	must(t, g.Sync())
	check(t, m.CrashClone(memfs.LoseEverything), map[string]string{"/a": "two"})
}
