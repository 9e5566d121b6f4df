package health

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// MaxNodes bounds how many nodes a monitor keeps a record of. Heartbeats of
// further ones are refused.
const MaxNodes = 1024

// PrimaryHealth is a verdict about the primary.
type PrimaryHealth uint8

// The verdicts.
const (
	Unknown     PrimaryHealth = iota // no node has ever claimed to be primary
	Healthy                          // heard of within the timeout
	Unreachable                      // not heard of for longer; see PrimaryHealthStatus.LastSeen
)

// String returns unknown, healthy or unreachable.
func (h PrimaryHealth) String() string {
	switch h {
	case Unknown:
		return "unknown"
	case Healthy:
		return "healthy"
	case Unreachable:
		return "unreachable"
	}
	return "health(" + strconv.Itoa(int(h)) + ")"
}

// MarshalText writes the word of String.
func (h PrimaryHealth) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// PrimaryHealthStatus is a verdict and what it is about.
type PrimaryHealthStatus struct {
	Kind     PrimaryHealth   `json:"kind"`
	Node     protocol.NodeID `json:"node"`      // NoNode when Unknown
	Epoch    protocol.Epoch  `json:"epoch"`     // in which it is primary
	LSN      protocol.LSN    `json:"lsn"`       // how far it had written when last heard of
	LastSeen time.Time       `json:"last_seen"` // zero when Unknown
}

// NodeHealth is what is known of one node.
type NodeHealth struct {
	Node      protocol.NodeID    `json:"node"`
	Reachable bool               `json:"reachable"`
	Dead      bool               `json:"dead"` // gossip said so, and nothing has been heard since
	Heartbeat protocol.Heartbeat `json:"heartbeat"`
	LastSeen  time.Time          `json:"last_seen"` // zero: never
	RTT       time.Duration      `json:"rtt"`       // of the latest measurement; 0: none
}

// HealthMonitor keeps the newest of what is known about each node. It is not
// safe for concurrent use. Times given to it must not run backwards.
type HealthMonitor struct {
	local   protocol.NodeID
	timeout time.Duration
	nodes   map[protocol.NodeID]*record
}

type record struct {
	heartbeat protocol.Heartbeat
	heard     bool // heartbeat means something
	seen      time.Time
	rtt       time.Duration
	dead      bool
}

// New returns a monitor of the node local, which counts as reachable always,
// and as the others do once they have been heard of within timeout.
func New(local protocol.NodeID, timeout time.Duration) *HealthMonitor {
	return &HealthMonitor{local: local, timeout: timeout, nodes: map[protocol.NodeID]*record{}}
}

// ObserveHeartbeat takes a heartbeat that arrived at now, and the round-trip
// time measured with it (0: none). It reports whether the heartbeat is news.
//
// One of a lower epoch than the node's last, or of the same epoch and not
// later by the sender's own stamp, is refused: a delayed or replayed heartbeat
// never makes a dead primary look alive (I7). The stamp is only ever compared with
// earlier ones of the same sender. A sender must therefore let it rise; one
// that restarted with its clock set back is believed again after gossip has
// seen it go and come.
func (m *HealthMonitor) ObserveHeartbeat(now time.Time, hb protocol.Heartbeat, rtt time.Duration) bool {
	r := m.record(hb.NodeID)
	if r == nil || !hb.Role.Valid() {
		return false
	}
	if r.heard && (hb.Epoch < r.heartbeat.Epoch ||
		hb.Epoch == r.heartbeat.Epoch && hb.TimestampUS <= r.heartbeat.TimestampUS) {
		return false
	}
	r.heartbeat, r.heard, r.seen, r.dead = hb, true, now, false
	if rtt > 0 {
		r.rtt = rtt
	}
	return true
}

// ObserveAlive takes a verdict of gossip about a node. Dead makes it
// unreachable at once. Alive, after dead, lets its next heartbeat in whatever
// its stamp, since it may be a new process; it does not by itself make the
// node reachable.
func (m *HealthMonitor) ObserveAlive(_ time.Time, id protocol.NodeID, alive bool) {
	r := m.record(id)
	if r == nil {
		return
	}
	switch {
	case !alive:
		r.dead = true
	case r.dead:
		r.dead = false
		r.seen = time.Time{}
		r.heartbeat.TimestampUS = 0
	}
}

// Forget drops what is known of a node, as when it left the cluster.
func (m *HealthMonitor) Forget(id protocol.NodeID) { delete(m.nodes, id) }

func (m *HealthMonitor) record(id protocol.NodeID) *record {
	r := m.nodes[id]
	if r == nil && id != protocol.NoNode && len(m.nodes) < MaxNodes {
		r = &record{}
		m.nodes[id] = r
	}
	return r
}

// Primary returns the verdict about the node that claims the primacy in the
// highest epoch. Of two that claim the same one (which cannot be) it is the
// one heard of last.
func (m *HealthMonitor) Primary(now time.Time) PrimaryHealthStatus {
	var best protocol.NodeID
	var found *record
	for id, r := range m.nodes {
		if !r.heard || r.heartbeat.Role != protocol.RolePrimary {
			continue
		}
		if found == nil || cmp.Or(cmp.Compare(r.heartbeat.Epoch, found.heartbeat.Epoch),
			r.seen.Compare(found.seen), cmp.Compare(id, best)) > 0 {
			best, found = id, r
		}
	}
	if found == nil {
		return PrimaryHealthStatus{Kind: Unknown}
	}
	status := PrimaryHealthStatus{Kind: Unreachable, Node: best, Epoch: found.heartbeat.Epoch,
		LSN: found.heartbeat.WALLSN, LastSeen: found.seen}
	if m.reachable(now, best, found) {
		status.Kind = Healthy
	}
	return status
}

func (m *HealthMonitor) reachable(now time.Time, id protocol.NodeID, r *record) bool {
	if id == m.local {
		return true
	}
	return r.heard && !r.dead && now.Sub(r.seen) <= m.timeout
}

// Nodes returns what is known of every node, ascending by ID.
func (m *HealthMonitor) Nodes(now time.Time) []NodeHealth {
	out := make([]NodeHealth, 0, len(m.nodes))
	for id, r := range m.nodes {
		out = append(out, NodeHealth{Node: id, Reachable: m.reachable(now, id, r), Dead: r.dead,
			Heartbeat: r.heartbeat, LastSeen: r.seen, RTT: r.rtt})
	}
	slices.SortFunc(out, func(a, b NodeHealth) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Reachable returns the nodes heard of within the timeout, ascending, the
// local one always among them.
func (m *HealthMonitor) Reachable(now time.Time) []protocol.NodeID {
	out := []protocol.NodeID{m.local}
	for id, r := range m.nodes {
		if id != m.local && m.reachable(now, id, r) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// BestReplica returns the reachable node, other than the local one and the
// primary, whose log reached furthest when last heard of. Nodes more than
// maxLag LSNs behind the primary's last known LSN do not count; 0 means no
// limit. Equals are decided for the lower ID. It returns false if there is
// none.
func (m *HealthMonitor) BestReplica(now time.Time, maxLag uint64) (protocol.NodeID, bool) {
	primary := m.Primary(now)
	best, found := protocol.NoNode, protocol.Heartbeat{}
	for id, r := range m.nodes {
		if id == m.local || id == primary.Node || !m.reachable(now, id, r) || r.heartbeat.Role == protocol.RoleStandalone {
			continue
		}
		lsn := r.heartbeat.WALLSN
		if maxLag > 0 && primary.Kind != Unknown && lsn < primary.LSN && uint64(primary.LSN-lsn) > maxLag {
			continue
		}
		if best == protocol.NoNode || lsn > found.WALLSN || lsn == found.WALLSN && id < best {
			best, found = id, r.heartbeat
		}
	}
	return best, best != protocol.NoNode
}
