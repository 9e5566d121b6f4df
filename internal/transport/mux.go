package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/internal/quiet"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// HandshakeTimeout bounds the TLS handshake, on either side.
	HandshakeTimeout = 5 * time.Second
	// patienceParts: who accepts waits up to a patienceParts-th longer, by chance.
	// Strangers who say nothing would else be closed all at once, and come again
	// all at once, for as long as they like.
	patienceParts = 2
	// dialTries is how often a node is dialed that closes during the handshake.
	dialTries = 3
	// acceptQueue is how many connections of a protocol wait to be accepted.
	acceptQueue = 64
	// ephemeralTries is how often a free port is looked for that is free for
	// TCP and UDP alike.
	ephemeralTries = 16
	// udpBuffer is the receive buffer asked of the kernel for gossip, bytes.
	udpBuffer = 1 << 20
)

// keepAlive finds a peer that vanished without a word within about 15 s on
// connections that have nothing to send; protocols with deadlines of their own
// find it sooner.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2}

// Mux owns the HA port: the TCP listener and the UDP socket of the same number,
// every connection accepted on it and every connection dialed through it. It
// is safe for concurrent use.
//
// Close closes all of those and returns when every goroutine of the Mux has
// ended.
type Mux struct {
	logger hclog.Logger
	tcp    *net.TCPListener
	udp    *net.UDPConn
	// handshakeTimeout is HandshakeTimeout but in tests of it.
	handshakeTimeout time.Duration

	instance [instanceSize]byte // random, to recognise ourselves when we dial ourselves
	node     atomic.Uint64      // our node ID once a Messenger knows it, 0 before

	gate  gate
	quiet *quiet.Quiet
	stats counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	nonces nonces
	served atomic.Pointer[served] // replaced with mu held

	mu      sync.Mutex
	closed  bool
	doors   []*net.TCPListener // beside tcp
	streams map[string]*streamListener
	conns   map[net.Conn]openConn // open TCP connections

	closeOnce sync.Once
	closeErr  error

	gossipOnce sync.Once
	gossip     *gossipTransport
}

// served is what the next connection is made with.
type served struct {
	id     *Identity
	config *tls.Config // of the accepting side, for the protocols that are listened to
}

// openConn is what a Mux knows of a TCP connection.
type openConn struct {
	proto string    // "" during the handshake of an accepted one
	peer  *peerConn // nil during the handshake
}

// Stats counts what happened on the HA port since it was opened.
type Stats struct {
	Accepted       uint64 // connections that proved themselves
	Rejected       uint64 // connections that were closed before a protocol saw them
	Open           int    // connections open at present, dialed ones too, handshakes included
	PacketsDropped uint64 // gossip packets thrown away because nobody took them
	PacketsForeign uint64 // gossip packets that no key of ours opens
}

type counters struct {
	accepted, rejected, packetsDropped, packetsForeign atomic.Uint64
}

// Listen binds addr ("host:port"; an empty host is all addresses, port 0 any
// that is free) for TCP and UDP and starts accepting. Until Stream is called
// for a protocol its connections are refused.
//
// A port in use is a PortTakenError. The caller owns the Mux and closes it.
func Listen(addr string, id *Identity, logger hclog.Logger) (*Mux, error) {
	return listen(addr, id, logger, HandshakeTimeout)
}

func listen(addr string, id *Identity, logger hclog.Logger, handshakeTimeout time.Duration) (*Mux, error) {
	tcp, udp, err := bind(addr)
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mux{
		logger: logger, tcp: tcp, udp: udp,
		handshakeTimeout: handshakeTimeout,
		quiet:            quiet.New(time.Now),
		ctx:              ctx, cancel: cancel,
		streams: make(map[string]*streamListener),
		conns:   make(map[net.Conn]openConn),
	}
	m.served.Store(&served{id: id})
	_, _ = rand.Read(m.instance[:]) // never fails: crypto/rand ends the process instead
	probes := m.Stream(ALPNProbe)
	m.wg.Go(func() { m.acceptLoop(m.tcp) })
	m.wg.Go(func() { m.answerProbes(probes) })
	return m, nil
}

// bind binds TCP first, because that is the port people see, and then UDP at
// the same number.
func bind(addr string) (*net.TCPListener, *net.UDPConn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("HA address %q: want host:port: %w", addr, err)
	}
	tries := 1
	if port == "0" {
		tries = ephemeralTries
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	for try := 1; ; try++ {
		l, err := config.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return nil, nil, bindError("tcp", addr, err)
		}
		tcp := l.(*net.TCPListener)
		at := tcp.Addr().(*net.TCPAddr)
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone})
		if err == nil {
			// The kernel may grant less than asked: gossip bears losses.
			_ = udp.SetReadBuffer(udpBuffer)
			return tcp, udp, nil
		}
		_ = tcp.Close()
		if err = bindError("udp", at.String(), err); try >= tries || !errors.Is(err, ErrPortTaken) {
			return nil, nil, err
		}
	}
}

// Addr returns the bound TCP address; the UDP socket has the same IP and port.
func (m *Mux) Addr() net.Addr { return m.tcp.Addr() }

// Port returns the bound port.
func (m *Mux) Port() int { return m.tcp.Addr().(*net.TCPAddr).Port }

// PacketConn returns the UDP socket. It is the Mux's: do not close it. Whoever
// uses GossipTransport does not read from it.
func (m *Mux) PacketConn() net.PacketConn { return m.udp }

// Identity returns the identity that new connections are made with.
func (m *Mux) Identity() *Identity { return m.served.Load().id }

// Renew replaces the identity. New connections are made with it; open ones
// stay, but for those that could not be made any more because their secret or
// the peer's certificate is not accepted now: they are closed, a dialed message
// connection as soon as the call on it has ended.
func (m *Mux) Renew(id *Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serve(id)
	for c, open := range m.conns {
		if open.peer != nil && !open.peer.ends() && !open.peer.acceptedBy(id) {
			_ = c.Close() // its owner sees an error and closes it once more
		}
	}
}

// ServeAlso accepts connections on a second listener, under the same bounds
// and for the same protocols. The Mux closes it.
func (m *Mux) ServeAlso(l *net.TCPListener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.Join(ErrClosed, l.Close())
	}
	m.doors = append(m.doors, l)
	m.wg.Go(func() { m.acceptLoop(l) })
	return nil
}

// Stats returns the counters; cheap.
func (m *Mux) Stats() Stats {
	m.mu.Lock()
	open := len(m.conns)
	m.mu.Unlock()
	return Stats{
		Accepted:       m.stats.accepted.Load(),
		Rejected:       m.stats.rejected.Load(),
		Open:           open,
		PacketsDropped: m.stats.packetsDropped.Load(),
		PacketsForeign: m.stats.packetsForeign.Load(),
	}
}

// Stream returns the listener of a protocol and lets its connections in from
// now on. While it is open a second call returns the same listener. Closing it
// refuses the protocol again. After Close of the Mux the listener returned is
// closed.
func (m *Mux) Stream(proto string) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.streams[proto]; l != nil {
		return l
	}
	l := newStreamListener(m, proto)
	if m.closed {
		l.closed = true
		close(l.done)
		return l
	}
	m.streams[proto] = l
	m.serve(m.Identity())
	return l
}

// unlisten forgets a listener; m.mu must not be held.
func (m *Mux) unlisten(l *streamListener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[l.proto] == l {
		delete(m.streams, l.proto)
		m.serve(m.Identity())
	}
}

// serves reports whether more than probes is listened to: whether the node has
// begun to take part in the cluster, and has not ended.
func (m *Mux) serves() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams) > 1
}

// serve makes the handshake offer exactly the protocols listened to, as id.
// m.mu is held.
func (m *Mux) serve(id *Identity) {
	protos := make([]string, 0, len(m.streams))
	for p := range m.streams {
		protos = append(protos, p)
	}
	slices.Sort(protos)
	m.served.Store(&served{id: id, config: id.serverTLS(protos...)})
}

// GossipTransport returns the port as memberlist wants it. There is one per
// Mux; it must not be used again after its Shutdown.
func (m *Mux) GossipTransport() memberlist.Transport {
	m.gossipOnce.Do(func() { m.gossip = newGossipTransport(m) })
	return m.gossip
}

// setNode lets probes tell which node this is.
func (m *Mux) setNode(id protocol.NodeID) { m.node.Store(uint64(id)) }

// Dial connects to addr ("host:port") with the given protocol. A host name is
// resolved each time. The handshake is bounded by HandshakeTimeout and by ctx.
// A node with another secret is a WrongSecretError, one whose certificate is
// not accepted a CertificateError: from here if it is we who refuse it, from
// the first Read if it is the peer who refuses our certificate.
func (m *Mux) Dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	return m.dial(ctx, protocol.NoNode, addr, proto)
}

// DialNode is Dial for a certain node: where nodes have certificates, one that
// names another node is a WrongNodeError.
func (m *Mux) DialNode(ctx context.Context, node protocol.NodeID, addr, proto string) (net.Conn, error) {
	return m.dial(ctx, node, addr, proto)
}

func (m *Mux) dial(ctx context.Context, want protocol.NodeID, addr, proto string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	for try := 1; ; try++ {
		c, err := m.dialOnce(ctx, want, addr, proto)
		// Closed in the handshake without a word: what a node does whose places
		// are held by strangers.
		if err == nil || try >= dialTries || ctx.Err() != nil || !(errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
			return c, err
		}
	}
}

func (m *Mux) dialOnce(ctx context.Context, want protocol.NodeID, addr, proto string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, m.dialError(err)
	}
	if !m.track(raw, proto) {
		_ = raw.Close()
		return nil, ErrClosed
	}
	id := m.Identity()
	c := &peerConn{mux: m, proto: proto, dialed: addr, id: id, secret: &id.accepted[0]}
	c.Conn = tls.Client(raw, id.clientTLS(proto))
	if err := c.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, m.handshakeError(addr, err)
	}
	c.at = time.Now()
	state := c.ConnectionState()
	if state.NegotiatedProtocol != proto {
		_ = c.Close()
		return nil, fmt.Errorf("%s does not speak %s", addr, proto)
	}
	if c.node, err = id.check(state.PeerCertificates, x509.ExtKeyUsageServerAuth, c.at); err != nil {
		_ = c.Close()
		return nil, err
	}
	if want != protocol.NoNode && c.node != protocol.NoNode && c.node != want {
		_ = c.Close()
		return nil, &WrongNodeError{Addr: addr, Want: want, Got: c.node}
	}
	if !m.keep(raw, c) {
		_ = c.Close()
		return nil, ErrClosed
	}
	return c, nil
}

// handshakeError words why a node did not become a peer.
func (m *Mux) handshakeError(addr string, err error) error {
	var certificate *CertificateError
	switch {
	case errors.Is(err, ErrWrongSecret):
		return &WrongSecretError{Addr: addr}
	case errors.As(err, &certificate):
		return &CertificateError{Addr: addr, Err: certificate.Err}
	case isAlert(err, "access denied"):
		return &WrongSecretError{Addr: addr, ByPeer: true}
	}
	return m.dialError(fmt.Errorf("handshake with %s: %w", addr, err))
}

func (m *Mux) dialError(err error) error {
	if m.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// track makes Close close a connection; false after Close.
func (m *Mux) track(c net.Conn, proto string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.conns[c] = openConn{proto: proto}
	return true
}

// keep notes that a tracked connection has become a peer's; false after Close,
// or if a Renew since the handshake would have closed it.
func (m *Mux) keep(raw net.Conn, c *peerConn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id := m.Identity(); m.closed || (id != c.id && !c.acceptedBy(id)) {
		return false
	}
	m.conns[raw] = openConn{proto: c.proto, peer: c}
	return true
}

func (m *Mux) forget(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

// closeConns closes the open connections of a protocol, dialed and accepted.
// Their owners see an error and close them once more.
func (m *Mux) closeConns(proto string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, open := range m.conns {
		if open.proto == proto {
			_ = c.Close()
		}
	}
}

// Close closes the port, its listeners and every connection, and waits for the
// goroutines of the Mux. It may be called again and gives the same answer.
func (m *Mux) Close() error {
	m.closeOnce.Do(func() {
		m.mu.Lock()
		m.closed = true
		streams := make([]*streamListener, 0, len(m.streams))
		for _, l := range m.streams {
			streams = append(streams, l)
		}
		for c := range m.conns {
			_ = c.Close()
		}
		doors := m.doors
		m.mu.Unlock()
		m.cancel()
		m.closeErr = errors.Join(m.tcp.Close(), m.udp.Close())
		for _, l := range doors {
			_ = l.Close()
		}
		for _, l := range streams {
			_ = l.Close()
		}
		m.wg.Wait()
		// Made now if it never was: it finds everything closed and ends at once.
		_ = m.GossipTransport().Shutdown()
	})
	return m.closeErr
}
