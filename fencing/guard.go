package fencing

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	// ErrNotPrimary says that this node is not primary of the epoch asked
	// about, and in that epoch never will be again.
	ErrNotPrimary = errors.New("not primary")
	// ErrLeaseExpired says that the epoch is this node's, but its lease has
	// lapsed. It may come back: see Guard.Wait.
	ErrLeaseExpired = errors.New("lease expired")
)

// NoDeadline is the deadline of a primacy that is not leased.
const NoDeadline = time.Duration(math.MaxInt64)

// closedDeadline marks an opening that is over. No clock shows less.
const closedDeadline = math.MinInt64

// Guard answers one question as cheaply as can be: may this node, at this
// moment, speak as primary of an epoch? It is safe for concurrent use, and
// Check takes no lock.
//
//	        Open(E)              Close, CloseBelow(E+1)
//	closed ────────► open in E ─────────────────────────► closed for good in E
//	                 │      ▲
//	 deadline passed ▼      │ Extend
//	                 lapsed in E
//
// At most one epoch is open at a time (I1), and the epochs that are open one
// after another rise. A guard that was closed in an epoch never opens in it
// again (I5), even if it had not been open yet.
type Guard struct {
	clocks *Clocks
	open   atomic.Pointer[opening] // nil while closed

	mu     sync.Mutex     // Open, Close and their kin; held for a few instructions, never over I/O
	closed protocol.Epoch // every epoch up to this one is closed for good
	cause  error          // why, last

	mirroring sync.Mutex // around mirror's use
	mirror    Mirror     // nil: none
}

// opening is one stretch of one epoch. An opening of its own per epoch keeps a
// Check of an old epoch from ever seeing the deadline of a newer one.
type opening struct {
	epoch    protocol.Epoch
	deadline atomic.Int64 // on the guard's clock, ns; closedDeadline once closed
	waiting  atomic.Int32 // callers in Wait
	ctx      context.Context
	cancel   context.CancelCauseFunc
	renewed  chan struct{} // closed and replaced by an Extend somebody waits for; under Guard.mu
}

// NewGuard returns a closed guard. clock gives elapsed time since any fixed
// moment and must also count the time the machine was suspended
// (CLOCK_BOOTTIME on Linux): a guard that slept must wake up lapsed (I4).
func NewGuard(clock func() time.Duration) *Guard { return NewQuickGuard(clock, nil) }

// NewQuickGuard returns a closed guard that answers by quick while that cannot
// be wrong, and by clock otherwise: see QuickClock.
func NewQuickGuard(clock func() time.Duration, quick QuickClock) *Guard {
	return &Guard{clocks: NewClocks(clock, quick)}
}

// Mirror shows a guard's standing to somebody who cannot ask it: another
// process. See package leasefile.
type Mirror interface {
	// Publish shows that the node may speak as primary of epoch until deadline,
	// on the guard's clock; epoch 0: of none. The deadline may be NoDeadline, and
	// is 0 while a lease is not running yet. Calls come one at a time. It should
	// not wait for anything: the guard's own callers wait for it.
	Publish(epoch protocol.Epoch, deadline time.Duration)
}

// ShowTo has m published, now and after every change: what closes the guard
// returns when m shows it. It is called once, before the guard is used.
func (g *Guard) ShowTo(m Mirror) {
	g.mirror = m
	g.publish()
}

// publish shows how the guard stands now. Whoever changes something calls it
// afterwards, so what is shown when it returns is at least as new as that.
func (g *Guard) publish() {
	if g.mirror == nil {
		return
	}
	g.mirroring.Lock()
	defer g.mirroring.Unlock()
	o := g.open.Load()
	if o == nil {
		g.mirror.Publish(0, 0)
		return
	}
	if deadline := o.deadline.Load(); deadline == closedDeadline {
		g.mirror.Publish(0, 0)
	} else {
		g.mirror.Publish(o.epoch, time.Duration(max(deadline, 0)))
	}
}

// Check returns nil if this node is primary of epoch at this moment, and
// ErrNotPrimary or ErrLeaseExpired itself if it is not. Ask it after the work
// and right before the answer leaves: before every acknowledgement, and before
// handing out every read that must be current.
func (g *Guard) Check(epoch protocol.Epoch) error {
	o := g.open.Load()
	if o == nil || o.epoch != epoch {
		return ErrNotPrimary
	}
	switch deadline := o.deadline.Load(); {
	case deadline == math.MaxInt64:
		return nil
	case deadline == closedDeadline:
		return ErrNotPrimary
	case !g.clocks.Before(time.Duration(deadline)):
		return ErrLeaseExpired
	}
	return nil
}

// CheckUntil is Check, and returns until when, on the guard's clock, its nil
// holds; NoDeadline if the primacy is not leased. See ValidFor.
func (g *Guard) CheckUntil(epoch protocol.Epoch) (time.Duration, error) {
	o := g.open.Load()
	if o == nil || o.epoch != epoch {
		return 0, ErrNotPrimary
	}
	switch deadline := o.deadline.Load(); {
	case deadline == closedDeadline:
		return 0, ErrNotPrimary
	case deadline != int64(NoDeadline) && int64(g.clocks.Now()) >= deadline:
		return 0, ErrLeaseExpired
	default:
		return time.Duration(deadline), nil
	}
}

// Now reads the guard's clock.
func (g *Guard) Now() time.Duration { return g.clocks.Now() }

// Open makes epoch the open one, with its lease not running yet: Check says
// ErrLeaseExpired until the first Extend. It fails, wrapping ErrNotPrimary,
// when epoch was closed before it came to be opened, or when a higher one is
// open. A lower one that is open is closed first.
func (g *Guard) Open(epoch protocol.Epoch) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch <= g.closed {
		return g.closedError(epoch)
	}
	if o := g.open.Load(); o != nil {
		if o.epoch == epoch {
			return nil
		}
		if o.epoch > epoch {
			return fmt.Errorf("%w: epoch %d cannot be opened, epoch %d is open", ErrNotPrimary, epoch, o.epoch)
		}
		g.closeThrough(o.epoch, fmt.Errorf("epoch %d has begun", epoch)) // I1
	}
	o := &opening{epoch: epoch, renewed: make(chan struct{})}
	o.deadline.Store(closedDeadline + 1)
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	g.open.Store(o)
	g.publish()
	return nil
}

// Extend lets the lease of epoch run until deadline on the guard's clock. It
// never shortens a lease, except that NoDeadline gives way to any other: a node
// that was alone has got company. It does nothing if epoch is not open.
func (g *Guard) Extend(epoch protocol.Epoch, deadline time.Duration) {
	o := g.open.Load()
	if o == nil || o.epoch != epoch {
		return
	}
	g.clocks.Renewed()
	for {
		old := o.deadline.Load()
		if old == closedDeadline || old == int64(deadline) || old > int64(deadline) && old != int64(NoDeadline) {
			return
		}
		if o.deadline.CompareAndSwap(old, int64(deadline)) {
			break
		}
	}
	g.publish()
	if o.waiting.Load() > 0 {
		g.mu.Lock()
		close(o.renewed)
		o.renewed = make(chan struct{})
		g.mu.Unlock()
	}
}

// Close ends the open epoch for good: a Check that begins after Close has
// begun to return fails. cause is what Context's end will give; nil is taken
// as "closed". Without an open epoch it does nothing.
func (g *Guard) Close(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.open.Load(); o != nil {
		g.closeThrough(o.epoch, cause)
	}
}

// CloseBelow closes every epoch below epoch for good, the open one included,
// and those that were never opened (I5). It never waits for anything.
func (g *Guard) CloseBelow(epoch protocol.Epoch, cause error) {
	if epoch == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closeThrough(epoch-1, cause)
}

// closeThrough closes all epochs up to epoch. The caller holds mu. The atomic
// stores come before anything else happens.
func (g *Guard) closeThrough(epoch protocol.Epoch, cause error) {
	o := g.open.Load()
	if o != nil && o.epoch <= epoch {
		g.open.Store(nil)
		o.deadline.Store(closedDeadline)
	} else {
		o = nil
	}
	if epoch > g.closed {
		g.closed, g.cause = epoch, cause
	}
	if o != nil {
		g.publish()
		o.cancel(closedError(o.epoch, cause))
	}
}

// Epoch returns the open epoch, lapsed or not, and whether there is one.
func (g *Guard) Epoch() (protocol.Epoch, bool) {
	if o := g.open.Load(); o != nil {
		return o.epoch, true
	}
	return 0, false
}

// Context returns a context that ends when the guard closes in epoch; its
// cause wraps ErrNotPrimary and says why. It does not end when the lease
// lapses: only Check knows that. If epoch is not open the error wraps
// ErrNotPrimary.
func (g *Guard) Context(epoch protocol.Epoch) (context.Context, error) {
	if o := g.open.Load(); o != nil && o.epoch == epoch {
		return o.ctx, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return nil, g.closedError(epoch)
}

// Wait returns nil as soon as Check(epoch) does: a lease that lapsed for a few
// heartbeats renews itself, and a write had better wait than fail. It returns
// an error wrapping ErrNotPrimary when the guard is closed in epoch, and one
// wrapping ErrLeaseExpired and ctx's cause when ctx ends first: bound it.
func (g *Guard) Wait(ctx context.Context, epoch protocol.Epoch) error {
	o := g.open.Load()
	if o == nil || o.epoch != epoch {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.closedError(epoch)
	}
	o.waiting.Add(1) // before the first Check: an Extend after it will wake us
	defer o.waiting.Add(-1)
	for {
		g.mu.Lock()
		renewed := o.renewed
		g.mu.Unlock()
		if g.Check(epoch) == nil {
			return nil
		}
		select {
		case <-renewed:
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		case <-ctx.Done():
			return fmt.Errorf("%w in epoch %d and not renewed in time: %w", ErrLeaseExpired, epoch, context.Cause(ctx))
		}
	}
}

func (g *Guard) closedError(epoch protocol.Epoch) error {
	if epoch <= g.closed {
		return closedError(epoch, g.cause)
	}
	return fmt.Errorf("%w: epoch %d is not open on this node", ErrNotPrimary, epoch)
}

func closedError(epoch protocol.Epoch, cause error) error {
	if cause == nil {
		return fmt.Errorf("%w: epoch %d is closed", ErrNotPrimary, epoch)
	}
	return fmt.Errorf("%w: epoch %d is closed: %w", ErrNotPrimary, epoch, cause)
}
