package gossip

import (
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// gate is a transport that lets nothing in before it is opened. memberlist
// listens before it has entered the local node into its own list. If what the
// others still know of an earlier run of this node is handled just then, that
// is refuted under a higher incarnation than the one the node is about to enter
// itself with, and so the node stays dead in its own list: a while later it is
// gone from there, nobody hears of it any more, and Leave panics.
type gate struct {
	memberlist.NodeAwareTransport
	opened chan struct{}
}

// newGate returns a closed gate in front of t.
func newGate(t memberlist.Transport) *gate {
	aware, ok := t.(memberlist.NodeAwareTransport)
	if !ok {
		aware = nameless{t}
	}
	return &gate{NodeAwareTransport: aware, opened: make(chan struct{})}
}

// open lets in what waits and what comes. It must be called once, also when
// memberlist could not be created: its listeners wait for it.
func (g *gate) open() { close(g.opened) }

// PacketCh waits until the gate is open: memberlist asks in its listeners, for
// every packet anew.
func (g *gate) PacketCh() <-chan *memberlist.Packet {
	<-g.opened
	return g.NodeAwareTransport.PacketCh()
}

// StreamCh waits until the gate is open.
func (g *gate) StreamCh() <-chan net.Conn {
	<-g.opened
	return g.NodeAwareTransport.StreamCh()
}

// nameless is a transport that goes by addresses alone.
type nameless struct{ memberlist.Transport }

func (t nameless) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

func (t nameless) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}
