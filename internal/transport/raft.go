package transport

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// raftDialTimeout is used where Raft gives no timeout of its own.
const raftDialTimeout = HandshakeTimeout

// RaftStreamLayer returns the port as hashicorp/raft's NetworkTransport wants
// it. advertise ("host:port") is what Addr returns and so what Raft takes for
// this node's own address.
//
// Closing it closes every Raft connection, dialed and accepted: the
// NetworkTransport itself leaves those it accepted open, with a goroutine each.
func RaftStreamLayer(m *Mux, advertise string) raft.StreamLayer {
	return &raftLayer{Listener: m.Stream(ALPNRaft), mux: m, advertise: raftAddr(advertise)}
}

type raftLayer struct {
	net.Listener
	mux       *Mux
	advertise raftAddr
}

// raftAddr is an advertised address; it need not be resolved.
type raftAddr string

func (raftAddr) Network() string  { return "tcp" }
func (a raftAddr) String() string { return string(a) }

// Addr returns the advertised address.
func (l *raftLayer) Addr() net.Addr { return l.advertise }

// Dial connects to another node's Raft.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = raftDialTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.mux.Dial(ctx, string(address), ALPNRaft)
}

// Close stops accepting and closes all Raft connections. It may be called
// again.
func (l *raftLayer) Close() error {
	err := l.Listener.Close()
	l.mux.closeConns(ALPNRaft)
	return err
}
