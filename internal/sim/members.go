package sim

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
)

// memberPatience is how long the Raft of a node is waited for that was asked to
// change who has a vote; memberPause, how long after it said no the next is asked.
const (
	memberPatience = 5 * time.Second
	memberPause    = 50 * time.Millisecond
)

// unseat takes a node's vote away and gives it back after a while: change makes
// it a non-voter, or no member at all. At most one node is without a vote at a
// time: the databases count a quorum of the machines, and one of all and one of
// all but one have a node in common.
func (c *cluster) unseat(f Fault, m *machine, change func(*raft.Raft, raft.ServerID) raft.IndexFuture) {
	if !c.unseated.CompareAndSwap(false, true) {
		return
	}
	c.faults.Add(1)
	c.ledger.tell("%v (node %d)", f, m.id)
	c.ledger.disturbed()
	c.tasks.Go(func() {
		// Whoever answers nothing may have done it, so it is undone in any case.
		c.askLeader(memberPatience, func(r *raft.Raft) raft.IndexFuture { return change(r, raftshim.ServerID(m.id)) })
		time.Sleep(f.D)
		c.askLeader(longestFault, func(r *raft.Raft) raft.IndexFuture {
			return r.AddVoter(raftshim.ServerID(m.id), address(m.id), 0, memberPatience)
		})
		c.faults.Add(-1)
		c.unseated.Store(false)
		c.ledger.tell("over: %v (node %d)", f, m.id)
		c.ledger.disturbed()
	})
}

// askLeader asks one node after the other for a change of Raft's configuration
// until one has made it, for as long as patience, or until the run is over.
func (c *cluster) askLeader(patience time.Duration, change func(*raft.Raft) raft.IndexFuture) {
	for end := time.Now().Add(patience); time.Now().Before(end) && !c.over.Load(); time.Sleep(memberPause) {
		for _, p := range c.all() {
			select {
			case <-p.ready:
			default:
				continue
			}
			if p.raft.State() == raft.Leader && change(p.raft).Error() == nil {
				return
			}
		}
	}
}
