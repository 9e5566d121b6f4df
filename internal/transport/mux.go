package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// HandshakeTimeout bounds the TLS handshake, on either side.
	HandshakeTimeout = 5 * time.Second
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
	id     *Identity
	logger hclog.Logger
	tcp    *net.TCPListener
	udp    *net.UDPConn
	// handshakeTimeout is HandshakeTimeout but in tests of it.
	handshakeTimeout time.Duration

	instance [instanceSize]byte // random, to recognise ourselves when we dial ourselves
	node     atomic.Uint64      // our node ID once a Messenger knows it, 0 before

	gate  gate
	quiet quiet
	stats counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	serverTLS atomic.Pointer[tls.Config] // for the protocols that are listened to

	mu      sync.Mutex
	closed  bool
	streams map[string]*streamListener
	conns   map[net.Conn]string // open TCP connections, their protocol; "" during the handshake

	closeOnce sync.Once
	closeErr  error

	gossipOnce sync.Once
	gossip     *gossipTransport
}

// Stats counts what happened on the HA port since it was opened.
type Stats struct {
	Accepted       uint64 // connections that proved the secret
	Rejected       uint64 // connections that were closed before a protocol saw them
	Open           int    // connections open at present, dialed ones too, handshakes included
	PacketsDropped uint64 // gossip packets thrown away because nobody took them
}

type counters struct {
	accepted, rejected, packetsDropped atomic.Uint64
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
		id: id, logger: logger, tcp: tcp, udp: udp,
		handshakeTimeout: handshakeTimeout,
		quiet:            quiet{now: time.Now},
		ctx:              ctx, cancel: cancel,
		streams: make(map[string]*streamListener),
		conns:   make(map[net.Conn]string),
	}
	_, _ = rand.Read(m.instance[:]) // never fails: crypto/rand ends the process instead
	probes := m.Stream(ALPNProbe)
	m.wg.Go(m.acceptLoop)
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

// Identity returns the identity the port was opened with.
func (m *Mux) Identity() *Identity { return m.id }

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
	m.renewServerTLS()
	return l
}

// unlisten forgets a listener; m.mu must not be held.
func (m *Mux) unlisten(l *streamListener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[l.proto] == l {
		delete(m.streams, l.proto)
		m.renewServerTLS()
	}
}

// serves reports whether more than probes is listened to: whether the node has
// begun to take part in the cluster, and has not ended.
func (m *Mux) serves() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams) > 1
}

// renewServerTLS makes the handshake offer exactly the protocols listened to.
// m.mu is held.
func (m *Mux) renewServerTLS() {
	protos := make([]string, 0, len(m.streams))
	for p := range m.streams {
		protos = append(protos, p)
	}
	slices.Sort(protos)
	m.serverTLS.Store(m.id.ServerTLS(protos...))
}

// GossipTransport returns the port as memberlist wants it. There is one per
// Mux; it must not be used again after its Shutdown.
func (m *Mux) GossipTransport() memberlist.Transport {
	m.gossipOnce.Do(func() { m.gossip = newGossipTransport(m) })
	return m.gossip
}

// setNode lets probes tell which node this is.
func (m *Mux) setNode(id protocol.NodeID) { m.node.Store(uint64(id)) }

// Dial connects to addr ("host:port") with the given protocol. The handshake
// is bounded by HandshakeTimeout and by ctx. A node with another secret is a
// WrongSecretError: from here if it is we who refuse it, from the first Read
// if it is the peer who refuses us.
func (m *Mux) Dial(ctx context.Context, addr, proto string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()

	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, m.dialError(err)
	}
	if !m.track(raw, proto) {
		_ = raw.Close()
		return nil, ErrClosed
	}
	conn := tls.Client(raw, m.id.ClientTLS(proto))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		m.forget(raw)
		if errors.Is(err, ErrWrongSecret) {
			return nil, &WrongSecretError{Addr: addr}
		}
		return nil, m.dialError(fmt.Errorf("handshake with %s: %w", addr, err))
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
		_ = raw.Close()
		m.forget(raw)
		return nil, fmt.Errorf("%s does not speak %s", addr, proto)
	}
	return &peerConn{Conn: conn, mux: m, proto: proto, dialed: addr}, nil
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
	m.conns[c] = proto
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
	for c, p := range m.conns {
		if p == proto {
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
		m.mu.Unlock()
		m.cancel()
		m.closeErr = errors.Join(m.tcp.Close(), m.udp.Close())
		for _, l := range streams {
			_ = l.Close()
		}
		m.wg.Wait()
		// Made now if it never was: it finds everything closed and ends at once.
		_ = m.GossipTransport().Shutdown()
	})
	return m.closeErr
}
