package failover

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/aiondb/aiondb-ha/election"
	"github.com/aiondb/aiondb-ha/protocol"
)

// HandleMessage answers a message of another node, from, whose identity the
// transport vouches for. ctx bounds the wait. Messages that are not the
// failover's are an error; so is everything after Close.
func (d *Driver) HandleMessage(ctx context.Context, from protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	if d.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if err := d.credible(from, epochOf(m)); err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case protocol.BallotRequest:
		return d.vote(ctx, from, m)
	case protocol.Heartbeat:
		if d.leaving.Load() {
			return nil, errors.New("this node is shutting down")
		}
		ctx, cancel := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
		defer cancel()
		position, err := d.readOwnPosition(ctx)
		if err != nil {
			return nil, err
		}
		// The ack's epoch is the log's timeline: with the LSN it is a position.
		return protocol.HeartbeatAck{Epoch: position.Timeline, NodeID: d.cfg.Local, WALLSN: position.LSN}, nil
	case protocol.PromoteNotify:
		if m.NewPrimaryID != d.cfg.Local {
			d.epochBegan(m.Epoch, m.NewPrimaryID)
			d.heardOf(EpochSeen{Epoch: m.Epoch, Node: m.NewPrimaryID})
		}
		return d.ack(), nil
	case protocol.DemoteRequest:
		if m.TargetID != d.cfg.Local {
			return nil, fmt.Errorf("demote request for node %d reached node %d", m.TargetID, d.cfg.Local)
		}
		d.epochBegan(m.Epoch, from)
		return d.ack(), nil
	case protocol.VoteRequest:
		// Elections are held by ballot; AionDB's request is never granted.
		return protocol.VoteResponse{Epoch: d.cfg.Floor.Current().Epoch, VoterID: d.cfg.Local,
			VoterLSN: d.position.Load().LSN}, nil
	case protocol.AppendEntries, protocol.AppendEntriesResponse:
		d.post(Received{From: from, Message: m})
		return d.ack(), nil
	}
	return nil, fmt.Errorf("failover does not answer %T", m)
}

// maxEpochLead is how far an epoch that another node tells of may be above the
// Raft term that this node knows. An epoch is a term that somebody was elected
// in, and a node that is behind hears of it from Raft before long, for the leader
// of that term replicates to it: a message that is refused until then comes
// again. Even a node cut off cannot be this far behind: with pre-votes no term
// begins without a quorum, and so many elections take hours.
const maxEpochLead = 1 << 20

// credible returns an error wrapping ErrIncredibleEpoch if epoch can be no term
// of this cluster's Raft. A promise cannot be taken back: one wrong message would
// leave this node, or all of them, without a primary for good.
func (d *Driver) credible(from protocol.NodeID, epoch protocol.Epoch) error {
	if _, term := d.cfg.Raft.Leader(); uint64(epoch) > term && uint64(epoch)-term > maxEpochLead {
		return fmt.Errorf("%w: node %d speaks of epoch %d, Raft is in term %d", ErrIncredibleEpoch, from, epoch, term)
	}
	return nil
}

// epochOf returns the epoch in which m binds whoever takes it; 0: in none.
func epochOf(m protocol.Message) protocol.Epoch {
	switch m := m.(type) {
	case protocol.BallotRequest:
		return m.Epoch
	case protocol.PromoteNotify:
		return m.Epoch
	case protocol.DemoteRequest:
		return m.Epoch
	}
	return 0
}

func (d *Driver) ack() protocol.Ack {
	return protocol.Ack{Epoch: d.cfg.Floor.Current().Epoch, NodeID: d.cfg.Local}
}

// epochBegan closes the guard of every older epoch and tells the machine why.
// The machine is told first, which takes no longer than the closing itself: a
// step that fails because of the closed guard must find it knowing the reason.
func (d *Driver) epochBegan(epoch protocol.Epoch, node protocol.NodeID) {
	d.post(EpochSeen{Epoch: epoch, Node: node})
	d.cfg.Guard.CloseBelow(epoch, fmt.Errorf("epoch %d of node %d has begun", epoch, node))
}

// heardOf notes who has completed a promotion, for a switchover that waits for
// it.
func (d *Driver) heardOf(promoted EpochSeen) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if promoted.Epoch > d.said.Epoch {
		d.said = promoted
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// vote answers a ballot. The order is the protocol's (I3, I5), and a step that
// fails ends it: no grant without all of them.
func (d *Driver) vote(ctx context.Context, from protocol.NodeID, req protocol.BallotRequest) (protocol.Message, error) {
	if from != req.CandidateID || from == d.cfg.Local {
		return nil, fmt.Errorf("ballot of node %d came from node %d", req.CandidateID, from)
	}
	if voter := d.voter(); voter.Stale(req) { // 1. refuse what is under the floor
		return voter.Decide(req), nil
	}
	d.epochBegan(req.Epoch, req.CandidateID) // 2. close the guard, waiting for nothing (I1, I4)
	ctx, cancel := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
	defer cancel()
	position, _, err := d.promise(ctx, req.Epoch, req.CandidateID) // 3. to 5.
	voter := d.voter()
	if err != nil {
		if voter.Stale(req) { // another ballot has come between
			return voter.Decide(req), nil
		}
		d.log.Warn("cannot grant a ballot", "epoch", req.Epoch, "candidate", req.CandidateID, "error", err)
		return voter.Unavailable(req), nil
	}
	voter.Position = position
	if age := d.age(req.Epoch); age < ageInfinite {
		voter.AgeUS = uint64(age.Microseconds())
	} else {
		voter.AgeUS = protocol.AgeInfinite
	}
	return voter.Decide(req), nil // 6.
}

// ageInfinite is the age of no help at all.
const ageInfinite time.Duration = math.MaxInt64

// age returns how long ago this node last helped a leader of an epoch below
// epoch that may hold a lease still, by the boot clock. It is asked when this
// node has been barred for epoch and its guard is closed below it. Primary
// itself since that help, it waited for all leases of then: infinite.
func (d *Driver) age(epoch protocol.Epoch) time.Duration {
	age, of := d.cfg.Lease.Age(epoch)
	if led := protocol.Epoch(d.led.Load()); led > of && led < epoch {
		return ageInfinite
	}
	return max(age, 0)
}

// voter is this node as a voter, as of now. AgeUS is 0 before the promise: that
// claims nothing.
func (d *Driver) voter() election.Voter {
	floor := d.cfg.Floor.Current()
	return election.Voter{ID: d.cfg.Local, Floor: floor.Epoch, PromisedTo: floor.NodeID}
}

// promise makes one promise at a time: see promiseNow.
func (d *Driver) promise(ctx context.Context, epoch protocol.Epoch, node protocol.NodeID) (protocol.Position, time.Time, error) {
	release, err := d.beginPromise(ctx)
	if err != nil {
		return protocol.Position{}, time.Time{}, err
	}
	defer release()
	return d.promiseNow(ctx, epoch, node)
}

// beginPromise waits until no promise is being made, and none is until release
// is called.
func (d *Driver) beginPromise(ctx context.Context) (release func(), err error) {
	select {
	case d.voting <- struct{}{}:
		return func() { <-d.voting }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for an earlier promise: %w", context.Cause(ctx))
	}
}

// promiseNow does what a promise to an epoch takes, whoever it is made to,
// after beginPromise: 3. the floor, durably, and no help to older leaders any
// more (I5); 4. the fence of the database; 5. the position, read when no log of
// an older epoch can grow or be cut any more. The guard is not its business: it
// has been closed before, for another node's epoch, or is not open, for an own
// one. It also returns when the floor was durable.
func (d *Driver) promiseNow(ctx context.Context, epoch protocol.Epoch, node protocol.NodeID) (position protocol.Position, durable time.Time, err error) {
	if err := d.cfg.Floor.Promise(epoch, node, time.Now()); err != nil {
		return protocol.Position{}, time.Time{}, err
	}
	durable = time.Now()
	d.cfg.Lease.Bar(epoch)
	if err := d.cfg.Database.Fence(ctx, epoch); err != nil {
		return protocol.Position{}, durable, fmt.Errorf("fence the database at epoch %d: %w", epoch, err)
	}
	position, err = d.readOwnPosition(ctx)
	return position, durable, err
}
