package explore

import (
	"github.com/aiondb/aiondb-ha/protocol"
)

// The model's database: a log of records on every node. Primary and replicas
// keep the rules that package failover asks of a Database, and those that
// package walplane adds: confirmed is only what is flushed, nothing is written
// or cut for an epoch below the fence.
//
// What is on its way between primary and replicas is not kept as messages: a
// replica may receive, at any time, the next record that the primary of the
// epoch it follows ever had, and the primary may learn, at any time, of all
// that a replica has ever confirmed in its epoch. So every delay is there.

// databaseWork is one turn of databaseWorker.
func (r *run) databaseWork(i int) {
	n := &r.nodes[i]
	if n.demotion != nil {
		d := *n.demotion
		n.demotion = nil
		r.demote(i, d)
		return
	}
	epoch, awaited := n.promotion, n.promoAwaited
	n.promotion, n.promoAwaited = 0, false
	if !r.promote(i, epoch) {
		r.answer(i, awaited, stimulus{kind: failed})
		return
	}
	r.answer(i, awaited, stimulus{kind: promoted})
}

func (r *run) demote(i int, d follow) {
	n := &r.nodes[i]
	var lineage protocol.Lineage
	if d.primary != protocol.NoNode {
		var err error
		if lineage, err = r.history(i).Lineage(d.epoch); err != nil {
			r.violated("history", "node %d is to follow epoch %d: %v", id(i), d.epoch, err)
			return
		}
		if d.epoch > n.floor.epoch {
			r.closeBelow(i, d.epoch)
			if err := r.makePromise(i, d.epoch, d.primary); err == nil {
				r.fenceDatabase(i, d.epoch)
			}
		}
	}
	n.primary, n.following = 0, follow{}
	if d.primary == protocol.NoNode {
		return
	}
	if d.epoch >= n.fence || r.Broken.CutBelowFence {
		if keep := lineage.CommonPrefix(n.wal.lineage()); int(keep) < len(n.wal) && !r.Broken.NoCut {
			n.wal, n.volatile = n.wal[:keep], 0
		}
	}
	if d.epoch >= n.fence || r.Broken.StaleStream {
		n.following = d
	}
}

func (r *run) promote(i int, epoch protocol.Epoch) bool {
	n := &r.nodes[i]
	lineage, err := r.history(i).Lineage(epoch)
	if err != nil && !r.Broken.ForkUncommitted {
		r.violated("history", "node %d is promoted in epoch %d: %v", id(i), epoch, err)
		return false
	}
	if epoch < n.fence {
		return false
	}
	n.primary, n.following = epoch, follow{}
	if r.Begin {
		n.wal += wal(rune(epoch))
	}
	r.checkPromoted(i, epoch, lineage)
	r.begun[epoch] = true
	r.stream[epoch] = n.wal
	return true
}

// write is a client's write on a primary.
func (r *run) write(i int) {
	n := &r.nodes[i]
	n.wal += wal(rune(n.primary))
	r.stream[n.primary] = n.wal
}

// canReceive reports whether replica i has a record to come.
func (w *world) canReceive(s *state, i int) bool {
	n := &s.nodes[i]
	e := n.following.epoch
	return n.up && n.primary == 0 && n.following.primary != protocol.NoNode && (e >= n.fence || w.Broken.StaleStream) &&
		s.begun[e] && len(n.wal) < len(s.stream[e])
}

// receiveRecord takes one record of the stream that replica i follows.
func (r *run) receiveRecord(i int) {
	n := &r.nodes[i]
	e := n.following.epoch
	if e < r.promised[i] {
		r.violated("I5", "node %d takes a record of epoch %d after it has answered the ballot of epoch %d", id(i), e, r.promised[i])
	}
	n.wal += r.stream[e][len(n.wal) : len(n.wal)+1]
	if r.Broken.AckUnflushed {
		n.volatile++
	}
	r.received[i][e] = max(r.received[i][e], uint8(len(n.wal)))
}

// acknowledgeable returns up to where primary i may acknowledge, 0 if nothing new.
func (w *world) acknowledgeable(s *state, i int) uint8 {
	n := &s.nodes[i]
	e := n.primary
	if !n.up || e == 0 || e < n.fence || !w.Broken.AckUnguarded && (n.guard.open != e || !n.guard.speaks(w.now(s, i))) {
		return 0
	}
	needed := quorum
	if w.Broken.AckTooSmall {
		needed--
	}
	for lsn := len(n.wal); lsn > int(s.acked[e]) && n.wal[lsn-1] == byte(e); lsn-- {
		copies := 1
		for j := range nodes {
			if j != i && int(s.received[j][e]) >= lsn {
				copies++
			}
		}
		if copies >= needed {
			return uint8(lsn)
		}
	}
	return 0
}

func (r *run) acknowledge(i int) {
	e := r.nodes[i].primary
	r.acked[e] = r.acknowledgeable(r.state, i)
	if r.Lease {
		for later := e + 1; later < maxEpochs; later++ {
			if r.begun[later] {
				r.violated("I1", "node %d acknowledges in epoch %d, while epoch %d has its primary", id(i), e, later)
			}
		}
	}
}
