package failover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// databaseWorker makes the calls of Promote and Demote, one at a time. A Demote
// overtakes everything: what waits is dropped, what runs is cancelled. A
// Promote waits for the Demote before it, and fails with it.
type databaseWorker struct {
	d    *Driver
	wake chan struct{}

	mu        sync.Mutex
	demotion  *Demote  // waiting; nil: none
	promotion *Promote // waiting, behind demotion
	cancel    context.CancelCauseFunc

	// run's own:
	exposed  bool    // Promote was called and no Demote has succeeded since
	unraised *Demote // whose epoch is followed, and the floor could not be raised to it
}

var errOvertaken = errors.New("overtaken")

func newDatabaseWorker(d *Driver) *databaseWorker {
	return &databaseWorker{d: d, wake: make(chan struct{}, 1), cancel: func(error) {}}
}

func (w *databaseWorker) demote(a Demote) {
	w.mu.Lock()
	w.demotion, w.promotion = &a, nil
	w.cancel(errOvertaken)
	w.mu.Unlock()
	w.poke()
}

func (w *databaseWorker) promote(a Promote) {
	w.mu.Lock()
	w.promotion = &a
	w.mu.Unlock()
	w.poke()
}

func (w *databaseWorker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be done next, at most one of the two, and the
// context it may take, which a later Demote ends.
func (w *databaseWorker) take() (ctx context.Context, demotion *Demote, promotion *Promote) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if demotion = w.demotion; demotion != nil {
		w.demotion = nil
	} else {
		promotion, w.promotion = w.promotion, nil
	}
	ctx, w.cancel = context.WithCancelCause(w.d.ctx)
	return ctx, demotion, promotion
}

func (w *databaseWorker) run() {
	failures := 0
	retry, raise := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	defer raise.Stop()
	for {
		if raise.Stop(); w.unraised != nil {
			raise.Reset(w.d.timing.BackoffMax)
		}
		select {
		case <-w.wake:
		case <-retry.C:
		case <-raise.C:
			w.tryRaise()
		case <-w.d.ctx.Done():
			w.last()
			return
		}
		for ctx, demotion, promotion := w.take(); demotion != nil || promotion != nil; ctx, demotion, promotion = w.take() {
			if promotion != nil {
				w.tryPromote(ctx, *promotion)
				continue
			}
			err := w.tryDemote(ctx, *demotion)
			if err == nil {
				failures = 0
				continue
			}
			if failures++; ctx.Err() == nil && failures == 1 {
				w.d.log.Error("demote the database; trying again", "error", err)
			}
			if w.again(*demotion, err) {
				retry.Reset(min(w.d.timing.BackoffMax, time.Duration(failures)*w.d.timing.BackoffMin))
				break
			}
		}
	}
}

// again keeps a Demote that failed for another try, unless a newer one waits,
// and ends the Promote that waited for it.
func (w *databaseWorker) again(a Demote, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.demotion != nil {
		return false
	}
	w.demotion = &a
	if w.promotion != nil {
		w.d.post(Failed{Attempt: w.promotion.Attempt, Reason: "the database could not be demoted before: " + err.Error()})
		w.promotion = nil
	}
	return true
}

// tryPromote answers exactly once, at the deadline at the latest, but returns
// only when the database has: calls never overlap.
func (w *databaseWorker) tryPromote(ctx context.Context, a Promote) {
	d := w.d
	lineage, err := d.cfg.Cluster.History().Lineage(a.Epoch)
	if err != nil {
		d.post(Failed{Attempt: a.Attempt, Reason: fmt.Sprintf("the history has no lineage of epoch %d: %v", a.Epoch, err)})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
	defer cancel()
	w.exposed = true
	answer := make(chan error, 1)
	d.calls.Go(func() {
		answer <- d.cfg.Database.Promote(ctx, Promotion{Epoch: a.Epoch, Guard: d.cfg.Guard, Lineage: lineage,
			Acknowledging: sync.OnceFunc(func() { d.post(Acknowledging{Epoch: a.Epoch}) })})
	})
	select {
	case err = <-answer:
	case <-ctx.Done():
		d.post(Failed{Attempt: a.Attempt, Reason: fmt.Sprintf("promoting the database: %v", context.Cause(ctx))})
		<-answer //nolint:errcheck // too late to count
		return
	}
	if err != nil {
		d.post(Failed{Attempt: a.Attempt, Reason: "promoting the database: " + err.Error()})
		return
	}
	d.post(DatabasePromoted{Attempt: a.Attempt})
}

// tryDemote makes the database a replica. A line of the history proves that
// its epoch has been won, so this node promises itself to it too, if it was
// not in the ballot: nothing older has a claim on it.
//
// To follow is to cut the WAL back to the primary's. That must not come between
// a promise to a later epoch and what is done on the strength of the position
// read with it (I3), so the two exclude each other, and a Demote that has been
// waiting while the floor rose above it names nobody any more.
func (w *databaseWorker) tryDemote(ctx context.Context, a Demote) error {
	d := w.d
	ctx, cancel := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
	defer cancel()
	w.unraised = nil
	demotion := Demotion{Epoch: a.Epoch}
	if a.Primary != protocol.NoNode {
		release, err := d.beginPromise(ctx)
		if err != nil {
			return err
		}
		defer release()
		floor := d.cfg.Floor.Current().Epoch
		if a.Epoch >= floor {
			demotion.Primary, demotion.Address = a.Primary, a.Address
			if demotion.Lineage, err = d.cfg.Cluster.History().Lineage(a.Epoch); err != nil {
				return fmt.Errorf("lineage of epoch %d: %w", a.Epoch, err)
			}
		} else {
			demotion.Epoch = floor
		}
		if a.Epoch > floor {
			d.cfg.Guard.CloseBelow(a.Epoch, fmt.Errorf("epoch %d has begun", a.Epoch))
			if _, _, err := d.promiseNow(ctx, a.Epoch, a.Primary); err != nil {
				d.log.Warn("raise the floor to the epoch of the new primary; trying again", "epoch", a.Epoch, "error", err)
				w.unraised = &a
			}
		}
	}
	if err := d.cfg.Database.Demote(ctx, demotion); err != nil {
		return err
	}
	w.exposed = false
	return nil
}

// tryRaise raises the floor to the epoch that is followed, and fences the
// database at it, when that has failed before: on a full disk, say. The primary
// is followed all the same, which keeps this node of use; but as long as the
// floor lags, a restart would let it take part in epochs that are over.
func (w *databaseWorker) tryRaise() {
	d, a := w.d, *w.unraised
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	w.mu.Lock()
	overtaken := w.demotion != nil || w.promotion != nil
	w.cancel = cancel
	w.mu.Unlock()
	if overtaken {
		return // what waits brings a floor of its own, or comes back here
	}
	bounded, stop := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
	defer stop()
	_, _, err := d.promise(bounded, a.Epoch, a.Primary)
	switch {
	case err == nil:
		w.unraised = nil
		d.log.Info("raised the floor to the epoch of the primary at last", "epoch", a.Epoch)
	case errors.Is(err, fencing.ErrStaleEpoch): // it has risen above that
		w.unraised = nil
	case errors.Is(err, fencing.ErrFloorFailed):
		w.unraised = nil
		d.log.Error("the floor cannot be raised any more", "epoch", a.Epoch, "error", err)
	}
}

// last leaves the database a replica when the driver closes.
func (w *databaseWorker) last() {
	if !w.exposed {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.d.ctx), w.d.timing.DatabaseTimeout)
	defer cancel()
	if err := w.d.cfg.Database.Demote(ctx, Demotion{Epoch: w.d.cfg.Floor.Current().Epoch}); err != nil {
		w.d.log.Error("demote the database at the end", "error", err)
	}
}
