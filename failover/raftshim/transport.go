package raftshim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// Inner is the transport that does the carrying: *raft.NetworkTransport, or
// *raft.InmemTransport in tests.
type Inner interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// Transport is the raft.Transport of a node. What it adds to the one inside:
//
//   - SetHeartbeatHandler does nothing, so that heartbeats go through Raft's
//     main loop like everything else: the fast path beside it can acknowledge
//     a term after a vote for the next one.
//   - A peer is named "ID@address" wherever Raft stores or sends one, so that
//     a vote on disk says whom it was for, whatever its address.
//   - RequestPreVote is forwarded: without it Raft would do without pre-votes.
//   - The node can ask itself to stand for the next term (see
//     Consensus.NewTerm), and TimeoutNow is taken from nobody else than the
//     current leader: any peer could depose a healthy one with it.
//   - It keeps the lease: when each AppendEntries was sent that succeeded, and
//     when this node last let one succeed. After Bar(E) it lets none of a term
//     below E succeed, nor an InstallSnapshot.
//   - A snapshot that is older than what this node has committed is not
//     installed (see overtook).
//   - Votes are given by term and log alone, whether this node has heard
//     that the candidate is a voter or not (see entitled).
//   - Of two followers that ask each other for a pre-vote at the same moment,
//     one stands back (see campaigns).
//   - It stands still while the disk does: past a limit no AppendEntries goes
//     out and no vote is asked for, so that the others elect somebody else. A
//     leader whose disk hangs would send heartbeats for ever.
//
// Every Raft message passes through here: outgoing ones in the methods Raft
// calls; incoming ones in pump, one at a time, as Raft takes them.
type Transport struct {
	Inner
	*lease
	campaigns     campaigns
	candidacy     candidacy
	writeInFlight func() time.Time
	stallLimit    time.Duration

	consumer  chan raft.RPC
	done      chan struct{}
	once      sync.Once
	pumped    chan struct{}
	crossings sync.WaitGroup // answers that are waited with
	err       error
}

// StallLimit returns how long a write to disk may take before the disk
// counts as hung: four heartbeat timeouts, and MinStallLimit at least.
func StallLimit(heartbeatTimeout time.Duration) time.Duration {
	return max(4*heartbeatTimeout, MinStallLimit)
}

// MinStallLimit is longer than a busy disk takes for a sync.
const MinStallLimit = 500 * time.Millisecond

// Options are what a Transport keeps the lease by. The zero value keeps none.
type Options struct {
	Local protocol.NodeID
	Clock func() time.Duration // the guard's; nil: time since NewTransport
	Guard *fencing.Guard       // extended as stamps come in; nil: none
	Lease time.Duration        // D, the same on all nodes, see fencing.LeaseFor; 0: the guard has no deadline
	Floor protocol.Epoch       // what this node is promised to on disk

	// WriteInFlight says since when a write has been waiting for the disk, zero
	// if none has. nil: the disk never hangs.
	WriteInFlight func() time.Time
	// StallLimit is how long such a write may take. 0: MinStallLimit.
	StallLimit time.Duration
}

var _ failover.Lease = (*Transport)(nil)

// NewTransport wraps inner and owns it from then on: Close closes both.
func NewTransport(inner Inner, opts Options) *Transport {
	t := &Transport{Inner: inner, lease: newLease(opts), writeInFlight: opts.WriteInFlight, stallLimit: opts.StallLimit,
		consumer: make(chan raft.RPC), done: make(chan struct{}), pumped: make(chan struct{})}
	if t.stallLimit == 0 {
		t.stallLimit = MinStallLimit
	}
	go t.pump()
	return t
}

// Stalled returns an error wrapping failover.ErrStalled while a write takes
// longer than the limit.
func (t *Transport) Stalled() error {
	if t.writeInFlight == nil {
		return nil
	}
	since := t.writeInFlight()
	if since.IsZero() || time.Since(since) <= t.stallLimit {
		return nil
	}
	return fmt.Errorf("%w: a write has been under way for %v", failover.ErrStalled, time.Since(since).Round(time.Millisecond))
}

// pump hands incoming messages to Raft.
func (t *Transport) pump() {
	defer close(t.pumped)
	incoming := t.Inner.Consumer()
	for {
		select {
		case rpc := <-incoming:
			if !t.pass(rpc) {
				return
			}
		case <-t.done:
			return
		}
	}
}

// pass hands one message to Raft. Of a leader's messages it waits for the
// answer, which Raft gives before it takes another message anyway. It is false
// when the transport has ended.
func (t *Transport) pass(rpc raft.RPC) bool {
	var epoch protocol.Epoch
	var refused error
	switch command := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		epoch = protocol.Epoch(command.Term)
		refused = t.barredFor(epoch)
	case *raft.InstallSnapshotRequest:
		epoch = protocol.Epoch(command.Term)
		if refused = t.barredFor(epoch); refused == nil && t.overtook(command) {
			_, _ = io.Copy(io.Discard, rpc.Reader) // the connection goes on behind it
			return t.reply(rpc, t.let(epoch, raft.RPCResponse{Response: &raft.InstallSnapshotResponse{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: command.Term, Success: true}}))
		}
	case *raft.RequestVoteRequest:
		vote := *command
		vote.ID = t.entitled(command.ID)
		rpc.Command = &vote
		return t.hand(rpc)
	case *raft.RequestPreVoteRequest:
		question := *command
		question.ID = t.entitled(command.ID)
		rpc.Command = &question
		if !t.campaigns.goesFirst(t.local, command) {
			return t.hand(rpc)
		}
		t.crossings.Go(func() { t.crossing(rpc, command) })
		return true
	case *raft.TimeoutNowRequest:
		if refused = t.fromLeader(command); refused == nil {
			return t.hand(rpc)
		}
	default:
		return t.hand(rpc)
	}
	if refused != nil {
		return t.reply(rpc, raft.RPCResponse{Error: refused})
	}
	answer := make(chan raft.RPCResponse, 1)
	if !t.hand(raft.RPC{Command: rpc.Command, Reader: rpc.Reader, RespChan: answer}) {
		return false
	}
	select {
	case reply := <-answer:
		return t.reply(rpc, t.let(epoch, reply))
	case <-t.done:
		return false
	}
}

// crossing answers a pre-vote that crosses one of this node's own, when that is
// answered, or has not been for too long.
func (t *Transport) crossing(rpc raft.RPC, command *raft.RequestPreVoteRequest) {
	limit := time.NewTimer(questionHolds)
	defer limit.Stop()
	select {
	case <-t.campaigns.settled(command):
	case <-limit.C:
		t.hand(rpc)
		return
	case <-t.done:
		return
	}
	if !t.campaigns.goesFirst(t.local, command) {
		t.hand(rpc)
		return
	}
	t.reply(rpc, raft.RPCResponse{Response: &raft.RequestPreVoteResponse{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: command.Term - 1}})
}

func (t *Transport) hand(rpc raft.RPC) bool {
	select {
	case t.consumer <- rpc:
		return true
	case <-t.done:
		return false
	}
}

func (t *Transport) reply(rpc raft.RPC, answer raft.RPCResponse) bool {
	select {
	case rpc.RespChan <- answer:
		return true
	case <-t.done:
		return false
	}
}

// entitled returns the ID under which Raft is to be asked for a vote: the
// candidate's if this node's configuration has it for a voter, else that of
// somebody whom it has. hashicorp/raft refuses to vote for anybody else, and then
// nobody may ever be elected again: a node that was away while another got its vote
// refuses the only one that has the log for it. A voter must go by the
// candidate's term and log alone (Ongaro, Consensus: Bridging Theory and Practice,
// section 4.1); who has been removed cannot win by that, for a quorum has a longer
// log, and cannot disturb, for a node that has a leader grants nobody a pre-vote.
// The ID is asked for nothing else; a vote is noted under the candidate's address.
func (t *Transport) entitled(candidate []byte) []byte {
	r := t.raft.Load()
	if r == nil || len(candidate) == 0 {
		return candidate
	}
	voters := votersOf(r)
	if len(voters) == 0 || slices.Contains(voters, ParseServerID(raft.ServerID(candidate))) {
		return candidate
	}
	return []byte(ServerID(voters[0]))
}

// overtook reports whether this node has committed what a snapshot holds. Such
// a one was delayed or repeated on its way. hashicorp/raft would go back to it,
// and delete the entries behind it that it has confirmed: it would then claim to
// have what it has not, and stop with a panic when that is to be applied.
func (t *Transport) overtook(command *raft.InstallSnapshotRequest) bool {
	r := t.raft.Load()
	return r != nil && command.Term >= r.CurrentTerm() && command.LastLogIndex <= max(r.CommitIndex(), r.AppliedIndex())
}

// fromLeader returns nil if a TimeoutNow comes from whom this node's Raft holds
// for the leader.
func (t *Transport) fromLeader(command *raft.TimeoutNowRequest) error {
	r := t.raft.Load()
	if r == nil {
		return errors.New("this node is still starting")
	}
	if _, leader := r.LeaderWithID(); leader == "" || string(leader) != string(command.ID) {
		return fmt.Errorf("node %q asks for a new election, and the leader is %q", command.ID, leader)
	}
	return nil
}

// Consumer returns the incoming messages.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// SetHeartbeatHandler does nothing: see Transport.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// EncodePeer returns "ID@address".
func (t *Transport) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(string(id) + "@" + string(addr))
}

// DecodePeer returns the address of what EncodePeer gave. What has no ID in
// front is an address already.
func (t *Transport) DecodePeer(peer []byte) raft.ServerAddress {
	if id, addr, found := strings.Cut(string(peer), "@"); found {
		if _, err := protocol.ParseNodeID(id); err == nil {
			return raft.ServerAddress(addr)
		}
	}
	return raft.ServerAddress(peer)
}

// Close ends the transport and the one inside. It may be called again.
func (t *Transport) Close() error {
	t.once.Do(func() {
		close(t.done)
		t.err = t.Inner.Close()
		<-t.pumped
		t.crossings.Wait()
	})
	return t.err
}

// standNow makes Raft on this node a candidate for the next term at once.
func (t *Transport) standNow(ctx context.Context) error {
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: answer}
	select {
	case t.consumer <- rpc:
	case <-t.done:
		return failover.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("no message is taken by Raft: %w", context.Cause(ctx))
	}
	select {
	case reply := <-answer:
		return reply.Error
	case <-t.done:
		return failover.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: Raft does not answer: %w", failover.ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// ParseServerID returns the node a Raft server ID stands for, NoNode if it
// stands for none.
func ParseServerID(id raft.ServerID) protocol.NodeID {
	node, err := protocol.ParseNodeID(string(id))
	if err != nil {
		return protocol.NoNode
	}
	return node
}

// ServerID returns the Raft server ID of a node.
func ServerID(id protocol.NodeID) raft.ServerID { return raft.ServerID(id.String()) }
