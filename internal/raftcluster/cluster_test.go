package raftcluster

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/kinds"
)

// on opens a store of a kind under a node's directory.
func on(k logstore.Kind) OpenStore {
	return func(t testing.TB, dir string) logstore.Store {
		s, err := k.Open(dir + "-" + k.Name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// inMemory opens the same store every time, as long as the test lasts.
func inMemory() OpenStore {
	m := logstore.NewMemory()
	return func(testing.TB, string) logstore.Store {
		m = m.Clone()
		m.DropStaged()
		return m
	}
}

// same is n stores of one sort.
func same(n int, open func() OpenStore) []OpenStore {
	var stores []OpenStore
	for range n {
		stores = append(stores, open())
	}
	return stores
}

func jsonl() OpenStore { return on(kinds.JSONL()) }

// mixtures are the clusters that every scenario runs on.
func mixtures() map[string][]OpenStore {
	return map[string][]OpenStore{
		"3 jsonl":                      same(3, jsonl),
		"5 jsonl":                      same(5, jsonl),
		"jsonl, boltdb, memory":        {jsonl(), on(kinds.BoltDB()), inMemory()},
		"jsonl, wal, memory":           {jsonl(), on(kinds.WAL()), inMemory()},
		"2 jsonl, boltdb, wal, memory": {jsonl(), jsonl(), on(kinds.BoltDB()), on(kinds.WAL()), inMemory()},
	}
}

// everywhere runs a scenario on every mixture.
func everywhere(t *testing.T, scenario func(*Cluster)) {
	for name, stores := range mixtures() {
		t.Run(name, func(t *testing.T) {
			c := New(t, stores...)
			c.Write(5)
			scenario(c)
			c.Check()
			c.CheckLogs()
		})
	}
}

// TestElections stops leaders, one after the other, until the next one would cost
// the quorum, and starts them again.
func TestElections(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		for range 2 {
			var stopped []*Node
			for range (len(c.Nodes) - 1) / 2 {
				l := c.Leader()
				c.Stop(l)
				stopped = append(stopped, l)
				c.Write(5)
			}
			for _, n := range stopped {
				c.Start(n)
			}
			c.Write(5)
		}
	})
}

// TestFullRestart stops all nodes and starts them again, three times.
func TestFullRestart(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		for range 3 {
			nodes := c.Running()
			for _, n := range nodes {
				c.Stop(n)
			}
			for _, n := range nodes {
				c.Start(n)
			}
			c.Write(5)
		}
	})
}

// TestLeaderCutOff separates the leader, which has entries that nobody else will
// ever have: they must go when it is back.
func TestLeaderCutOff(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		old := c.Leader()
		rest := c.Others(old)
		c.Net.Cut(IDs(old), IDs(rest...))
		for range 3 {
			old.Raft.Apply([]byte("never acknowledged"), 0)
		}
		c.Refused(old)
		c.Write(10, rest...)
		c.Net.Heal()
		c.Write(5)
	})
}

// TestMinorityCutOff separates as many nodes as can be spared.
func TestMinorityCutOff(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		l := c.Leader()
		spared := c.Others(l)[:(len(c.Nodes)-1)/2]
		c.Net.Cut(IDs(spared...), IDs(c.Others(spared...)...))
		c.Write(10, c.Others(spared...)...)
		c.Net.Heal()
		c.Write(5)
	})
}

// TestOneWay loses the requests of a follower, then the answers to the leader, so
// that entries are stored of which the leader does not know.
func TestOneWay(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		l := c.Leader()
		f := c.Others(l)[0]
		for _, n := range c.Others(f) {
			c.Net.LoseRequests(f.ID, n.ID)
		}
		c.Write(5, c.Others(f)...)
		c.Net.Heal()
		l = c.Leader()
		f = c.Others(l)[0]
		c.Net.LoseAnswers(l.ID, f.ID)
		c.Write(5)
		c.Net.Heal()
		c.Write(5)
	})
}

// TestSnapshotInstall has a node come back after the leader has cut off what it
// lacks.
func TestSnapshotInstall(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		for _, late := range c.Others(c.Leader()) {
			c.Stop(late)
			c.Write(4 * trailingLogs)
			for _, n := range c.Running() {
				if err := n.Raft.Snapshot().Error(); err != nil {
					c.t.Fatal(err)
				}
			}
			l := c.Leader()
			first, err := l.Store.FirstIndex()
			if err != nil {
				c.t.Fatal(err)
			}
			c.Start(late)
			if last, _ := late.Store.LastIndex(); last >= first {
				c.t.Fatalf("node %s has entries up to %d: no snapshot is needed", late.ID, last)
			}
			c.Write(5)
			c.Check()
		}
	})
}

// TestUserRestore puts a snapshot in the place of everything.
func TestUserRestore(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		l := c.Leader()
		before := l.fsm.all()
		snap := l.Raft.Snapshot()
		if err := snap.Error(); err != nil {
			c.t.Fatal(err)
		}
		meta, r, err := snap.Open()
		if err != nil {
			c.t.Fatal(err)
		}
		defer r.Close()
		acked := slices.Clone(c.acked)
		c.Write(10)
		var content bytes.Buffer
		if _, err := content.ReadFrom(r); err != nil {
			c.t.Fatal(err)
		}
		c.until("restoring", func() error {
			return c.Leader().Raft.Restore(meta, bytes.NewReader(content.Bytes()), patience)
		})
		c.acked = acked // what came after the snapshot is gone, as was asked for
		if got := c.Leader().fsm.all(); !slices.Equal(got, before) {
			c.t.Errorf("after the restore there are %d commands, want %d", len(got), len(before))
		}
		c.Write(10)
	})
}

// TestLeadershipTransfer hands leadership around.
func TestLeadershipTransfer(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		for _, n := range c.Nodes {
			c.until(fmt.Sprintf("a transfer to node %s", n.ID), func() error {
				l := c.Leader()
				if l == n {
					return nil
				}
				return l.Raft.LeadershipTransferToServer(n.ID, n.Address).Error()
			})
			c.Write(5)
		}
	})
}

// TestMembership adds a node, first without a vote, and removes the leader.
func TestMembership(t *testing.T) {
	everywhere(t, func(c *Cluster) {
		added := c.Add(jsonl())
		c.until("adding a nonvoter", func() error { return c.Leader().Raft.AddNonvoter(added.ID, added.Address, 0, patience).Error() })
		c.Write(5)
		c.until("giving it a vote", func() error { return c.Leader().Raft.AddVoter(added.ID, added.Address, 0, patience).Error() })
		c.Write(5)
		var gone *Node
		c.until("removing the leader", func() error {
			gone = c.Leader()
			return gone.Raft.RemoveServer(gone.ID, 0, patience).Error()
		})
		c.Stop(gone)
		c.Write(5)
	})
}

// TestRollingMigration moves a cluster from raft-boltdb to jsonlstore and on to
// raft-wal, a node at a time, and never stops writing.
func TestRollingMigration(t *testing.T) {
	bolt := on(kinds.BoltDB())
	c := New(t, bolt, bolt, bolt)
	c.Write(20)
	place := make(map[*Node]logstore.Location)
	for _, n := range c.Nodes {
		place[n] = logstore.Location{Kind: kinds.BoltDB(), Path: n.Dir() + "-boltdb"}
	}
	for round, next := range []logstore.Kind{kinds.JSONL(), kinds.WAL(), kinds.JSONL(), kinds.BoltDB()} {
		for _, n := range c.Nodes {
			c.Stop(n)
			c.Write(3)
			to := logstore.Location{Kind: next, Path: fmt.Sprintf("%s-%d", n.Dir(), round)}
			if _, err := kinds.Migrate(t.Context(), place[n], to, kinds.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			place[n] = to
			n.Replace(func(t testing.TB, _ string) logstore.Store {
				s, err := next.Open(to.Path)
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
			c.Start(n)
			c.Write(3)
		}
		c.Check()
	}
	c.CheckLogs()
}
