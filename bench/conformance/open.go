package conformance

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"

	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/boltstore"
	"github.com/aiondb/aiondb-ha/logstore/walstore"
)

// raw has the methods that the libraries lack, and checks nothing.
type raw struct {
	logstore.Raw
}

// IsMonotonic implements raft.MonotonicLogStore.
func (r raw) IsMonotonic() bool {
	m, ok := r.Raw.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StageCommitIndex implements logstore.CommitTracker: it forgets the index.
func (raw) StageCommitIndex(uint64) error { return nil }

// GetCommitIndex implements logstore.CommitTracker.
func (raw) GetCommitIndex() (uint64, error) { return 0, nil }

// WriteInFlight implements logstore.Store.
func (raw) WriteInFlight() time.Time { return time.Time{} }

func openJSONL(t testing.TB, dir string) logstore.Store { return opened(jsonlstore.Open(dir))(t) }

func openMemory(testing.TB, string) logstore.Store { return logstore.NewMemory() }

func openRawBolt(t testing.TB, dir string) logstore.Store { return raw{bolt(t, dir, false)} }

func openCheckedBolt(t testing.TB, dir string) logstore.Store {
	return logstore.Checked(bolt(t, dir, false))
}

func boltPath(dir string) string { return filepath.Join(dir, "raft.db") }

// bolt opens a real raft-boltdb. What the tests write need not survive them.
func bolt(t testing.TB, dir string, newTimes bool) *raftboltdb.BoltStore {
	t.Helper()
	return opened(raftboltdb.New(raftboltdb.Options{Path: boltPath(dir), NoSync: true, MsgpackUseNewTimeFormat: newTimes}))(t)
}

func openBoltstore(t testing.TB, dir string) logstore.Store {
	return logstore.Checked(opened(boltstore.Open(boltPath(dir), boltstore.Options{NoSync: true}))(t))
}

func openRawWAL(t testing.TB, dir string) logstore.Store {
	return raw{opened(wal.Open(dir, wal.WithLogger(hclog.NewNullLogger())))(t)}
}

func openWalstore(t testing.TB, dir string) logstore.Store {
	return logstore.Checked(opened(walstore.Open(dir))(t))
}

// opened ends the test if there is an error.
func opened[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
