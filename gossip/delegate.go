package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/protocol"
)

// delegate is what memberlist calls. NotifyJoin, NotifyLeave, NotifyUpdate,
// NotifyAlive and NotifyConflict are called with memberlist's node lock held:
// nothing here calls memberlist.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.PingDelegate     = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

// NodeMeta returns this node's meta data.
func (d *delegate) NodeMeta(limit int) []byte {
	m := *d.g.meta.Load()
	if len(m) > limit {
		return nil // cannot be: encode keeps below the limit
	}
	return m
}

// NotifyMsg is for messages of our own; there are none.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts is for broadcasts of our own; there are none.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState gives our heartbeat to whom we exchange the whole view with, so
// that a node that joins knows positions before its first probe.
func (d *delegate) LocalState(bool) []byte { return d.AckPayload() }

// MergeRemoteState takes the heartbeat of the node the view was exchanged with.
func (d *delegate) MergeRemoteState(buf []byte, _ bool) {
	if h, err := decodeHeartbeat(buf); err == nil && h.NodeID != d.g.config.Local {
		d.seen(h.NodeID, h, 0)
	}
}

// AckPayload is our heartbeat, sent back to whoever probes us.
func (d *delegate) AckPayload() []byte {
	h, ok := d.g.heartbeat()
	if !ok {
		return nil
	}
	raw, err := protocol.Encode(h)
	if err != nil {
		d.g.logger.Error("own heartbeat not sent", "error", err)
		return nil
	}
	return raw
}

// NotifyPingComplete takes the answer to a probe.
func (d *delegate) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	id, err := protocol.ParseNodeID(other.Name)
	if err != nil {
		return
	}
	rtt = max(rtt, 1) // 0 means: not measured
	h, err := decodeHeartbeat(payload)
	if err == nil && h.NodeID != id {
		err = fmt.Errorf("it says node %d", h.NodeID)
	}
	if err != nil {
		d.g.logger.Debug("probe answered without a heartbeat", "node", id, "error", err)
		now := time.Now()
		d.g.view.update(id, false, func(m *entry) { m.RTT, m.Seen = rtt, now })
		d.g.emit(Evidence{NodeID: id, Kind: Alive, RTT: rtt, At: now})
		return
	}
	d.seen(id, h, rtt)
}

// seen records and passes on a heartbeat; rtt is 0 if it was not measured.
func (d *delegate) seen(id protocol.NodeID, h protocol.Heartbeat, rtt time.Duration) {
	now := time.Now()
	d.g.view.update(id, false, func(m *entry) {
		m.Heartbeat, m.Seen = h, now
		if rtt > 0 {
			m.RTT = rtt
		}
	})
	d.g.emit(Evidence{NodeID: id, Kind: Heartbeat, Heartbeat: h, RTT: rtt, At: now})
}

func decodeHeartbeat(raw []byte) (protocol.Heartbeat, error) {
	m, err := protocol.Decode(raw)
	if err != nil {
		return protocol.Heartbeat{}, err
	}
	h, ok := m.(protocol.Heartbeat)
	if !ok {
		return protocol.Heartbeat{}, fmt.Errorf("a message of tag %#x instead of a heartbeat", uint8(m.Tag()))
	}
	return h, nil
}

// NotifyAlive refuses members that are none of ours: their name is no node ID.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	id, err := protocol.ParseNodeID(n.Name)
	if err != nil {
		return err
	}
	if id.String() != n.Name {
		return fmt.Errorf("node ID %q is not in its plain form %s", n.Name, id)
	}
	if !d.g.view.hasRoom(id) {
		return fmt.Errorf("%d nodes are known already", maxMembers)
	}
	return nil
}

// NotifyJoin notes a node that is there, or there again.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	id, err := protocol.ParseNodeID(n.Name)
	if err != nil {
		return
	}
	now := time.Now()
	var addr string
	d.g.view.update(id, true, func(m *entry) {
		err = describe(m, n)
		m.Alive, m.Seen = true, now
		addr = m.Addr
	})
	if err != nil {
		d.g.logger.Warn("node tells of itself in a way this release does not know", "node", id, "error", err)
	}
	if id == d.g.config.Local {
		return
	}
	d.g.view.unclaim(id)
	d.g.logger.Info("node seen", "node", id, "addr", addr)
	d.g.emit(Evidence{NodeID: id, Kind: Alive, At: now})
}

// NotifyLeave notes a node that died or left.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	id, err := protocol.ParseNodeID(n.Name)
	if err != nil || id == d.g.config.Local {
		return
	}
	d.g.view.update(id, false, func(m *entry) { m.Alive = false })
	d.g.logger.Info("node not seen any more", "node", id)
	d.g.emit(Evidence{NodeID: id, Kind: Dead, At: time.Now()})
	select {
	case d.g.kick <- struct{}{}:
	default:
	}
}

// NotifyUpdate notes new meta data of a node.
func (d *delegate) NotifyUpdate(n *memberlist.Node) {
	id, err := protocol.ParseNodeID(n.Name)
	if err != nil {
		return
	}
	d.g.view.update(id, false, func(m *entry) { err = describe(m, n) })
	if err != nil {
		d.g.logger.Warn("node tells of itself in a way this release does not know", "node", id, "error", err)
	}
}

// NotifyConflict notes that a node ID is claimed at a second address; judge
// looks into it. When more come than it can take, the rest waits for the next
// time they are gossiped.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	id, err := protocol.ParseNodeID(existing.Name)
	if err != nil {
		return
	}
	select {
	case d.g.claims <- claim{id: id, known: existing.Address(), claimed: other.Address()}:
	default:
	}
}
