package jsonlstore

import (
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// countFSM counts what is applied to it, and remembers it in snapshots.
type countFSM struct {
	mu      sync.Mutex
	applied []string
}

func (f *countFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, string(l.Data))
	return len(f.applied)
}

func (f *countFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := ""
	for _, a := range f.applied {
		text += a + "\n"
	}
	return countSnapshot(text), nil
}

func (f *countFSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = nil
	for {
		var line string
		if _, err := fmt.Fscanln(r, &line); err != nil {
			return nil //nolint:nilerr // the end
		}
		f.applied = append(f.applied, line)
	}
}

type countSnapshot string

func (s countSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, string(s)); err != nil {
		return err
	}
	return sink.Close()
}

func (countSnapshot) Release() {}

// node is one hashicorp/raft node, alone in its cluster, on a store.
type node struct {
	raft  *raft.Raft
	store *Store
	fsm   *countFSM
}

func startNode(t *testing.T, dir string, bootstrap bool) *node {
	t.Helper()
	n := &node{store: mustOpen(t, dir), fsm: &countFSM{}}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, "snap"), 2, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("only")
	conf := raft.DefaultConfig()
	conf.LocalID = "1"
	conf.Logger = hclog.NewNullLogger()
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	conf.CommitTimeout = 2 * time.Millisecond
	conf.TrailingLogs = 5
	if bootstrap {
		first := raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "only"}}}
		if err := raft.BootstrapCluster(conf, n.store, n.store, snaps, trans, first); err != nil {
			t.Fatal(err)
		}
	}
	if n.raft, err = raft.NewRaft(conf, n.fsm, n.store, n.store, snaps, trans); err != nil {
		t.Fatal(err)
	}
	select {
	case leads := <-n.raft.LeaderCh():
		if !leads {
			t.Fatal("the only node lost an election")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the only node was not elected")
	}
	return n
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRaftRunsOnIt has hashicorp/raft itself bootstrap, elect, apply, take a
// snapshot, cut its log, and start again, twice.
func TestRaftRunsOnIt(t *testing.T) {
	dir := t.TempDir()
	const perRun = 30
	want := 0
	var term uint64
	for run := range 3 {
		n := startNode(t, dir, run == 0)
		for i := range perRun {
			future := n.raft.Apply(fmt.Appendf(nil, "run-%d-%d", run, i), 10*time.Second)
			if err := future.Error(); err != nil {
				t.Fatalf("run %d: %v", run, err)
			}
			if want++; future.Response() != want {
				t.Fatalf("run %d: applied as number %v, want %d", run, future.Response(), want)
			}
		}
		if run == 1 {
			if err := n.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			if first, _ := n.store.FirstIndex(); first == 1 {
				t.Error("the snapshot cut nothing off the log")
			}
		}
		now, err := n.store.GetUint64([]byte("CurrentTerm"))
		if err != nil || now <= term {
			t.Errorf("run %d is in term %d after %d: %v", run, now, term, err)
		}
		term = now
		n.stop(t)
		if r, err := Verify(dir); err != nil || !r.OK() || r.Torn != nil {
			t.Errorf("run %d: Verify: %+v, %v", run, r, err)
		}
	}
}
