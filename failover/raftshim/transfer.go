package raftshim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// transferPoll is how often a leader that hands over looks whether it still
// leads.
const transferPoll = 2 * time.Millisecond

// errLag says that the log of whom leadership was offered to is too short.
var errLag = errors.New("its log does not reach this node's in time")

// Transfer moves leadership to a voter, NoNode for the one whose log reaches
// furthest. nil means that this node has stopped leading. It takes three of Raft's
// election timeouts at most: one for what was proposed to be committed, one for
// the other's log to catch up, one for it to be elected. What is proposed
// meanwhile waits.
//
// It is Raft's own way of doing it, done here: wait, then tell the voter to
// stand. hashicorp/raft's LeadershipTransfer refuses all entries meanwhile, and
// goes on refusing for ever, in later terms too, when the follower has not taken
// up what one transfer left for it, another is begun, and leadership ends: a
// leader that cannot commit, and does not know why.
func (c *Consensus) Transfer(ctx context.Context, to protocol.NodeID) error {
	r := c.raft.Load()
	if r == nil {
		return failover.ErrClosed
	}
	term := r.CurrentTerm()
	if r.State() != raft.Leader {
		return c.notLeader()
	}
	epoch := protocol.Epoch(term)
	if to == protocol.NoNode {
		to = c.transport.furthest(epoch)
	}
	server, found := raft.Server{}, false
	for _, s := range c.servers() {
		if s.ID == ServerID(to) && s.Suffrage == raft.Voter && to != c.transport.local {
			server, found = s, true
		}
	}
	if !found {
		return fmt.Errorf("transfer leadership: node %d is not another voter", to)
	}
	leads := func() bool { return r.State() == raft.Leader && r.CurrentTerm() == term }
	patience := r.ReloadableConfig().ElectionTimeout
	// One more entry now, and the others would have it and refuse their votes to
	// whom it has not reached yet.
	limited, cancel := context.WithTimeout(ctx, patience)
	release, err := c.proposals.hold(limited, c.done)
	cancel()
	defer release()
	if err != nil {
		return fmt.Errorf("transfer leadership to node %d: %w", to, err)
	}
	if err := c.awaitReach(ctx, patience, epoch, to, leads); err != nil {
		return fmt.Errorf("transfer leadership to node %d: %w", to, err)
	}
	if !leads() {
		return nil
	}
	asked := c.ask(func() error {
		request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax,
			ID: []byte(ServerID(c.transport.local)), Addr: c.transport.EncodePeer(ServerID(c.transport.local), c.transport.LocalAddr())}}
		return c.transport.TimeoutNow(server.ID, server.Address, request, &raft.TimeoutNowResponse{})
	})
	ctx, cancel = context.WithTimeout(ctx, patience)
	defer cancel()
	look := time.NewTicker(transferPoll)
	defer look.Stop()
	for leads() {
		select {
		case <-look.C:
		case err := <-asked:
			if err != nil {
				return fmt.Errorf("transfer leadership to node %d: %w: %w", to, failover.ErrOutcomeUnknown, err)
			}
			asked = nil
		case <-ctx.Done():
			return fmt.Errorf("transfer leadership to node %d: %w: it has not been elected yet: %w", to, failover.ErrOutcomeUnknown, context.Cause(ctx))
		}
	}
	return nil
}

// awaitReach waits until a voter has this leader's whole log: before that
// nobody would vote for it.
func (c *Consensus) awaitReach(ctx context.Context, patience time.Duration, epoch protocol.Epoch, voter protocol.NodeID, leads func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, l := c.raft.Load(), c.transport.lease
	look := time.NewTicker(transferPoll)
	defer look.Stop()
	for {
		l.mu.Lock()
		index := l.reach.of(epoch, voter)
		l.mu.Unlock()
		if index >= r.LastIndex() || !leads() {
			return nil
		}
		select {
		case <-look.C:
		case <-c.done:
			return failover.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errLag, context.Cause(ctx))
		}
	}
}

// furthest returns the other voter that is known to have the most of this
// leader's log, NoNode if there is none.
func (l *lease) furthest(epoch protocol.Epoch) protocol.NodeID {
	r := l.raft.Load()
	if r == nil {
		return protocol.NoNode
	}
	var best protocol.NodeID
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range votersOf(r) {
		if id != l.local && (best == protocol.NoNode || l.reach.of(epoch, id) > l.reach.of(epoch, best)) {
			best = id
		}
	}
	return best
}
