package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// raftDialTimeout is used where Raft gives no timeout of its own.
	raftDialTimeout = HandshakeTimeout
	// maxRaftPeers bounds the nodes that Raft messages are taken from.
	maxRaftPeers = 64
)

// RaftConfig is how Raft speaks over the port.
type RaftConfig struct {
	// Advertise ("host:port") is what Raft takes for this node's own address.
	Advertise string
	// Lookup finds the HA address of a node each time it is dialed.
	Lookup      func(protocol.NodeID) (addr string, ok bool)
	Logger      hclog.Logger
	MaxPool     int           // idle connections kept for each peer
	MaxInFlight int           // AppendEntries requests in a pipeline
	Timeout     time.Duration // of dialing and of a message
}

// RaftTransport is hashicorp/raft's transport over the port. Where nodes have
// certificates it dials only the node that is meant, and takes Raft's messages
// only from the node that they name as their sender: a compromised node cannot
// vote or append in the name of another. hashicorp/raft's own transport does
// not tell which connection a message came from, so that each peer is listened
// to by one of its own here.
type RaftTransport struct {
	*raft.NetworkTransport // dials, and hears those who name no node by certificate

	mux      *Mux
	listener net.Listener
	config   RaftConfig
	consumer chan raft.RPC
	done     chan struct{}
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ears   map[protocol.NodeID]*ear
}

// ear hears the connections of one peer.
type ear struct {
	layer     *raftLayer
	transport *raft.NetworkTransport
}

// NewRaftTransport begins to accept Raft's connections. The caller closes it,
// before the Mux.
func NewRaftTransport(m *Mux, config RaftConfig) *RaftTransport {
	t := &RaftTransport{
		mux: m, listener: m.Stream(ALPNRaft), config: config,
		consumer: make(chan raft.RPC), done: make(chan struct{}),
		ears: make(map[protocol.NodeID]*ear),
	}
	t.NetworkTransport = t.listen(protocol.NoNode).transport
	t.wg.Go(t.accept)
	return t
}

// listen returns the ear of a peer, made now if it is the first time; nil if
// there are too many or the transport is closed.
func (t *RaftTransport) listen(node protocol.NodeID) *ear {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.ears[node]; e != nil {
		return e
	}
	if t.closed || len(t.ears) > maxRaftPeers {
		return nil
	}
	layer := &raftLayer{t: t, queue: make(chan net.Conn), done: make(chan struct{})}
	e := &ear{layer: layer, transport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: raftAddresses{t.config.Lookup},
		Logger:                t.config.Logger, Stream: layer,
		MaxPool: t.config.MaxPool, MaxRPCsInFlight: t.config.MaxInFlight, Timeout: t.config.Timeout,
	})}
	t.ears[node] = e
	t.wg.Go(func() { t.pass(node, e.transport.Consumer()) })
	return e
}

// accept sorts the connections by peer.
func (t *RaftTransport) accept() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		e := t.listen(c.(*peerConn).PeerNode())
		if e == nil {
			_ = c.Close()
			continue
		}
		select {
		case e.layer.queue <- c:
		case <-t.done:
			_ = c.Close()
			return
		}
	}
}

// pass hands on the messages of one peer that are its own.
func (t *RaftTransport) pass(node protocol.NodeID, incoming <-chan raft.RPC) {
	for {
		select {
		case rpc := <-incoming:
			if err := spokenBy(node, rpc); err != nil {
				if t.mux.quiet.Say("raft " + node.String()) {
					t.mux.logger.Error("raft message refused", "error", err)
				}
				if rpc.Reader != nil { // what belongs to a refused message must not be taken for the next one
					_, _ = io.Copy(io.Discard, rpc.Reader)
				}
				rpc.Respond(nil, err)
				continue
			}
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

// spokenBy refuses a message that names another sender than the peer's
// certificate does.
func spokenBy(node protocol.NodeID, rpc raft.RPC) error {
	if node == protocol.NoNode {
		return nil
	}
	m, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return fmt.Errorf("a raft message of type %T, which names no sender", rpc.Command)
	}
	if id := string(m.GetRPCHeader().ID); id != node.String() {
		return fmt.Errorf("node %d sent a raft message in the name of node %q", node, id)
	}
	return nil
}

// Consumer returns the messages of all peers.
func (t *RaftTransport) Consumer() <-chan raft.RPC { return t.consumer }

// SetHeartbeatHandler does nothing: a handler beside Consumer would be given
// messages whose sender nobody has looked at.
func (t *RaftTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// Close stops accepting and closes all Raft connections, dialed and accepted:
// a NetworkTransport itself leaves those it accepted open, with a goroutine
// each. It may be called again.
func (t *RaftTransport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	ears := t.ears
	t.mu.Unlock()
	var errs []error
	if first {
		close(t.done)
		errs = append(errs, t.listener.Close())
		for _, e := range ears {
			errs = append(errs, e.transport.Close())
		}
	}
	t.mux.closeConns(ALPNRaft)
	t.wg.Wait()
	return errors.Join(errs...)
}

// raftLayer is the port as one NetworkTransport wants it.
type raftLayer struct {
	t     *RaftTransport
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Accept returns the next connection of the layer's peer.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *raftLayer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns the advertised address.
func (l *raftLayer) Addr() net.Addr { return raftAddr(l.t.config.Advertise) }

// raftAddr is an advertised address; it need not be resolved.
type raftAddr string

func (raftAddr) Network() string  { return "tcp" }
func (a raftAddr) String() string { return string(a) }

// raftAddresses tells Raft whom to dial, and Dial whom it is about to reach:
// "ID@host:port".
type raftAddresses struct {
	lookup func(protocol.NodeID) (string, bool)
}

// ServerAddr implements raft.ServerAddressProvider.
func (a raftAddresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	node, err := protocol.ParseNodeID(string(id))
	if err != nil {
		return "", err
	}
	addr, ok := a.lookup(node)
	if !ok {
		return "", fmt.Errorf("no address is known for node %s", id)
	}
	return raft.ServerAddress(node.String() + "@" + addr), nil
}

// Dial connects to another node's Raft. An address that names no node is refused:
// Raft falls back to one where no address is known, and anybody could answer.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = raftDialTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, addr, named := strings.Cut(string(address), "@")
	if !named {
		return nil, fmt.Errorf("raft address %q names no node", address)
	}
	node, err := protocol.ParseNodeID(id)
	if err != nil {
		return nil, err
	}
	return l.t.mux.DialNode(ctx, node, addr, ALPNRaft)
}
