package failover

import (
	"github.com/aiondb/aiondb-ha/protocol"
)

// Event is something worth telling: the types below, as values.
type Event interface {
	// Name returns the event's name, the type's own except for Step.
	Name() string
}

// The events of a failover, in about the order in which they come.
type (
	// PrimaryLost says that the primary is gone: this node, because it lost
	// its right to be, or another, because it is not heard of any more.
	PrimaryLost struct {
		Node  protocol.NodeID
		Epoch protocol.Epoch
	}
	// LeadershipGained says that Raft elected this node. Not yet a primacy.
	LeadershipGained struct{ Term uint64 }
	// LeadershipLost says that Raft's leader is this node no longer.
	LeadershipLost struct{ Epoch protocol.Epoch }
	// ElectionWon says that this node has won the ballot of Epoch and holds
	// its fencing token, durably. Its database is promoted next.
	ElectionWon struct{ Epoch protocol.Epoch }
	// ElectionLost says that the ballot of Epoch showed a Better node
	// (NoNode: it was refused for a higher epoch).
	ElectionLost struct {
		Epoch  protocol.Epoch
		Better protocol.NodeID
	}
	// ElectionFailed says that the ballot of Epoch found no quorum: Result is
	// election.Timeout or election.InsufficientNodes, in words.
	ElectionFailed struct {
		Epoch  protocol.Epoch
		Result string
	}
	// NoEligiblePrimary says that this node leads and may not be primary, and
	// knows nobody else to hand over to.
	NoEligiblePrimary struct{ Epoch protocol.Epoch }
	// PromotionComplete says that this node's database is primary of Epoch.
	PromotionComplete struct{ Epoch protocol.Epoch }
	// PromotionFailed says that it refused, or could not be, and that the
	// epoch has been given back.
	PromotionFailed struct{ Epoch protocol.Epoch }
	// NewPrimaryDetected says that another node is primary of Epoch, and where
	// its database listens. This node's database follows it from now on.
	NewPrimaryDetected struct {
		Node    protocol.NodeID
		Epoch   protocol.Epoch
		Address string
	}
	// StaleEpochDetected says that Node acted in an epoch, Stale, that another
	// one, Current, has overtaken.
	StaleEpochDetected struct {
		Node    protocol.NodeID
		Stale   protocol.Epoch
		Current protocol.Epoch
	}
	// SwitchoverStarted says that this node, primary of Epoch, hands over to To.
	SwitchoverStarted struct {
		Epoch protocol.Epoch
		To    protocol.NodeID
	}
	// SwitchoverFailed says that it did not come to that.
	SwitchoverFailed struct {
		Epoch protocol.Epoch
		To    protocol.NodeID
	}
	// AppendEntriesReceived carries a request of AionDB's own Raft.
	AppendEntriesReceived struct {
		From    protocol.NodeID
		Payload []byte
	}
	// AppendEntriesResponseReceived carries an answer of AionDB's own Raft.
	AppendEntriesResponseReceived struct {
		From    protocol.NodeID
		Payload []byte
	}
	// Step is a step on the way that has no event of its own.
	Step struct {
		What  string // "EpochBegun", "BallotAnswered", …
		Epoch protocol.Epoch
		Node  protocol.NodeID // whom it is about; NoNode for the node itself
	}
)

// Name returns "PrimaryLost". The methods below return each type's own name.
func (PrimaryLost) Name() string                   { return "PrimaryLost" }
func (LeadershipGained) Name() string              { return "LeadershipGained" }
func (LeadershipLost) Name() string                { return "LeadershipLost" }
func (ElectionWon) Name() string                   { return "ElectionWon" }
func (ElectionLost) Name() string                  { return "ElectionLost" }
func (ElectionFailed) Name() string                { return "ElectionFailed" }
func (NoEligiblePrimary) Name() string             { return "NoEligiblePrimary" }
func (PromotionComplete) Name() string             { return "PromotionComplete" }
func (PromotionFailed) Name() string               { return "PromotionFailed" }
func (NewPrimaryDetected) Name() string            { return "NewPrimaryDetected" }
func (StaleEpochDetected) Name() string            { return "StaleEpochDetected" }
func (SwitchoverStarted) Name() string             { return "SwitchoverStarted" }
func (SwitchoverFailed) Name() string              { return "SwitchoverFailed" }
func (AppendEntriesReceived) Name() string         { return "AppendEntriesReceived" }
func (AppendEntriesResponseReceived) Name() string { return "AppendEntriesResponseReceived" }

// Name returns What.
func (s Step) Name() string { return s.What }

// about returns the epoch and the node an event is about, for the journal.
func about(ev Event) (protocol.Epoch, protocol.NodeID) {
	switch ev := ev.(type) {
	case PrimaryLost:
		return ev.Epoch, ev.Node
	case LeadershipLost:
		return ev.Epoch, 0
	case ElectionWon:
		return ev.Epoch, 0
	case ElectionLost:
		return ev.Epoch, ev.Better
	case ElectionFailed:
		return ev.Epoch, 0
	case NoEligiblePrimary:
		return ev.Epoch, 0
	case PromotionComplete:
		return ev.Epoch, 0
	case PromotionFailed:
		return ev.Epoch, 0
	case NewPrimaryDetected:
		return ev.Epoch, ev.Node
	case StaleEpochDetected:
		return ev.Current, ev.Node
	case SwitchoverStarted:
		return ev.Epoch, ev.To
	case SwitchoverFailed:
		return ev.Epoch, ev.To
	case AppendEntriesReceived:
		return 0, ev.From
	case AppendEntriesResponseReceived:
		return 0, ev.From
	case Step:
		return ev.Epoch, ev.Node
	}
	return 0, 0
}
