package fencing

import (
	"sync/atomic"
	"time"
)

// QuickClock reads, at about the same moment, the wall clock first and then a
// monotonic clock that need not count the time the machine was suspended, each
// from any fixed moment. It must be cheap. In Go it is time.Now, which asks no
// system call for either; a clock that does count suspended time costs one.
//
// How it is used (Clocks): at each renewal of the lease it reads both and the exact
// clock. From then on the two run side by side. A suspension moves the wall
// clock and not the monotonic one, whoever sets the wall clock moves that one
// alone, and slewing it, as NTP does, moves neither against the other. So as
// long as their difference is what it was, there was no suspension, and the
// monotonic clock tells the exact time. When it is not, the exact clock is
// asked, for as long as it takes until a renewal has read all three again.
//
// What deceives it: a wall clock that is set back by just as much as the
// machine was suspended, to within QuickLimit, between one renewal of the
// lease and a Check that nothing renewed it before. A clock that is corrected
// after a suspension is corrected by its error, not by the suspension; to do
// this by chance takes an error as long as the sleep, in the moment of waking.
type QuickClock func() (wall, monotonic time.Duration)

// QuickLimit is how far a QuickClock's difference may move, and how close to
// the deadline its word is good, before the exact clock is asked. It is longer
// than the three readings of a renewal take.
const QuickLimit = time.Millisecond

// pairEvery is how long a pairing that still holds is kept.
const pairEvery = 10 * time.Millisecond

// pairTries bounds how often the readings of a pairing are tried, when
// something came between them.
const pairTries = 3

// pairing is one moment on all clocks.
type pairing struct {
	wall, monotonic time.Duration
	exact           time.Duration // read last: never before the moment
}

// Clocks tells whether a deadline on the exact clock has passed: by a
// QuickClock while that cannot be wrong, else by the exact clock. Its methods
// are safe for concurrent use.
type Clocks struct {
	exact  func() time.Duration
	quick  QuickClock              // nil: exact is asked always
	paired atomic.Pointer[pairing] // newest; nil: exact is asked
}

// NewClocks returns the clocks of a lease. exact must also count suspended
// time; quick may be nil.
func NewClocks(exact func() time.Duration, quick QuickClock) *Clocks {
	return &Clocks{exact: exact, quick: quick}
}

// Now reads the exact clock.
func (c *Clocks) Now() time.Duration { return c.exact() }

// Renewed is to be called with every renewal of a lease: it reads both clocks
// together. When they cannot be read close enough the exact one will be asked.
func (c *Clocks) Renewed() {
	if c.quick == nil {
		return
	}
	wall, monotonic := c.quick()
	if p := c.paired.Load(); p != nil && p.holds(wall, monotonic) && monotonic-p.monotonic < pairEvery {
		return
	}
	for range pairTries {
		began := c.exact()
		wall, monotonic := c.quick()
		if exact := c.exact(); exact-began < QuickLimit {
			c.paired.Store(&pairing{wall, monotonic, exact})
			return
		}
	}
	c.paired.Store(nil)
}

// Before reports whether the exact clock shows less than deadline, at some
// moment after the call. It does not allocate.
func (c *Clocks) Before(deadline time.Duration) bool {
	if p := c.paired.Load(); p != nil && p.before(c.quick, deadline) {
		return true
	}
	return c.exact() < deadline
}

// holds reports whether the difference of the clocks is still what it was.
func (p *pairing) holds(wall, monotonic time.Duration) bool {
	moved := (wall - p.wall) - (monotonic - p.monotonic)
	return -QuickLimit <= moved && moved <= QuickLimit
}

// before reports whether the exact clock is known to have shown less than
// deadline when quick read the wall clock.
//
// Why it is: had the machine been suspended for s since the pairing, the wall
// clock would be ahead by s, less the time l that passed between quick's two
// readings. So s ≤ QuickLimit + l; and at the first reading, l earlier, the
// exact clock showed at most QuickLimit more than is reckoned here.
func (p *pairing) before(quick QuickClock, deadline time.Duration) bool {
	wall, monotonic := quick()
	return p.holds(wall, monotonic) && p.exact+(monotonic-p.monotonic)+QuickLimit < deadline
}
