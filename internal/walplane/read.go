package walplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Entry is a key's value and the record that set it.
type Entry struct {
	Value []byte
	Epoch protocol.Epoch
	LSN   protocol.LSN
}

// AgeUnknown is the age of what a node knows that has not heard of a primary
// since it started.
const AgeUnknown time.Duration = -1

// state is the committed contents: what the applier made of the log.
type state struct {
	mu      sync.RWMutex
	entries map[string]Entry
}

// apply takes committed records in. The records may be reused afterwards.
func (s *state) apply(records []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = make(map[string]Entry)
	}
	for _, r := range records {
		switch r.kind {
		case kindPut:
			s.entries[string(r.key)] = Entry{Value: slices.Clone(r.value), Epoch: r.epoch, LSN: r.lsn}
		case kindDelete:
			delete(s.entries, string(r.key))
		}
	}
}

func (s *state) get(key string) (Entry, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.entries[key]
	return e, ok
}

// freshness dates the applied state: at the moment at (on Config.Clock) it held every write
// acknowledged until then. A promise is for later, when lsn is applied.
type freshness struct {
	known   bool
	at      time.Duration
	pending bool
	lsn     protocol.LSN
	then    time.Duration
}

// promise notes that the state will be as of at once lsn is applied. A promise
// that is not yet kept stays: a newer one would be kept later still.
func (f *freshness) promise(lsn protocol.LSN, at time.Duration, applied protocol.LSN) {
	if !f.pending || lsn <= applied {
		f.pending, f.lsn, f.then = true, lsn, at
	}
	f.keep(applied)
}

func (f *freshness) keep(applied protocol.LSN) {
	if f.pending && f.lsn <= applied {
		f.pending = false
		if !f.known || f.then > f.at {
			f.known, f.at = true, f.then
		}
	}
}

// applyCommitted is the applier: it applies what is committed, in order, and
// tells those who wait for it.
func (db *DB) applyCommitted() {
	var c cursor
	for {
		changed := db.committed.wait()
		db.mu.Lock()
		commit, applied := db.commit, db.applied
		db.mu.Unlock()
		if applied >= commit {
			select {
			case <-changed:
				continue
			case <-db.ctx.Done():
				return
			}
		}
		if db.ctx.Err() != nil {
			return
		}
		records, err := db.wal.read(&c, commit, maxBatchBytes)
		if err != nil || len(records) == 0 {
			db.fail(fmt.Errorf("%w: apply lsn %d: %w", ErrFailed, applied+1, orDefault(err, ErrDamaged)))
			return
		}
		db.state.apply(records)
		db.noteApplied(records[len(records)-1].lsn)
	}
}

func (db *DB) noteApplied(lsn protocol.LSN) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.applied = lsn
	db.fresh.keep(lsn)
	t := db.term
	if t == nil {
		return
	}
	if lsn >= t.begin && !t.isReady() {
		close(t.ready)
	}
	n := 0
	for n < len(t.waiting) && t.waiting[n].flushed <= lsn {
		close(t.waiting[n].done)
		n++
	}
	t.waiting = slices.Delete(t.waiting, 0, n)
}

func (t *term) isReady() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// Get returns the current value of key: no write acknowledged before the call
// is missing from it. Only a primary answers, once the begin record of its
// epoch is committed; it asks its guard after it has looked. Errors:
// ErrNotFound, a *NotPrimaryError, or one wrapping ErrNoQuorum when ctx ends first.
func (db *DB) Get(ctx context.Context, key string) (Entry, error) {
	e, _, err := db.get(ctx, key)
	return e, err
}

// get also returns until when, on the guard's clock, the guard's yes holds, for
// ErrNotFound too.
func (db *DB) get(ctx context.Context, key string) (Entry, time.Duration, error) {
	var e Entry
	var ok bool
	until, err := db.current(ctx, func() error {
		e, ok = db.state.get(key)
		return nil
	})
	if err == nil && !ok {
		err = ErrNotFound
	}
	return e, until, err
}

// current calls look, when everything acknowledged so far is applied, and
// returns no error if what it saw was current, and until when, on the guard's
// clock, the guard's yes to that holds.
func (db *DB) current(ctx context.Context, look func() error) (until time.Duration, err error) {
	t, err := db.primary()
	if err != nil {
		return 0, err
	}
	select {
	case <-t.ready:
	case <-t.ctx.Done():
	case <-ctx.Done():
		db.mu.Lock()
		defer db.mu.Unlock()
		return 0, fmt.Errorf("%w: %d of %d nodes confirmed epoch %d, %d are needed: %w", ErrNoQuorum,
			t.confirmations(t.begin), db.cfg.Voters, t.epoch, db.cfg.Voters/2+1, context.Cause(ctx))
	}
	if err := look(); err != nil {
		return 0, err
	}
	if until, err = t.checkGuard(ctx); err != nil {
		return 0, err
	}
	if t.ctx.Err() != nil {
		db.mu.Lock()
		defer db.mu.Unlock()
		return 0, db.notPrimary(context.Cause(t.ctx))
	}
	return until, nil
}

// GetStale returns the value of key as far as this node knows, whatever its
// role, and how old that knowledge is at most: every write acknowledged longer
// ago than age is in it. age is AgeUnknown when nothing was heard of a primary
// since the start; then even the log's own committed writes may be missing.
func (db *DB) GetStale(key string) (e Entry, age time.Duration, err error) {
	age, err = db.Age()
	if err != nil {
		return Entry{}, age, err
	}
	e, ok := db.state.get(key)
	if !ok {
		err = ErrNotFound
	}
	return e, age, err
}

// Age returns how old the committed state of this node is at most, or
// AgeUnknown. See GetStale.
func (db *DB) Age() (time.Duration, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usable(); err != nil {
		return AgeUnknown, err
	}
	if t := db.term; t != nil && t.isReady() && t.guard.Check(t.epoch) == nil {
		return 0, nil
	}
	if !db.fresh.known {
		return AgeUnknown, nil
	}
	return db.cfg.Clock() - db.fresh.at, nil
}

// watch ends the term with its guard, and dates the state while the guard says
// yes, for the time when it no longer does.
func (t *term) watch() {
	tick := time.NewTicker(t.db.cfg.KeepAlive)
	defer tick.Stop()
	t.db.log.Info("primary", "epoch", t.epoch, "begin", t.begin)
	defer func() { t.db.log.Info("no longer primary", "epoch", t.epoch, "cause", context.Cause(t.ctx)) }()
	guarded := context.Background() // until the guard is open
	for {
		if guarded.Done() == nil {
			if ctx, err := t.guard.Context(t.epoch); err == nil {
				guarded = ctx
			}
		}
		select {
		case <-t.ctx.Done():
			return
		case <-guarded.Done():
			t.db.mu.Lock()
			if t.db.term == t {
				t.db.endTerm(context.Cause(guarded))
			}
			t.db.mu.Unlock()
			return
		case <-tick.C:
			t.date()
		}
	}
}

// date notes that the state is current, if it is.
func (t *term) date() {
	now := t.db.cfg.Clock()
	if t.guard.Check(t.epoch) != nil {
		return
	}
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	if t.db.term == t && t.isReady() {
		t.db.fresh.promise(t.db.commit, now, t.db.applied)
	}
}
