package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/protocol"
)

// patience bounds every wait of these tests. It is far above what anything
// takes, because machines that run tests are slow and shared.
const patience = 60 * time.Second

// modelDatabase is a Database without data: it notes what it is told.
type modelDatabase struct {
	mu       sync.Mutex
	position protocol.Position
	floor    protocol.Epoch
	primary  protocol.Epoch // as which it is promoted; 0: a replica
	follows  Demotion
	writing  time.Time // since when; zero: not
}

func (d *modelDatabase) Position(context.Context) (protocol.Position, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position, nil
}

func (d *modelDatabase) Fence(_ context.Context, epoch protocol.Epoch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.floor = max(d.floor, epoch)
	return nil
}

func (d *modelDatabase) Promote(_ context.Context, p Promotion) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Epoch < d.floor {
		return fmt.Errorf("epoch %d is fenced off by %d", p.Epoch, d.floor)
	}
	d.primary = p.Epoch
	return nil
}

func (d *modelDatabase) Demote(_ context.Context, to Demotion) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.primary, d.follows = 0, to
	return nil
}

func (d *modelDatabase) following() protocol.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.follows.Primary
}

// testCluster is three nodes in this process, over loopback.
type testCluster struct {
	t     *testing.T
	addrs []string
	dir   string
	nodes map[protocol.NodeID]*Node
	dbs   map[protocol.NodeID]*modelDatabase
	disks map[protocol.NodeID]*hungDisk

	witness protocol.NodeID // one without data; NoNode: none has none
	maxLag  uint64          // max_failover_lag of nodes started from now on
}

func newTestCluster(t *testing.T) *testCluster {
	return newTestClusterWith(t, protocol.NoNode)
}

func newTestClusterWith(t *testing.T, witness protocol.NodeID) *testCluster {
	c := &testCluster{t: t, witness: witness, dir: t.TempDir(), nodes: map[protocol.NodeID]*Node{}, dbs: map[protocol.NodeID]*modelDatabase{},
		disks: map[protocol.NodeID]*hungDisk{}}
	for len(c.addrs) < 3 {
		if addr := freeAddr(t); !slices.Contains(c.addrs, addr) {
			c.addrs = append(c.addrs, addr)
		}
	}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	for id := range protocol.NodeID(3) {
		c.start(id + 1)
	}
	return c
}

// freeAddr finds a port that is free for TCP and UDP.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		u, err := net.ListenPacket("udp", addr)
		l.Close()
		if err == nil {
			u.Close()
			return addr
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return ""
}

func (c *testCluster) config(id protocol.NodeID) Config {
	return Config{
		Witness:        id == c.witness,
		MaxFailoverLag: c.maxLag,
		NodeID:         id,
		Nodes:          c.addrs,
		Secret:         NewSecret(bytes.Repeat([]byte("k"), 32)),
		DataDir:        filepath.Join(c.dir, id.String()),
		DatabaseAddr:   "db" + id.String() + ":5433",
		// Slow enough for the race detector on a busy machine.
		HealthCheckInterval: 50 * time.Millisecond,
		HealthCheckTimeout:  time.Second,
		ElectionTimeout:     2 * time.Second,
	}
}

func (c *testCluster) start(id protocol.NodeID) {
	c.t.Helper()
	db, disk := &modelDatabase{}, &hungDisk{FS: vfs.OS{}}
	prepared, err := Prepare(c.t.Context(), c.config(id))
	if err != nil {
		c.t.Fatalf("node %d: %v", id, err)
	}
	prepared.disk = disk
	var given Database
	if id != c.witness {
		given, c.dbs[id] = db, db
	}
	node, err := prepared.Open(c.t.Context(), given)
	if err != nil {
		c.t.Fatalf("node %d: %v", id, err)
	}
	c.nodes[id], c.disks[id] = node, disk
}

func (c *testCluster) stop(id protocol.NodeID) {
	if err := c.nodes[id].Close(); err != nil {
		c.t.Errorf("closing node %d: %v", id, err)
	}
	delete(c.nodes, id)
}

// await waits until condition holds, and fails the test if it does not in time.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// primary waits until every running node agrees on a primary other than not.
func (c *testCluster) primary(not protocol.NodeID) (agreed protocol.NodeID) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("all nodes agree on a primary that is not %d", not), func() bool {
		agreed = protocol.NoNode
		for _, n := range c.nodes {
			s := n.Status()
			if s.Primary == protocol.NoNode || s.Primary == not || agreed != protocol.NoNode && s.Primary != agreed {
				return false
			}
			agreed = s.Primary
		}
		epoch, open := c.nodes[agreed].Guard().Epoch()
		return open && c.nodes[agreed].Guard().Check(epoch) == nil
	})
	return agreed
}

func (c *testCluster) context() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

func TestClusterElectsFollowsAndForwards(t *testing.T) {
	c := newTestCluster(t)
	primary := c.primary(protocol.NoNode)
	for id, db := range c.dbs {
		if id != primary {
			await(t, "the replicas follow the primary", func() bool { return db.following() == primary })
		}
	}
	// Any node takes a proposal and reads what another one has written.
	for id, n := range c.nodes {
		key := []byte("written at " + id.String())
		result, err := n.Propose(c.context(), command.KvWrite{Key: key, Value: []byte("v")})
		if err != nil || result.Index == 0 || !result.Changed {
			t.Fatalf("proposing at node %d: %+v, %v", id, result, err)
		}
		for other, n := range c.nodes {
			var found bool
			freshness, err := n.Read(c.context(), fsm.Linearizable, func(s *fsm.State) { _, found = s.KVGet(key) })
			if err != nil || !found || freshness.Stale || freshness.Index < result.Index {
				t.Fatalf("reading at node %d what node %d wrote: found %v, %+v, %v", other, id, found, freshness, err)
			}
		}
	}
	// Every node registers its database.
	await(t, "all databases are registered", func() bool {
		registered := 0
		for _, info := range c.nodes[primary].Nodes() {
			if info.DatabaseAddress == "db"+info.NodeID.String()+":5433" {
				registered++
			}
		}
		return registered == 3
	})
	// What the state machine refuses is refused to the caller, wherever it asks.
	for id, n := range c.nodes {
		_, err := n.Propose(c.context(), command.AssignShard{TableID: 1, NodeID: 99})
		if !errors.Is(err, fsm.ErrRefused) || !strings.Contains(err.Error(), "99") {
			t.Errorf("assigning a shard to an unknown node at node %d: %v", id, err)
		}
		if _, err := n.Propose(c.context(), command.KvWrite{Key: []byte("ha/timeline/1")}); !errors.Is(err, fsm.ErrRefused) {
			t.Errorf("writing a reserved key at node %d: %v", id, err)
		}
	}
}

func TestSwitchoverFromAnyNodeAndRestart(t *testing.T) {
	c := newTestCluster(t)
	first := c.primary(protocol.NoNode)
	target := first%3 + 1
	asked := target%3 + 1 // neither the primary nor the target
	before := c.nodes[first].Status().Epoch
	if err := c.nodes[asked].Switchover(c.context(), target); err != nil {
		t.Fatalf("switchover to node %d asked of node %d: %v", target, asked, err)
	}
	if got := c.primary(first); got != target {
		t.Fatalf("node %d is primary after a switchover to node %d", got, target)
	}
	if after := c.nodes[target].Status().Epoch; after <= before {
		t.Fatalf("epoch %d after epoch %d", after, before)
	}
	if _, err := c.nodes[first].Guard().Context(before); err == nil {
		t.Fatal("the guard of the old primary still gives out its epoch")
	}
	// A primary that is closed hands over, and comes back as a replica.
	c.stop(target)
	second := c.primary(target)
	c.start(target)
	await(t, "the restarted node follows", func() bool { return c.dbs[target].following() == second })
	if floor := c.nodes[target].Status().Floor; floor < before {
		t.Fatalf("floor %d after a restart, was at least %d", floor, before)
	}
}

func TestNoQuorum(t *testing.T) {
	c := newTestCluster(t)
	survivor := c.primary(protocol.NoNode)
	if _, err := c.nodes[survivor].Propose(c.context(), command.UpdateConfig{Key: "k", Value: "v"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []protocol.NodeID{survivor%3 + 1, (survivor+1)%3 + 1} {
		c.stop(id)
	}
	n := c.nodes[survivor]
	const deadline = 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	_, err := n.Propose(ctx, command.UpdateConfig{Key: "k", Value: "w"})
	if !errors.Is(err, ErrNoQuorum) || !strings.Contains(err.Error(), "1 of 3 voters answer") {
		t.Fatalf("proposing alone: %v", err)
	}
	if ctx.Err() != nil {
		t.Error("the answer came after the deadline")
	}
	ctx, cancel = context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := n.Read(ctx, fsm.Linearizable, func(*fsm.State) {}); !errors.Is(err, ErrNoQuorum) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("reading alone: %v", err)
	}
	var value string
	freshness, err := n.Read(ctx, fsm.Stale, func(s *fsm.State) { value, _ = s.Config("k") })
	if err != nil || value == "" || !freshness.Stale || freshness.AgeMS < 0 {
		t.Errorf("stale read alone: %q, %+v, %v", value, freshness, err)
	}
	// When one node is back everything goes on.
	c.start(survivor%3 + 1)
	c.primary(protocol.NoNode)
	if _, err := n.Propose(c.context(), command.UpdateConfig{Key: "k", Value: "x"}); err != nil {
		t.Fatalf("proposing with a quorum again: %v", err)
	}
}

func TestCloseTwiceAndAfterwards(t *testing.T) {
	c := newTestCluster(t)
	n := c.nodes[c.primary(protocol.NoNode)]
	first := n.Close()
	if second := n.Close(); first != nil || second != nil {
		t.Errorf("closing twice: %v, then %v", first, second)
	}
	if _, err := n.Propose(c.context(), command.Noop{}); !errors.Is(err, ErrClosed) {
		t.Errorf("proposing to a closed node: %v", err)
	}
	if _, open := n.Guard().Epoch(); open {
		t.Error("the guard of a closed node is open")
	}
	n.Status() // must not panic or hang
	n.Nodes()
}

// A node that is being closed answers the others until it cannot: the ballot of
// its successor needs its word.
func TestClosingNodeAnswers(t *testing.T) {
	c := newTestCluster(t)
	node := c.nodes[1]
	select {
	case <-node.ready:
	case <-time.After(patience):
		t.Fatal("the node is not ready")
	}
	node.end() // as close does first
	for range 50 {
		if _, err := node.serveMessage(t.Context(), 2, node.driver.Load().Heartbeat()); err != nil {
			t.Fatalf("a heartbeat: %v", err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	c := newTestCluster(t)
	c.primary(protocol.NoNode)
	stranger := c.config(2)
	stranger.Secret = NewSecret(bytes.Repeat([]byte("x"), 32))
	stranger.BindAddr, stranger.DataDir = freeAddr(t), filepath.Join(t.TempDir(), "new")
	taken := c.config(1)
	taken.DataDir = filepath.Join(t.TempDir(), "new")
	inUse := c.config(1)
	inUse.BindAddr = freeAddr(t)
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"another secret", stranger, "cluster secret"},
		{"a taken port", taken, c.addrs[0]},
		{"a directory in use", inUse, inUse.StateDir()},
	} {
		_, err := Open(c.context(), tc.cfg, &modelDatabase{})
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", tc.name, err, tc.want)
		}
		if tc.cfg.DataDir != inUse.DataDir {
			if _, err := os.Stat(tc.cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: the data directory was made (%v)", tc.name, err)
			}
		}
	}
}

// TestFloorIsNeverMadeUp: a node whose floor is lost or damaged does not start.
func TestFloorIsNeverMadeUp(t *testing.T) {
	c := newTestCluster(t)
	c.primary(protocol.NoNode)
	c.stop(1)
	path := c.config(1).withDefaults().FencingTokenPath
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, original[:len(original)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.context(), c.config(1), &modelDatabase{}); !errors.Is(err, fencing.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("with half a fencing file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.context(), c.config(1), &modelDatabase{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without a fencing file: %v", err)
	}
	if err := os.WriteFile(path, original, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(1)
}
