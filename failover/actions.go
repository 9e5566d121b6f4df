package failover

import (
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Output is what Step wants done: Actions, begun in the order given, each
// before the next, none waited for but CloseGuard. Wake is when Tick is due;
// zero means not before another input.
type Output struct {
	Actions []Action
	Wake    time.Time
}

// Action is something to be done. Those with an Attempt are answered by one
// input that carries it, Failed or the one named.
type Action interface{ action() }

// The actions.
type (
	// CloseGuard closes the guard for good in every epoch below Below. It is
	// done before Step is called again.
	CloseGuard struct {
		Below protocol.Epoch
		Cause string
	}
	// CommitNoop commits an entry of the leader's own: EpochBegun.
	CommitNoop struct{ Attempt uint64 }
	// Prepare makes the own promise to Epoch durable, fences the database,
	// then reads position, voters and health: Prepared.
	Prepare struct {
		Attempt uint64
		Epoch   protocol.Epoch
	}
	// SendBallots calls every voter at once: a BallotAnswered or
	// BallotUnanswered each.
	SendBallots struct {
		Round    uint64
		Messages []protocol.DirectedMessage
	}
	// CommitFork commits the promotion to the timeline history: ForkCommitted.
	CommitFork struct {
		Attempt uint64
		Fork    protocol.Fork
	}
	// AcquireToken makes sure of the durable token of Epoch and opens the
	// guard: TokenAcquired.
	AcquireToken struct {
		Attempt uint64
		Epoch   protocol.Epoch
	}
	// Promote makes the database primary of Epoch: DatabasePromoted.
	Promote struct {
		Attempt uint64
		Epoch   protocol.Epoch
	}
	// Demote makes the database a replica of Primary, NoNode for nobody yet.
	// It has no answer: it is tried until it is done or overtaken.
	Demote struct {
		Epoch   protocol.Epoch
		Primary protocol.NodeID
		Address string
	}
	// OfferLeadership transfers Raft's leadership; NoNode means to whoever is
	// best placed: LeadershipOffered.
	OfferLeadership struct {
		Attempt uint64
		To      protocol.NodeID
	}
	// NewTerm steps down and stands again in the next term: LeadershipOffered.
	NewTerm struct{ Attempt uint64 }
	// Send sends messages whose answers do not matter.
	Send struct{ Messages []protocol.DirectedMessage }
	// Emit tells an event to the journal and its readers.
	Emit struct {
		Event  Event
		Detail string
		At     time.Time     // when it happened, which may be before it was told
		Since  time.Duration // from the beginning of the failover to At
		Step   time.Duration // from the record before to At, within a failover
	}
)

func (CloseGuard) action()      {}
func (CommitNoop) action()      {}
func (Prepare) action()         {}
func (SendBallots) action()     {}
func (CommitFork) action()      {}
func (AcquireToken) action()    {}
func (Promote) action()         {}
func (Demote) action()          {}
func (OfferLeadership) action() {}
func (NewTerm) action()         {}
func (Send) action()            {}
func (Emit) action()            {}
