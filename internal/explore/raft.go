package explore

import (
	"slices"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The abstract Raft does in one step what takes the real one several messages:
// an election takes its votes at once, an AppendEntries brings the whole log.
// What it may do is what Raft may do: whoever has the better log of a quorum
// can be elected at any time, any leader can find itself alone, and an entry
// of the leader's own term is committed when a quorum has it.

func lastTerm(log []entry) uint8 {
	if len(log) == 0 {
		return 0
	}
	return log[len(log)-1].term
}

// electable reports whether j may vote for i.
func (s *state) electable(i, j int) bool {
	a, b := &s.nodes[i], &s.nodes[j]
	if i == j || !a.up || !b.up || a.leader {
		return false
	}
	ta, tb := lastTerm(a.log), lastTerm(b.log)
	return ta > tb || ta == tb && len(a.log) >= len(b.log)
}

// elect makes i leader of a new term, with the vote of j.
func (r *run) elect(i, j int) {
	term := max(r.nodes[i].term, r.nodes[j].term) + 1
	r.nodes[i].term, r.nodes[j].term = term, term
	r.follow(j)
	n := &r.nodes[i]
	n.leader, n.match, n.stamps = true, [nodes]uint8{}, noStamps
	r.post(i, stimulus{kind: gained, epoch: protocol.Epoch(term)})
}

// follow ends i's leadership, if it has one.
func (r *run) follow(i int) {
	if n := &r.nodes[i]; n.leader {
		n.leader, n.match, n.stamps = false, [nodes]uint8{}, noStamps
		for k := range n.tasks { // what was proposed: the outcome is unknown from here on
			if t := &n.tasks[k]; t.stage == 1 && (t.kind == commitNoop || t.kind == commitFork) {
				t.stage = 2
			}
		}
		r.post(i, stimulus{kind: lost})
	}
}

// reaches reports whether an AppendEntries of i would be let succeed by j.
func (w *world) reaches(s *state, i, j int) bool {
	a, b := &s.nodes[i], &s.nodes[j]
	return i != j && a.up && b.up && a.leader && a.term >= b.term && (protocol.Epoch(a.term) >= b.barred || w.Broken.NoBar)
}

// appends reports whether it would change anything.
func (w *world) appends(s *state, i, j int) bool {
	a, b := &s.nodes[i], &s.nodes[j]
	if !w.reaches(s, i, j) {
		return false
	}
	news := a.term != b.term || b.commit < a.commit || !slices.Equal(a.log, b.log)
	if !w.Lease {
		return news || int(a.match[j]) < len(a.log)
	}
	// A second success at the same instant brings nothing, if the rules hold.
	again := a.stamps[j] != w.now(s, i) || w.Broken.StampAtReceipt || w.Broken.NoBar
	return news || !w.Fine && b.help.last != w.now(s, j) || again && !slices.ContainsFunc(s.messages, func(m message) bool {
		return (m.kind == appendSuccess && m.to == id(i) && m.from == id(j) || m.kind == appendHeld && m.to == id(j) && m.from == id(i)) && m.sent == w.now(s, i)
	})
}

// appendEntries is sent by i and let succeed by j at the same instant. With a
// lease, the answer takes its time.
func (r *run) appendEntries(i, j int) {
	a, b := &r.nodes[i], &r.nodes[j]
	b.term, b.log = a.term, a.log
	match := uint8(len(a.log))
	r.follow(j)
	answer := message{kind: appendSuccess, to: id(i), from: id(j), epoch: protocol.Epoch(a.term), sent: r.now(r.state, i), match: match}
	switch {
	case !r.Lease:
		r.checkHelp(j, answer.epoch)
		a.match[j] = match
	case r.Fine:
		answer.kind, answer.to, answer.from = appendHeld, id(j), id(i)
		r.send(answer)
	default:
		r.let(i, j, answer)
	}
	r.learn(j, min(a.commit, match))
	r.advance(i)
}

// let is what becomes of a success when j's Raft has given it: raftshim's
// lease.let.
func (r *run) let(i, j int, answer message) {
	b := &r.nodes[j]
	if answer.epoch < b.barred && !r.Broken.NoBar {
		return
	}
	r.checkHelp(j, answer.epoch)
	b.help = b.help.noted(answer.epoch, r.now(r.state, j))
	answer.kind, answer.to, answer.from = appendSuccess, id(i), id(j)
	r.send(answer)
}

// succeeded takes the answer to an AppendEntries.
func (r *run) succeeded(m message) {
	i, j := index(m.to), index(m.from)
	n := &r.nodes[i]
	if !n.leader || protocol.Epoch(n.term) != m.epoch {
		return
	}
	at := m.sent
	if r.Broken.StampAtReceipt {
		at = r.now(r.state, i)
	}
	n.stamps[j] = max(n.stamps[j], at)
	n.match[j] = max(n.match[j], m.match)
	r.renew(i)
	r.advance(i)
}

// renew extends i's guard as far as its voters have helped.
func (r *run) renew(i int) {
	n := &r.nodes[i]
	epoch := n.guard.open
	if epoch == 0 {
		return
	}
	if !r.Lease {
		n.guard = n.guard.extended(epoch, noDeadline)
		return
	}
	if epoch != protocol.Epoch(n.term) {
		return
	}
	deadline, runs := n.stamps.deadline(id(i), epoch, leaseDuration, r.now(r.state, i), r.voters)
	if runs {
		if r.Broken.NoDrift {
			deadline += leaseDuration / 20
		}
		n.guard = n.guard.extended(epoch, deadline)
	}
}

// propose appends an entry to the leader's log and returns its index, from 1.
func (r *run) propose(i int, e entry) uint8 {
	n := &r.nodes[i]
	n.log = append(slices.Clip(n.log), e)
	return uint8(len(n.log))
}

// advance commits what a quorum has, if it is of the leader's own term.
func (r *run) advance(i int) {
	n := &r.nodes[i]
	if !n.leader {
		return
	}
	for at := len(n.log); at > int(n.commit) && n.log[at-1].term == n.term; at-- {
		copies := 1
		for j := range nodes {
			if j != i && int(n.match[j]) >= at {
				copies++
			}
		}
		if copies >= quorum {
			r.learn(i, uint8(at))
			return
		}
	}
}

// learn applies what is committed up to an index and tells the machine.
func (r *run) learn(i int, commit uint8) {
	n := &r.nodes[i]
	if commit <= n.commit {
		return
	}
	from := n.commit
	n.commit = commit
	var newest entry
	for _, e := range n.log[from:commit] {
		if !e.fork {
			continue
		}
		newest = e
		r.checkFork(e)
	}
	if newest.fork {
		last := r.history(i)
		f := last[len(last)-1]
		r.post(i, stimulus{kind: primaryKnown, epoch: f.Epoch, node: f.NodeID})
	}
	for k := 0; k < len(n.tasks); k++ {
		t := n.tasks[k]
		if t.stage != 1 || t.index > commit || t.kind != commitNoop && t.kind != commitFork {
			continue
		}
		n.tasks = slices.Delete(slices.Clone(n.tasks), k, k+1)
		k = -1
		if t.kind == commitNoop {
			r.answer(i, t.awaited, stimulus{kind: epochBegun, epoch: protocol.Epoch(n.log[t.index-1].term)})
		} else {
			r.answer(i, t.awaited, stimulus{kind: forkCommitted})
		}
	}
}

// history is the timeline history as node i has applied it: the first line of
// each epoch, which must have been committed in the term of that epoch.
func (s *state) history(i int) protocol.History {
	var h protocol.History
	n := &s.nodes[i]
	for _, e := range n.log[:n.commit] {
		if e.fork && (len(h) == 0 || h[len(h)-1].Epoch < protocol.Epoch(e.term)) {
			h = append(h, protocol.Fork{Epoch: protocol.Epoch(e.term), NodeID: e.by, Parent: e.from.Timeline, LSN: e.from.LSN})
		}
	}
	return h
}
