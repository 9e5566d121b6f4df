package transport

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/protocol"
)

// nullFSM applies nothing.
type nullFSM struct{}

func (nullFSM) Apply(l *raft.Log) any { return string(l.Data) }
func (nullFSM) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("no snapshots here")
}
func (nullFSM) Restore(r io.ReadCloser) error { return r.Close() }

type raftNode struct {
	mux  *Mux
	raft *raft.Raft
	tran *RaftTransport
}

func (n *raftNode) stop(t *testing.T) {
	t.Helper()
	if err := n.raft.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(n.tran.Close(), n.mux.Close()); err != nil {
		t.Error(err)
	}
}

// TestRaftElectsALeader runs three real Raft nodes over the port, and two
// after the leader is gone.
func TestRaftElectsALeader(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	var nodes []*raftNode
	var servers []raft.Server
	book := &phonebook{}
	for i := range 3 {
		m := open(t, id, nil)
		nodes = append(nodes, &raftNode{mux: m})
		book.set(protocol.NodeID(i+1), m.Addr().String())
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i + 1)), Address: raft.ServerAddress(m.Addr().String())})
	}
	for i, n := range nodes {
		n.tran = NewRaftTransport(n.mux, RaftConfig{
			Advertise: string(servers[i].Address), Lookup: book.lookup,
			MaxPool: 3, MaxInFlight: 8, Timeout: 2 * time.Second, Logger: hclog.NewNullLogger(),
		})
		if n.tran.LocalAddr() != servers[i].Address {
			t.Errorf("advertises %s", n.tran.LocalAddr())
		}
		c := raft.DefaultConfig()
		c.LocalID = servers[i].ID
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
		c.CommitTimeout = 5 * time.Millisecond
		c.Logger = hclog.NewNullLogger()
		store := raft.NewInmemStore()
		snaps := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, store, store, snaps, n.tran, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, nullFSM{}, store, store, snaps, n.tran)
		if err != nil {
			t.Fatal(err)
		}
		n.raft = r
	}
	leaderOf := func(nodes []*raftNode) (leader *raftNode, rest []*raftNode) {
		eventually(t, "a leader", func() bool {
			leader, rest = nil, nil
			for _, n := range nodes {
				if n.raft.State() == raft.Leader {
					leader = n
				} else {
					rest = append(rest, n)
				}
			}
			return leader != nil
		})
		return leader, rest
	}
	for len(nodes) > 1 {
		leader, rest := leaderOf(nodes)
		f := leader.raft.Apply([]byte("x"), patience)
		if err := f.Error(); err != nil {
			// Leadership may have moved between the two lines; then look again.
			if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) {
				continue
			}
			t.Fatal(err)
		}
		for _, n := range rest {
			eventually(t, "the entry everywhere", func() bool { return n.raft.AppliedIndex() >= f.Index() })
		}
		leader.stop(t)
		nodes = rest
	}
	nodes[0].stop(t)
}

// TestRaftCloseEndsItsConnections: hashicorp/raft leaves accepted connections
// open when its transport is closed.
func TestRaftCloseEndsItsConnections(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	a, b := open(t, id, nil), open(t, id, nil)
	tran := NewRaftTransport(b, RaftConfig{Advertise: "node-b:7600", Logger: hclog.NewNullLogger(), MaxPool: 1})
	conn, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	eventually(t, "it is accepted", func() bool { return b.Stats().Accepted == 1 })
	if err := errors.Join(tran.Close(), tran.Close()); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("still open: %v", err)
	}
}
