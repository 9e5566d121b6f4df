package walplane

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds of a term's work in flight.
const (
	maxQueuedWrites = 1024    // puts that wait for the writer
	maxBatchRecords = 512     // records that share one flush
	maxBatchBytes   = 1 << 20 // of records that share one flush or one frame; a single larger record goes alone
	maxUncommitted  = 4096    // records flushed here and not committed; writes wait beyond that

	// stopWritesGrace is how long StopWrites lets flushed writes get their answers.
	stopWritesGrace = 250 * time.Millisecond
)

// term is one term of office: what a DB has while it is primary. Its epoch
// never changes; a term that has ended never comes back.
type term struct {
	db    *DB
	epoch protocol.Epoch
	guard *fencing.Guard
	begin protocol.LSN // of the begin record
	queue chan *write
	ready chan struct{} // closed when the begin record is applied: reads are current from there on
	idle  signal        // in-flight counts went down

	acknowledging func() // told when a quorum has flushed something of this term; waits for nothing

	ctx    context.Context // ends with the term; its cause says why
	cancel context.CancelCauseFunc

	// Under DB.mu.
	held      chan struct{} // not nil while StopWrites holds; closed to let go
	unflushed int           // writes let in, not yet flushed or refused
	unended   int           // writes let in whose caller has no answer yet
	waiting   []*write      // flushed, not applied; by LSN
	acked     map[protocol.NodeID]protocol.LSN
	sessions  map[protocol.NodeID]*session
}

// The states of a write. Only a queued one can be given up with a known outcome.
const (
	writeQueued int32 = iota
	writeTaken
	writeAbandoned
)

// write is a put or delete on its way.
type write struct {
	rec     record
	state   atomic.Int32
	done    chan struct{} // closed when applied, or refused with err
	err     error         // before done is closed: nothing was written, or the outcome is unknown
	flushed protocol.LSN  // its LSN; under DB.mu
}

func newTerm(db *DB, p failover.Promotion, begin protocol.LSN) *term {
	t := &term{
		db:       db,
		epoch:    p.Epoch,
		guard:    p.Guard,
		begin:    begin,
		queue:    make(chan *write, maxQueuedWrites),
		ready:    make(chan struct{}),
		acked:    make(map[protocol.NodeID]protocol.LSN),
		sessions: make(map[protocol.NodeID]*session),

		acknowledging: func() {},
	}
	if p.Acknowledging != nil {
		t.acknowledging = p.Acknowledging
	}
	t.ctx, t.cancel = context.WithCancelCause(db.ctx)
	return t
}

// endTerm ends the primacy, if there is one. The caller holds mu.
func (db *DB) endTerm(cause error) {
	t := db.term
	if t == nil {
		return
	}
	db.term = nil
	db.noRoom.Store(nil)
	t.cancel(cause)
	for _, s := range t.sessions {
		hangUp(s.conn)
	}
}

// alive reports whether t is the current term and above the fence. The caller
// holds mu.
func (t *term) alive() bool {
	return t.db.term == t && t.epoch >= t.db.fence && t.db.usable() == nil
}

// write is the term's one writer: it takes what is queued, flushes it in one
// go, and again.
func (t *term) write() {
	for t.roomForMore() {
		batch := t.collect()
		if batch == nil {
			return
		}
		t.flush(batch)
	}
}

// roomForMore waits until less than maxUncommitted records are uncommitted,
// and reports false when the term is over. Meanwhile writes stay queued, where
// their callers can give them up and know that nothing was written.
func (t *term) roomForMore() bool {
	for {
		changed := t.db.committed.wait()
		last, err := t.db.wal.position()
		t.db.mu.Lock()
		room := last.LSN < t.db.commit+maxUncommitted
		t.db.mu.Unlock()
		if err != nil {
			return false
		}
		if room {
			return true
		}
		select {
		case <-changed:
		case <-t.ctx.Done():
			return false
		}
	}
}

// collect waits for a write and returns it with those queued behind it, within
// the bounds of a batch; nil when the term is over. While there is no room on
// the disk it looks now and then whether there is some again.
func (t *term) collect() []*write {
	var batch []*write
	var look <-chan time.Time
	if t.db.noRoom.Load() != nil {
		tick := time.NewTicker(roomInterval)
		defer tick.Stop()
		look = tick.C
	}
	for batch == nil {
		select {
		case w := <-t.queue:
			batch = append(batch, w)
		case <-look:
			t.lookForRoom()
		case <-t.ctx.Done():
			return nil
		}
	}
	for bytes := batch[0].rec.size(); len(batch) < maxBatchRecords && bytes < maxBatchBytes; {
		select {
		case w := <-t.queue:
			batch = append(batch, w)
			bytes += w.rec.size()
		default:
			return batch
		}
	}
	return batch
}

// flush gives a batch its LSNs, appends and flushes it.
func (t *term) flush(batch []*write) {
	db := t.db
	if err := db.append.lock(t.ctx); err != nil {
		return // the term is over, as the callers see themselves
	}
	defer db.append.unlock()
	last, err := db.wal.position()
	if err == nil && db.wal.bytes() >= db.cfg.MaxLogBytes {
		err = ErrLogFull
	}
	db.mu.Lock()
	alive := t.alive()
	db.mu.Unlock()
	if !alive {
		return
	}
	if err != nil {
		t.refuse(batch, err)
		return
	}
	taken := batch[:0:0]
	records := make([]record, 0, len(batch))
	for _, w := range batch {
		if !w.state.CompareAndSwap(writeQueued, writeTaken) {
			continue // its caller has left and counted it out
		}
		last.LSN++
		w.rec.epoch, w.rec.lsn = t.epoch, last.LSN
		taken = append(taken, w)
		records = append(records, w.rec)
	}
	if len(taken) == 0 {
		return
	}
	err = db.writeLog(records)
	t.noteRoom(err)
	db.mu.Lock()
	t.unflushed -= len(taken)
	for _, w := range taken {
		w.flushed = w.rec.lsn
		if err != nil {
			w.err = err
			close(w.done)
		}
	}
	if err == nil {
		t.waiting = append(t.waiting, taken...)
		db.advanceCommit(t)
	}
	db.mu.Unlock()
	t.idle.broadcast()
	db.flushed.broadcast()
}

// roomInterval is how often a primary whose disk is full looks for room while
// nobody writes.
const roomInterval = 100 * time.Millisecond

// lookForRoom tries whether the log could be written to.
func (t *term) lookForRoom() {
	if t.db.append.lock(t.ctx) != nil {
		return
	}
	defer t.db.append.unlock()
	err := t.db.wal.tryRoom()
	if errors.Is(err, ErrFailed) {
		t.db.fail(err)
	}
	t.noteRoom(err)
}

// noteRoom notes whether a write of this term has failed.
func (t *term) noteRoom(err error) {
	if err == nil {
		t.db.noRoom.Store(nil)
		return
	}
	t.db.mu.Lock()
	first := t.db.term == t && t.db.noRoom.Load() == nil
	if first {
		now := time.Now()
		t.db.noRoom.Store(&now)
	}
	t.db.mu.Unlock()
	if first {
		t.db.log.Warn("cannot write to the log; the primacy is given up unless that ends soon", "error", err)
	}
}

// refuse ends writes that are still queued with err; nothing was written.
func (t *term) refuse(batch []*write, err error) {
	t.db.mu.Lock()
	for _, w := range batch {
		if w.state.CompareAndSwap(writeQueued, writeAbandoned) {
			w.err = err
			t.unflushed--
			close(w.done)
		}
	}
	t.db.mu.Unlock()
	t.idle.broadcast()
}

// isVoter reports whether id's flushes count.
func (db *DB) isVoter(id protocol.NodeID) bool {
	return id >= 1 && id <= protocol.NodeID(db.cfg.Voters)
}

// advanceCommit commits what a quorum has flushed, if that reaches the begin
// record of t's epoch. The caller holds mu.
func (db *DB) advanceCommit(t *term) {
	if !t.alive() {
		return
	}
	last, err := db.wal.position()
	if err != nil {
		return
	}
	flushed := make([]protocol.LSN, 0, MaxVoters)
	if db.isVoter(db.cfg.NodeID) {
		flushed = append(flushed, last.LSN)
	}
	for id, lsn := range t.acked {
		if db.isVoter(id) && id != db.cfg.NodeID {
			flushed = append(flushed, lsn)
		}
	}
	if c := min(quorumLSN(flushed, db.cfg.Voters), last.LSN); c >= t.begin {
		db.learnCommit(c)
		t.acknowledging()
	}
}

// quorumLSN returns the highest LSN that a quorum of so many voters has
// flushed, given those that are known; 0 if there is none. It reorders flushed.
func quorumLSN(flushed []protocol.LSN, voters int) protocol.LSN {
	quorum := voters/2 + 1
	if len(flushed) < quorum {
		return 0
	}
	slices.Sort(flushed)
	return flushed[len(flushed)-quorum]
}

// learnCommit raises the commit LSN. The caller holds mu and has made sure that
// lsn is flushed here.
func (db *DB) learnCommit(lsn protocol.LSN) {
	if lsn > db.commit {
		db.commit = lsn
		db.committed.broadcast()
	}
}

// confirmations counts the voters known to have flushed lsn. The caller holds mu.
func (t *term) confirmations(lsn protocol.LSN) int {
	n := 0
	if last, err := t.db.wal.position(); err == nil && last.LSN >= lsn && t.db.isVoter(t.db.cfg.NodeID) {
		n++
	}
	for id, acked := range t.acked {
		if id != t.db.cfg.NodeID && t.db.isVoter(id) && acked >= lsn {
			n++
		}
	}
	return n
}

// StopWrites holds new writes back and returns when those let in before are
// flushed. It then also waits a little for them to be answered, so that a
// switchover leaves nobody with an unknown outcome; that is bounded by
// stopWritesGrace and its end is no error. Held writes wait for ResumeWrites,
// for the end of the primacy, or for their own deadline. On a replica there is
// nothing to stop.
func (db *DB) StopWrites(ctx context.Context) error {
	db.mu.Lock()
	t := db.term
	if err := db.usable(); err != nil || t == nil {
		db.mu.Unlock()
		return err
	}
	if t.held == nil {
		t.held = make(chan struct{})
	}
	db.mu.Unlock()
	if err := t.waitIdle(ctx, func() bool { return t.unflushed == 0 }); err != nil {
		return err
	}
	grace, cancel := context.WithTimeout(ctx, stopWritesGrace)
	defer cancel()
	if err := t.waitIdle(grace, func() bool { return t.unended == 0 }); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// waitIdle waits until idle, called with DB.mu held, says true, the term ends
// or ctx does; only the last is an error.
func (t *term) waitIdle(ctx context.Context, idle func() bool) error {
	for {
		changed := t.idle.wait()
		t.db.mu.Lock()
		ok := idle()
		t.db.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-t.ctx.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ResumeWrites lets held writes go on.
func (db *DB) ResumeWrites() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if t := db.term; t != nil && t.held != nil {
		close(t.held)
		t.held = nil
	}
}
