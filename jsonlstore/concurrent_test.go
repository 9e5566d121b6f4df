package jsonlstore

import (
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
	gate chan struct{} // nil: no waiting
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

// TestReadersDoNotWaitForTheDisk holds a sync up: reads go on meanwhile, and
// WriteInFlight says since when.
func TestReadersDoNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memfs.New()
		first := mustOpen(t, memDir, withFS(mem)) // so that the log is there to be opened
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		fs := &slowFS{FS: mem}
		s := mustOpen(t, memDir, withFS(fs))
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
