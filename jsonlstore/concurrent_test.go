package jsonlstore

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
)

// slowFS lets a sync wait until it is told to go on.
type slowFS struct {
	vfs.FS
	gate   chan struct{}  // a sync waits for it; nil: no waiting
	onRead func(at int64) // called before each read; nil: nothing
}

func (s *slowFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name)
	return slowFile{f, s}, err
}

type slowFile struct {
	vfs.File
	fs *slowFS
}

func (f slowFile) Sync() error {
	if f.fs.gate != nil {
		<-f.fs.gate
	}
	return f.File.Sync()
}

func (f slowFile) ReadAt(p []byte, at int64) (int, error) {
	if f.fs.onRead != nil {
		f.fs.onRead(at)
	}
	return f.File.ReadAt(p, at)
}

// TestReaderOvertakenByTruncation cuts the tail and writes other entries in its
// place just before a reader gets to the bytes: it must not return what is not
// durable yet.
func TestReaderOvertakenByTruncation(t *testing.T) {
	mem := memfs.New()
	if err := mustOpen(t, memDir, onMem(mem)).Close(); err != nil {
		t.Fatal(err)
	}
	fs := &slowFS{FS: mem}
	s := mustOpen(t, memDir, onMem(fs))
	for i := range uint64(4) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Data: []byte("old")}); err != nil {
			t.Fatal(err)
		}
	}
	from, _ := s.snap.Load().span(3)
	stored := make(chan error, 1)
	fs.onRead = func(at int64) {
		if at != from {
			return
		}
		fs.onRead = nil
		if err := s.DeleteRange(3, 4); err != nil {
			t.Error(err)
		}
		before := mem.Ops()
		fs.gate = make(chan struct{})
		go func() { stored <- s.StoreLog(&raft.Log{Index: 3, Data: []byte("new")}) }()
		for mem.Ops() == before { // until it is written, which needs no time
			runtime.Gosched()
		}
	}
	var l raft.Log
	if err := s.GetLog(3, &l); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares by identity
		t.Errorf("GetLog = %+v, %v", l, err)
	}
	close(fs.gate)
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(3, &l); err != nil || string(l.Data) != "new" {
		t.Errorf("GetLog = %+v, %v", l, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReaderOvertakenByRewrite moves the log to another file just before a
// reader gets to the bytes.
func TestReaderOvertakenByRewrite(t *testing.T) {
	mem := memfs.New()
	if err := mustOpen(t, memDir, onMem(mem)).Close(); err != nil {
		t.Fatal(err)
	}
	fs := &slowFS{FS: mem}
	s := mustOpen(t, memDir, onMem(fs))
	defer s.Close()
	for i := range uint64(4) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Data: []byte{'a' + byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	fs.onRead = func(int64) {
		fs.onRead = nil
		if err := s.DeleteRange(1, 2); err != nil {
			t.Error(err)
		}
	}
	var l raft.Log
	if err := s.GetLog(4, &l); err != nil || string(l.Data) != "d" {
		t.Errorf("GetLog = %+v, %v", l, err)
	}
}

// TestOldSnapshotsStayAsTheyAre: a reader's snapshot is not touched by what the
// writer does afterwards.
func TestOldSnapshotsStayAsTheyAre(t *testing.T) {
	var cur snapshot
	const n = chunkLen + chunkLen/2
	for i := range uint64(n) {
		cur.add(i+10, int64(i*7), int64(i*7+7))
	}
	check := func(s *snapshot, count int) {
		t.Helper()
		if s.count != count {
			t.Fatalf("holds %d entries, want %d", s.count, count)
		}
		for i := range count {
			index := s.base + uint64(i)
			from, to := s.span(index)
			if want := int64(index-10) * 7; from != want || to != want+7 {
				t.Fatalf("entry %d lies at %d to %d, want %d to %d", index, from, to, want, want+7)
			}
		}
	}
	check(&cur, n)
	old := cur
	cur.cutOpen(chunkLen + 3)
	check(&cur, chunkLen+3)
	for i := range uint64(chunkLen) {
		cur.add(cur.last()+1, 1<<40+int64(i), 1<<40+int64(i)+1)
	}
	check(&old, n)
	x := old.index()
	next := snapshot{first: 12, parts: []*sealedPart{{partHead: x.partHead}}}
	next.add(old.last()+1, 0, 9)
	if next.firstIndex() != 12 || next.last() != old.last()+1 || next.partOf(12) != 0 || next.partOf(old.last()) != 0 {
		t.Fatalf("%+v", next)
	}
	again := next
	again.reopen(x, nil, 10+chunkLen)
	check(&again, chunkLen+1)
	if again.firstIndex() != 12 || len(again.parts) != 0 || len(next.parts) != 1 {
		t.Fatalf("%+v", again)
	}
	again.cutOpen(0)
	again.add(99, 0, 5)
	if from, to := again.span(99); from != 0 || to != 5 || again.firstIndex() != 99 {
		t.Fatalf("the first entry of an emptied log lies at %d to %d", from, to)
	}
	check(&old, n)
}

// TestReadersDoNotWaitForTheDisk holds a sync up: reads go on meanwhile, and
// WriteInFlight says since when.
func TestReadersDoNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memfs.New()
		first := mustOpen(t, memDir, onMem(mem)) // so that the log is there to be opened
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		fs := &slowFS{FS: mem}
		s := mustOpen(t, memDir, onMem(fs))
		defer s.Close()
		if err := s.StoreLog(&raft.Log{Index: 1, Data: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		fs.gate = make(chan struct{})
		start := time.Now()
		stored := make(chan error)
		go func() { stored <- s.StoreLog(&raft.Log{Index: 2}) }()
		synctest.Wait() // the writer waits for the disk
		time.Sleep(3 * time.Second)

		var l raft.Log
		if err := s.GetLog(1, &l); err != nil || string(l.Data) != "one" {
			t.Errorf("GetLog: %v", err)
		}
		if last, err := s.LastIndex(); last != 1 || err != nil {
			t.Errorf("LastIndex = %d, %v: not durable yet", last, err)
		}
		if err := s.GetLog(2, &l); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares by identity
			t.Errorf("GetLog of an entry that is not durable yet: %v", err)
		}
		if _, err := s.GetUint64([]byte("CurrentTerm")); err == nil || err.Error() != "not found" {
			t.Errorf("GetUint64: %v", err)
		}
		if err := s.StageCommitIndex(1); err != nil {
			t.Error(err)
		}
		if since := s.WriteInFlight(); !since.Equal(start) || time.Since(since) != 3*time.Second {
			t.Errorf("WriteInFlight says since %v, it was %v", since, start)
		}
		close(fs.gate)
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
		if since := s.WriteInFlight(); !since.IsZero() {
			t.Errorf("WriteInFlight says since %v, but nothing is written", since)
		}
		if err := s.GetLog(2, &l); err != nil {
			t.Error(err)
		}
	})
}
