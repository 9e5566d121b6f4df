package fencing

import (
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// DriftPercent is how far, in percent, the rate of a node's clock may be off
// for a lease to hold what it promises.
const DriftPercent = 5

// LeaseFor returns the longest duration D of a lease such that whoever has
// waited for Raft's heartbeat timeout has outwaited it: D·(1+ε) ≤ timeout.
func LeaseFor(heartbeatTimeout time.Duration) time.Duration {
	return heartbeatTimeout / (100 + DriftPercent) * 100
}

// HeldFor returns how long a leader may rely on a lease of duration d from the
// moment it asked for it: D·(1−ε).
func HeldFor(d time.Duration) time.Duration { return d - drift(d) }

// OverAfter returns how long after a voter's last help every lease of duration
// d that rests on it is over: D·(1+ε).
func OverAfter(d time.Duration) time.Duration { return d + drift(d) }

// drift is d·ε, rounded up.
func drift(d time.Duration) time.Duration { return (d*DriftPercent + 99) / 100 }

// Stamps are what a leader knows of its voters: when it sent the newest
// AppendEntries of its epoch that each has let succeed. The zero value, with
// Local set, is ready. Times are the guard's. Not safe for concurrent use.
//
// It is the time of sending that counts. An answer that lay in the socket while
// the process was stopped says nothing about the time after the sending (I4).
type Stamps struct {
	Local protocol.NodeID
	epoch protocol.Epoch
	sent  map[protocol.NodeID]time.Duration
}

// Note takes a success of voter in epoch, to what was sent at sent. Successes
// of an older epoch, and older ones, change nothing.
func (s *Stamps) Note(epoch protocol.Epoch, voter protocol.NodeID, sent time.Duration) {
	if epoch < s.epoch || voter == s.Local {
		return
	}
	if epoch > s.epoch {
		s.epoch, s.sent = epoch, map[protocol.NodeID]time.Duration{}
	}
	if last, there := s.sent[voter]; !there || sent > last {
		s.sent[voter] = sent
	}
}

// Since returns the latest time at which a quorum of the voters of every given
// configuration is known to have helped epoch, the own stamp being now. It is
// false if there is none. Whoever was elected above epoch was elected later.
func (s *Stamps) Since(epoch protocol.Epoch, now time.Duration, configurations ...[]protocol.NodeID) (time.Duration, bool) {
	if len(configurations) == 0 {
		return 0, false
	}
	earliest := now
	for _, voters := range configurations {
		var stamps []time.Duration
		for _, id := range voters {
			if id == s.Local {
				stamps = append(stamps, now)
			} else if sent, there := s.sent[id]; there && epoch == s.epoch {
				stamps = append(stamps, sent)
			}
		}
		quorum := len(voters)/2 + 1
		if len(stamps) < quorum {
			return 0, false
		}
		slices.Sort(stamps)
		earliest = min(earliest, stamps[len(stamps)-quorum]) // the quorum-th newest
	}
	return earliest, true
}

// Deadline returns until when the lease of epoch runs, of duration d, and
// whether it runs at all: the quorum-th newest stamp plus D·(1−ε), the
// earliest of all configurations (I1, I4). Without another voter than the node
// itself there is nobody who could be elected: NoDeadline.
func (s *Stamps) Deadline(epoch protocol.Epoch, d, now time.Duration, configurations ...[]protocol.NodeID) (time.Duration, bool) {
	since, runs := s.Since(epoch, now, configurations...)
	if !runs {
		return 0, false
	}
	alone := func(voters []protocol.NodeID) bool { return len(voters) == 1 && voters[0] == s.Local }
	if !slices.ContainsFunc(configurations, func(v []protocol.NodeID) bool { return !alone(v) }) {
		return NoDeadline, true
	}
	return since + HeldFor(d), true
}

// Help is what a voter knows of the help it has given: when it last let an
// AppendEntries succeed. Times are the voter's own clock. Not safe for
// concurrent use.
type Help struct {
	epoch   protocol.Epoch // of the newest leader helped
	last    time.Duration  // last help to it
	before  protocol.Epoch // of the newest leader helped but that one
	earlier time.Duration  // last help to any but that one
}

// NewHelp returns the memory of a voter that has just started. What it did
// before, it may have done a moment ago.
func NewHelp(now time.Duration) *Help { return &Help{last: now, earlier: now} }

// Note takes that an AppendEntries of epoch is let succeed at now.
func (h *Help) Note(epoch protocol.Epoch, now time.Duration) {
	switch {
	case epoch > h.epoch:
		h.before, h.earlier, h.epoch, h.last = h.epoch, h.last, epoch, now
	case epoch == h.epoch:
		h.last = now
	default:
		h.before, h.earlier = max(h.before, epoch), now
	}
}

// Age returns how long ago, at now, the voter last helped a leader of an epoch
// below epoch, or started, and the epoch of the newest leader of those, 0 for
// none since the start. What it does not remember it takes for younger, and of
// a newer epoch, than it was.
func (h *Help) Age(epoch protocol.Epoch, now time.Duration) (time.Duration, protocol.Epoch) {
	if h.epoch < epoch {
		return now - h.last, h.epoch
	}
	return now - h.earlier, h.before
}

// Outwait is the winner's side: how long a promotion must wait for the leases
// that may still run. Every such lease rests on a quorum of voters, so on one
// of those that granted the ballot. The zero value waits for nobody. Times are
// the winner's own, those at which the answers came: that is later than when
// they were given, so it waits rather too long.
type Outwait struct {
	helped map[protocol.NodeID]time.Time
}

// Answer takes the age that a voter reported in an answer received at now. A
// voter that has promised helps no earlier leader any more (I5), so of several
// answers the one that shows the earliest help holds.
func (o *Outwait) Answer(now time.Time, voter protocol.NodeID, age time.Duration) {
	at := now.Add(-age)
	if o.helped == nil {
		o.helped = map[protocol.NodeID]time.Time{}
	}
	if known, there := o.helped[voter]; !there || at.Before(known) {
		o.helped[voter] = at
	}
}

// Until returns when every lease of duration d that rests on one of the voters
// is over: D·(1+ε) after the youngest help. Zero if none of them has answered.
func (o *Outwait) Until(d time.Duration, voters []protocol.NodeID) time.Time {
	var until time.Time
	for _, id := range voters {
		if at, there := o.helped[id]; there && at.Add(OverAfter(d)).After(until) {
			until = at.Add(OverAfter(d))
		}
	}
	return until
}
