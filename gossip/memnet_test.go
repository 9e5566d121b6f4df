package gossip_test

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// memNet is a network in memory: it works under a virtual clock, loses nothing
// by itself, and can be cut.
type memNet struct {
	mu    sync.Mutex
	nodes map[string]*memTransport // by IP:port
	cut   func(from, to string) bool
}

// newTestNet must be called before the nodes of the test are started: a
// bubble's time stands still once the test has returned, and memberlist's
// goroutines end up to a probe after Close, so the last thing a test does is to
// let virtual time pass.
func newTestNet(t *testing.T) *memNet {
	t.Cleanup(func() { time.Sleep(10 * time.Second) })
	return newMemNet()
}

func newMemNet() *memNet {
	return &memNet{nodes: map[string]*memTransport{}, cut: func(string, string) bool { return false }}
}

// setCut decides from now on which ways are cut.
func (n *memNet) setCut(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

// listen gives an address to a new transport; what was there before is dead.
func (n *memNet) listen(addr string) *memTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &memTransport{net: n, addr: addr, packets: make(chan *memberlist.Packet, 64), streams: make(chan net.Conn, 16)}
	n.nodes[addr] = t
	return t
}

func (n *memNet) reach(from *memTransport, to string) *memTransport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[from.addr] != from || n.cut(from.addr, to) {
		return nil
	}
	return n.nodes[to]
}

type memTransport struct {
	net     *memNet
	addr    string
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// kill takes the transport off the network without a word.
func (t *memTransport) kill() {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.nodes[t.addr] == t {
		delete(t.net.nodes, t.addr)
	}
}

func (t *memTransport) Shutdown() error { t.kill(); return nil }

func (t *memTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return net.ParseIP(ip).To4(), port, nil
}

func (t *memTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *memTransport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *memTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	if to := t.net.reach(t, addr); to != nil {
		from, _ := net.ResolveUDPAddr("udp", t.addr)
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: time.Now()}:
		default:
		}
	}
	return time.Now(), nil
}

func (t *memTransport) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	to := t.net.reach(t, addr)
	if to == nil {
		return nil, errors.New("nobody there")
	}
	near, far := net.Pipe()
	select {
	case to.streams <- far:
		return near, nil
	default:
		return nil, errors.New("queue full")
	}
}
