package transport

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// peerConn is a connection on which both sides have proved themselves. (On the
// dialing side: the peer has; whether it takes our certificate shows at the
// first read.)
type peerConn struct {
	*tls.Conn
	mux     *Mux
	proto   string
	release func() // gives back what was counted; called once

	id     *Identity       // what the connection was checked against when it was made
	secret *credential     // the one the dialing side knocked with: both sides hold it
	node   protocol.NodeID // whom the peer's certificate names; NoNode where the secret is all there is
	at     time.Time       // when the handshake was over

	dialed  string      // the address dialed; empty on the accepting side
	settled atomic.Bool // a first read has returned: the peer's verdict on us is in

	once sync.Once
	err  error
}

// PeerNode returns the node that the peer has proved to be by its certificate;
// NoNode if the cluster goes by its secret alone.
func (c *peerConn) PeerNode() protocol.NodeID { return c.node }

// Labels of what is derived for the messages of one connection.
const (
	exporterLabel = "EXPORTER-aiondb-ha-messages"
	labelDialer   = "messages of the dialing side"
	labelAcceptor = "messages of the accepting side"
)

// sessionKeys returns the keys that the messages of this connection are
// authenticated with, one for each direction. They are bound to the connection
// by TLS's exporter, to the cluster by the secret, so that no frame of another
// connection, and none of the own that comes back, is ever taken.
func (c *peerConn) sessionKeys() (send, receive []byte, err error) {
	state := c.ConnectionState()
	exported, err := state.ExportKeyingMaterial(exporterLabel, nil, derivedKeySize)
	if err != nil {
		return nil, nil, err
	}
	if send, err = hkdf.Key(sha256.New, c.secret.message, exported, labelDialer, derivedKeySize); err != nil {
		return nil, nil, err
	}
	if receive, err = hkdf.Key(sha256.New, c.secret.message, exported, labelAcceptor, derivedKeySize); err != nil {
		return nil, nil, err
	}
	if c.dialed == "" {
		send, receive = receive, send
	}
	return send, receive, nil
}

// session returns what authenticates the messages of this connection.
func (c *peerConn) session() (*protocol.Sealer, *protocol.Opener, error) {
	send, receive, err := c.sessionKeys()
	if err != nil {
		return nil, nil, err
	}
	sealer, err := protocol.NewSealer(send)
	if err != nil {
		return nil, nil, err
	}
	opener, err := protocol.NewOpener(receive)
	return sealer, opener, err
}

// ends reports whether the connection is given up by itself when the identity
// changes: see Messenger.Call.
func (c *peerConn) ends() bool { return c.proto == ALPNMessage && c.dialed != "" }

// acceptedBy reports whether this connection would still be made under id: the
// secret it began with is accepted, and so is the peer's certificate, whose
// dates are looked at as of then.
func (c *peerConn) acceptedBy(id *Identity) bool {
	if !id.holds(c.secret) {
		return false
	}
	usage := x509.ExtKeyUsageClientAuth
	if c.dialed != "" {
		usage = x509.ExtKeyUsageServerAuth
	}
	_, err := id.check(c.ConnectionState().PeerCertificates, usage, c.at)
	return err == nil
}

// Read reads as tls.Conn does. A first read that ends in the peer's refusal of
// our certificate returns a WrongSecretError or CertificateError.
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
		err = c.id.refusedByPeer(err, c.dialed)
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
