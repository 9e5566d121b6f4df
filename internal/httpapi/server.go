package httpapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// What a client of the API may take, before anything is known of it.
const (
	// headerTimeout bounds the TLS handshake and the reading of a request's
	// header; see bodyTimeout for what follows it.
	headerTimeout = 5 * time.Second
	// idleTimeout is how long a connection may be kept without a request.
	idleTimeout = 60 * time.Second
	// writeTimeout bounds a request from its header to the last byte of its
	// answer. Event streams set their own.
	writeTimeout = 2 * time.Minute
	// maxHeaderBytes bounds a request's header.
	maxHeaderBytes = 16 << 10
	// MaxConns bounds the connections open at once, MaxConnsPerSource those from
	// one address: one client cannot keep all others out. On loopback, where all
	// clients have one address, only the first bound holds.
	MaxConns          = 512
	MaxConnsPerSource = 128
)

// NewServer returns a server of handler with every bound set. Over TLS it
// speaks HTTP/1.1 only: its bounds are all there is to watch.
func NewServer(handler http.Handler, logger hclog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		WriteTimeout:                 writeTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // OPTIONS * passes the guard like everything else
		Protocols:                    &protocols,
		ErrorLog:                     logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// Listener returns l with the bounds on connections, and with TLS if certs is
// not nil. What is beyond the bounds is closed at once.
func Listener(l net.Listener, certs *Certificates) net.Listener {
	l = &boundedListener{Listener: l, open: make(map[string]int)}
	if certs != nil {
		l = tls.NewListener(l, certs.TLS())
	}
	return l
}

// boundedListener counts connections by where they come from.
type boundedListener struct {
	net.Listener

	mu    sync.Mutex
	total int
	open  map[string]int
}

// Accept returns the next connection that is within the bounds.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn.RemoteAddr())
		if b.enter(source) {
			return &boundedConn{Conn: conn, leave: sync.OnceFunc(func() { b.leave(source) })}, nil
		}
		_ = conn.Close()
	}
}

// sourceOf returns the host of addr; "" on loopback.
func sourceOf(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return ""
	}
	if tcp.IP.To4() == nil && len(tcp.IP) == net.IPv6len {
		return string(tcp.IP[:8]) // whoever has one address of a /64 has all
	}
	return tcp.IP.String()
}

func (b *boundedListener) enter(source string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total >= MaxConns || source != "" && b.open[source] >= MaxConnsPerSource {
		return false
	}
	b.total++
	b.open[source]++
	return true
}

func (b *boundedListener) leave(source string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total--
	if b.open[source]--; b.open[source] == 0 {
		delete(b.open, source)
	}
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection, once or more often.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
