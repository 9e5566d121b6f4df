package ha

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

// How Raft is run. What is not here is hashicorp/raft's default.
const (
	commitTimeout    = 25 * time.Millisecond // how soon followers learn of a commit when nothing follows it
	snapshotsKept    = 2
	raftConnPool     = 3 // idle connections kept for each peer
	raftDialTimeout  = 2 * time.Second
	raftMaxInFlight  = 64 // AppendEntries requests in a pipeline
	snapshotInterval = 2 * time.Minute
)

// startRaft starts hashicorp/raft on the node's store and port. A node that
// has no state yet begins with the configured nodes as voters: all of them
// begin with the same configuration, so it does not matter who is first.
func (n *Node) startRaft() (err error) {
	log := n.config.Logger.Named("raft")
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.config.StateDir(), snapshotsKept, log)
	if err != nil {
		return err
	}
	network := transport.NewRaftTransport(n.mux, transport.RaftConfig{
		Advertise:   n.config.AdvertiseAddr,
		Lookup:      n.lookup, // at the time of dialing: a node may come back under another address
		Logger:      log,
		MaxPool:     raftConnPool,
		MaxInFlight: raftMaxInFlight,
		Timeout:     raftDialTimeout,
	})
	trans := raftshim.NewTransport(network, raftshim.Options{
		Local: n.config.NodeID,
		Clock: clock.Boot,
		Guard: n.guard,
		// Whoever has lost the leader has outwaited its lease.
		Lease:         fencing.LeaseFor(n.config.HealthCheckTimeout),
		Floor:         n.floor.Current().Epoch,
		WriteInFlight: n.writeInFlight,
		StallLimit:    stallLimit(n.config),
	})
	n.lease = trans
	defer func() {
		if err != nil {
			err = errors.Join(err, trans.Close())
		}
	}()

	conf := raftConfig(n.config, log)
	used, err := raft.HasExistingState(n.store, n.store, snapshots)
	if err != nil {
		return err
	}
	if !used {
		if err := raft.BootstrapCluster(conf, n.store, n.store, snapshots, trans, n.voters()); err != nil {
			return fmt.Errorf("writing the first configuration: %w", err)
		}
	}
	conf.NotifyCh = n.consensus.NotifyCh()
	r, err := raft.NewRaft(conf, n.fsm, n.writes, n.writes, snapshots, trans)
	if err != nil {
		return err
	}
	n.consensus.Attach(r, trans)
	return nil
}

// raftConfig is how Raft is run by these settings. Commits are not restored from
// the store at start (RestoreCommittedLogs): a node without a snapshot would stay
// a follower for ever, and a long replay would lock up its start. Pre-votes stay
// on.
func raftConfig(c Config, log hclog.Logger) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.NodeID.String())
	conf.HeartbeatTimeout = c.HealthCheckTimeout
	// How long a leader that is cut off may believe in itself does no harm: our
	// own lease has ended by then. A shorter time makes a busy machine flap.
	conf.LeaderLeaseTimeout = c.HealthCheckTimeout
	// Raft draws one to two of these. Half of it: no try takes longer than what
	// was set.
	conf.ElectionTimeout = max(c.ElectionTimeout/2, conf.HeartbeatTimeout)
	conf.CommitTimeout = commitTimeout
	conf.SnapshotInterval = snapshotInterval
	conf.ShutdownOnRemove = false
	conf.Logger = log
	return conf
}

// voters is the configuration a new cluster begins with.
func (n *Node) voters() raft.Configuration {
	var c raft.Configuration
	for i, addr := range n.config.Nodes {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter,
			ID:       raft.ServerID(protocol.NodeID(i + 1).String()),
			Address:  raft.ServerAddress(addr),
		})
	}
	return c
}
