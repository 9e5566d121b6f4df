package walplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Ack says where an acknowledged write is in the log.
type Ack struct {
	Epoch protocol.Epoch `json:"epoch"`
	LSN   protocol.LSN   `json:"lsn"`
}

// Put sets key to value and returns when a quorum of the voters has flushed
// that and the guard still says yes.
//
// Nothing was written when the error is a *NotPrimaryError, wraps ErrNoQuorum
// and not ErrUnknownOutcome, wraps ErrLogFull, ErrTooLarge or ErrBadKey, or only
// ctx's own (the write was held back until ctx ended). A *UnknownOutcomeError
// means that the write is in this log, or may be, and was not acknowledged.
// The key is UTF-8 of 1 to MaxKeyLen bytes; value is copied.
func (db *DB) Put(ctx context.Context, key string, value []byte) (Ack, error) {
	if len(value) > MaxValueLen {
		return Ack{}, fmt.Errorf("%w: value of %d bytes, the limit is %d", ErrTooLarge, len(value), MaxValueLen)
	}
	ack, _, err := db.submit(ctx, record{kind: kindPut, key: []byte(key), value: slices.Clone(value)})
	return ack, err
}

// Delete removes key, whether it has a value or not. Errors as with Put.
func (db *DB) Delete(ctx context.Context, key string) (Ack, error) {
	ack, _, err := db.submit(ctx, record{kind: kindDelete, key: []byte(key)})
	return ack, err
}

// submit also returns until when, on the guard's clock, the guard's yes holds.
func (db *DB) submit(ctx context.Context, rec record) (Ack, time.Duration, error) {
	if n := len(rec.key); n == 0 || n > MaxKeyLen {
		return Ack{}, 0, fmt.Errorf("%w: a key of %d bytes, want 1 to %d", ErrBadKey, n, MaxKeyLen)
	}
	if !utf8.Valid(rec.key) {
		return Ack{}, 0, fmt.Errorf("%w: it is not UTF-8", ErrBadKey)
	}
	t, err := db.enter(ctx)
	if err != nil {
		return Ack{}, 0, err
	}
	defer t.leave()
	w := &write{rec: rec, done: make(chan struct{})}
	select {
	case t.queue <- w:
		return t.await(ctx, w)
	case <-t.ctx.Done():
	case <-ctx.Done():
	}
	return Ack{}, 0, t.giveUp(ctx, w)
}

// enter lets a write in: this node is primary, its lease runs, and nobody
// holds writes back. The caller leaves the term when it has its answer.
func (db *DB) enter(ctx context.Context) (*term, error) {
	for {
		t, err := db.primary()
		if err != nil {
			return nil, err
		}
		// A write that starts without a lease would only wait for it later,
		// and then with an unknown outcome.
		if _, err := t.checkGuard(ctx); err != nil {
			return nil, err
		}
		db.mu.Lock()
		held := t.held
		if held == nil && t.alive() {
			t.unflushed++
			t.unended++
			db.mu.Unlock()
			return t, nil
		}
		db.mu.Unlock()
		select {
		case <-held: // never, if nil: then the term is over
		case <-t.ctx.Done():
		case <-ctx.Done():
			return nil, fmt.Errorf("writes are held back for a switchover, nothing was written: %w", context.Cause(ctx))
		}
	}
}

// primary returns the term, or a *NotPrimaryError.
func (db *DB) primary() (*term, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usable(); err != nil {
		return nil, err
	}
	if db.term == nil || !db.term.alive() {
		return nil, db.notPrimary(nil)
	}
	return db.term, nil
}

// notPrimary says who is. The caller holds mu.
func (db *DB) notPrimary(cause error) error {
	return &NotPrimaryError{Primary: db.demotion.Primary, Address: db.demotion.Address, Cause: cause}
}

// checkGuard returns until when the guard's yes holds, waiting for a lapsed
// lease as long as ctx lets it; or a *NotPrimaryError, or an error that wraps
// ErrNoQuorum.
func (t *term) checkGuard(ctx context.Context) (until time.Duration, err error) {
	for {
		if until, err = t.guard.CheckUntil(t.epoch); errors.Is(err, fencing.ErrLeaseExpired) {
			if err = t.guard.Wait(ctx, t.epoch); err == nil {
				continue
			}
		}
		break
	}
	switch {
	case err == nil:
		return until, nil
	case errors.Is(err, fencing.ErrLeaseExpired):
		return 0, fmt.Errorf("%w: nothing was done: %w", ErrNoQuorum, err)
	}
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	return 0, t.db.notPrimary(err)
}

func (t *term) leave() {
	t.db.mu.Lock()
	t.unended--
	t.db.mu.Unlock()
	t.idle.broadcast()
}

// await waits for a queued write to be applied, and asks the guard then.
func (t *term) await(ctx context.Context, w *write) (Ack, time.Duration, error) {
	select {
	case <-w.done:
	case <-t.ctx.Done():
		return Ack{}, 0, t.giveUp(ctx, w)
	case <-ctx.Done():
		return Ack{}, 0, t.giveUp(ctx, w)
	}
	if w.err != nil {
		if w.state.Load() == writeAbandoned {
			return Ack{}, 0, w.err
		}
		return Ack{}, 0, t.unknown(w, false, w.err)
	}
	until, err := t.checkGuard(ctx)
	if err != nil {
		return Ack{}, 0, t.unknown(w, errors.Is(err, ErrNoQuorum), err)
	}
	if t.ctx.Err() != nil {
		return Ack{}, 0, t.unknown(w, false, context.Cause(t.ctx))
	}
	return Ack{Epoch: w.rec.epoch, LSN: w.rec.lsn}, until, nil
}

// giveUp ends the wait for w because the term or ctx has ended, and says what
// became of it.
func (t *term) giveUp(ctx context.Context, w *write) error {
	over := t.ctx.Err() != nil
	if !w.state.CompareAndSwap(writeQueued, writeAbandoned) {
		if over {
			return t.unknown(w, false, context.Cause(t.ctx))
		}
		return t.unknown(w, true, context.Cause(ctx))
	}
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	t.unflushed--
	t.idle.broadcast()
	if over {
		if err := t.db.usable(); err != nil {
			return err
		}
		return t.db.notPrimary(context.Cause(t.ctx))
	}
	return fmt.Errorf("%w: earlier writes are not confirmed yet, nothing was written: %w", ErrNoQuorum, context.Cause(ctx))
}

func (t *term) unknown(w *write, noQuorum bool, cause error) error {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	e := &UnknownOutcomeError{Epoch: t.epoch, LSN: w.flushed, Voters: t.db.cfg.Voters, Cause: cause}
	if w.flushed > 0 {
		e.Confirmed = t.confirmations(w.flushed)
	}
	e.NoQuorum = noQuorum && e.Confirmed < e.Voters/2+1
	return e
}
