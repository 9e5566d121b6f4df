package raftshim

import "github.com/aiondb/aiondb-ha/failover"

// notifyBuffer is how many changes Raft can tell without waiting for the
// goroutine that takes them, which waits for nothing itself.
const notifyBuffer = 64

// changes is what is still to be told of leadership. It holds two entries at
// most, however long nobody listens: of a longer history only this counts,
// whether there was a change at all, and how it ended.
//
//	told true,  then: lost regained lost            -> false
//	told true,  then: lost regained lost regained   -> false, true
//	told false, then: gained lost gained            -> true
type changes struct {
	told    bool // the last that was told
	pending []failover.Leadership
}

// add takes a change from Raft.
func (c *changes) add(change failover.Leadership) {
	last := c.told
	if n := len(c.pending); n > 0 {
		last = c.pending[n-1].Leading
	}
	if change.Leading == last {
		if !last {
			return
		}
		// Gained, and gained again: it was lost in between.
		c.add(failover.Leadership{Leading: false, Term: change.Term})
	}
	if len(c.pending) == 2 {
		c.pending = c.pending[:0] // the two cancel out but for what comes now
	}
	c.pending = append(c.pending, change)
}

// take removes the first pending change, which has been told.
func (c *changes) take() {
	c.told = c.pending[0].Leading
	c.pending = append(c.pending[:0], c.pending[1:]...)
}

// change is what Raft has just told.
func (c *Consensus) change(leading bool) failover.Leadership {
	change := failover.Leadership{Leading: leading, Term: c.term()}
	if c.raft.Load() != nil && leading {
		change.Campaign = c.transport.candidacy.of(change.Term)
	}
	return change
}

// relay takes changes from Raft without ever keeping it waiting, and tells
// them as fast as they are listened to.
func (c *Consensus) relay() {
	defer close(c.relayed)
	defer close(c.leadership)
	var queue changes
	for {
		var out chan<- failover.Leadership
		var next failover.Leadership
		if len(queue.pending) > 0 {
			out, next = c.leadership, queue.pending[0]
		}
		select {
		case leading := <-c.notify:
			queue.add(c.change(leading))
		case out <- next:
			queue.take()
		case <-c.done:
			return
		}
	}
}
