package raftshim

import (
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// staggerParts is how finely the followers' patience is spread: over a
// staggerParts-th of the heartbeat timeout, so that they do not all stand at
// the same moment and split the vote.
const staggerParts = 20

// hasten makes a follower notice in time that its leader has fallen silent.
//
// Raft looks at moments of its own, one to two heartbeat timeouts apart, and so
// finds a dead leader out after 1.5 timeouts on average and 3 at worst; and
// since a pre-vote is refused by whoever has not noticed yet, it is the slower
// of two followers that counts. Here the look comes when it is due. It is
// Raft's own look, with Raft's own judgement; early ones change nothing.
func (c *Consensus) hasten(r *raft.Raft) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var done time.Time // the silence that has been looked at
	for {
		select {
		case <-timer.C:
		case <-c.done:
			return
		}
		timeout := r.ReloadableConfig().HeartbeatTimeout
		last := r.LastContact()
		patience := timeout + time.Duration(rand.Int64N(int64(timeout/staggerParts)+1))
		switch silence := time.Since(last); {
		case r.State() != raft.Follower || last.IsZero() || last.Equal(done):
			timer.Reset(timeout / 2)
		case silence < timeout:
			timer.Reset(patience - silence)
		default:
			done = last
			look(r)
			timer.Reset(timeout / 2)
		}
	}
}

// look makes a follower's main loop compare the leader's silence with the
// heartbeat timeout now. Raft does so when that timeout is shortened: it is
// lengthened by the least before.
func look(r *raft.Raft) {
	is := r.ReloadableConfig()
	longer := is
	longer.HeartbeatTimeout++
	longer.ElectionTimeout++ // which must not be the shorter of the two
	if r.ReloadConfig(longer) == nil {
		_ = r.ReloadConfig(is) // was valid before
	}
}
