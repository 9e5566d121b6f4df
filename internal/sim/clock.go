package sim

import (
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// trueRate is the rate, in ‰, of a clock that is right.
const trueRate = 1000

// bootClock is a machine's clock: it runs at a rate of its own.
type bootClock struct {
	mu       sync.Mutex
	base     time.Duration // what it showed at since
	since    time.Time
	permille int64
}

func newBootClock(permille int64, shows time.Duration) *bootClock {
	return &bootClock{base: shows, since: time.Now(), permille: permille}
}

func (c *bootClock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

func (c *bootClock) read() time.Duration {
	return c.base + time.Since(c.since)*time.Duration(c.permille)/trueRate
}

// set changes the rate, from now on.
func (c *bootClock) set(permille int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.since, c.permille = c.read(), time.Now(), permille
}

func (c *bootClock) rate() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.permille
}

// There is one virtual clock, so the timers of a node whose clock is off are
// made longer or shorter instead: what it calls a second lasts lasts(second).
// Durations that the driver reckons with are those of the virtual clock;
// whatever it is told of the node's own, and whatever leaves the node for
// another one, is converted on the way.

func lasts(d time.Duration, permille int64) time.Duration {
	return d * trueRate / time.Duration(permille)
}

// driftingLease is the lease as the driver of a node sees it whose timers are
// those of the virtual clock.
type driftingLease struct {
	failover.Lease
	p        *process
	permille int64 // of the node's clock when the process started
}

func (l driftingLease) Duration() time.Duration { return lasts(l.Lease.Duration(), l.permille) }

func (l driftingLease) Age(epoch protocol.Epoch) (time.Duration, protocol.Epoch) {
	age, of := l.Lease.Age(epoch)
	return lasts(age, l.permille), of
}

// Stalled is asked with every look of the driver's main loop.
func (l driftingLease) Stalled() error {
	_ = l.p.pass()
	return l.Lease.Stalled()
}

func (l driftingLease) Bar(epoch protocol.Epoch) {
	if !l.p.c.broken.barIgnored {
		l.Lease.Bar(epoch)
	}
}

// agesOut converts what a voter's driver says to the voter's own clock, which
// is what the message carries; agesIn what the candidate's driver reads of it.
func agesOut(m protocol.Message, permille int64) protocol.Message {
	return agesScaled(m, uint64(permille), trueRate)
}

func agesIn(m protocol.Message, permille int64) protocol.Message {
	return agesScaled(m, trueRate, uint64(permille))
}

func agesScaled(m protocol.Message, by, of uint64) protocol.Message {
	answer, is := m.(protocol.BallotAnswer)
	const longest = uint64(24 * time.Hour / time.Microsecond)
	if is && answer.AgeUS < longest*30 {
		answer.AgeUS = answer.AgeUS * by / of
		return answer
	}
	return m
}
