package explore

import (
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

type stepKind uint8

const (
	stepElect stepKind = iota
	stepAppend
	stepReject
	stepAlone
	stepReceive
	stepDuplicate
	stepUnanswered
	stepWork
	stepFail
	stepDatabase
	stepPromotionFails
	stepTick
	stepHear
	stepWrite
	stepRecord
	stepAcknowledge
	stepCrash
	stepClock
	stepSwitchover
)

// step is one thing that may happen next. a and b are nodes, or the number of a
// task or message.
type step struct {
	kind stepKind
	a, b uint8
}

// steps returns all that may happen next.
func (w *world) enabled(s *state, out []step) []step {
	out = out[:0]
	add := func(kind stepKind, a, b int) { out = append(out, step{kind, uint8(a), uint8(b)}) }
	fault := s.faults < w.Bounds.Faults
	for i := range s.nodes {
		n := &s.nodes[i]
		if !n.up {
			continue
		}
		for j := range nodes {
			if s.electable(i, j) && max(n.term, s.nodes[j].term) < w.Bounds.Terms {
				add(stepElect, i, j)
			}
			if w.appends(s, i, j) {
				add(stepAppend, i, j)
			}
			if o := &s.nodes[j]; n.leader && o.up && o.term > n.term {
				add(stepReject, i, j)
			}
			if n.mach.state == failover.Promoted && n.mach.epoch == n.guard.open && i != j && s.switches < w.Bounds.Switchovers {
				add(stepSwitchover, i, j)
			}
		}
		if n.leader && fault {
			add(stepAlone, i, 0)
		}
		for k, t := range n.tasks {
			if w.workable(s, i, k) {
				add(stepWork, i, k)
			}
			if fault && t.awaited {
				add(stepFail, i, k)
			}
		}
		if n.demotion != nil || n.promotion != 0 {
			add(stepDatabase, i, 0)
			if n.demotion == nil && fault {
				add(stepPromotionFails, i, 0)
			}
		}
		if wake := n.mach.wake; wake >= 0 && wake <= time.Duration(n.idle)*w.steps[i]+time.Microsecond &&
			(fault || !s.asking(i)) {
			add(stepTick, i, 0)
		}
		// Two queues: changes of leadership, and all the rest.
		for _, leadership := range []bool{true, false} {
			if k := slices.IndexFunc(n.inbox, func(in stimulus) bool { return (in.kind <= lost) == leadership }); k >= 0 {
				add(stepHear, i, k)
			}
		}
		if n.primary != 0 && n.primary >= n.fence && s.writes < w.Bounds.Writes {
			add(stepWrite, i, 0)
		}
		if w.canReceive(s, i) {
			add(stepRecord, i, 0)
		}
		if w.Lease && w.acknowledgeable(s, i) != 0 {
			add(stepAcknowledge, i, 0)
		}
		if s.crashes < w.Bounds.Crashes {
			add(stepCrash, i, 0)
		}
	}
	for k, m := range s.messages {
		if s.nodes[index(m.to)].up {
			add(stepReceive, k, 0)
			if fault && m.kind < appendSuccess {
				add(stepDuplicate, k, 0)
			}
		}
		if m.kind == ballotRequest && m.current && (fault || !s.nodes[index(m.to)].up) {
			add(stepUnanswered, k, 0)
		}
	}
	if (w.Lease || w.fairly) && s.clock < w.Bounds.Clock {
		add(stepClock, 0, 0)
	}
	return out
}

// asking reports whether ballots of i are on their way: its timer is a timeout.
func (s *state) asking(i int) bool {
	return slices.ContainsFunc(s.messages, func(m message) bool { return m.kind == ballotRequest && m.from == id(i) && m.current })
}

// take returns the state after one step, and the first violation on the way.
func (w *world) take(s *state, st step) (*state, *violation) {
	r := &run{world: w, state: s.clone()}
	i := int(st.a)
	switch st.kind {
	case stepElect:
		r.elect(i, int(st.b))
	case stepAppend:
		r.appendEntries(i, int(st.b))
	case stepReject:
		r.nodes[i].term = r.nodes[st.b].term
		r.follow(i)
	case stepAlone:
		r.faults++
		r.follow(i)
	case stepReceive:
		m := r.messages[i]
		r.messages = slices.Delete(r.messages, i, i+1)
		r.receive(m)
	case stepDuplicate:
		r.faults++
		r.receive(r.messages[i])
	case stepUnanswered:
		m := &r.messages[i]
		if r.nodes[index(m.to)].up {
			r.faults++
		}
		from, to, epoch := m.from, m.to, m.epoch
		m.current, m.orphan = false, true
		in := stimulus{kind: ballotUnanswered, node: to}
		if w.Broken.BallotTooSmall {
			in = stimulus{kind: ballotAnswered, answer: protocol.BallotAnswer{Epoch: epoch, VoterID: to, AgeUS: protocol.AgeInfinite}}
		}
		r.feed(index(from), in)
	case stepWork:
		r.work(i, int(st.b))
	case stepFail:
		r.faults++
		n := &r.nodes[i]
		n.tasks[st.b].awaited = false
		r.feed(i, stimulus{kind: failed})
	case stepDatabase:
		r.databaseWork(i)
	case stepPromotionFails:
		r.faults++
		n := &r.nodes[i]
		awaited := n.promoAwaited
		n.promotion, n.promoAwaited = 0, false
		r.answer(i, awaited, stimulus{kind: failed})
	case stepTick:
		if s.asking(i) {
			r.faults++
		}
		r.feed(i, stimulus{kind: tick})
	case stepHear:
		n := &r.nodes[i]
		in := n.inbox[st.b]
		n.inbox = slices.Delete(slices.Clone(n.inbox), int(st.b), int(st.b)+1)
		r.feed(i, in)
	case stepWrite:
		r.writes++
		r.write(i)
	case stepRecord:
		r.receiveRecord(i)
	case stepAcknowledge:
		r.acknowledge(i)
	case stepCrash:
		r.crashes++
		r.crash(i)
		w.start(r.state, i)
	case stepClock:
		r.clock++
		for j := range r.nodes {
			r.nodes[j].idle++
		}
	case stepSwitchover:
		r.switches++
		n := &r.nodes[i]
		epoch := n.guard.open
		n.guard = n.guard.closeBelow(epoch + 1)
		r.feed(i, stimulus{kind: handOver, epoch: epoch, node: id(int(st.b))})
	}
	// A write is acknowledged as soon as it may be: that binds later primaries
	// soonest, and changes nothing else. With a lease, the latest counts too.
	for j := range r.nodes {
		if !w.Lease && w.acknowledgeable(r.state, j) != 0 {
			r.acknowledge(j)
		}
	}
	r.settle()
	r.check(s)
	return r.state, r.broken
}

// describe says in words what a step does in s.
func (w *world) describe(s *state, st step) string {
	a, b := id(int(st.a)), id(int(st.b))
	switch st.kind {
	case stepElect:
		return fmt.Sprintf("Raft elects node %d in term %d, with the vote of node %d", a, max(s.nodes[st.a].term, s.nodes[st.b].term)+1, b)
	case stepAppend:
		return fmt.Sprintf("node %d, leader of term %d, appends to node %d", a, s.nodes[st.a].term, b)
	case stepReject:
		return fmt.Sprintf("node %d, leader of term %d, learns of term %d from node %d", a, s.nodes[st.a].term, s.nodes[st.b].term, b)
	case stepAlone:
		return fmt.Sprintf("node %d, leader of term %d, finds itself alone and steps down", a, s.nodes[st.a].term)
	case stepReceive:
		return "node " + s.messages[st.a].String()
	case stepDuplicate:
		return "node " + s.messages[st.a].String() + " (and will again)"
	case stepUnanswered:
		m := s.messages[st.a]
		return fmt.Sprintf("node %d gives up waiting for node %d's answer to its ballot of epoch %d", m.from, m.to, m.epoch)
	case stepWork:
		return fmt.Sprintf("node %d: %v", a, s.nodes[st.a].tasks[st.b])
	case stepFail:
		return fmt.Sprintf("node %d: fails or takes too long: %v", a, s.nodes[st.a].tasks[st.b])
	case stepDatabase:
		if d := s.nodes[st.a].demotion; d != nil {
			return fmt.Sprintf("node %d: the database is demoted at epoch %d, to follow node %d", a, d.epoch, d.primary)
		}
		return fmt.Sprintf("node %d: the database is promoted in epoch %d", a, s.nodes[st.a].promotion)
	case stepPromotionFails:
		return fmt.Sprintf("node %d: the promotion of the database fails", a)
	case stepTick:
		return fmt.Sprintf("node %d: the timer of its machine is due", a)
	case stepHear:
		return fmt.Sprintf("node %d: its machine hears that %v", a, s.nodes[st.a].inbox[st.b])
	case stepWrite:
		return fmt.Sprintf("node %d, primary of epoch %d, writes a record behind %v", a, s.nodes[st.a].primary, s.nodes[st.a].wal)
	case stepRecord:
		n := &s.nodes[st.a]
		return fmt.Sprintf("node %d, at %v, receives the next record of epoch %d's primary", a, n.wal, n.following.epoch)
	case stepAcknowledge:
		n := &s.nodes[st.a]
		return fmt.Sprintf("node %d acknowledges record %d of epoch %d", a, w.acknowledgeable(s, int(st.a)), n.primary)
	case stepCrash:
		return fmt.Sprintf("node %d crashes, and starts again with floor %d and log %v", a, s.nodes[st.a].floor.epoch, s.nodes[st.a].wal)
	case stepClock:
		return "time passes"
	case stepSwitchover:
		return fmt.Sprintf("node %d closes its guard in epoch %d and hands over to node %d", a, s.nodes[st.a].guard.open, b)
	}
	return "?"
}

// String says what arrives, beginning with the number of the receiver.
func (m message) String() string {
	switch m.kind {
	case ballotRequest:
		return fmt.Sprintf("%d gets the ballot of epoch %d from node %d, at %v", m.to, m.epoch, m.from, m.position)
	case ballotAnswer:
		verdict := [...]string{"granted", "refused, promised to a later epoch", "better", "unavailable"}[m.answer.Refusal]
		return fmt.Sprintf("%d gets node %d's answer of epoch %d: %s, at %v", m.to, m.from, m.epoch, verdict, m.answer.Position)
	case promoteNotify:
		return fmt.Sprintf("%d is told that node %d is primary of epoch %d", m.to, m.from, m.epoch)
	}
	if m.kind == appendHeld {
		return fmt.Sprintf("%d lets its success of term %d to node %d out, sent for at %v", m.to, m.epoch, m.from, m.sent-time.Hour)
	}
	return fmt.Sprintf("%d gets node %d's success of term %d, sent for at %v", m.to, m.from, m.epoch, m.sent-time.Hour)
}

// String says what the next stage of the task does.
func (t task) String() string {
	late := ""
	if !t.awaited && t.kind != vote {
		late = " (given up by its machine)"
	}
	switch t.kind {
	case commitNoop:
		return [...]string{"proposes its first entry", "first entry proposed", "the outcome of its first entry is unknown"}[t.stage] + late
	case prepare:
		return fmt.Sprintf([...]string{"promises itself to its own epoch %d", "fences its database at %d and reads its position"}[t.stage], t.epoch) + late
	case commitFork:
		return fmt.Sprintf([...]string{"proposes the fork of epoch %d at %v", "fork of epoch %d at %v proposed", "the outcome of the fork of epoch %d at %v is unknown"}[t.stage], t.epoch, t.from) + late
	case acquireToken:
		return fmt.Sprintf("acquires the token of epoch %d and opens its guard", t.epoch) + late
	case offerLeadership:
		return "leadership was transferred" + late
	case newTerm:
		return "stands again in a new term" + late
	}
	return fmt.Sprintf([...]string{"closes its guard for the ballot of epoch %d of node %d", "promises itself to epoch %d of node %d",
		"fences its database and answers the ballot of epoch %d of node %d"}[t.stage], t.epoch, t.node) + late
}
