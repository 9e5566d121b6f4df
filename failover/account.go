package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The journal accounts for the time of a failover. It begins when the primary
// before was last heard of, and every record after that tells how long the step
// took that it ends, so that the steps of one failover add up to the whole:
//
//	LeaderSilent      nothing was heard for as long as the settings wait
//	PreVoteWon        a quorum would vote for this node (AskedToStand: the leader hands over)
//	LeadershipGained  it did
//	EpochBegun        the first entry is committed
//	FloorDurable      the own promise is on disk
//	BallotOpened      the database is fenced, its position read
//	BallotAnswered    a voter has promised itself, one record each
//	BallotWon         a quorum has, and the living have been waited for
//	LeaseOver         an old lease, if one could still run, has run out
//	ForkCommitted     the promotion is in the timeline history
//	ElectionWon       the fencing token is durable, the guard open
//	PromotionComplete the database is promoted
//	Acknowledging     its first record is on as many nodes as it takes

// begin makes sure that a failover is being accounted for, from at if that is
// known and earlier than what is known already.
func (o *Orchestrator) begin(at time.Time) {
	if at.IsZero() || at.After(o.now) {
		at = o.now
	}
	if o.began.IsZero() || at.Before(o.began) {
		o.began, o.lastStep = at, at
	}
}

// campaign tells of the election that this node has won.
func (o *Orchestrator) campaign(c Campaign) {
	if !c.Asked.IsZero() {
		why := "asked whether a quorum would vote for this node"
		if !c.Heard.IsZero() {
			why = fmt.Sprintf("last heard of the leader %v before", c.Asked.Sub(c.Heard).Round(100*time.Microsecond))
		}
		o.emitAt(c.Asked, Step{What: "LeaderSilent", Node: o.followed.Node}, why)
	}
	switch {
	case c.Stood.IsZero():
	case c.Asked.IsZero():
		o.emitAt(c.Stood, Step{What: "AskedToStand", Node: o.local}, "by the leader, which hands over, or by itself for a new term")
	default:
		o.emitAt(c.Stood, Step{What: "PreVoteWon", Node: o.local}, "a quorum would vote for this node")
	}
}

// acknowledging closes the account of the failover that made this node primary.
func (o *Orchestrator) acknowledging(epoch protocol.Epoch) {
	if o.phase != primary || epoch != o.epoch || o.open.began.IsZero() {
		return
	}
	began, lastStep := o.began, o.lastStep
	o.began, o.lastStep = o.open.began, o.open.lastStep
	o.step("Acknowledging", o.local, "the first record of the new timeline is on as many nodes as it takes")
	o.began, o.lastStep, o.open = began, lastStep, account{}
}

func (o *Orchestrator) step(what string, node protocol.NodeID, detail string) {
	o.emit(Step{What: what, Epoch: o.epoch, Node: node}, detail)
}

func (o *Orchestrator) emit(ev Event, detail string) { o.emitAt(o.now, ev, detail) }

// emitAt tells of something that happened at at, which is not later than now.
// Steps do not run backwards: two that overlapped are told one behind the other.
func (o *Orchestrator) emitAt(at time.Time, ev Event, detail string) {
	if at.After(o.now) {
		at = o.now
	}
	e := Emit{Event: ev, Detail: detail, At: at}
	if !o.began.IsZero() {
		if at.Before(o.lastStep) {
			at = o.lastStep
		}
		e.At, e.Since, e.Step = at, at.Sub(o.began), at.Sub(o.lastStep)
		o.lastStep = at
	}
	o.act(e)
}

// Failover is what a journal tells of one failover, on the node that became
// primary by it.
type Failover struct {
	Epoch protocol.Epoch `json:"epoch"`
	// TotalMS is from when the primary before was last heard of to the last of
	// Steps, the first acknowledgement if the database tells of it.
	TotalMS float64  `json:"total_ms"`
	Steps   []Record `json:"steps"` // each ends one; their StepMS add up to TotalMS
}

// LastFailover finds the latest failover in a journal; ok is false if the node
// has not become primary since the journal begins.
func LastFailover(journal []Record) (f Failover, ok bool) {
	end := -1
	for i, r := range journal {
		if r.Event == "PromotionComplete" || r.Event == "Acknowledging" && end >= 0 && journal[end].Epoch == r.Epoch {
			end = i
		}
	}
	if end < 0 {
		return Failover{}, false
	}
	f.Epoch, f.TotalMS = journal[end].Epoch, journal[end].SinceMS
	const rounding = 0.01
	left := f.TotalMS
	for i := end; i >= 0; i-- {
		r := journal[i]
		if r.StepMS == 0 && r.SinceMS == 0 {
			break // before it
		}
		if r.SinceMS > left+rounding {
			continue // of something beside it
		}
		f.Steps = append(f.Steps, r)
		if left = r.SinceMS - r.StepMS; left < rounding {
			break
		}
	}
	slices.Reverse(f.Steps)
	return f, true
}
