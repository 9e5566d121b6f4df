package election

import "github.com/aiondb/aiondb-ha/protocol"

// Voter is what a voter knows when it answers a ballot.
type Voter struct {
	ID         protocol.NodeID
	Floor      protocol.Epoch    // highest epoch promised
	PromisedTo protocol.NodeID   // to whom
	Position   protocol.Position // own; counts for Decide only, which needs it read after the promise
	AgeUS      uint64            // see protocol.BallotAnswer
}

// Stale reports that the request must be refused, whatever the position: its
// epoch is below the floor, or has been promised to another candidate. It is
// asked before the promise; Promise on the floor itself asks it again.
func (v Voter) Stale(req protocol.BallotRequest) bool {
	return req.Epoch < v.Floor || req.Epoch == v.Floor && req.CandidateID != v.PromisedTo
}

// Decide answers a ballot. For a grant, or BallotBetter, v must be the state
// after the promise to req is durable and the database fenced, and Position be
// read after that.
func (v Voter) Decide(req protocol.BallotRequest) protocol.BallotAnswer {
	answer := protocol.BallotAnswer{Epoch: req.Epoch, VoterID: v.ID, Floor: v.Floor, AgeUS: v.AgeUS}
	switch {
	case v.Stale(req):
		answer.Refusal = protocol.BallotStaleEpoch
	case v.Floor != req.Epoch: // no promise: no grant
		answer.Refusal = protocol.BallotUnavailable
	case v.Position.Compare(req.Position) > 0:
		answer.Refusal, answer.Position = protocol.BallotBetter, v.Position
	default:
		answer.Refusal, answer.Position = protocol.BallotGranted, v.Position
	}
	return answer
}

// Unavailable answers a ballot for a voter that could not make its promise, or
// not read its position.
func (v Voter) Unavailable(req protocol.BallotRequest) protocol.BallotAnswer {
	return protocol.BallotAnswer{Epoch: req.Epoch, VoterID: v.ID, Floor: v.Floor,
		Refusal: protocol.BallotUnavailable, AgeUS: v.AgeUS}
}
