package ha

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Rules returns what the operators have laid down about failovers, as far as
// this node has heard.
func (n *Node) Rules() fsm.Rules { return n.rules() }

func (n *Node) rules() (r fsm.Rules) {
	n.fsm.Read(func(s *fsm.State) { r = s.Rules() })
	return r
}

// Pause ends automatic failover until Resume: nobody takes the primacy from the
// node that has it or had it last. It is committed by a quorum and holds for
// all nodes, restarts included.
//
// What goes on: a primary whose leadership wavers becomes primary again itself;
// switchovers that are asked for; and every rule of safety. A primary without a
// lease, as when it has lost its quorum, acknowledges nothing, paused or not;
// its database is left as it is and not demoted, unless another node holds a
// ballot. What does not: when the primary is gone, there is none until it comes
// back, failover is resumed, or one is permitted (PermitFailover).
func (n *Node) Pause(ctx context.Context, reason string) error {
	c, err := fsm.PauseCommand(n.mark(reason))
	return n.lay(ctx, c, err)
}

// Resume takes Pause back.
func (n *Node) Resume(ctx context.Context) error { return n.lay(ctx, fsm.ResumeCommand(), nil) }

// BeginMaintenance takes a node out of the choice of primaries: it votes, its
// database follows, and it does not become primary. If it is primary it hands
// over, and stays primary until somebody has taken over.
func (n *Node) BeginMaintenance(ctx context.Context, id protocol.NodeID, reason string) error {
	if err := n.known(id); err != nil {
		return err
	}
	c, err := fsm.MaintenanceCommand(fsm.NodeMark{NodeID: id, Mark: n.mark(reason)})
	return n.lay(ctx, c, err)
}

// EndMaintenance takes BeginMaintenance back.
func (n *Node) EndMaintenance(ctx context.Context, id protocol.NodeID) error {
	if err := n.known(id); err != nil {
		return err
	}
	return n.lay(ctx, fsm.EndMaintenanceCommand(id), nil)
}

// PermitFailover lets one node become primary although failover is paused or
// the node is further behind than max_failover_lag: whoever calls it accepts
// that what the node does not have is lost. It holds for the next promotion
// only, is committed by a quorum, and stands in the log and in the journal of
// every node. It does not take the primacy from a primary that has it, and no
// permit makes a node primary that a quorum of voters refuses.
func (n *Node) PermitFailover(ctx context.Context, id protocol.NodeID, reason string) error {
	if err := n.known(id); err != nil {
		return err
	}
	var last protocol.Epoch
	var rules fsm.Rules
	if _, err := n.Read(ctx, fsm.Linearizable, func(s *fsm.State) {
		rules = s.Rules()
		if h := s.History(); len(h) > 0 {
			last = h[len(h)-1].Epoch
		}
	}); err != nil {
		return err
	}
	for what, marks := range map[string][]fsm.NodeMark{"a witness and has no data": rules.Witnesses, "in maintenance: resume it first": rules.Maintenance} {
		if slices.ContainsFunc(marks, func(m fsm.NodeMark) bool { return m.NodeID == id }) {
			return &fsm.RefusedError{Reason: fmt.Sprintf("node %d is %s", id, what)}
		}
	}
	c, err := fsm.PermitCommand(fsm.Permit{NodeID: id, After: last, Mark: n.mark(reason)})
	return n.lay(ctx, c, err)
}

func (n *Node) mark(reason string) fsm.Mark {
	return fsm.Mark{At: time.Now().UTC(), Node: n.config.NodeID, Reason: reason}
}

// known refuses a node that is none of the voters: a slip of the pen must not
// lie in wait for a node to come.
func (n *Node) known(id protocol.NodeID) error {
	if voters := n.consensus.Voters(); len(voters) > 0 && !slices.Contains(voters, id) {
		return &fsm.RefusedError{Reason: fmt.Sprintf("node %d is not a voter of this cluster", id)}
	}
	return nil
}

// lay commits a rule.
func (n *Node) lay(ctx context.Context, c command.KvWrite, err error) error {
	if err != nil {
		return &fsm.RefusedError{Reason: err.Error()}
	}
	_, err = n.propose(ctx, c)
	return err
}
