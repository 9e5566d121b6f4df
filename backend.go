package ha

import (
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/protocol"
)

// backend shows a Node to the HTTP API.
type backend struct{ *Node }

var _ httpapi.Backend = backend{}

// Status implements httpapi.Backend.
func (b backend) Status() any { return b.Node.Status() }

// Nodes implements httpapi.Backend.
func (b backend) Nodes() any { return b.Node.Nodes() }

// Is answers a load balancer's question about this node, and says why.
func (b backend) Is(probe string) (bool, string) {
	s := b.Node.Status()
	switch probe {
	case "primary":
		if epoch, open := b.guard.Epoch(); open && b.guard.Check(epoch) == nil {
			return true, fmt.Sprintf("primary of epoch %d", epoch)
		}
		return false, orUnknown("the primary is node %s", s.Primary)
	case "replica":
		if s.Role == protocol.RoleReplica && s.Primary != protocol.NoNode && s.Primary != s.NodeID {
			return true, fmt.Sprintf("replica of node %s", s.Primary)
		}
		return false, orUnknown("this node is no replica: the primary is node %s", s.Primary)
	case "leader":
		return s.Leader == s.NodeID, orUnknown("the Raft leader is node %s", s.Leader)
	case "ready":
		if s.Halted != "" {
			return false, s.Halted
		}
		return s.Leader != protocol.NoNode && s.Primary != protocol.NoNode, orUnknown("the primary is node %s", s.Primary)
	case "health":
		return s.Halted == "", s.Halted
	}
	return false, "unknown question"
}

func orUnknown(format string, id protocol.NodeID) string {
	if id == protocol.NoNode {
		return "none is known at present"
	}
	return fmt.Sprintf(format, id)
}

// Metrics implements httpapi.Backend.
func (b backend) Metrics() []httpapi.Metric {
	s := b.Node.Status()
	gauge := func(name, help string, value float64) httpapi.Metric {
		return httpapi.Metric{Name: "aiondb_ha_" + name, Help: help, Type: "gauge", Value: value}
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	primary, _ := b.Is("primary")
	port := b.mux.Stats()
	count := func(name, help string, value uint64) httpapi.Metric {
		return httpapi.Metric{Name: "aiondb_ha_" + name, Help: help, Type: "counter", Value: float64(value)}
	}
	metrics := []httpapi.Metric{
		count("connections_accepted_total", "Connections on the HA port that proved themselves.", port.Accepted),
		count("connections_rejected_total", "Connections on the HA port that were closed before a protocol saw them.", port.Rejected),
		gauge("connections_open", "Connections of the HA port that are open, dialed ones included.", float64(port.Open)),
		count("gossip_packets_dropped_total", "Gossip packets thrown away because nobody took them in time.", port.PacketsDropped),
		count("gossip_packets_foreign_total", "Packets on the HA port that no gossip key of ours opens.", port.PacketsForeign),
		gauge("secrets_accepted", "Cluster secrets this node accepts: more than one only during a rotation.", float64(len(s.Credentials.Secrets))),
		gauge("credentials_fault", "Whether new secrets or certificates are there that cannot be used.", flag(s.Credentials.Fault != "")),
	}
	if cert := s.Credentials.Certificate; cert != nil {
		metrics = append(metrics,
			gauge("certificate_expires_seconds", "Seconds until this node's certificate ends, negative afterwards.", float64(cert.ExpiresS)),
			gauge("certificate_ca_expires_seconds", "Seconds until the last of the CA's certificates ends.", time.Until(cert.CAExpires).Seconds()))
	}
	if cert := s.Credentials.APICertificate; cert != nil {
		metrics = append(metrics,
			gauge("api_certificate_expires_seconds", "Seconds until the API's certificate ends, negative afterwards.", float64(cert.ExpiresS)),
			gauge("api_certificate_fault", "Whether a newer certificate of the API is there that cannot be used.", flag(cert.Fault != "")))
	}
	return append(metrics, []httpapi.Metric{
		gauge("primary", "Whether this node is the primary and may acknowledge writes.", flag(primary)),
		gauge("leader", "Whether this node is the Raft leader.", flag(s.Leader == s.NodeID)),
		gauge("epoch", "Epoch of the current primary.", float64(s.Epoch)),
		gauge("floor", "Highest epoch this node has promised to.", float64(s.Floor)),
		gauge("raft_term", "Raft term.", float64(s.Term)),
		gauge("wal_timeline", "Timeline of the last record of this node's WAL.", float64(s.Position.Timeline)),
		gauge("wal_lsn", "Flushed LSN of this node's WAL.", float64(s.Position.LSN)),
		gauge("applied_index", "Index of the last Raft entry applied.", float64(s.AppliedIndex)),
		gauge("last_contact_ms", "Milliseconds since the leader was last heard of, -1 if never.", float64(s.LastContactMS)),
		gauge("paused", "Whether failover is paused by an operator.", flag(s.Rules.Pause != nil)),
		gauge("maintenance", "Whether this node is in maintenance.", flag(slices.ContainsFunc(s.Rules.Maintenance, func(m fsm.NodeMark) bool { return m.NodeID == s.NodeID }))),
		gauge("witness", "Whether this node is a voter without data.", flag(b.config.Witness)),
		gauge("blocked", "Whether there is no primary as far as this node knows; status says why.", flag(s.Blocked != "")),
		gauge("cool_down_seconds", "Seconds for which others are preferred to this node as primary.", max(0, time.Until(s.CoolDownUntil).Seconds())),
		gauge("fsync_p99_seconds", "99th percentile of the latest writes to the log, each with its sync.", float64(s.FsyncUS)/1e6),
		gauge("disk_too_slow", "Whether that is more than a fifth of the health check timeout.", flag(tooSlow(b.writes.p99(), b.config.HealthCheckTimeout) != "")),
		gauge("voters", "Voters of the cluster.", float64(s.Quorum.Voters)),
		gauge("voters_reachable", "Voters that gossip holds alive.", float64(s.Quorum.Reachable)),
		gauge("halted", "Whether this node has stopped applying commands.", flag(s.Halted != "")),
		gauge("uptime_seconds", "Seconds since the node was started.", float64(s.UptimeMS)/1000),
	}...)
}
