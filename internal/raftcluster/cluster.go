package raftcluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// The timing of a cluster, short enough for tests and long enough for a busy
// machine under the race detector.
const (
	electionTimeout = 200 * time.Millisecond
	leaseTimeout    = 150 * time.Millisecond
	commitTimeout   = 5 * time.Millisecond
	networkTimeout  = 500 * time.Millisecond
	trailingLogs    = 10
	maxPool         = 3

	// rpcsInFlight is well above the default of 2, with which hashicorp/raft v1.8.0
	// can block for good: a replication that waits to send, whose decoder has
	// gone because the follower is in a later term. Shutdown then never returns.
	rpcsInFlight = 32

	// patience bounds every wait for something that must happen.
	patience  = 60 * time.Second
	pollEvery = 2 * time.Millisecond
)

// OpenStore opens the store of a node in a directory that is its own. A store in
// memory must be the same one when it is opened again.
type OpenStore func(t testing.TB, dir string) logstore.Store

// Node is one node of a Cluster.
type Node struct {
	ID      raft.ServerID
	Address raft.ServerAddress
	Raft    *raft.Raft     // nil while it is stopped
	Store   logstore.Store // likewise

	dir   string
	open  OpenStore
	fsm   *fsm
	trans *raft.NetworkTransport
}

// Cluster is some nodes on a network. Its methods are for the goroutine of the
// test, which they fail.
type Cluster struct {
	Net   *Network
	Nodes []*Node

	t     testing.TB
	acked []string // commands that were acknowledged
	count int
}

// New starts a cluster with a node for each store, all of them voters, and stops
// it when the test ends.
func New(t testing.TB, stores ...OpenStore) *Cluster {
	t.Helper()
	c := &Cluster{Net: newNetwork(), t: t}
	t.TempDir() // so that directories go after the nodes: what is made first is cleaned up last
	t.Cleanup(c.close)
	var first raft.Configuration
	for _, open := range stores {
		n := c.add(open)
		first.Servers = append(first.Servers, raft.Server{ID: n.ID, Address: n.Address})
	}
	if err := c.Nodes[0].Raft.BootstrapCluster(first).Error(); err != nil {
		t.Fatal(err)
	}
	return c
}

// add starts a node that nobody knows yet.
func (c *Cluster) add(open OpenStore) *Node {
	c.t.Helper()
	n := &Node{ID: raft.ServerID(fmt.Sprint(len(c.Nodes) + 1)), dir: c.t.TempDir(), open: open}
	c.Nodes = append(c.Nodes, n)
	c.Start(n)
	return n
}

// Add starts another node, with an empty store.
func (c *Cluster) Add(open OpenStore) *Node {
	c.t.Helper()
	return c.add(open)
}

// Start starts a node that is stopped, on its old address and directory.
func (c *Cluster) Start(n *Node) {
	c.t.Helper()
	n.fsm = &fsm{}
	n.Store = n.open(c.t, filepath.Join(n.dir, "log"))
	address := string(n.Address)
	if address == "" {
		address = "127.0.0.1:0"
	}
	var l *layer
	c.until("listening on "+address, func() (err error) { l, err = c.Net.listen(n.ID, address); return err })
	n.Address = raft.ServerAddress(l.Addr().String())
	quiet := hclog.NewNullLogger()
	n.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: l, MaxPool: maxPool, MaxRPCsInFlight: rpcsInFlight, Timeout: networkTimeout, Logger: quiet})
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.dir, 2, quiet)
	if err != nil {
		c.t.Fatal(err)
	}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = n.ID, quiet
	conf.HeartbeatTimeout, conf.ElectionTimeout = electionTimeout, electionTimeout
	conf.LeaderLeaseTimeout, conf.CommitTimeout, conf.TrailingLogs = leaseTimeout, commitTimeout, trailingLogs
	if n.Raft, err = raft.NewRaft(conf, n.fsm, n.Store, n.Store, snapshots, n.trans); err != nil {
		c.t.Fatalf("node %s: %v", n.ID, err)
	}
}

// Stop stops a node and closes its store.
func (c *Cluster) Stop(n *Node) {
	c.t.Helper()
	err := n.Raft.Shutdown().Error()
	if closeErr := n.trans.Close(); err == nil {
		err = closeErr
	}
	if closeErr := n.Store.Close(); err == nil {
		err = closeErr
	}
	n.Raft, n.Store = nil, nil
	if err != nil {
		c.t.Errorf("stopping node %s: %v", n.ID, err)
	}
}

// Replace has a stopped node open another store from now on.
func (n *Node) Replace(open OpenStore) { n.open = open }

// Dir returns the directory of the node's store.
func (n *Node) Dir() string { return filepath.Join(n.dir, "log") }

func (c *Cluster) close() {
	for _, n := range c.Nodes {
		if n.Raft != nil {
			c.Stop(n)
		}
	}
}

// until tries something until it succeeds, and fails the test if it does not.
func (c *Cluster) until(what string, try func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = try(); err == nil {
			return
		}
		wait := time.NewTimer(pollEvery)
		<-wait.C
	}
	c.t.Fatalf("%s: %v", what, err)
}

// Running returns the nodes that run.
func (c *Cluster) Running() []*Node {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Node) bool { return n.Raft == nil })
}

// IDs returns the IDs of nodes.
func IDs(nodes ...*Node) []raft.ServerID {
	var ids []raft.ServerID
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// Leader waits until one of the nodes given, or of all that run, leads and can
// reach a quorum.
func (c *Cluster) Leader(among ...*Node) *Node {
	c.t.Helper()
	if len(among) == 0 {
		among = c.Running()
	}
	var leader *Node
	c.until("a leader", func() error {
		for _, n := range among {
			if n.Raft.State() == raft.Leader && n.Raft.VerifyLeader().Error() == nil {
				leader = n
				return nil
			}
		}
		return fmt.Errorf("none of nodes %v leads", IDs(among...))
	})
	return leader
}

// Others returns the running nodes but those given.
func (c *Cluster) Others(but ...*Node) []*Node {
	return slices.DeleteFunc(c.Running(), func(n *Node) bool { return slices.Contains(but, n) })
}

// Write has count commands acknowledged by whoever leads among the nodes given. A
// command that is not acknowledged may be applied or not; another one is tried
// in its place.
func (c *Cluster) Write(count int, among ...*Node) {
	c.t.Helper()
	for range count {
		c.until("writing", func() error {
			c.count++
			command := fmt.Sprintf("command %d", c.count)
			if err := c.Leader(among...).Raft.Apply([]byte(command), time.Second).Error(); err != nil {
				return err
			}
			c.acked = append(c.acked, command)
			return nil
		})
	}
}

// Refused checks that a node does not acknowledge a command.
func (c *Cluster) Refused(n *Node) {
	c.t.Helper()
	c.count++
	if err := n.Raft.Apply(fmt.Appendf(nil, "command %d", c.count), networkTimeout).Error(); err == nil {
		c.t.Errorf("node %s acknowledged a command that no quorum has", n.ID)
	}
}

// Check waits until all nodes that run have applied the same commands, every
// acknowledged one among them and none twice.
func (c *Cluster) Check() {
	c.t.Helper()
	if err := c.Leader().Raft.Barrier(patience).Error(); err != nil {
		c.t.Fatal(err)
	}
	leader := c.Leader()
	want := leader.fsm.all()
	for _, n := range c.Others(leader) {
		c.until(fmt.Sprintf("node %s catching up", n.ID), func() error {
			if got := n.fsm.all(); !slices.Equal(got, want) {
				return fmt.Errorf("it has applied %d commands, node %s %d", len(got), leader.ID, len(want))
			}
			return nil
		})
	}
	seen := make(map[string]bool, len(want))
	for _, command := range want {
		if seen[command] {
			c.t.Errorf("%q was applied twice", command)
		}
		seen[command] = true
	}
	for _, command := range c.acked {
		if !seen[command] {
			c.t.Errorf("%q was acknowledged and is lost", command)
		}
	}
}

// CheckLogs compares the logs of the nodes that run, entry by entry, as far as
// two of them hold the same index and it is committed.
func (c *Cluster) CheckLogs() {
	c.t.Helper()
	type first struct {
		log  raft.Log
		node raft.ServerID
	}
	seen := make(map[uint64]first)
	for _, n := range c.Running() {
		from, err := n.Store.FirstIndex()
		if err != nil {
			c.t.Fatal(err)
		}
		for i := from; i > 0 && i <= n.Raft.CommitIndex(); i++ {
			var l raft.Log
			if err := n.Store.GetLog(i, &l); err != nil {
				if now, _ := n.Store.FirstIndex(); now > i {
					continue // cut off meanwhile
				}
				c.t.Fatalf("node %s, entry %d: %v", n.ID, i, err)
			}
			if l.Index != i {
				c.t.Fatalf("node %s: entry %d says that it is %d", n.ID, i, l.Index)
			}
			if other, ok := seen[i]; !ok {
				seen[i] = first{l, n.ID}
			} else if l.Term != other.log.Term || l.Type != other.log.Type || string(l.Data) != string(other.log.Data) {
				c.t.Errorf("entry %d: node %s has %v of term %d, node %s %v of term %d", i, n.ID, l.Type, l.Term, other.node, other.log.Type, other.log.Term)
			}
		}
	}
}
