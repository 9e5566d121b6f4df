package jsonlstore

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
)

// TestEncodingAllocatesNothing, once the buffer has its size.
func TestEncodingAllocatesNothing(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for _, data := range []string{"opaque bytes", `{"KvWrite":{"key":[1,2],"value":[3]}}`, `{"RemoveNode":{"node_id":3}}`} {
		l := &raft.Log{Index: 700, Term: 3, Data: []byte(data), Extensions: []byte("x"), AppendedAt: at}
		var buf []byte
		if allocs := testing.AllocsPerRun(100, func() { buf = appendLine(buf[:0], l, 5, 699) }); allocs != 0 {
			t.Errorf("%s: %v allocations", data, allocs)
		}
	}
}

// TestAppendAllocatesTheSnapshotAlone: what readers are given is new each time,
// and nothing else.
func TestAppendAllocatesTheSnapshotAlone(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	logs := []*raft.Log{{Term: 1, Data: []byte("some data")}, {Term: 1, Data: []byte(`{"RemoveNode":{"node_id":3}}`)}}
	next := uint64(1)
	allocs := testing.AllocsPerRun(300, func() {
		for _, l := range logs {
			l.Index = next
			next++
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 1 && !raceEnabled {
		t.Errorf("%v allocations", allocs)
	}
}

// TestReadAhead: who reads entry after entry has several read at once, and is
// not given old bytes once they have been replaced.
func TestReadAhead(t *testing.T) {
	mem := memfs.New()
	if err := mustOpen(t, memDir, onMem(mem)).Close(); err != nil {
		t.Fatal(err)
	}
	fs := &slowFS{FS: mem}
	s := mustOpen(t, memDir, onMem(fs))
	defer s.Close()
	const n = 300
	write := func(from uint64, term uint64) {
		t.Helper()
		var logs []*raft.Log
		for i := from; i <= n; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: term, Data: []byte("some data")})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	reads := 0
	fs.onRead = func(int64) { reads++ }
	read := func(from uint64, term uint64) {
		t.Helper()
		for i := from; i <= n; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || l.Index != i || l.Term != term {
				t.Fatalf("GetLog(%d) = %+v, %v; want term %d", i, l, err, term)
			}
		}
	}
	write(1, 1)
	read(1, 1)
	if reads > n/4 && !raceEnabled {
		t.Errorf("%d reads of the file for %d entries", reads, n)
	}
	read(200, 1) // leaves the end of the log in the buffer
	if err := s.DeleteRange(220, n); err != nil {
		t.Fatal(err)
	}
	write(220, 2)
	read(220, 2)
	if err := s.DeleteRange(1, 250); err != nil {
		t.Fatal(err)
	}
	read(251, 2)
}
