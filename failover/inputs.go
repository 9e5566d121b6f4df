package failover

import (
	"time"

	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Input is something that happened, told to the Orchestrator by Step.
//
// An input that answers an action carries the action's Attempt. One whose
// Attempt is not the one waited for is late: it belongs to something given up
// since, and is ignored.
type Input interface{ input() }

// The inputs.
type (
	// LeadershipChanged is Raft's word. Every change is told, in order.
	LeadershipChanged struct {
		Leading  bool
		Term     uint64
		Campaign Campaign
	}
	// EpochBegun answers CommitNoop: the entry is committed, in the term that
	// is the epoch.
	EpochBegun struct {
		Attempt uint64
		Epoch   protocol.Epoch
		// Rules and Last, the newest line of the timeline history before Epoch,
		// were read after that commit, so they are not behind anybody's.
		Rules Rules
		Last  PrimaryKnown
		Alive []protocol.NodeID // those that health holds alive
	}
	// Prepared answers Prepare: the own promise is durable, the database
	// fenced, and what follows was read after that.
	Prepared struct {
		Attempt  uint64
		Durable  time.Time // when the promise was; zero: unknown
		Position protocol.Position
		Voters   []protocol.NodeID // of the latest configuration
		Alive    []protocol.NodeID // those that health holds alive
		Address  string            // of the own database

		// Age is how long ago this node last helped an earlier leader, by its
		// own clock.
		Age time.Duration
		// Earlier is who became primary last before Epoch, by the timeline
		// history: only a lease of its can be running still, since it waited
		// for all earlier ones itself. NoNode: nobody ever was.
		Earlier protocol.NodeID

		// Behind is how many LSNs the own log is behind the last known one of a
		// primary, MaxBehind how many it may be; 0: any. Successor is a node
		// that is known to be less behind, NoNode if none is.
		Behind, MaxBehind uint64
		Successor         protocol.NodeID
	}
	// BallotAnswered is a voter's answer to SendBallots.
	BallotAnswered struct {
		Round  uint64
		Answer protocol.BallotAnswer
	}
	// BallotUnanswered says that no answer will come.
	BallotUnanswered struct {
		Round  uint64
		Node   protocol.NodeID
		Reason string
	}
	// ForkCommitted answers CommitFork.
	ForkCommitted struct{ Attempt uint64 }
	// TokenAcquired answers AcquireToken: the token is durable, the guard open.
	TokenAcquired struct{ Attempt uint64 }
	// DatabasePromoted answers Promote.
	DatabasePromoted struct{ Attempt uint64 }
	// Acknowledging says that the database of Epoch has what it takes to
	// acknowledge: its first record is where it has to be.
	Acknowledging struct{ Epoch protocol.Epoch }
	// LeadershipOffered answers OfferLeadership and NewTerm when Raft has done
	// as asked. LeadershipChanged is still to come.
	LeadershipOffered struct{ Attempt uint64 }
	// Failed answers any of the actions that have an Attempt.
	Failed struct {
		Attempt uint64
		Reason  string
		// Floor is the epoch that stands against it, when that is why.
		Floor protocol.Epoch
	}

	// EpochSeen says that Node, another one, has begun Epoch: by a ballot this
	// node has promised itself to, or a message that tells of it. The guard
	// has been closed below Epoch by whoever tells.
	EpochSeen struct {
		Epoch protocol.Epoch
		Node  protocol.NodeID
	}
	// PrimaryKnown says what the newest line of the timeline history says. It
	// is told again when the address changes.
	PrimaryKnown struct {
		Node    protocol.NodeID
		Epoch   protocol.Epoch
		Address string
	}
	// PrimaryHealth is the verdict about the primary that is followed.
	PrimaryHealth struct {
		Kind health.PrimaryHealth
		Node protocol.NodeID
	}
	// HandOver asks the primary of Epoch to give way to To. Its guard has
	// been closed.
	HandOver struct {
		Epoch protocol.Epoch
		To    protocol.NodeID
	}
	// RulesChanged says what the operators have laid down, as far as this node
	// has heard.
	RulesChanged struct{ Rules Rules }
	// StoreHangs says that a write of the log or of the database has been under
	// way for too long: this node can do nothing as primary, and says nothing to
	// the others any more.
	StoreHangs struct{ Reason string }
	// Retire says that the node is shutting down: it will not be primary again.
	Retire struct{}
	// Received is a message that only passes through.
	Received struct {
		From    protocol.NodeID
		Message protocol.Message
	}
	// Tick says that time has passed. It is due when Output.Wake says.
	Tick struct{}
)

func (LeadershipChanged) input() {}
func (EpochBegun) input()        {}
func (Prepared) input()          {}
func (BallotAnswered) input()    {}
func (BallotUnanswered) input()  {}
func (ForkCommitted) input()     {}
func (TokenAcquired) input()     {}
func (DatabasePromoted) input()  {}
func (Acknowledging) input()     {}
func (LeadershipOffered) input() {}
func (Failed) input()            {}
func (EpochSeen) input()         {}
func (PrimaryKnown) input()      {}
func (PrimaryHealth) input()     {}
func (HandOver) input()          {}
func (RulesChanged) input()      {}
func (StoreHangs) input()        {}
func (Retire) input()            {}
func (Received) input()          {}
func (Tick) input()              {}
