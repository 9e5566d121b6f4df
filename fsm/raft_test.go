package fsm

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestCommandIndex(t *testing.T) {
	f := New(nil)
	log := raft.NewInmemStore()
	store := func(index uint64, kind raft.LogType) {
		t.Helper()
		if err := log.StoreLog(&raft.Log{Index: index, Term: 1, Type: kind}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(commit, want uint64) {
		t.Helper()
		if got, err := f.CommandIndex(log, commit); err != nil || got != want {
			t.Errorf("last command up to %d: %d, %v, want %d", commit, got, err, want)
		}
	}
	look(0, 0)
	store(1, raft.LogConfiguration)
	store(2, raft.LogNoop)
	look(2, 0)
	store(3, raft.LogCommand)
	store(4, raft.LogCommand)
	store(5, raft.LogBarrier)
	store(6, raft.LogNoop)
	store(7, raft.LogCommand)
	look(3, 3)
	look(4, 4)
	look(6, 4)
	look(7, 7)
	apply(t, f, 3, command.Noop{})
	look(6, 4)
	apply(t, f, 4, command.Noop{})
	look(6, 4)
	apply(t, f, 7, command.Noop{})
	look(6, 6) // applied further: no need to look
	look(7, 7)
	store(8, raft.LogNoop)
	look(8, 7)

	if got, err := f.CommandIndex(log, 9); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that is not there yet: %d, %v", got, err)
	}
	broken := errors.New("disk on fire")
	if got, err := f.CommandIndex(brokenLog{log, broken}, 8); !errors.Is(err, broken) {
		t.Errorf("a broken log: %d, %v", got, err)
	}
	if err := log.DeleteRange(1, 8); err != nil { // a snapshot covers them
		t.Fatal(err)
	}
	store(9, raft.LogNoop)
	look(9, 7)
	look(8, 7)
	look(3, 3)
	if got, err := f.CommandIndex(raft.NewInmemStore(), 9); err != nil || got != 7 { // covers all of them
		t.Errorf("an empty log: %d, %v", got, err)
	}
}

type brokenLog struct {
	raft.LogStore
	err error
}

func (l brokenLog) GetLog(uint64, *raft.Log) error { return l.err }

// The FSM under Raft itself: applied, snapshotted, and restored by a second
// instance from the same stores.
func TestUnderRaft(t *testing.T) {
	const id = "1"
	logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	start := func(f *FSM) *raft.Raft {
		t.Helper()
		address, transport := raft.NewInmemTransport("")
		conf := raft.DefaultConfig()
		conf.LocalID = id
		conf.Logger = hclog.NewNullLogger()
		conf.HeartbeatTimeout, conf.ElectionTimeout = 50*time.Millisecond, 50*time.Millisecond
		conf.LeaderLeaseTimeout, conf.CommitTimeout = 50*time.Millisecond, 5*time.Millisecond
		conf.TrailingLogs = 1
		if has, err := raft.HasExistingState(logs, logs, snapshots); err != nil {
			t.Fatal(err)
		} else if !has {
			servers := raft.Configuration{Servers: []raft.Server{{ID: id, Address: address}}}
			if err := raft.BootstrapCluster(conf, logs, logs, snapshots, transport, servers); err != nil {
				t.Fatal(err)
			}
		}
		r, err := raft.NewRaft(conf, f, logs, logs, snapshots, transport)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		})
		select {
		case <-r.LeaderCh():
		case <-time.After(20 * time.Second):
			t.Fatal("no leader")
		}
		return r
	}
	f := New(nil)
	r := start(f)
	for _, c := range []command.Command{command.AddNode{NodeID: 1, Address: "a:1"}, put("k", "v")} {
		data, err := command.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		future := r.Apply(data, time.Second)
		if err := future.Error(); err != nil {
			t.Fatal(err)
		}
		if result, ok := future.Response().(Result); !ok || !result.Changed || result.Index != future.Index() {
			t.Fatalf("%s: %+v", data, future.Response())
		}
	}
	if err := r.Barrier(time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	// The barrier is committed, and no command: waiting for its index would be in vain.
	index, err := f.CommandIndex(logs, r.CommitIndex())
	if err != nil || index >= r.CommitIndex() {
		t.Fatalf("last command %d of %d, %v", index, r.CommitIndex(), err)
	}
	if err := f.Wait(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	if err := r.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}

	g := New(nil)
	r = start(g)
	if index, err = g.CommandIndex(logs, r.CommitIndex()); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	if got, want := dump(t, g), dump(t, f); got != want {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}

	// What it cannot read halts it, and Raft keeps the entry: no snapshot.
	future := r.Apply([]byte(`{"FromTheFuture":{}}`), time.Second)
	if err := future.Error(); err != nil {
		t.Fatal(err)
	}
	if err, ok := future.Response().(error); !ok || !errors.Is(err, ErrHalted) {
		t.Errorf("response %+v", future.Response())
	}
	// Raft gives on the text of our error, and not the error.
	if err := r.Snapshot().Error(); err == nil || !strings.Contains(err.Error(), ErrHalted.Error()) {
		t.Errorf("snapshot: %v", err)
	}
}
