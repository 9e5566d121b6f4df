package raftshim

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aiondb/aiondb-ha/failover"
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
//     Consensus.NewTerm).
//
// Every Raft message passes through here: outgoing ones in the methods Raft
// calls, the embedded ones among them; incoming ones in pump, one at a time,
// before Raft sees them. That is the place to note when an AppendEntries was
// sent or let succeed, to withhold one of an epoch below the floor, or to
// stand still while the disk does.
type Transport struct {
	Inner
	consumer chan raft.RPC
	done     chan struct{}
	once     sync.Once
	pumped   chan struct{}
	err      error
}

// NewTransport wraps inner and owns it from then on: Close closes both.
func NewTransport(inner Inner) *Transport {
	t := &Transport{Inner: inner, consumer: make(chan raft.RPC), done: make(chan struct{}), pumped: make(chan struct{})}
	go t.pump()
	return t
}

// pump hands incoming messages to Raft.
func (t *Transport) pump() {
	defer close(t.pumped)
	incoming := t.Inner.Consumer()
	for {
		select {
		case rpc := <-incoming:
			select {
			case t.consumer <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
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
		return fmt.Errorf("Raft takes no message: %w", context.Cause(ctx))
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
