package jsonlstore

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// entryOfLine returns an entry whose line is size bytes long.
func entryOfLine(t *testing.T, index, batch uint64, size int) *raft.Log {
	t.Helper()
	for n := range size {
		l := &raft.Log{Index: index, Term: 1, Data: fmt.Appendf(nil, `{"UpdateConfig":{"key":"k","value":"%s"}}`, strings.Repeat("v", n))}
		if len(appendLine(nil, l, 0, batch)) == size {
			return l
		}
	}
	t.Fatal("no such entry")
	return nil
}

// TestCrashOfLinesThatAreSectors loses every subset of the sectors of a batch whose
// lines are whole sectors, in room: nothing but blanks tells that there was a
// line.
func TestCrashOfLinesThatAreSectors(t *testing.T) {
	const size = vfs.SectorSize
	for _, shape := range [][]int{{size, size, size, size}, {size, 2 * size, size}, {size / 2, size / 2, size, size}, {100, size - 100, size, size, 300},
		{size + 1, size, size, 300}, {size / 2, size/2 + 1, size, 300}} {
		for _, before := range []int{0, 1} { // batches that fill a sector
			fs := memfs.New()
			fs.Hook = nil
			s, err := Open(memDir, onMem(fs), func(o *options) { o.room = 20 * size })
			if err != nil {
				t.Fatal(err)
			}
			h := history{acked: logstore.NewMemory()}
			if before == 0 { // room without an entry
				if err := s.StoreLog(&raft.Log{Index: 1}); err != nil {
					t.Fatal(err)
				}
				end := s.snap.Load().end
				if _, err := s.snap.Load().file.WriteAt(bytes.Repeat([]byte{' '}, int(end)), 0); err != nil {
					t.Fatal(err)
				}
				if err := s.snap.Load().file.Sync(); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, memDir, onMem(fs), func(o *options) { o.room = 20 * size })
			}
			for i := range before {
				l := entryOfLine(t, uint64(i)+1, 0, size)
				for _, store := range []logstore.Store{s, h.acked} {
					if err := store.StoreLog(l); err != nil {
						t.Fatal(err)
					}
				}
			}
			var logs []*raft.Log
			first := uint64(before) + 1
			for i, size := range shape {
				batch := first
				if i == 0 {
					batch = 0
				}
				logs = append(logs, entryOfLine(t, first+uint64(i), batch, size))
			}
			op := storetest.Op{Name: fmt.Sprint("batch of ", shape), Do: func(s logstore.Store) error { return s.StoreLogs(logs) }}
			fs.Hook = func(op memfs.Op) memfs.Verdict { return memfs.Verdict{Crash: op.Kind == memfs.Sync} }
			if err := op.Do(s); err == nil {
				t.Fatal("the machine did not stop")
			}
			h.inFlight = &op
			probe := &memfs.Subset{}
			fs.CrashClone(probe)
			for bits := range uint64(1) << probe.N {
				checkImage(t, h, fs.CrashClone(&memfs.Subset{Bits: bits}), fmt.Sprintf("%v behind %d, keeping %b", shape, before, bits))
			}
		}
	}
}

// TestAppendIntoRoom: a batch that fits in the room leaves the file's length
// alone, and neither closing nor opening the store costs the room.
func TestAppendIntoRoom(t *testing.T) {
	fs := memfs.New()
	room := func(o *options) { o.room = 4000 }
	s := mustOpen(t, memDir, onMem(fs), room)
	size := -1
	for i := range uint64(20) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Data: []byte("some data")}); err != nil {
			t.Fatal(err)
		}
		got := len(fs.Files()[memLog])
		if size < 0 {
			size = got
		}
		if got != size {
			t.Fatalf("entry %d: %d bytes, before %d", i+1, got, size)
		}
		if i%5 == 4 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, memDir, onMem(fs), room)
		}
	}
	r, err := Verify(memDir, onMem(fs))
	if err != nil || !r.OK() || r.Torn != nil || r.Lines != 20 || r.Bytes != s.snap.Load().end || r.RoomBytes != int64(size)-r.Bytes {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoRoomForRoom: the disk has room for entries and not for blanks.
func TestNoRoomForRoom(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	defer s.Close()
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		if op.Kind == memfs.Write && op.Len == testRoom {
			return memfs.Verdict{Err: syscall.ENOSPC, Short: 17}
		}
		return memfs.Verdict{}
	}
	ref := logstore.NewMemory()
	for i := range uint64(5) {
		for _, store := range []logstore.Store{s, ref} {
			if err := store.StoreLog(&raft.Log{Index: i + 1, Data: make([]byte, 300)}); err != nil {
				t.Fatal(err)
			}
		}
		checkImage(t, history{acked: ref.Clone()}, fs.CrashClone(memfs.LoseEverything), "no room for room")
	}
}
