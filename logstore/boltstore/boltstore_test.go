package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/boltstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func open(t testing.TB, path string, o boltstore.Options) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func samples() []*raft.Log {
	return []*raft.Log{
		{Index: 5, Term: 1, Type: raft.LogCommand, Data: []byte("plain")},
		{Index: 6, Term: 1, Type: raft.LogNoop},
		{Index: 7, Term: 2, Type: raft.LogCommand, Data: []byte{}, Extensions: []byte{0, 255}},
		{Index: 8, Term: 1 << 62, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{7}, 70000), AppendedAt: time.Unix(1700000000, 123456789)},
	}
}

// write makes a file with the sample entries and a few stable values.
func write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, boltstore.Options{})
	if err := s.StoreLogs(samples()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 9), s.Set([]byte("a"), []byte("b")), s.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	s := open(t, write(t), boltstore.Options{ReadOnly: true})
	first, err := s.FirstIndex()
	last, err2 := s.LastIndex()
	if err != nil || err2 != nil || first != 5 || last != 8 {
		t.Fatalf("bounds %d to %d (%v, %v), want 5 to 8", first, last, err, err2)
	}
	for _, want := range samples() {
		var l raft.Log
		if err := s.GetLog(want.Index, &l); err != nil || !storetest.Same(&l, want) {
			t.Fatalf("GetLog(%d): %v, %v; want %v", want.Index, l, err, want)
		}
	}
	n := 0
	err = s.Each(6, func(l *raft.Log) bool {
		if want := samples()[n+1]; !storetest.Same(l, want) {
			t.Fatalf("Each gives %v, want %v", l, want)
		}
		n++
		return n < 2
	})
	if err != nil || n != 2 {
		t.Fatalf("Each gave %d entries: %v", n, err)
	}
	var l raft.Log
	if err := s.GetLog(9, &l); err != raft.ErrLogNotFound { //nolint:errorlint // the bare error is the contract
		t.Fatalf("GetLog(9): %v", err)
	}
	keys, err := s.Keys()
	if err != nil || fmt.Sprintf("%s", keys) != "[CurrentTerm a]" {
		t.Fatalf("Keys: %q, %v", keys, err)
	}
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 9 || err != nil {
		t.Fatalf("GetUint64: %d, %v", v, err)
	}
	if _, err := s.GetUint64([]byte("a")); err == nil {
		t.Fatal("GetUint64 of a value of one byte succeeds")
	}
	if v, err := s.Get([]byte("none")); v != nil || err != logstore.ErrKeyNotFound { //nolint:errorlint // the bare error is the contract
		t.Fatalf("Get of a missing key: %q, %v", v, err)
	}
}

// TestBothFormsOfTime reads entries as go-msgpack writes them by default, with
// the time as an extension, and in the older form.
func TestBothFormsOfTime(t *testing.T) {
	for _, notBuiltin := range []bool{false, true} {
		path := write(t)
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := &raft.Log{Index: 9, Term: 3, Data: []byte("x"), AppendedAt: time.Unix(1<<34+1, 999_999_999)}
		var h codec.MsgpackHandle
		h.TimeNotBuiltin = notBuiltin
		var value []byte
		if err := codec.NewEncoderBytes(&value, &h).Encode(want); err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("logs")).Put([]byte{0, 0, 0, 0, 0, 0, 0, 9}, value)
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		if err := open(t, path, boltstore.Options{ReadOnly: true}).GetLog(9, &got); err != nil || !storetest.Same(&got, want) {
			t.Errorf("TimeNotBuiltin %v: %v, %v", notBuiltin, got, err)
		}
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store {
		s, err := boltstore.Open(filepath.Join(t.TempDir(), "raft.db"), boltstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return logstore.Checked(s)
	}, storetest.Deviation{Check: "EmptyKey", Reason: "bbolt has no empty keys"})
}

func TestDeleteRange(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), boltstore.Options{NoSync: true})
	var logs []*raft.Log
	for i := uint64(1); i <= 3000; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1, Data: []byte("x")})
	}
	if err := errors.Join(s.StoreLogs(logs), s.DeleteRange(0, 1000), s.DeleteRange(2501, 9000)); err != nil {
		t.Fatal(err)
	}
	n := uint64(1001)
	if err := s.Each(0, func(l *raft.Log) bool {
		if l.Index != n {
			t.Fatalf("index %d, want %d", l.Index, n)
		}
		n++
		return true
	}); err != nil || n != 2501 {
		t.Fatalf("the entries end before %d: %v", n, err)
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	path := write(t)
	before, _ := os.ReadFile(path)
	s := open(t, path, boltstore.Options{ReadOnly: true})
	if _, err := s.Keys(); err != nil {
		t.Fatal(err)
	}
	if s.Set([]byte("x"), nil) == nil || s.Close() != nil || s.Close() != nil {
		t.Fatal("writing to a file opened for reading succeeds, or closing it fails")
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Fatal("the file has changed")
	}
	if _, err := s.FirstIndex(); !errors.Is(err, logstore.ErrClosed) {
		t.Fatalf("FirstIndex after Close: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "none.db")
	if _, err := boltstore.Open(missing, boltstore.Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("opening a missing file for reading: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Fatal("opening for reading made a file")
	}
}

func TestInUse(t *testing.T) {
	path := write(t)
	holder := open(t, path, boltstore.Options{})
	for _, o := range []boltstore.Options{{}, {ReadOnly: true}} {
		if _, err := boltstore.Open(path, o); !errors.Is(err, logstore.ErrInUse) {
			t.Fatalf("opening a file in use: %v", err)
		}
	}
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, boltstore.Options{ReadOnly: true})
}

func TestNotOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := boltstore.Open(path, boltstore.Options{ReadOnly: true}); !errors.Is(err, boltstore.ErrNotRaft) {
		t.Fatalf("a database of another program: %v", err)
	}
	for _, content := range []string{"", "hello", string(make([]byte, 8192))} {
		os.WriteFile(path, []byte(content), 0o600)
		if _, err := boltstore.Open(path, boltstore.Options{ReadOnly: true}); !errors.Is(err, logstore.ErrCorrupt) {
			t.Fatalf("a file of %d bytes: %v", len(content), err)
		}
	}
	if _, err := boltstore.Open(t.TempDir(), boltstore.Options{ReadOnly: true}); !errors.Is(err, boltstore.ErrNotRaft) {
		t.Fatalf("a directory: %v", err)
	}
}

// TestDamage cuts the file short, and overwrites bytes anywhere in it. Reading
// it must end, without a panic and without a fault, and a file that is too
// short must be refused.
func TestDamage(t *testing.T) {
	good, err := os.ReadFile(write(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "raft.db")
	read := func() error { return readAll(path) }
	os.WriteFile(path, good, 0o600)
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(good); size += 512 {
		os.WriteFile(path, good[:size], 0o600)
		if err := read(); err == nil && size < len(good)/2 {
			t.Fatalf("a file cut to %d of %d bytes is read", size, len(good))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		bad := bytes.Clone(good)
		for range 1 + rng.IntN(8) {
			at := rng.IntN(len(bad))
			if rng.IntN(2) == 0 {
				at = rng.IntN(len(bad)/4096) * 4096 // the header of a page
				at += rng.IntN(32)
			}
			bad[at] ^= byte(1 + rng.IntN(255))
		}
		os.WriteFile(path, bad, 0o600)
		_ = read() // an error, or entries that the damage did not reach
	}
}

// many makes a file whose tree has branches, and returns it.
func many(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, boltstore.Options{NoSync: true})
	var logs []*raft.Log
	for i := uint64(1); i <= 500; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 100)})
	}
	logs = append(logs, &raft.Log{Index: 501, Term: 1, Data: bytes.Repeat([]byte{1}, 20_000)}) // several pages for one
	if err := errors.Join(s.StoreLogs(logs), s.DeleteRange(1, 100), s.SetUint64([]byte("CurrentTerm"), 9), s.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// readAll opens a file and reads everything in it.
func readAll(path string) error {
	s, err := boltstore.Open(path, boltstore.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	_, keysErr := s.Keys()
	return errors.Join(keysErr, s.Each(0, func(*raft.Log) bool { return true }))
}

// TestLinksAreChecked leads each branch of a tree to where it must not lead, and
// spoils what pages say of themselves. bbolt would go in circles, until the
// stack is full, or read elsewhere.
func TestLinksAreChecked(t *testing.T) {
	good := many(t)
	pageBytes := os.Getpagesize()
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := errors.Join(os.WriteFile(path, good, 0o600), readAll(path)); err != nil {
		t.Fatal(err)
	}
	live := reachable(t, good, pageBytes)
	found := make(map[string]int)
	try := func(name string, change func(page []byte), page int) {
		t.Helper()
		bad := bytes.Clone(good)
		change(bad[page*pageBytes:])
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := readAll(path); !errors.Is(err, logstore.ErrCorrupt) {
			t.Errorf("page %d, %s: %v", page, name, err)
		}
		found[name]++
	}
	order := binary.NativeEndian
	for page := range live {
		branch := order.Uint16(good[page*pageBytes+8:]) == 1
		if branch {
			for i, to := range map[string]uint64{"to itself": uint64(page), "to a description": 1, "beyond the end": 1 << 40,
				"to the first leaf twice": order.Uint64(good[page*pageBytes+16+8:])} {
				try(i, func(p []byte) { order.PutUint64(p[16+16+8:], to) }, page)
			}
			try("a branch of nothing", func(p []byte) { order.PutUint16(p[10:], 0) }, page)
		}
		try("another number", func(p []byte) { order.PutUint64(p, uint64(page+1)) }, page)
		try("other flags", func(p []byte) { order.PutUint16(p[8:], 0x10) }, page)
		try("more pages", func(p []byte) { order.PutUint32(p[12:], 1<<30) }, page)
		try("more elements", func(p []byte) { order.PutUint16(p[10:], 60000) }, page)
		size := 4 // of a key, in an element of a branch
		if !branch {
			size = 12 // of a value, in one of a leaf
		}
		try("an element that is too long", func(p []byte) { order.PutUint32(p[16+size:], 1<<20) }, page)
	}
	for _, name := range []string{"to itself", "another number"} {
		if found[name] == 0 {
			t.Errorf("%s was never tried", name)
		}
	}
}

// reachable returns the pages in use that hold anything, from a list that
// bbolt makes.
func reachable(t testing.TB, file []byte, pageBytes int) map[int]bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pages := make(map[int]bool)
	err = db.View(func(tx *bbolt.Tx) error {
		for id := 2; id < len(file)/pageBytes; {
			info, err := tx.Page(id)
			if err != nil || info == nil {
				return err
			}
			if info.Type == "branch" || info.Type == "leaf" && info.Count > 0 {
				pages[id] = true
			}
			id += 1 + info.OverflowCount
		}
		return nil
	})
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	return pages
}

// FuzzOpen reads files that anybody may have made: there is an error or there
// are entries, but no panic, no fault, and an end.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	small := filepath.Join(f.TempDir(), "small.db")
	db, err := bbolt.Open(small, 0o600, &bbolt.Options{PageSize: 512})
	if err != nil {
		f.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"logs", "conf"} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		f.Fatal(err)
	}
	s := open(f, small, boltstore.Options{})
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 3), s.StoreLogs(samples()[:3]), s.Close()); err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile(small)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, file []byte) {
		file = bytes.Clone(file)
		for _, page := range []int{0, 512} { // no fuzzer finds a checksum
			if at := page + 16; len(file) >= at+64 {
				sum := fnv.New64a()
				sum.Write(file[at : at+56])
				binary.NativeEndian.PutUint64(file[at+56:], sum.Sum64())
			}
		}
		path := filepath.Join(t.TempDir(), "raft.db")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = readAll(path)
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
			t.Fatal("reading changed the file")
		}
	})
}
