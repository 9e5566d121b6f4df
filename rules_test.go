package ha

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The rules hold for all nodes, whoever was asked, and are seen everywhere.
func TestPauseMaintenanceAndPermit(t *testing.T) {
	c := newTestCluster(t)
	primary := c.primary(protocol.NoNode)
	other := primary%3 + 1
	if err := c.nodes[other].Pause(c.context(), "new switch"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		await(t, "every node knows of the pause", func() bool {
			s := n.Status()
			return s.Rules.Pause != nil && s.Rules.Pause.Reason == "new switch" && strings.Contains(strings.Join(s.Warnings, " "), "paused")
		})
	}
	c.stop(primary)
	await(t, "somebody says that the pause is in the way", func() bool {
		for _, n := range c.nodes {
			if s := n.Status(); strings.Contains(s.Blocked, "paused") {
				return true
			}
		}
		return false
	})
	for id, n := range c.nodes {
		if s := n.Status(); s.Role == protocol.RolePrimary {
			t.Errorf("node %d has taken over while failover is paused", id)
		}
	}
	var refused *fsm.RefusedError
	if err := c.nodes[other].PermitFailover(c.context(), 9, ""); !errors.As(err, &refused) {
		t.Errorf("a permit for a stranger: %v", err)
	}
	if err := c.nodes[other].BeginMaintenance(c.context(), other, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[other].PermitFailover(c.context(), other, ""); !errors.As(err, &refused) {
		t.Errorf("a permit for a node in maintenance: %v", err)
	}
	if err := c.nodes[other].EndMaintenance(c.context(), other); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[other].PermitFailover(c.context(), other, "it burnt down"); err != nil {
		t.Fatal(err)
	}
	if got := c.primary(primary); got != other {
		t.Errorf("node %d is primary, node %d was permitted", got, other)
	}
	if err := c.nodes[other].Resume(c.context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the pause is over", func() bool { return c.nodes[other].Status().Rules.Pause == nil })
}

// A voter without data counts for elections, is shown as what it is, and never
// becomes primary.
func TestWitnessNode(t *testing.T) {
	c := newTestClusterWith(t, 3)
	primary := c.primary(protocol.NoNode)
	for _, n := range c.nodes {
		await(t, "every node knows who is the witness", func() bool {
			all := n.Nodes()
			return len(all) == 3 && all[2].Witness && !all[0].Witness && !all[1].Witness
		})
	}
	if primary == 3 {
		t.Fatal("the witness is primary")
	}
	s := c.nodes[3].Status()
	if s.Role != protocol.RoleStandalone || !strings.Contains(s.Aside, "witness") {
		t.Errorf("the witness stands at %+v", s)
	}
	if is, why := (backend{c.nodes[3]}).Is("replica"); is {
		t.Errorf("the witness offers itself as a replica: %s", why)
	}
	c.stop(primary)
	if second := c.primary(primary); second != 3-primary {
		t.Errorf("node %d is primary", second)
	}
}

func TestWitnessAndDatabaseExclude(t *testing.T) {
	for witness, db := range map[bool]Database{true: &modelDatabase{}, false: nil} {
		c := &testCluster{t: t, dir: t.TempDir(), addrs: []string{freeAddr(t)}}
		cfg := c.config(1)
		cfg.Witness = witness
		if n, err := Open(t.Context(), cfg, db); err == nil {
			n.Close()
			t.Errorf("witness %v: opened", witness)
		}
	}
}

func TestDiskTimer(t *testing.T) {
	d := &writeTimer{}
	if d.p99() != 0 {
		t.Error("something measured without a measurement")
	}
	for i := range diskSamples {
		d.samples = append(d.samples, time.Duration(i)*time.Microsecond)
	}
	if got, want := d.p99(), diskSamples*99/100*time.Microsecond; got != want {
		t.Errorf("p99 is %v, want %v", got, want)
	}
	for range diskSamples { // the old ones are forgotten
		d.note(time.Now().Add(-time.Second))
	}
	if got := d.p99(); got < time.Second || len(d.samples) != diskSamples {
		t.Errorf("p99 is %v of %d", got, len(d.samples))
	}
	for _, test := range []struct {
		p99, timeout time.Duration
		slow         bool
	}{{50 * time.Millisecond, 250 * time.Millisecond, false}, {51 * time.Millisecond, 250 * time.Millisecond, true}, {0, time.Millisecond, false}} {
		if got := tooSlow(test.p99, test.timeout); (got != "") != test.slow {
			t.Errorf("%v and %v: %q", test.p99, test.timeout, got)
		}
	}
}

// What Raft v1.8.0 does wrong when it is let: see the table in docs/failover.md.
func TestRaftConfigAvoidsKnownHazards(t *testing.T) {
	for _, profile := range []Profile{ProfileDefault, ProfileFast} {
		c := Config{NodeID: 1, Nodes: []string{"127.0.0.1:1"}, Profile: profile}.withDefaults()
		conf := raftConfig(c, c.Logger)
		if conf.RestoreCommittedLogs {
			t.Error("commits are restored from the store: a node without a snapshot stays a follower for ever")
		}
		if conf.PreVoteDisabled {
			t.Error("pre-votes are off: a node that comes back deposes a healthy leader")
		}
		if conf.HeartbeatTimeout != c.HealthCheckTimeout || conf.LeaderLeaseTimeout > conf.HeartbeatTimeout || conf.ElectionTimeout < conf.HeartbeatTimeout {
			t.Errorf("%s: %+v", profile, conf)
		}
		if err := raft.ValidateConfig(conf); err != nil {
			t.Errorf("%s: %v", profile, err)
		}
	}
}

// How far the primary had written is known after a restart of all nodes: one
// that lags too far does not take over, says why, and may when that is permitted.
func TestMaxFailoverLagOutlastsARestart(t *testing.T) {
	c := newTestCluster(t)
	c.maxLag = 100
	restart := func(ids ...protocol.NodeID) {
		for id := range c.nodes {
			c.stop(id)
		}
		for _, id := range ids {
			c.start(id)
		}
	}
	restart(1, 2, 3)
	primary := c.primary(protocol.NoNode)
	written := protocol.Position{Timeline: c.nodes[primary].Status().Epoch, LSN: 1000}
	db := c.dbs[primary]
	db.mu.Lock()
	db.position = written
	db.mu.Unlock()
	a, b := primary%3+1, (primary+1)%3+1
	for _, id := range []protocol.NodeID{a, b} {
		await(t, "the others know how far it has written", func() bool { return c.nodes[id].progress() == written })
	}
	c.stop(primary) // it does not come back
	restart(a, b)
	await(t, "somebody says that it lags too far", func() bool {
		for _, n := range c.nodes {
			if s := n.Status(); strings.Contains(s.Blocked, "1000 LSNs behind") && strings.Contains(s.Blocked, "permit") {
				return true
			}
		}
		return false
	})
	for id, n := range c.nodes {
		if n.Status().Role == protocol.RolePrimary {
			t.Errorf("node %d has taken over", id)
		}
	}
	if err := c.nodes[a].PermitFailover(c.context(), b, "the disk is gone"); err != nil {
		t.Fatal(err)
	}
	if got := c.primary(primary); got != b {
		t.Errorf("node %d is primary, node %d was permitted", got, b)
	}
	await(t, "the journal has it", func() bool {
		return slices.ContainsFunc(c.nodes[b].Journal(0), func(r failover.Record) bool { return r.Event == "LagPermitted" })
	})
}
