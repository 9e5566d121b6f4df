package walplane

import (
	"context"
	"fmt"
	"slices"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Position returns the epoch of the last flushed record and its LSN; the zero
// position for an empty log. It fails when the DB is closed or has failed.
func (db *DB) Position(context.Context) (protocol.Position, error) {
	db.mu.Lock()
	err := db.usable()
	db.mu.Unlock()
	if err != nil {
		return protocol.Position{}, err
	}
	return db.wal.position()
}

// Fence makes epoch the lowest this node has to do with, until it is closed; it
// never lowers what an earlier call set. When it returns nil, no record of a
// stream of a lower epoch is accepted any more and none is being accepted, and
// a primary of a lower epoch acknowledges nothing more. When it returns an
// error (ctx ended while a write hung on the disk) the fence stands already,
// but one batch may still be under way.
func (db *DB) Fence(ctx context.Context, epoch protocol.Epoch) error {
	db.mu.Lock()
	if err := db.usable(); err != nil {
		db.mu.Unlock()
		return err
	}
	db.fence = max(db.fence, epoch)
	if t := db.term; t != nil && t.epoch < db.fence {
		db.endTerm(&StaleEpochError{Epoch: t.epoch, Floor: db.fence})
	}
	if f := db.follower; f != nil && f.epoch < db.fence {
		db.blocked = &StaleEpochError{Epoch: f.epoch, Floor: db.fence}
		db.stopFollowing()
	}
	db.mu.Unlock()
	// Whoever writes holds this lock, and looked at the fence after taking it.
	if err := db.append.lock(ctx); err != nil {
		return fmt.Errorf("fence to epoch %d: a write still hangs on the disk: %w", epoch, err)
	}
	db.append.unlock()
	return nil
}

// Promote makes this node the primary of p.Epoch: it appends and flushes the
// begin record of that epoch and takes writes from then on. They are
// acknowledged once a quorum follows, as long as p.Guard agrees.
//
// p.Lineage must end in p.Epoch, and what is before that must be exactly this
// node's log. It fails when a higher epoch was fenced (*StaleEpochError), when
// the log holds records of p.Epoch or above, and when the disk fails. Promoting
// the primary of the same epoch again changes nothing.
func (db *DB) Promote(ctx context.Context, p failover.Promotion) error {
	if p.Guard == nil {
		return fmt.Errorf("promote to epoch %d: a guard is needed", p.Epoch)
	}
	db.mu.Lock()
	if t := db.term; t != nil && t.epoch == p.Epoch {
		db.mu.Unlock()
		return nil
	}
	err := db.mayPromote(p.Epoch)
	if err == nil {
		db.endTerm(fmt.Errorf("promoted to epoch %d", p.Epoch))
		db.stopFollowing()
		db.demotion = failover.Demotion{}
		db.blocked = nil
	}
	db.mu.Unlock()
	if err != nil {
		return fmt.Errorf("promote to epoch %d: %w", p.Epoch, err)
	}
	if err := db.append.lock(ctx); err != nil {
		return fmt.Errorf("promote to epoch %d: a write still hangs on the disk: %w", p.Epoch, err)
	}
	defer db.append.unlock()
	if err := db.begin(p); err != nil {
		return fmt.Errorf("promote to epoch %d: %w", p.Epoch, err)
	}
	return nil
}

// mayPromote checks what may change at any time. The caller holds mu.
func (db *DB) mayPromote(epoch protocol.Epoch) error {
	if err := db.usable(); err != nil {
		return err
	}
	if epoch < db.fence {
		return &StaleEpochError{Epoch: epoch, Floor: db.fence}
	}
	return nil
}

// begin writes the begin record and opens the term. The caller holds the
// append lock.
func (db *DB) begin(p failover.Promotion) error {
	last, err := db.wal.position()
	if err != nil {
		return err
	}
	if err := checkLineage(p, last, db.wal.ownLineage()); err != nil {
		return err
	}
	db.mu.Lock()
	err = db.mayPromote(p.Epoch)
	db.mu.Unlock()
	if err != nil {
		return err
	}
	begin := record{epoch: p.Epoch, lsn: last.LSN + 1, kind: kindBegin}
	if err := db.writeLog([]record{begin}); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	// A fence that came while we wrote waits for our lock: nobody was told yet
	// that nothing lower is being written, so the record may stay.
	if err := db.mayPromote(p.Epoch); err != nil {
		return err
	}
	t := newTerm(db, p, begin.lsn)
	db.term = t
	db.advanceCommit(t)
	db.wg.Go(t.write)
	db.wg.Go(t.watch)
	return nil
}

// checkLineage makes sure that the timeline about to begin is this log
// continued: replicas will cut theirs by it.
func checkLineage(p failover.Promotion, last protocol.Position, own protocol.Lineage) error {
	if last.Timeline >= p.Epoch {
		return fmt.Errorf("%w: the log already holds records of epoch %d", ErrStaleEpoch, last.Timeline)
	}
	n := len(p.Lineage)
	if err := p.Lineage.Valid(); err != nil {
		return err
	}
	if n == 0 || p.Lineage[n-1].Epoch != p.Epoch {
		return fmt.Errorf("the lineage %v does not end in the epoch", p.Lineage)
	}
	var fork protocol.LSN
	if n > 1 {
		fork = p.Lineage[n-2].End
	}
	if common := p.Lineage.CommonPrefix(own); fork != last.LSN || common != last.LSN {
		return fmt.Errorf("the lineage %v forks at lsn %d and agrees with this log up to %d, but the log ends at %v: it must fork exactly there",
			p.Lineage, fork, common, last)
	}
	return nil
}

// Demote makes this node a replica: from now on no write is accepted, those in
// flight end with an unknown outcome, and it follows d.Primary at d.Address as
// soon as both and d.Lineage are given. The epoch it follows is the one
// d.Lineage ends in; one below the fence is not followed (Status says so). With
// the primary, address and lineage of the call before, nothing changes.
func (db *DB) Demote(_ context.Context, d failover.Demotion) error {
	if err := d.Lineage.Valid(); err != nil {
		return fmt.Errorf("demote in epoch %d: %w", d.Epoch, err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usable(); err != nil {
		return err
	}
	db.endTerm(fmt.Errorf("demoted in epoch %d", d.Epoch))
	same := d.Primary == db.demotion.Primary && d.Address == db.demotion.Address && slices.Equal(d.Lineage, db.demotion.Lineage)
	d.Lineage = slices.Clone(d.Lineage)
	db.demotion = d
	if same {
		return nil
	}
	db.stopFollowing()
	db.blocked = nil
	n := len(d.Lineage)
	switch {
	case d.Primary == protocol.NoNode || d.Primary == db.cfg.NodeID:
	case d.Address == "" || n == 0:
		db.blocked = fmt.Errorf("node %d is primary, but its address or lineage is not known yet", d.Primary)
	case d.Lineage[n-1].Epoch < db.fence:
		db.blocked = &StaleEpochError{Epoch: d.Lineage[n-1].Epoch, Floor: db.fence}
	default:
		db.follower = newFollower(db, d)
		db.wg.Go(db.follower.run)
	}
	return nil
}

// stopFollowing ends the follower without waiting for it: it may be in the
// middle of a batch, but begins no other one. The caller holds mu.
func (db *DB) stopFollowing() {
	if db.follower != nil {
		db.follower.cancel(errNotFollowing)
		db.follower = nil
	}
}
