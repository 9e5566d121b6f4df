package ha

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
)

// replicated is told of every change of the replicated state.
func (n *Node) replicated(c fsm.Change) {
	driver := n.driver.Load()
	if driver == nil {
		return // it looks for itself when it starts
	}
	switch c.Command.(type) {
	case command.KvWrite, command.AddNode, command.RemoveNode:
		driver.ClusterChanged()
	default:
		if c.Restored {
			driver.ClusterChanged()
		}
	}
}

// stepDownRounds is how many election timeouts a leadership that was given away
// may take to end.
const stepDownRounds = 4

// register commits the address of this node's database, once, if the cluster
// does not know it yet. A node that an operator removes is registered again
// when it is started again.
func (n *Node) register() {
	const retryAfter = 200 * time.Millisecond
	for {
		if err := n.registerOnce(n.life); err == nil {
			return
		} else if n.life.Err() == nil {
			n.config.Logger.Debug("this node's database is not registered yet", "error", err)
		}
		select {
		case <-n.life.Done():
			return
		case <-time.After(retryAfter):
		}
	}
}

func (n *Node) registerOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, DefaultRequestTimeout)
	defer cancel()
	var address string
	var witness bool
	if _, err := n.Read(ctx, fsm.Linearizable, func(s *fsm.State) {
		if m, there := s.Member(n.config.NodeID); there {
			address = m.Address
		}
		witness = slices.ContainsFunc(s.Rules().Witnesses, func(m fsm.NodeMark) bool { return m.NodeID == n.config.NodeID })
	}); err != nil {
		return err
	}
	switch {
	case n.config.Witness && address != "":
		// What it had was counted in quorums: whoever takes it away decides that.
		n.config.Logger.Error("this node is registered with a database, and is configured as a witness: to go on without its data, `aiondb-ha node remove` it",
			"node", n.config.NodeID, "database", address)
		return errors.New("registered with a database")
	case n.config.Witness && !witness:
		c, err := fsm.WitnessCommand(fsm.NodeMark{NodeID: n.config.NodeID, Mark: n.mark("")})
		return n.lay(ctx, c, err)
	case n.config.Witness:
		return nil
	case witness:
		if err := n.lay(ctx, fsm.NoWitnessCommand(n.config.NodeID), nil); err != nil {
			return err
		}
	}
	if address == n.config.DatabaseAddr {
		return nil
	}
	_, err := n.Propose(ctx, command.AddNode{NodeID: n.config.NodeID, Address: n.config.DatabaseAddr})
	return err
}

// cluster is what the failover driver reads of the replicated state.
type cluster struct{ n *Node }

var _ failover.Cluster = cluster{}

// History returns the committed timeline history.
func (c cluster) History() (h protocol.History) {
	c.n.fsm.Read(func(s *fsm.State) { h = s.History() })
	return h
}

// Address returns where a node's database listens, or "" if that isn't known.
func (c cluster) Address(id protocol.NodeID) (addr string) {
	c.n.fsm.Read(func(s *fsm.State) {
		for _, m := range s.Members() {
			if m.NodeID == id {
				addr = m.Address
			}
		}
	})
	return addr
}

// Rules returns what the operators have laid down.
func (c cluster) Rules() (rules failover.Rules) {
	c.n.fsm.Read(func(s *fsm.State) { rules = raftshim.Rules(s) })
	return rules
}

// healthView is the health monitor, shared: gossip and heartbeats feed it, the
// driver reads it.
type healthView struct {
	mu      sync.Mutex
	monitor *health.HealthMonitor
	maxLag  uint64

	// progress is how far a primary had written at least, as committed: it
	// outlasts a restart of all nodes, which what was heard does not.
	progress func() protocol.Position
}

var _ failover.Health = (*healthView)(nil)

// Primary implements failover.Health.
func (v *healthView) Primary() health.PrimaryHealthStatus {
	committed := v.progress()
	v.mu.Lock()
	defer v.mu.Unlock()
	status := v.monitor.Primary(time.Now())
	if committed.Compare(protocol.Position{Timeline: status.Epoch, LSN: status.LSN}) > 0 {
		status.Epoch, status.LSN = committed.Timeline, committed.LSN
	}
	return status
}

// Reachable implements failover.Health.
func (v *healthView) Reachable() []protocol.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.monitor.Reachable(time.Now())
}

// BestReplica implements failover.Health.
func (v *healthView) BestReplica() (protocol.NodeID, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.monitor.BestReplica(time.Now(), v.maxLag)
}

// observe takes what gossip has seen.
func (v *healthView) observe(e gossip.Evidence) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case gossip.Heartbeat:
		v.monitor.ObserveHeartbeat(e.At, e.Heartbeat, e.RTT)
	default:
		v.monitor.ObserveAlive(e.At, e.NodeID, e.Kind == gossip.Alive)
	}
}

const (
	// progressInterval is how often, at most, a primary commits how far it has
	// written, and progressParts what part of max_failover_lag it must have
	// written since: the limit is as exact as that.
	progressInterval = time.Second
	progressParts    = 4
)

// tellProgress commits how far this node has written while it is primary, so
// that max_failover_lag holds after a restart of all nodes too. Without that
// limit nobody needs to know.
func (n *Node) tellProgress() {
	if n.config.MaxFailoverLag == 0 {
		return
	}
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-n.life.Done():
			return
		}
		s := n.driver.Load().Status()
		if s.Role != protocol.RolePrimary {
			continue
		}
		at, told := protocol.Position{Timeline: s.Epoch, LSN: s.Position.LSN}, n.progress()
		if at.LSN == 0 || at.Timeline == told.Timeline && uint64(at.LSN) < uint64(told.LSN)+max(n.config.MaxFailoverLag/progressParts, 1) {
			continue
		}
		ctx, cancel := context.WithTimeout(n.life, DefaultRequestTimeout)
		c, err := fsm.ProgressCommand(at)
		if err = n.lay(ctx, c, err); err != nil && n.life.Err() == nil {
			n.config.Logger.Debug("how far this primary has written is not committed", "error", err)
		}
		cancel()
	}
}

func (n *Node) progress() (p protocol.Position) {
	n.fsm.Read(func(s *fsm.State) { p = s.Progress() })
	return p
}

// startGossip joins gossip with the configured nodes.
func (n *Node) startGossip() error {
	g, err := gossip.Start(gossip.Config{
		Local:        n.config.NodeID,
		Advertise:    n.config.AdvertiseAddr,
		Peers:        n.config.Nodes,
		Keys:         n.mux.Identity().GossipKeys(),
		Transport:    n.mux.GossipTransport(),
		DatabaseAddr: n.config.DatabaseAddr,
		APIAddr:      n.config.APIAddr,
		Version:      n.config.Version,
		Heartbeat:    n.driver.Load().Heartbeat,
		Evidence:     n.health.observe,
		Logger:       n.config.Logger.Named("gossip"),
	})
	if err != nil {
		return err
	}
	n.gossip.Store(g)
	return nil
}

// healthTimeout is how long a node counts as reachable after a sign of life by
// gossip, which probes the nodes in turn.
func (n *Node) healthTimeout() time.Duration {
	const probesMissed = 3
	return max(n.config.HealthCheckTimeout, probesMissed*gossip.DefaultInterval*time.Duration(max(len(n.config.Nodes)-1, 1)))
}

// startDriver starts what decides about the primacy. The state machine tells it
// of everything applied, a restored snapshot included.
func (n *Node) startDriver(ctx context.Context) error {
	driver, err := failover.NewDriver(failover.DriverConfig{
		Local:    n.config.NodeID,
		Raft:     n.consensus,
		Lease:    n.lease,
		Peers:    n.messenger,
		Cluster:  cluster{n},
		Database: n.db,
		Floor:    n.floor,
		Guard:    n.guard,
		Health:   n.health,
		Logger:   n.config.Logger.Named("failover"),
		Timing: failover.Timing{
			BallotTimeout:   n.config.ElectionTimeout,
			StepDownTimeout: stepDownRounds * n.config.ElectionTimeout,
			PollInterval:    n.config.HealthCheckInterval,
		},
		MaxFailoverLag: n.config.MaxFailoverLag,
	})
	if err != nil {
		return err
	}
	n.driver.Store(driver) // Close closes it, started or not
	return driver.Start(ctx)
}
