package sim

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// DefaultBound is how long, in the calm, a quorum that is well may be without
// an acknowledgement (I6).
const DefaultBound = 10 * time.Second

// settled is how long, once nothing is wrong any more, every node may take to
// follow one primary. Raft tries a follower that was away long at most every
// ten seconds.
const settled = 30 * time.Second

// Options are what a run is looked at with.
type Options struct {
	Bound   time.Duration // for I6; 0: DefaultBound
	Think   time.Duration // between two requests of a client; 0: DefaultThink
	Verbose func(string)  // told every line that Raft and the drivers log; nil: nobody
	Limit   time.Duration // of real time, after which a run counts as hung; 0: DefaultLimit

	// Progress is told every virtual hour how far a run has come. It may be nil.
	Progress func(at time.Duration, soFar Result)

	broken   breakage
	tolerate []string // invariants that the run is not about
}

// DefaultThink is short enough for every change to meet writes under way.
const DefaultThink = 15 * time.Millisecond

// Result is what came of a run.
type Result struct {
	Script     Script
	Violations []string
	Story      []string // the last of what happened

	Acks, Reads, Promotions, Failovers int
	Longest                            time.Duration // in the calm, a quorum being well, without an acknowledgement
	Virtual                            time.Duration

	tolerated map[string]int // how often what the run is not about was violated
}

// String says what went wrong, and how to have it again.
func (r *Result) String() string {
	return fmt.Sprintf("%d nodes, %v: %d failovers, %d writes acknowledged, %d reads, longest gap in the calm %v\n%s\n\n%s\n\nSIM_SCRIPT='%s'",
		r.Script.Nodes, r.Virtual.Round(time.Second), r.Failovers, r.Acks, r.Reads, r.Longest.Round(time.Millisecond),
		strings.Join(r.Story, "\n"), strings.Join(r.Violations, "\n"), r.Script)
}

// Run runs a script in a bubble of its own. It must not be called in one.
func Run(t *testing.T, s Script, o Options) *Result {
	t.Helper()
	r := &Result{Script: s}
	defer watch(r, o.Limit)()
	synctest.Test(t, func(*testing.T) { r.run(s, o) })
	return r
}

// DefaultLimit is many times what a script of some minutes takes.
const DefaultLimit = 2 * time.Minute

// watch ends the test binary when a run hangs: a livelock, or somebody who
// waits for a lock whose holder sleeps. The panic shows all goroutines.
func watch(r *Result, limit time.Duration) (stop func()) {
	if limit == 0 {
		limit = DefaultLimit
	}
	timer := time.AfterFunc(limit, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("the run hangs: SIM_SCRIPT='%s'", r.Script))
	})
	return func() { timer.Stop() }
}

func (r *Result) run(s Script, o Options) {
	c := newCluster(s, o)
	think := o.Think
	if think == 0 {
		think = DefaultThink
	}
	for _, m := range c.machines {
		c.tasks.Go(func() { c.begin(m) })
	}
	done := make(chan struct{})
	for _, m := range c.machines {
		c.clients(m, think, done)
	}
	c.tasks.Go(func() { c.look(done) })

	told := time.Hour
	for _, f := range s.Faults {
		time.Sleep(time.Until(c.began.Add(f.At)))
		if o.Progress != nil && f.At > told {
			o.Progress(f.At, c.ledger.soFar())
			told += time.Hour
		}
		c.befall(f)
		if len(c.ledger.found()) > 0 {
			break
		}
	}
	c.settle(s)
	close(done)
	r.Virtual = time.Since(c.began)
	c.over.Store(true)
	for first := true; first || c.tasks.running.Load() > 0; first = false { // some may be starting still
		for _, p := range c.all() {
			p.kill()
		}
		time.Sleep(time.Second)
	}
	time.Sleep(time.Minute) // what Raft has left waiting for an answer gives up
	virtual := r.Virtual
	*r = c.ledger.soFar()
	r.Script, r.Virtual = s, virtual
}

// settle waits until all faults are over and all nodes run, and then until
// everything written is everywhere: every node follows one primary, whose
// clients are answered (I3, I6).
func (c *cluster) settle(s Script) {
	began := time.Now()
	for !c.calm() || len(c.all()) < len(c.machines) || !c.net.whole() {
		if time.Sleep(20 * time.Millisecond); time.Since(began) > longestFault {
			c.describe()
			c.ledger.violated("sim", "%d faults are not over, %d nodes run", c.faults.Load(), len(c.all()))
			return
		}
	}
	began = time.Now()
	for time.Since(began) < settled && len(c.ledger.found()) == 0 {
		if c.together() && c.ledger.ackedSince(began) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(c.ledger.found()) == 0 {
		c.describe()
		c.ledger.violated("I6", "nothing has been wrong for %v, and not every node follows one primary", time.Since(began))
	}
}

// longestFault is how long the end of a script waits for what it has begun.
const longestFault = 2 * time.Minute

// together reports whether every node has, flushed, what the primary has.
func (c *cluster) together() bool {
	p := c.primary()
	if p == nil {
		return false
	}
	p.db.mu.Lock()
	end, sum, epoch := p.db.log.end(), p.db.log.sum(p.db.log.end()), p.db.promotion
	p.db.mu.Unlock()
	for _, q := range c.all() {
		q.db.mu.Lock()
		// Writes go on: a replica may be a few records behind, or ahead of what was looked at.
		ok := q == p || epoch != nil && q.db.following.Primary == p.id && q.db.following.Epoch == epoch.Epoch && (q.db.log.has(end, sum) || end-q.db.log.end() < pullBatch && q.db.log.end() <= end)
		q.db.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

// look checks now and then what is checked all the time.
func (c *cluster) look(done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
		for _, p := range c.all() {
			c.ledger.floor(p, p.floor.Current().Epoch)
		}
		if p := c.primary(); p != nil {
			c.ledger.mu.Lock()
			c.ledger.oneSpeaker(p)
			c.ledger.mu.Unlock()
		}
		c.ledger.look()
	}
}

// writers is how many clients write to each node at a time: a primary that is
// cut off then has several records that nobody else has.
const writers = 6

// clients write to one node, whenever that takes itself for the primary, and
// read.
func (c *cluster) clients(m *machine, think time.Duration, done chan struct{}) {
	client := func(every time.Duration, ask func(*database, uint64) error) {
		for i := uint64(1); ; i++ {
			select {
			case <-done:
				return
			case <-time.After(every):
			}
			if p := c.running(m.id); p != nil {
				_ = ask(p.db, i)
			}
		}
	}
	for w := range uint64(writers) {
		first := think * time.Duration(w) / 2
		c.tasks.Go(func() {
			time.Sleep(first)
			client(think*writers, func(db *database, i uint64) error { return db.write(uint64(m.id)<<56 | w<<48 | i) })
		})
	}
	c.tasks.Go(func() { client(3*think, func(db *database, _ uint64) error { return db.read() }) })
}
