package sim

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// breakage is the rules of the protocol that a run breaks on purpose, so that
// a test can show that the break is seen. The product has no such switches: a
// rule is broken by what stands around the real parts here.
type breakage struct {
	ageIgnored           bool          // ballots carry no age of the last help, nobody waits for a lease
	stampAtReceipt       bool          // the lease is reckoned from when an answer came
	leaseTooLong         bool          // the primary's lease is four times what the others take it for
	noDrift              bool          // neither side allows for clocks that are off
	barIgnored           bool          // AppendEntries below the floor succeed
	timeoutNowFromAnyone bool          // a TimeoutNow is taken for the leader's
	answerBeforePromise  bool          // ballots are granted before the promise is made
	floorForgotten       bool          // the floor's file is lost in a crash
	fenceIgnored         bool          // the database takes what it is sent, whatever was fenced
	ackTooSmall          bool          // one copy less than a quorum is enough
	ackUnguarded         bool          // the guard is not asked
	ackUnflushed         bool          // replicas confirm what they have not flushed
	noCut                bool          // a log that differs is not cut back
	guardLate            time.Duration // how long after it was closed the guard still says yes
}

// options breaks what a process's raftshim goes by.
func (b *breakage) options(o *raftshim.Options) {
	switch {
	case b.leaseTooLong:
		o.Lease *= 4
	case b.noDrift:
		o.Lease = heartbeatTimeout * 100 / (100 - fencing.DriftPercent)
	}
	if b.barIgnored {
		o.Floor = 0
	}
}

// brokenLease is the lease as a driver sees it: of the duration it should have.
type brokenLease struct {
	failover.Lease
	p *process
	d time.Duration
}

func (l brokenLease) Duration() time.Duration { return l.d }

func (l brokenLease) Age(epoch protocol.Epoch) (time.Duration, protocol.Epoch) {
	age, of := l.Lease.Age(epoch)
	if l.p.c.broken.ageIgnored {
		age = math.MaxInt64 / (2 * trueRate)
	}
	return age, of
}

// reply changes an answer on its way out.
func (b *breakage) reply(m protocol.Message) protocol.Message {
	a, is := m.(protocol.BallotAnswer)
	if !is {
		return m
	}
	if b.ageIgnored {
		a.AgeUS = protocol.AgeInfinite
	}
	return a
}

// earlyAnswer grants a ballot before the promise.
func (b *breakage) earlyAnswer(p *process, m protocol.Message) (protocol.Message, bool) {
	asked, is := m.(protocol.BallotRequest)
	floor := p.floor.Current()
	if !b.answerBeforePromise || !is || asked.Epoch <= floor.Epoch {
		return nil, false
	}
	position, err := p.db.Position(context.Background())
	if err != nil {
		return nil, false
	}
	a := protocol.BallotAnswer{Epoch: asked.Epoch, VoterID: p.id, Floor: asked.Epoch, Position: position, AgeUS: protocol.AgeInfinite}
	if a.Refusal = protocol.BallotGranted; position.Compare(asked.Position) > 0 {
		a.Refusal = protocol.BallotBetter
	}
	return a, true
}

// stampLate extends the guard as if an answer's own time counted.
func (p *process) stampLate(id raft.ServerID, epoch protocol.Epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.m.clock.now()
	if p.stamped == nil {
		p.stamped = map[protocol.NodeID]time.Duration{}
	}
	p.stamped[raftshim.ParseServerID(id)] = now
	stamps := []time.Duration{now}
	for _, at := range p.stamped {
		stamps = append(stamps, at)
	}
	if quorum := p.c.quorum(); len(stamps) >= quorum {
		slices.Sort(stamps)
		p.guard.Extend(epoch, stamps[len(stamps)-quorum]+fencing.HeldFor(fencing.LeaseFor(heartbeatTimeout)))
	}
}
