package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	errNotPrimary = errors.New("not primary")
	errHeld       = errors.New("writes are held back")
	errFenced     = errors.New("fenced")
	errUnknown    = errors.New("no quorum in time: it may have been written")
)

// The times of the model database.
const (
	ackPatience  = 400 * time.Millisecond // how long a write waits for a quorum, and for a lapsed lease
	pullPatience = time.Second            // how long a replica waits for its primary's answer
	pullWait     = 150 * time.Millisecond // how long a primary keeps a replica that has everything waiting
	pullRetry    = 10 * time.Millisecond
	pullBatch    = 64
)

// database is the smallest data plane that keeps the rules of
// failover.Database: a log that the primary writes and the replicas pull.
// Records are flushed by one goroutine; replicas confirm what they have
// flushed; a write is acknowledged when a quorum has it flushed and the guard,
// asked last, says so.
type database struct {
	p *process

	mu        sync.Mutex
	log       wal
	flushed   int
	fence     protocol.Epoch
	following failover.Demotion
	promotion *failover.Promotion // nil: replica
	begun     int                 // LSN at which the own epoch begins
	confirmed map[protocol.NodeID]int
	held      bool
	cuts      int           // how many times the log was cut
	moved     chan struct{} // closed and replaced when any of this changes
}

var (
	_ failover.Database     = (*database)(nil)
	_ failover.WriteStopper = (*database)(nil)
)

// newDatabase returns a database with what a crash has left of its log.
func newDatabase(p *process, log wal) *database {
	return &database{p: p, log: log, flushed: log.end(), moved: make(chan struct{})}
}

// changed wakes whoever waits. The caller holds mu.
func (db *database) changed() {
	close(db.moved)
	db.moved = make(chan struct{})
}

// await waits, bounded, until done, which is called with mu held, is true.
func (db *database) await(patience time.Duration, done func() bool) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		db.mu.Lock()
		ok, moved := done(), db.moved
		db.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-moved:
		case <-timer.C:
			return false
		case <-db.p.dead:
			return false
		}
	}
}

func until(ctx context.Context) time.Duration {
	if deadline, bounded := ctx.Deadline(); bounded {
		return time.Until(deadline)
	}
	return time.Hour
}

func (db *database) Position(context.Context) (protocol.Position, error) {
	if err := db.p.pass(); err != nil {
		return protocol.Position{}, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.log.position(db.flushed), nil
}

// Fence waits for what is being flushed: what was taken before the fence is
// part of the position that is read next, or is not there.
func (db *database) Fence(ctx context.Context, epoch protocol.Epoch) error {
	if err := db.p.pass(); err != nil || db.p.c.broken.fenceIgnored {
		return err
	}
	db.mu.Lock()
	db.fence = max(db.fence, epoch)
	db.changed()
	db.mu.Unlock()
	return db.awaitFlush(ctx)
}

func (db *database) awaitFlush(ctx context.Context) error {
	if !db.await(until(ctx), func() bool { return db.flushed == db.log.end() }) {
		return errors.New("the log is not flushed in time")
	}
	return nil
}

func (db *database) Promote(ctx context.Context, p failover.Promotion) error {
	if err := db.p.sleep(time.Millisecond); err != nil {
		return err
	}
	if err := db.awaitFlush(ctx); err != nil {
		return err
	}
	if err := db.p.pass(); err != nil {
		return err
	}
	db.p.c.checkBest(db.p, p.Epoch)
	db.mu.Lock()
	defer db.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.Epoch < db.fence {
		return errFenced
	}
	if fork := p.Lineage[:len(p.Lineage)-1]; !slices.Equal(fork, db.log.lineage) {
		return fmt.Errorf("the log is made of %v, and the timeline of %v", db.log.lineage, p.Lineage)
	}
	db.promotion, db.following, db.held = &p, failover.Demotion{}, false
	db.confirmed = map[protocol.NodeID]int{}
	db.p.c.ledger.promoted(db.p, p.Epoch, db.log.upTo(db.log.end()))
	db.log.write(p.Epoch, 0) // as every timeline begins
	db.begun = db.log.end()
	db.changed()
	return nil
}

func (db *database) Demote(_ context.Context, d failover.Demotion) error {
	if err := db.p.sleep(db.p.c.broken.guardLate); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.p.c.broken.fenceIgnored && d.Primary == protocol.NoNode && db.promotion == nil {
		return nil
	}
	db.promotion, db.following, db.held = nil, d, false
	if d.Primary != protocol.NoNode && d.Epoch >= db.fence {
		keep := int(d.Lineage.CommonPrefix(db.log.lineage))
		if keep < db.log.end() && !db.p.c.broken.noCut {
			db.log.cut(keep)
			db.flushed = min(db.flushed, keep)
			db.cuts++
		}
	}
	db.changed()
	return nil
}

func (db *database) StopWrites(ctx context.Context) error {
	if err := db.p.pass(); err != nil {
		return err
	}
	db.mu.Lock()
	db.held = true
	db.mu.Unlock()
	return db.awaitFlush(ctx)
}

func (db *database) ResumeWrites() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.held = false
}

// flush is the goroutine that makes records durable.
func (db *database) flush() {
	for !db.p.isDead() {
		if !db.await(time.Minute, func() bool { return db.flushed < db.log.end() }) {
			continue
		}
		db.mu.Lock()
		end, cuts := db.log.end(), db.cuts
		db.mu.Unlock()
		db.p.m.disk.sync(db.p)
		db.mu.Lock()
		if db.cuts == cuts {
			db.flushed = end
			db.changed()
		}
		db.mu.Unlock()
	}
}

// pull is the goroutine that follows a primary.
func (db *database) pull() {
	for !db.p.isDead() {
		var d failover.Demotion
		if !db.await(time.Minute, func() bool { d = db.following; return db.follows(d) }) {
			continue
		}
		if db.pullOnce(d) != nil {
			_ = db.p.sleep(pullRetry)
		}
	}
}

// follows reports whether the stream of d may be taken. The caller holds mu.
func (db *database) follows(d failover.Demotion) bool {
	return db.promotion == nil && d.Primary != protocol.NoNode && (d.Epoch >= db.fence || db.p.c.broken.fenceIgnored) &&
		d.Primary == db.following.Primary && d.Epoch == db.following.Epoch
}

// want is what a replica asks for: the records behind its own. It confirms what
// it has flushed.
type want struct {
	node    protocol.NodeID
	epoch   protocol.Epoch
	have    int
	sum     uint64
	flushed int
}

func (db *database) pullOnce(d failover.Demotion) error {
	db.mu.Lock()
	if !db.follows(d) {
		db.mu.Unlock()
		return nil
	}
	w := want{node: db.p.id, epoch: d.Epoch, have: db.log.end(), sum: db.log.sum(db.log.end()), flushed: db.flushed}
	if db.p.c.broken.ackUnflushed {
		w.flushed = w.have
	}
	cuts := db.cuts
	db.mu.Unlock()
	var news []record
	err := errTimedOut
	answered := false
	db.p.c.tasks.Go(func() {
		got, failed := call(db.p, d.Primary, pullPatience, func(there *process) ([]record, error) { return there.db.serve(w) })
		db.mu.Lock()
		defer db.mu.Unlock()
		news, err, answered = got, failed, true
		db.changed()
	})
	db.await(pullPatience, func() bool { return answered || !db.follows(d) })
	db.mu.Lock()
	defer db.mu.Unlock()
	if err != nil {
		return err
	}
	if !db.follows(d) || db.cuts != cuts || db.log.end() != w.have || len(news) == 0 {
		return nil
	}
	db.p.c.ledger.received(db.p, d.Epoch)
	for _, r := range news {
		db.log.take(r)
	}
	db.changed()
	// What was taken is confirmed with the next question, which had better wait
	// for the flush.
	end := db.log.end()
	if db.p.c.broken.ackUnflushed {
		return nil
	}
	db.mu.Unlock()
	db.await(time.Second, func() bool { return db.flushed >= end || db.cuts != cuts || !db.follows(d) })
	db.mu.Lock()
	return nil
}

// serve answers a replica: what it lacks, or nothing after a while.
func (db *database) serve(w want) ([]record, error) {
	db.mu.Lock()
	if db.promotion == nil || db.promotion.Epoch != w.epoch {
		db.mu.Unlock()
		return nil, errNotPrimary
	}
	if !db.log.has(w.have, w.sum) {
		db.p.c.ledger.violated("history", "node %d has a log of %d records that is not the beginning of its primary's, node %d in epoch %d", w.node, w.have, db.p.id, w.epoch)
		db.mu.Unlock()
		return nil, errors.New("diverged")
	}
	if w.flushed > db.confirmed[w.node] {
		db.confirmed[w.node] = w.flushed
		db.changed()
	}
	db.mu.Unlock()
	mine := func() bool { return db.promotion != nil && db.promotion.Epoch == w.epoch }
	db.await(pullWait, func() bool { return !mine() || db.log.end() > w.have })
	db.mu.Lock()
	defer db.mu.Unlock()
	if !mine() {
		return nil, errNotPrimary
	}
	return slices.Clone(db.log.records[w.have:min(db.log.end(), w.have+pullBatch)]), nil
}

// durable returns up to where a quorum of the voters has the log flushed. The
// caller holds mu.
func (db *database) durable() int {
	ends := []int{db.flushed}
	for _, end := range db.confirmed {
		ends = append(ends, end)
	}
	quorum := db.p.c.quorum()
	if db.p.c.broken.ackTooSmall {
		quorum--
	}
	if len(ends) < quorum {
		return 0
	}
	slices.Sort(ends)
	return ends[len(ends)-quorum]
}

// begin returns the promotion a request goes by.
func (db *database) begin() (*failover.Promotion, error) {
	switch {
	case db.promotion == nil:
		return nil, errNotPrimary
	case db.promotion.Epoch < db.fence:
		return nil, errFenced
	}
	return db.promotion, nil
}

// write writes one record for a client and returns nil when it is acknowledged.
func (db *database) write(what uint64) error {
	db.mu.Lock()
	p, err := db.begin()
	if err == nil && db.held {
		err = errHeld
	}
	if err != nil {
		db.mu.Unlock()
		return err
	}
	db.log.write(p.Epoch, what)
	mine := db.log.upTo(db.log.end())
	db.changed()
	db.mu.Unlock()
	if err := db.awaitQuorum(p, mine.end()); err != nil {
		return err
	}
	if err := db.speak(p); err != nil {
		return err
	}
	db.p.c.ledger.acknowledged(db.p, p.Epoch, &mine)
	return nil
}

// awaitQuorum waits, bounded, until a quorum of the voters has the log flushed
// up to lsn.
func (db *database) awaitQuorum(p *failover.Promotion, lsn int) error {
	there := false
	db.await(ackPatience, func() bool {
		there = db.promotion == p && db.durable() >= lsn
		return there || db.promotion != p
	})
	if !there {
		return errUnknown
	}
	return nil
}

// speak asks the guard. A lapsed lease may come back in a moment. There is
// nothing between the guard's word and the return, and so the acknowledgement.
func (db *database) speak(p *failover.Promotion) error {
	if err := db.p.pass(); err != nil {
		return err
	}
	if db.p.c.broken.ackUnguarded {
		return nil
	}
	err := db.check(p)
	if errors.Is(err, fencing.ErrLeaseExpired) {
		ctx, cancel := context.WithTimeout(context.Background(), ackPatience)
		_ = p.Guard.Wait(ctx, p.Epoch)
		cancel()
		if err := db.p.pass(); err != nil {
			return err
		}
		err = db.check(p)
	}
	return err
}

func (db *database) check(p *failover.Promotion) error {
	err := p.Guard.Check(p.Epoch)
	if late := db.p.c.broken.guardLate; late > 0 {
		db.mu.Lock()
		defer db.mu.Unlock()
		if err == nil {
			db.p.spoke = time.Now()
		} else if time.Since(db.p.spoke) < late {
			err = nil
		}
	}
	return err
}

// read is a linearizable read. A new primary first makes sure that a quorum has
// what its epoch begins with: until then it does not know what was acknowledged.
func (db *database) read() error {
	since := db.p.c.ledger.readBegins()
	db.mu.Lock()
	p, err := db.begin()
	begun := db.begun
	db.mu.Unlock()
	if err != nil {
		return err
	}
	if err := db.awaitQuorum(p, begun); err != nil {
		return err
	}
	db.mu.Lock()
	if db.promotion != p {
		db.mu.Unlock()
		return errNotPrimary
	}
	seen := db.log.upTo(db.durable())
	db.mu.Unlock()
	if err := db.speak(p); err != nil {
		return err
	}
	db.p.c.ledger.read(db.p, p.Epoch, since, &seen)
	return nil
}
