package sim

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	errUnreachable = errors.New("unreachable")
	errTimedOut    = errors.New("no answer in time")
)

// roughness is how badly the network treats messages.
type roughness struct {
	loss, twice int           // ‰ of messages lost, and delivered once more, later
	delay       time.Duration // at most, of one message in four
}

// network is what lies between the nodes.
type network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	cut   map[[2]protocol.NodeID]int // ways that are cut, how many times over
	rough map[roughness]int
}

func newNetwork(seed uint64) *network {
	return &network{rng: rand.New(rand.NewPCG(seed, 2)), cut: map[[2]protocol.NodeID]int{}, rough: map[roughness]int{}}
}

// way changes how often a way is cut.
func (n *network) way(from, to protocol.NodeID, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]protocol.NodeID{from, to}] += by
}

func (n *network) roughen(r roughness, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rough[r] += by; n.rough[r] == 0 {
		delete(n.rough, r)
	}
}

func (n *network) isRough() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.rough) > 0
}

func (n *network) isCut(from, to protocol.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]protocol.NodeID{from, to}] > 0
}

// intn returns a number in [0, below).
func (n *network) intn(below int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.IntN(below)
}

// fate is what becomes of one message on one way.
type fate struct {
	delay time.Duration
	lost  bool // and if told, the sender learns of it
	told  bool
	twice bool
}

func (n *network) fate(from, to protocol.NodeID) fate {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := fate{delay: time.Duration(50+n.rng.IntN(300)) * time.Microsecond}
	if n.cut[[2]protocol.NodeID{from, to}] > 0 {
		f.lost = true // as a cable that is pulled: nobody is told
		return f
	}
	for r := range n.rough {
		if n.rng.IntN(1000) < r.loss {
			f.lost, f.told = true, n.rng.IntN(4) > 0 // a connection that is reset
		}
		f.twice = f.twice || n.rng.IntN(1000) < r.twice
		if r.delay > 0 && n.rng.IntN(4) == 0 {
			f.delay += time.Duration(n.rng.Int64N(int64(r.delay)))
		}
	}
	return f
}

// call carries a question from a process to the one that runs on another node,
// has serve answer it there, and carries the answer back. It waits no longer
// than patience; the question may arrive later all the same, and twice. What is
// for a process that has died is not for the next one: the connection is gone.
func call[A any](from *process, to protocol.NodeID, patience time.Duration, serve func(*process) (A, error)) (A, error) {
	type answer struct {
		value A
		err   error
	}
	var none A
	if err := from.pass(); err != nil {
		return none, err
	}
	c, out := from.c, from.c.net.fate(from.id, to)
	answers := make(chan answer, 1)
	there := c.running(to)
	fail := func(f fate, err error) {
		if f.told || !f.lost {
			answers <- answer{err: err}
		}
	}
	c.tasks.Go(func() {
		time.Sleep(out.delay)
		if out.lost {
			fail(out, errUnreachable)
			return
		}
		if there == nil || there.isDead() {
			fail(out, errUnreachable)
			return
		}
		if out.twice {
			again := time.Duration(1+c.net.intn(40)) * out.delay
			c.tasks.Go(func() {
				time.Sleep(again)
				if there.pass() == nil {
					_, _ = serve(there)
				}
			})
		}
		if there.pass() != nil {
			fail(out, errUnreachable)
			return
		}
		value, err := serve(there)
		if there.pass() != nil {
			fail(out, errUnreachable)
			return
		}
		back := c.net.fate(to, from.id)
		time.Sleep(back.delay)
		if back.lost {
			fail(back, errUnreachable)
			return
		}
		answers <- answer{value, err}
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-answers:
		if err := from.pass(); err != nil {
			return none, err
		}
		return a.value, a.err
	case <-timer.C:
		return none, errTimedOut
	case <-from.dead:
		return none, errDead
	}
}

// whole reports whether no way is cut.
func (n *network) whole() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, times := range n.cut {
		if times > 0 {
			return false
		}
	}
	return true
}
