package failover_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// modelDB is the smallest data plane that keeps the rules of
// failover.Database: a log of records, each with the epoch that wrote it,
// pushed whole to the replicas. All it has is durable, but fence and role.
type modelDB struct {
	id  protocol.NodeID
	net *network

	mu        sync.Mutex
	log       []record
	fence     protocol.Epoch
	following failover.Demotion
	promotion *failover.Promotion // nil: replica
	held      bool                // writes are held back

	promoteErr error // Promote fails with it
	calls      int   // of Promote and Demote under way
	overlapped bool
}

type record struct {
	epoch protocol.Epoch
	value string
}

var errFenced = errors.New("fenced")

func (db *modelDB) position() protocol.Position {
	if len(db.log) == 0 {
		return protocol.Position{}
	}
	return protocol.Position{Timeline: db.log[len(db.log)-1].epoch, LSN: protocol.LSN(len(db.log))}
}

func (db *modelDB) lineage() protocol.Lineage {
	var l protocol.Lineage
	for i, r := range db.log {
		if len(l) == 0 || l[len(l)-1].Epoch != r.epoch {
			l = append(l, protocol.Segment{Epoch: r.epoch})
		}
		l[len(l)-1].End = protocol.LSN(i + 1)
	}
	return l
}

func (db *modelDB) Position(context.Context) (protocol.Position, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.position(), nil
}

func (db *modelDB) Fence(_ context.Context, epoch protocol.Epoch) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fence = max(db.fence, epoch)
	return nil
}

func (db *modelDB) enter() func() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.calls++
	db.overlapped = db.overlapped || db.calls > 1
	return func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.calls--
	}
}

func (db *modelDB) Promote(ctx context.Context, p failover.Promotion) error {
	defer db.enter()()
	time.Sleep(2*time.Millisecond + db.net.delay())
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case db.promoteErr != nil:
		return db.promoteErr
	case p.Epoch < db.fence:
		return errFenced
	}
	db.net.oneGuard(db.id)
	db.promotion, db.held = &p, false
	return nil
}

func (db *modelDB) Demote(_ context.Context, d failover.Demotion) error {
	defer db.enter()()
	db.mu.Lock()
	defer db.mu.Unlock()
	db.promotion, db.following, db.held = nil, d, false
	if d.Primary != protocol.NoNode {
		if keep := d.Lineage.CommonPrefix(db.lineage()); int(keep) < len(db.log) {
			db.log = db.log[:keep]
		}
		go db.fetch(d)
	}
	return nil
}

// fetch takes the primary's log as it is, once it is promoted.
func (db *modelDB) fetch(d failover.Demotion) {
	for range 100 {
		time.Sleep(latency)
		db.mu.Lock()
		current := db.following.Primary == d.Primary && db.following.Epoch == d.Epoch
		db.mu.Unlock()
		if !current {
			return
		}
		if !db.net.connected(db.id, d.Primary) {
			continue
		}
		source := db.net.node(d.Primary).db
		source.mu.Lock()
		log, ready := append([]record(nil), source.log...), source.promotion != nil && source.promotion.Epoch == d.Epoch
		source.mu.Unlock()
		if ready && db.receive(d.Primary, d.Epoch, log) {
			return
		}
	}
}

func (db *modelDB) StopWrites(context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.held = true
	return nil
}

func (db *modelDB) ResumeWrites() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.held = false
}

// write appends one value on the primary, pushes the log to every node that
// can be reached, and reports whether a quorum has it and the guard allows
// the acknowledgement.
func (db *modelDB) write(value string) (protocol.Epoch, error) {
	db.mu.Lock()
	p := db.promotion
	switch {
	case p == nil:
		db.mu.Unlock()
		return 0, failover.ErrNotPrimary
	case db.held:
		db.mu.Unlock()
		return 0, errors.New("held")
	case p.Epoch < db.fence:
		db.mu.Unlock()
		return 0, errFenced
	}
	db.log = append(db.log, record{p.Epoch, value})
	log := append([]record(nil), db.log...)
	db.mu.Unlock()
	copies := 1
	for _, to := range db.net.others(db.id) {
		time.Sleep(200 * time.Microsecond)
		if db.net.connected(db.id, to) && db.net.node(to).db.receive(db.id, p.Epoch, log) {
			copies++
		}
	}
	if copies < db.net.quorum() {
		return p.Epoch, errors.New("no quorum of copies")
	}
	if err := p.Guard.Check(p.Epoch); err != nil {
		return p.Epoch, err
	}
	p.Acknowledging()
	return p.Epoch, nil
}

// receive takes the primary's log if it is the one this node follows.
func (db *modelDB) receive(from protocol.NodeID, epoch protocol.Epoch, log []record) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.net.node(db.id).witness || epoch < db.fence || db.promotion != nil || db.following.Primary != from || db.following.Epoch != epoch {
		return false
	}
	if len(log) > len(db.log) { // pushes of one primary may overtake each other
		db.log = log
	}
	return true
}

func (db *modelDB) values() map[string]bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	out := map[string]bool{}
	for _, r := range db.log {
		out[r.value] = true
	}
	return out
}

// ledger is the client's own record of what was acknowledged. It checks, at
// every acknowledgement, that no older epoch speaks after a newer one (I1).
type ledger struct {
	mu     sync.Mutex
	acked  []string
	epoch  protocol.Epoch
	faults []string
}

func (l *ledger) ack(value string, epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch < l.epoch {
		l.faults = append(l.faults, fmt.Sprintf("%s acknowledged in epoch %d after one in epoch %d", value, epoch, l.epoch))
	}
	l.epoch = max(l.epoch, epoch)
	l.acked = append(l.acked, value)
}

// oneGuard checks, at a promotion, that no other node may speak (I1).
func (net *network) oneGuard(promoted protocol.NodeID) {
	for _, id := range net.others(promoted) {
		if nd := net.nodes[id]; nd.isUp() {
			if epoch, open := nd.guard.Epoch(); open && nd.guard.Check(epoch) == nil {
				net.ledger.mu.Lock()
				net.faults = append(net.faults, fmt.Sprintf("node %d is promoted while the guard of node %d is open in epoch %d", promoted, id, epoch))
				net.ledger.mu.Unlock()
			}
		}
	}
}

var _ failover.WriteStopper = (*modelDB)(nil)
