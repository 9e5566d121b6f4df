package explore

import (
	"errors"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/election"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

const noDeadline = fencing.NoDeadline

// This file does what failover.Driver does, in the same order, in steps
// between which others may come. Driver itself has goroutines and deadlines; a
// change of the order there has to be made here too.

// epochBegan is Driver.epochBegan.
func (r *run) epochBegan(i int, epoch protocol.Epoch, by protocol.NodeID) {
	r.post(i, stimulus{kind: epochSeen, epoch: epoch, node: by})
	r.closeBelow(i, epoch)
}

func (r *run) closeBelow(i int, epoch protocol.Epoch) {
	n := &r.nodes[i]
	n.guard = n.guard.closeBelow(epoch)
	if r.Broken.GuardReopens {
		n.guard.closed = 0
	}
}

// makePromise is the first half of Driver.promise: floor and bar.
func (r *run) makePromise(i int, epoch protocol.Epoch, to protocol.NodeID) error {
	n := &r.nodes[i]
	raised, err := n.floor.raised(epoch, to)
	if err != nil {
		return err
	}
	if raised.epoch < n.floor.epoch {
		r.violated("I2", "the floor of node %d goes from %d to %d", id(i), n.floor.epoch, raised.epoch)
	}
	n.floor = raised
	n.barred = max(n.barred, epoch)
	return nil
}

// fenceDatabase is the second half, but the reading of the position.
func (r *run) fenceDatabase(i int, epoch protocol.Epoch) {
	n := &r.nodes[i]
	n.fence = max(n.fence, epoch)
	if n.primary != 0 && n.primary < n.fence {
		n.primary = 0
	}
	if n.following.primary != protocol.NoNode && n.following.epoch < n.fence && !r.Broken.StaleStream {
		n.following = follow{}
	}
}

// busy reports whether node i is in the middle of a promise.
func (s *state) busy(i int) bool {
	return slices.ContainsFunc(s.nodes[i].tasks, func(t task) bool {
		return (t.kind == prepare || t.kind == vote) && t.stage > 0
	})
}

func (r *run) age(i int, epoch protocol.Epoch) time.Duration {
	if !r.Lease || r.Broken.AgeIgnored {
		return time.Duration(1<<63 - 1)
	}
	n := &r.nodes[i]
	age, of := n.help.age(epoch, r.now(r.state, i))
	if n.led > of && n.led < epoch {
		return time.Duration(1<<63 - 1)
	}
	return max(age, 0)
}

// workable reports whether work on task k of node i would do anything.
func (w *world) workable(s *state, i, k int) bool {
	n := &s.nodes[i]
	switch t := n.tasks[k]; t.kind {
	case commitNoop, commitFork:
		return t.stage != 1
	case offerLeadership:
		return !n.leader
	case prepare, vote:
		return t.stage > 0 || !s.busy(i)
	}
	return true
}

// work takes task k of node i one step further.
func (r *run) work(i, k int) {
	n := &r.nodes[i]
	t := n.tasks[k]
	done := func() { n.tasks = slices.Delete(slices.Clone(n.tasks), k, k+1) }
	again := func() { n.tasks[k] = t }
	switch t.kind {
	case commitNoop:
		if !n.leader || t.stage > 0 {
			done()
			r.answer(i, t.awaited, stimulus{kind: failed})
			return
		}
		t.index, t.stage = r.propose(i, entry{term: n.term}), 1
		again()
		r.advance(i)
	case commitFork:
		if !n.leader || t.stage > 0 || protocol.Epoch(n.term) != t.epoch { // the state machine refuses a fork of another term
			done()
			r.answer(i, t.awaited, stimulus{kind: failed})
			return
		}
		t.index, t.stage = r.propose(i, entry{term: n.term, fork: true, by: id(i), from: t.from}), 1
		if r.Broken.ForkUncommitted {
			done()
			r.answer(i, t.awaited, stimulus{kind: forkCommitted})
			return
		}
		again()
		r.advance(i)
	case acquireToken:
		done()
		raised, err := n.floor.raised(t.epoch, id(i))
		var opened guard
		if err == nil {
			opened, err = n.guard.opened(t.epoch)
		}
		if err != nil {
			in := stimulus{kind: failed}
			if errors.Is(err, errStale) {
				in.epoch = n.floor.epoch
			}
			r.answer(i, t.awaited, in)
			return
		}
		n.floor, n.guard = raised, opened
		n.led = t.epoch
		r.checkOpened(i, t.epoch)
		r.renew(i)
		r.answer(i, t.awaited, stimulus{kind: tokenAcquired})
	case offerLeadership:
		done()
		r.answer(i, t.awaited, stimulus{kind: offered})
	case newTerm:
		done()
		if !n.leader {
			r.answer(i, t.awaited, stimulus{kind: failed})
			return
		}
		r.follow(i)
		r.answer(i, t.awaited && r.Fine, stimulus{kind: offered})
	case prepare:
		r.workPrepare(i, t)
	case vote:
		r.workVote(i, t)
	}
}

func (r *run) workPrepare(i int, t task) {
	n := &r.nodes[i]
	done := func() { r.remove(i, t) }
	again := func() { r.replace(i, t) }
	if t.stage == 0 {
		if r.Broken.ForkBeforeFence {
			t.read = n.wal.position()
		}
		if err := r.makePromise(i, t.epoch, id(i)); err != nil {
			done()
			r.answer(i, t.awaited, stimulus{kind: failed, epoch: n.floor.epoch})
			return
		}
		t.stage = 1
		if r.Fine || r.Broken.ForkBeforeFence {
			again()
			return
		}
	}
	r.fenceDatabase(i, t.epoch)
	done()
	if !r.Broken.ForkBeforeFence {
		t.read = n.wal.position()
	}
	r.promised[i] = max(r.promised[i], t.epoch)
	in := stimulus{kind: prepared, age: r.age(i, t.epoch)}
	in.answer.Position = r.shown(t.read)
	h := r.history(i)
	for k := len(h) - 1; k >= 0; k-- {
		if h[k].Epoch < t.epoch {
			in.node = h[k].NodeID
			break
		}
	}
	r.answer(i, t.awaited, in)
}

// shown is a position as a ballot sees it.
func (r *run) shown(p protocol.Position) protocol.Position {
	if r.Broken.LSNFirst && p.LSN > 0 {
		p.Timeline = 1
	}
	return p
}

// workVote is Driver.vote.
func (r *run) workVote(i int, t task) {
	n := &r.nodes[i]
	done := func() { r.remove(i, t) }
	req := protocol.BallotRequest{Epoch: t.epoch, CandidateID: t.node, Position: t.from}
	voter := func() election.Voter {
		return election.Voter{ID: id(i), Floor: n.floor.epoch, PromisedTo: n.floor.to}
	}
	reply := func(a protocol.BallotAnswer) {
		if a.Refusal == protocol.BallotGranted || a.Refusal == protocol.BallotBetter {
			r.promised[i] = max(r.promised[i], t.epoch)
		}
		switch {
		case t.orphan:
		case r.Fine:
			r.send(message{kind: ballotAnswer, to: t.node, from: id(i), epoch: t.epoch, answer: a})
		default: // to wait with it is to wait with what it makes the candidate do
			r.post(index(t.node), stimulus{kind: ballotAnswered, answer: a})
		}
	}
	decide := func() protocol.BallotAnswer {
		v := voter()
		if t.stage == 1 { // answers before its promise
			v.Floor, v.PromisedTo = t.epoch, t.node
		}
		v.Position = r.shown(t.read)
		v.AgeUS = protocol.AgeInfinite
		if age := r.age(i, t.epoch); age < time.Duration(1<<63-1) {
			v.AgeUS = uint64(age.Microseconds())
		}
		return v.Decide(req)
	}
	if t.stage == 0 {
		if v := voter(); v.Stale(req) {
			done()
			reply(v.Decide(req))
			return
		}
		if !r.Broken.GuardIgnoresBallot {
			r.epochBegan(i, t.epoch, t.node)
		}
		t.stage = 1
		if r.Broken.AnswerBeforePromise {
			t.read = n.wal.position()
			reply(decide())
			t.orphan = true
		}
		if r.Fine || r.Broken.AnswerBeforePromise || r.Broken.GuardReopens {
			r.replace(i, t)
			return
		}
	}
	if t.stage == 1 {
		if err := r.makePromise(i, t.epoch, t.node); err != nil {
			r.remove(i, t)
			if v := voter(); v.Stale(req) {
				reply(v.Decide(req))
			} else {
				reply(v.Unavailable(req))
			}
			return
		}
		if r.Broken.PositionBeforeFence {
			t.read = n.wal.position()
		}
		t.stage = 2
		if r.Fine || r.Broken.PositionBeforeFence {
			r.replace(i, t)
			return
		}
	}
	r.fenceDatabase(i, t.epoch)
	if !r.Broken.PositionBeforeFence {
		t.read = n.wal.position()
	}
	r.remove(i, t)
	reply(decide())
}

// replace and remove find a task by what it is: telling the
// machine of it may have changed the list.
func (r *run) replace(i int, t task) {
	n := &r.nodes[i]
	for k, o := range n.tasks {
		if o.kind == t.kind && o.epoch == t.epoch && o.node == t.node && o.awaited == t.awaited {
			n.tasks[k] = t
			return
		}
	}
}

func (r *run) remove(i int, t task) {
	n := &r.nodes[i]
	n.tasks = slices.DeleteFunc(slices.Clone(n.tasks), func(o task) bool {
		return o.kind == t.kind && o.epoch == t.epoch && o.node == t.node && o.awaited == t.awaited
	})
}

// receive delivers a message.
func (r *run) receive(m message) {
	i := index(m.to)
	n := &r.nodes[i]
	switch m.kind {
	case ballotRequest:
		t := task{kind: vote, epoch: m.epoch, node: m.from, from: m.position, orphan: m.orphan}
		for _, o := range n.tasks {
			if o.kind == vote && o.epoch == t.epoch && o.node == t.node {
				return // the same one once more while it is being answered
			}
		}
		n.tasks = append(n.tasks, t)
		if !r.Fine && !r.busy(i) {
			r.work(i, len(n.tasks)-1)
		}
	case ballotAnswer:
		r.post(i, stimulus{kind: ballotAnswered, answer: m.answer})
	case promoteNotify:
		r.epochBegan(i, m.epoch, m.from)
	case appendSuccess:
		r.succeeded(m)
	case appendHeld:
		r.let(index(m.from), i, m)
	}
}
