package raftshim

import (
	"cmp"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// campaigns settles who stands when two followers notice at the same moment
// that their leader is gone. Raft lets each grant the other's pre-vote, each
// then votes for itself, nobody is elected, and both wait for an election
// timeout. Here, of two whose questions cross, the one with the longer log, or
// else the lower ID, does not grant: it stands, and the other votes for it.
//
// Who goes first waits for the answer to its own question before it refuses:
// the other may have been asked a moment before it noticed itself, and have
// said no, and then both would be left with nothing for an election timeout.
//
// A pre-vote binds nobody, so a wrong refusal costs time and nothing else; and
// it ends with the own question: refused or lost, it stands in nobody's way.
type campaigns struct {
	mu    sync.Mutex
	asked map[protocol.NodeID]question // by whom
}

// question is a pre-vote that was asked of a peer, and has been granted or not
// been answered yet.
type question struct {
	raft.RequestPreVoteRequest
	at       time.Time
	answered chan struct{} // closed then
}

// questionHolds is how long an unanswered question counts.
const questionHolds = 100 * time.Millisecond

// ask notes a question under way and returns what to call with its answer.
func (c *campaigns) ask(peer raft.ServerID, q *raft.RequestPreVoteRequest) (answered func(granted bool)) {
	id := ParseServerID(peer)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		c.asked = map[protocol.NodeID]question{}
	}
	settled := make(chan struct{})
	c.asked[id] = question{*q, time.Now(), settled}
	return func(granted bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-settled:
		default:
			close(settled)
		}
		if !granted && c.asked[id].Term == q.Term {
			delete(c.asked, id)
		}
	}
}

// settled returns a channel that is closed when the own question to the peer that
// asks q is answered; nil if none is under way.
func (c *campaigns) settled(q *raft.RequestPreVoteRequest) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[ParseServerID(raft.ServerID(q.ID))].answered
}

// goesFirst reports whether the node local stands before the peer that asks q.
func (c *campaigns) goesFirst(local protocol.NodeID, q *raft.RequestPreVoteRequest) bool {
	peer := ParseServerID(raft.ServerID(q.ID))
	c.mu.Lock()
	defer c.mu.Unlock()
	own, there := c.asked[peer]
	if !there || own.Term != q.Term || time.Since(own.at) > questionHolds {
		return false
	}
	return cmp.Or(cmp.Compare(own.LastLogTerm, q.LastLogTerm), cmp.Compare(own.LastLogIndex, q.LastLogIndex), cmp.Compare(peer, local)) > 0
}
