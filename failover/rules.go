package failover

import (
	"slices"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Rules are what the operators of a cluster have laid down about its failovers.
// They are replicated; the zero value is no rule at all.
//
// None of them weakens anything: lease, floor and ballot hold as ever. Rules
// only say who may become primary, and every one of them can leave the cluster
// without a primary until it is taken back.
type Rules struct {
	// Paused says that nobody takes the primacy from the node that had it last:
	// it alone becomes primary again, and everybody else hands leadership to it
	// or waits. A cluster that never had a primary gets its first one.
	Paused bool `json:"paused"`
	// Maintenance are the nodes that do not become primary, ascending.
	Maintenance []protocol.NodeID `json:"maintenance,omitempty"`
	// Witnesses are the voters without data, ascending: they never become primary.
	Witnesses []protocol.NodeID `json:"witnesses,omitempty"`
	// Permit is the latest exception to Paused and to max_failover_lag.
	Permit Permit `json:"permit,omitzero"`
}

// Permit lets one node become primary, once, though the cluster is paused or
// the node is further behind than max_failover_lag.
type Permit struct {
	Node protocol.NodeID `json:"node"`
	// After is the epoch of the last promotion when the permit was given. The
	// next promotion, whoever's, uses it up.
	After protocol.Epoch `json:"after"`
}

// Permits reports whether the permit lets id follow the primary of epoch last.
func (p Permit) Permits(id protocol.NodeID, last protocol.Epoch) bool {
	return p.Node == id && id != protocol.NoNode && p.After == last
}

// equal reports whether two sets of rules say the same.
func (r Rules) equal(other Rules) bool {
	return r.Paused == other.Paused && r.Permit == other.Permit &&
		slices.Equal(r.Maintenance, other.Maintenance) && slices.Equal(r.Witnesses, other.Witnesses)
}

// neverPrimary returns who does not become primary, whatever it has.
func (r Rules) neverPrimary() []protocol.NodeID {
	return sorted(append(slices.Clone(r.Maintenance), r.Witnesses...))
}
