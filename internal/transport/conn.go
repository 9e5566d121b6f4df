package transport

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
)

// peerConn is a connection on which both sides have proved the secret. (On the
// dialing side: the peer has; whether it takes ours shows at the first read.)
type peerConn struct {
	*tls.Conn
	mux     *Mux
	proto   string
	release func() // gives back what was counted; called once

	dialed  string      // the address dialed; empty on the accepting side
	settled atomic.Bool // a first read has returned: the peer's verdict on us is in

	once sync.Once
	err  error
}

// Read reads as tls.Conn does. A first read that ends in the peer's refusal of
// our certificate returns a WrongSecretError.
func (c *peerConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.dialed == "" || c.settled.Load() {
		return n, err
	}
	if n > 0 {
		c.settled.Store(true)
		return n, err
	}
	if err != nil {
		err = RefusedByPeer(err, c.dialed)
	}
	return n, err
}

// Close closes the TCP connection at once and gives back its place. It never
// blocks: no farewell is sent, because every protocol here frames its messages
// and knows a cut one.
func (c *peerConn) Close() error {
	c.once.Do(func() {
		c.err = c.NetConn().Close()
		c.mux.forget(c.NetConn())
		if c.release != nil {
			c.release()
		}
	})
	return c.err
}

// streamListener hands the accepted connections of one protocol to whoever
// serves it. Its queue is bounded: what finds it full is closed.
type streamListener struct {
	mux   *Mux
	proto string
	queue chan net.Conn
	done  chan struct{}

	mu     sync.Mutex
	closed bool
}

func newStreamListener(m *Mux, proto string) *streamListener {
	return &streamListener{
		mux: m, proto: proto,
		queue: make(chan net.Conn, acceptQueue),
		done:  make(chan struct{}),
	}
}

// Accept returns the next connection. After Close it returns an error that
// wraps net.ErrClosed.
func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closedError()
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, l.closedError()
	}
}

func (l *streamListener) closedError() error {
	return &net.OpError{Op: "accept", Net: l.proto, Addr: l.mux.Addr(), Err: net.ErrClosed}
}

// Addr returns the bound address.
func (l *streamListener) Addr() net.Addr { return l.mux.Addr() }

// Close stops accepting the protocol and closes what waits in the queue. Accepted connections are their owner's.
// It may be called again.
func (l *streamListener) Close() error {
	l.mux.unlisten(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	for {
		select {
		case c := <-l.queue:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// deliver queues a connection; false if the listener is closed or full.
func (l *streamListener) deliver(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}
