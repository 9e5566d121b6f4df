package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// foreign is the certificate of somebody else altogether.
func foreign(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestStrangersSeeAClosedDoor tries everything that must not get in.
func TestStrangersSeeAClosedDoor(t *testing.T) {
	noLeaks(t)
	id, other := identity(t, "right"), identity(t, "wrong")
	var seen accepted
	log := &sink{}
	m, err := listen("127.0.0.1:0", id, log.logger(), 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	for _, p := range []string{ALPNRaft, ALPNMessage, ALPNGossip} {
		go seen.serve(m.Stream(p))
	}
	hello := func(change func(*tls.Config)) func(net.Conn) {
		c := id.clientTLS(ALPNRaft)
		change(c)
		return func(raw net.Conn) {
			conn := tls.Client(raw, c)
			if conn.Handshake() == nil {
				_, _ = conn.Write([]byte("let me in"))
			}
		}
	}
	// A stranger does not care who the server is.
	careless := func(c *tls.Config) { c.VerifyConnection = nil }
	unheard := func(c *tls.Config) { careless(c); c.ServerName = "node" }
	used := id.accepted[0].newKnock()
	const said = -1 // whoever has knocked is answered
	for _, tc := range []struct {
		name  string
		act   func(net.Conn)
		bytes int64 // in answer
	}{
		{"silence", func(net.Conn) {}, 0},
		{"http", func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }, 0},
		{"random", func(c net.Conn) { _, _ = io.CopyN(c, rand.Reader, 4096) }, 0},
		{"raft in clear", func(c net.Conn) { _, _ = c.Write([]byte{0, 0x81}) }, 0},
		{"half a hello", func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0}) }, 0},
		{"huge record", func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 0xff, 0xff}) }, 0},
		{"huge hello", func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff})
			_, _ = c.Write(make([]byte, 0x4000))
		}, 0},
		{"ends in the hello", func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0})
			_ = c.(*net.TCPConn).CloseWrite()
		}, 0},
		{"TLS without a certificate", hello(func(c *tls.Config) { unheard(c); c.Certificates, c.NextProtos = nil, nil }), 0},
		{"our protocol without a knock", hello(unheard), 0},
		{"TLS 1.2 without a knock", hello(func(c *tls.Config) {
			unheard(c)
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		}), 0},
		{"a knock that is not quite right", hello(func(c *tls.Config) { careless(c); c.ServerName = c.ServerName[:knockText-1] + "x" }), 0},
		{"the secret of another cluster", hello(func(c *tls.Config) { careless(c); c.ServerName = other.accepted[0].newKnock() }), int64(len(accessDenied))},
		{"a knock with another protocol", hello(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), 0},
		{"a knock without a protocol", hello(func(c *tls.Config) { c.NextProtos = nil }), 0},
		{"a knock for what is not on", hello(func(c *tls.Config) { c.NextProtos = []string{ALPNWAL} }), said},
		{"a knock and a certificate of nobody's", hello(func(c *tls.Config) { careless(c); c.ServerName, c.Certificates = used, []tls.Certificate{foreign(t)} }), said},
		{"the same knock again", hello(func(c *tls.Config) { c.ServerName = used }), 0},
		{"a knock and no certificate", hello(func(c *tls.Config) { careless(c); c.Certificates = nil }), said},
		{"a knock and the certificate of another cluster", hello(func(c *tls.Config) { careless(c); c.Certificates = other.clientTLS("").Certificates }), said},
		{"two certificates", hello(func(c *tls.Config) {
			cert := c.Certificates[0]
			cert.Certificate = [][]byte{cert.Certificate[0], cert.Certificate[0]}
			c.Certificates = []tls.Certificate{cert}
		}), said},
		{"certificate without its key", hello(func(c *tls.Config) {
			careless(c)
			cert := c.Certificates[0]
			cert.PrivateKey = other.clientTLS("").Certificates[0].PrivateKey
			c.Certificates = []tls.Certificate{cert}
		}), said},
		{"a knock and TLS 1.2", hello(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), said},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := m.Stats()
			raw, err := net.Dial("tcp", m.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = raw.Close() }()
			heard := &countingConn{Conn: raw}
			if tc.name == "ends in the hello" {
				tc.act(raw)
			} else {
				tc.act(heard)
			}
			_ = raw.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, heard); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Fatal("the connection was not closed")
			}
			if n := heard.read.Load(); n != tc.bytes && tc.bytes != said {
				t.Errorf("%d bytes in answer, want %d", n, tc.bytes)
			}
			eventually(t, "it is counted", func() bool { return m.Stats().Rejected == before.Rejected+1 })
			if after := m.Stats(); after.Accepted != before.Accepted {
				t.Error("it was accepted")
			}
		})
	}
	if seen.get() != 0 {
		t.Errorf("%d strangers were let in", seen.get())
	}
	for level, want := range map[string]int{"[WARN]": 1, "[DEBUG]": 1, "connection refused": 2} {
		if n := strings.Count(log.String(), level); n != want {
			t.Errorf("%d lines with %q for one source in a minute, want %d:\n%s", n, level, want, log)
		}
	}
	eventually(t, "no handshake is counted any more", func() bool {
		m.gate.mu.Lock()
		defer m.gate.mu.Unlock()
		return len(m.gate.sources) == 0 && m.gate.total == [stages]int{}
	})
	// The door still opens to a friend.
	friend := open(t, id, nil)
	c, err := friend.Dial(t.Context(), m.Addr().String(), ALPNRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	eventually(t, "the friend is in", func() bool { return seen.get() == 1 })
}

// countingConn counts what is received.
type countingConn struct {
	net.Conn
	read atomic.Int64
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestWrongSecretIsNamed(t *testing.T) {
	noLeaks(t)
	server := open(t, identity(t, "right"), nil)
	go new(accepted).serve(server.Stream(ALPNRaft))
	addr := server.Addr().String()

	// Who knocks with a secret the other does not take is told so, also while the
	// secret it waits for is among those it accepts.
	for _, words := range [][]string{{"wrong"}, {"wrong", "right"}} {
		_, err := open(t, identity(t, words...), nil).Dial(t.Context(), addr, ALPNRaft)
		var typed *WrongSecretError
		if !errors.Is(err, ErrWrongSecret) || !errors.As(err, &typed) || typed.Addr != addr || !typed.ByPeer {
			t.Errorf("%v, refused by the peer: %v", words, err)
		}
	}
	// This server takes the client's secret but proves one the client does not take.
	two := open(t, identity(t, "wrong", "right"), nil)
	_, err := open(t, identity(t, "right"), nil).Dial(t.Context(), two.Addr().String(), ALPNProbe)
	var typed *WrongSecretError
	if !errors.Is(err, ErrWrongSecret) || !errors.As(err, &typed) || typed.Addr != two.Addr().String() || typed.ByPeer {
		t.Errorf("refused by us: %v", err)
	}
}

// TestFloodDoesNotDisturbCalls: strangers come by the hundred while nodes talk.
func TestFloodDoesNotDisturbCalls(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	m, _ := answerer(t, id, book, "127.0.0.1:0", ack)
	c := caller(t, id, book)
	if _, err := c.Call(within(t, patience), 2, propose); err != nil {
		t.Fatal(err)
	}
	const strangers = 500
	var flood sync.WaitGroup
	for i := range strangers {
		flood.Go(func() {
			conn, err := net.Dial("tcp", m.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			if i%2 == 0 {
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
			} else {
				_, _ = conn.Write([]byte{22, 3, 1})
			}
		})
	}
	for range 50 {
		if _, err := c.Call(within(t, patience), 2, propose); err != nil {
			t.Error(err)
		}
	}
	flood.Wait()
	eventually(t, "all strangers are gone", func() bool { return m.Stats().Rejected == strangers && m.Stats().Open <= 1 })
	if got := m.Stats(); got.Accepted != 1 {
		t.Errorf("stats: %+v", got)
	}
}
