package explore

import (
	"github.com/aiondb/aiondb-ha/protocol"
)

// checkFork checks a line of the history that somebody has learned is committed.
func (r *run) checkFork(e entry) {
	first := r.forks[e.term]
	if first.fork && first != e {
		r.violated("history", "epoch %d forks for node %d at %v and for node %d at %v", e.term, first.by, first.from, e.by, e.from)
	}
	r.forks[e.term] = e
}

// checkHelp checks that an AppendEntries may be let succeed (I5).
func (r *run) checkHelp(i int, epoch protocol.Epoch) {
	if epoch < r.promised[i] {
		r.violated("I5", "node %d lets an AppendEntries of term %d succeed after it has answered the ballot of epoch %d", id(i), epoch, r.promised[i])
	}
}

// checkOpened checks that nobody else had its guard open in the epoch (I1).
func (r *run) checkOpened(i int, epoch protocol.Epoch) {
	r.opened[epoch] |= 1 << i
	if r.opened[epoch] != 1<<i {
		r.violated("I1", "node %d opens its guard in epoch %d, and another node had it open in that epoch", id(i), epoch)
	}
}

// checkPromoted checks that the history says of the log of a database that is
// promoted what that log is. A begin record is already there.
func (r *run) checkPromoted(i int, epoch protocol.Epoch, lineage protocol.Lineage) {
	log := r.nodes[i].wal
	if r.begun[epoch] {
		r.violated("I1", "the database of node %d is promoted in epoch %d, in which there was a promotion before", id(i), epoch)
	}
	end := len(log)
	if r.Begin {
		end--
	}
	if lineage == nil { // a mutant
		return
	}
	if fork := r.forks[epoch].from.LSN; int(fork) != end {
		r.violated("history", "node %d is promoted in epoch %d with a log %v, and the history forks at %d", id(i), epoch, log, fork)
	}
	for at := range end {
		if lineage.EpochAt(protocol.LSN(at+1)) != protocol.Epoch(log[at]) {
			r.violated("history", "node %d is promoted in epoch %d with a log %v, and the history has the lineage %v", id(i), epoch, log, lineage)
			return
		}
	}
}

// check checks what must hold in every state, and against the one before.
func (r *run) check(before *state) {
	speaking := 0
	for i := range r.nodes {
		n := &r.nodes[i]
		if n.floor.epoch < before.nodes[i].floor.epoch {
			r.violated("I2", "the floor of node %d goes from %d to %d", id(i), before.nodes[i].floor.epoch, n.floor.epoch)
		}
		if r.Lease && n.up && n.guard.speaks(r.now(r.state, i)) {
			if speaking++; speaking > 1 {
				r.violated("I1", "two guards let their nodes speak at the same instant")
			}
		}
		if e := n.following.epoch; n.up && n.following.primary != protocol.NoNode && r.begun[e] {
			if s := r.stream[e]; len(n.wal) > len(s) || n.wal != s[:len(n.wal)] {
				r.violated("history", "node %d follows epoch %d with the log %v, and its primary's is %v", id(i), e, n.wal, s)
			}
		}
		if e := n.primary; e != 0 && r.stream[e] != n.wal {
			r.violated("history", "the primary of epoch %d, node %d, has the log %v, and had %v", e, id(i), n.wal, r.stream[e])
		}
	}
	for e, lsn := range r.acked {
		if lsn == 0 {
			continue
		}
		for later := e + 1; later < maxEpochs; later++ {
			if log := r.stream[later]; r.begun[later] && (len(log) < int(lsn) || log[:lsn] != r.stream[e][:lsn]) {
				r.violated("I3", "record %d of epoch %d is acknowledged, behind %v, and the primary of epoch %d has the log %v", lsn, e, r.stream[e][:lsn-1], later, log)
			}
		}
	}
}
