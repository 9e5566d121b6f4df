package sim

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/protocol"
)

// cluster is the machines of a run, and what lies between and around them. It
// lives in one synctest bubble.
type cluster struct {
	machines []*machine // by ID, from 1
	procs    []atomic.Pointer[process]
	net      *network
	ledger   *ledger
	began    time.Time
	bound    time.Duration // for I6

	snapshots bool
	quiet     bool // nothing that happens may depose a primary
	broken    breakage
	verbose   func(string)

	faults atomic.Int64 // that are not over, other than nodes that are down and ways that are cut
	over   atomic.Bool  // nobody starts any more
	tasks  tasks

	unseated atomic.Bool // a node is without a vote
}

// tasks counts the goroutines of a cluster. It is no sync.WaitGroup because
// those of Raft, which it does not know, begin tasks while it is waited for.
type tasks struct{ running atomic.Int64 }

func (t *tasks) Go(f func()) {
	t.running.Add(1)
	go func() {
		defer t.running.Add(-1)
		f()
	}()
}

func newCluster(s Script, o Options) *cluster {
	c := &cluster{net: newNetwork(s.Seed), began: time.Now(), bound: o.Bound, snapshots: s.Snapshots, quiet: s.Quiet, broken: o.broken, verbose: o.Verbose, procs: make([]atomic.Pointer[process], s.Nodes)}
	if c.bound == 0 {
		c.bound = DefaultBound
	}
	c.ledger = newLedger(c)
	for _, invariant := range o.tolerate {
		c.ledger.tolerated[invariant] = 0
	}
	for i := range s.Nodes {
		rate := int64(trueRate)
		if len(s.Rates) > 0 {
			rate = int64(s.Rates[i%len(s.Rates)])
		}
		c.machines = append(c.machines, &machine{id: protocol.NodeID(i + 1), disk: &disk{rng: rand.New(rand.NewPCG(s.Seed, uint64(10+i)))},
			clock: newBootClock(rate, time.Duration(i)*time.Hour), logs: logstore.NewMemory(), floor: memfs.New()})
	}
	return c
}

func (c *cluster) machine(id protocol.NodeID) *machine { return c.machines[id-1] }

// running returns the process that runs on a machine, nil if none does.
func (c *cluster) running(id protocol.NodeID) *process { return c.procs[id-1].Load() }

func (c *cluster) enter(p *process) {
	c.procs[p.id-1].Store(p)
	c.ledger.tell("node %d has started", p.id)
	c.ledger.disturbed()
}

func (c *cluster) leave(p *process) {
	c.procs[p.id-1].CompareAndSwap(p, nil)
	c.ledger.tell("node %d is down", p.id)
	c.ledger.disturbed()
}

// all returns the processes that run.
func (c *cluster) all() []*process {
	out := make([]*process, 0, len(c.procs))
	for i := range c.procs {
		if p := c.procs[i].Load(); p != nil {
			out = append(out, p)
		}
	}
	return out
}

func (c *cluster) quorum() int { return len(c.machines)/2 + 1 }

func (c *cluster) since() string {
	return fmt.Sprintf("%.6fs", time.Since(c.began).Seconds())
}

// primary returns the process whose database is promoted and whose guard is
// open, the one of the highest epoch, nil if there is none.
func (c *cluster) primary() *process {
	var found *process
	var highest protocol.Epoch
	for _, p := range c.all() {
		p.db.mu.Lock()
		promotion := p.db.promotion
		p.db.mu.Unlock()
		if promotion != nil && promotion.Epoch > highest && p.guard.Check(promotion.Epoch) == nil {
			found, highest = p, promotion.Epoch
		}
	}
	return found
}

// calm reports whether nothing goes wrong at present but that nodes are down
// and ways cut.
func (c *cluster) calm() bool { return c.faults.Load() == 0 && !c.net.isRough() }

// quorumIsWell reports whether some quorum of the nodes runs and each of it
// reaches each.
func (c *cluster) quorumIsWell() bool {
	n := len(c.machines)
	reach := make([]uint, n)
	for i := range n {
		if p := c.procs[i].Load(); p == nil || p.paused() || !p.m.disk.fine() {
			continue
		}
		for j := range n {
			a, b := protocol.NodeID(i+1), protocol.NodeID(j+1)
			if i == j || !c.net.isCut(a, b) && !c.net.isCut(b, a) {
				reach[i] |= 1 << j
			}
		}
	}
	for set := uint(1); set < 1<<n; set++ {
		if bits.OnesCount(set) != c.quorum() {
			continue
		}
		well := true
		for i := range n {
			well = well && (set>>i&1 == 0 || reach[i]&set == set)
		}
		if well {
			return true
		}
	}
	return false
}

// checkBest checks, as p is about to be promoted, that its log reaches as far
// as those of a quorum (I6): nobody who granted can have gone further since.
func (c *cluster) checkBest(p *process, epoch protocol.Epoch) {
	p.db.mu.Lock()
	own := p.db.log.position(p.db.flushed)
	p.db.mu.Unlock()
	others := 0
	for _, m := range c.machines {
		var position protocol.Position
		if q := c.running(m.id); q != nil {
			q.db.mu.Lock()
			position = q.db.log.position(q.db.flushed)
			q.db.mu.Unlock()
		} else {
			left := m.left()
			position = left.position(left.end())
		}
		if position.Compare(own) <= 0 {
			others++
		}
	}
	if others < c.quorum() && c.ledger.newest() < epoch {
		c.ledger.violated("I6", "node %d is promoted in epoch %d at %v, and only %d of %d nodes have no better position", p.id, epoch, own, others, len(c.machines))
	}
}

// listener returns what takes the lines that a node logs.
func (c *cluster) listener(id protocol.NodeID) func(string, []any) {
	if c.verbose == nil {
		return nil
	}
	return func(line string, args []any) { c.verbose(fmt.Sprintf("%9s node %d: %s %v", c.since(), id, line, args)) }
}

// describe adds to the story how every node stands.
func (c *cluster) describe() {
	for _, p := range c.all() {
		s := p.driver.Status()
		leader, term := p.cons.Leader()
		p.db.mu.Lock()
		c.ledger.tell("node %d: %v, %v of epoch %d, floor %d, Raft's term %d with leader %d, log %v flushed %d, blocked: %s",
			p.id, s.State, s.Role, s.Epoch, s.Floor, term, leader, p.db.log.position(p.db.log.end()), p.db.flushed, s.Blocked)
		p.db.mu.Unlock()
		records := p.driver.Journal(0)
		for _, r := range records[max(0, len(records)-12):] {
			c.ledger.tell("    %.6fs %s epoch %d node %d: %s", r.At.Sub(c.began).Seconds(), r.Event, r.Epoch, r.Node, r.Detail)
		}
	}
}
