package raftcluster

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// errLost is what dialling ends with while requests are lost.
var errLost = errors.New("raftcluster: the network is cut")

// path is one direction between two nodes.
type path struct{ from, to raft.ServerID }

// loss is what happens to a path.
type loss struct{ requests, answers bool }

// Network connects the nodes of a Cluster. It is safe for concurrent use.
type Network struct {
	mu     sync.Mutex
	owners map[raft.ServerAddress]raft.ServerID
	lost   map[path]loss
	conns  map[*conn]struct{}
}

func newNetwork() *Network {
	return &Network{owners: make(map[raft.ServerAddress]raft.ServerID), lost: make(map[path]loss), conns: make(map[*conn]struct{})}
}

// LoseRequests has everything get lost that from asks of to.
func (n *Network) LoseRequests(from, to raft.ServerID) {
	n.change(path{from, to}, loss{requests: true})
}

// LoseAnswers has to hear and do what from asks, and from not hear of it.
func (n *Network) LoseAnswers(from, to raft.ServerID) { n.change(path{from, to}, loss{answers: true}) }

// Cut separates two groups of nodes from each other, both ways.
func (n *Network) Cut(group, rest []raft.ServerID) {
	for _, a := range group {
		for _, b := range rest {
			n.LoseRequests(a, b)
			n.LoseRequests(b, a)
		}
	}
}

func (n *Network) change(p path, l loss) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[p] = l
}

// Heal ends all loss. Connections on which something was lost are closed, as
// their ends no longer agree.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if n.lost[c.path] != (loss{}) {
			c.once.Do(func() { close(c.closed) })
			c.Conn.Close()
			delete(n.conns, c)
		}
	}
	clear(n.lost)
}

func (n *Network) state(p path) loss {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost[p]
}

// layer is one node's way into the network.
type layer struct {
	net.Listener
	net  *Network
	self raft.ServerID
}

var _ raft.StreamLayer = (*layer)(nil)

func (n *Network) listen(self raft.ServerID, address string) (*layer, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owners[raft.ServerAddress(l.Addr().String())] = self
	return &layer{Listener: l, net: n, self: self}, nil
}

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.net.mu.Lock()
	p := path{l.self, l.net.owners[address]}
	lost := l.net.lost[p].requests
	l.net.mu.Unlock()
	if lost {
		return nil, errLost
	}
	inner, err := net.DialTimeout("tcp", string(address), timeout)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, net: l.net, path: p, closed: make(chan struct{})}
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	l.net.conns[c] = struct{}{}
	return c, nil
}

// conn is the asking end of a connection.
type conn struct {
	net.Conn
	net  *Network
	path path

	mu       sync.Mutex
	deadline time.Time // for reading; zero: none
	once     sync.Once
	closed   chan struct{}
}

func (c *conn) SetDeadline(t time.Time) error {
	c.readBy(t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.readBy(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) readBy(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
}

// Write loses what it is given if requests are lost.
func (c *conn) Write(b []byte) (int, error) {
	if c.net.state(c.path).requests {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read waits in vain if requests or answers are lost.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.net.state(c.path) == (loss{}) {
		return n, err
	}
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-timeout:
		return 0, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}
