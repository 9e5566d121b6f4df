package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRightSecretConnects(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	a, b := open(t, id, nil), open(t, identity(t, "right"), nil)
	l := b.Stream(ALPNRaft)
	c, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(s, s) }()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("%q, %v", buf, err)
	}
	if v := c.(*peerConn).ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %x", v)
	}
	if got := b.Stats(); got.Accepted != 1 || got.Open != 1 || got.Rejected != 0 {
		t.Errorf("stats: %+v", got)
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	eventually(t, "no connection is open", func() bool { return a.Stats().Open+b.Stats().Open == 0 })
	b.gate.mu.Lock()
	defer b.gate.mu.Unlock()
	if len(b.gate.sources) != 0 {
		t.Errorf("sources are still counted: %v", b.gate.sources)
	}
}

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
		c := id.ClientTLS(ALPNRaft)
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
	for name, act := range map[string]func(net.Conn){
		"silence":         func(net.Conn) {},
		"http":            func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") },
		"random":          func(c net.Conn) { _, _ = io.CopyN(c, rand.Reader, 4096) },
		"raft in clear":   func(c net.Conn) { _, _ = c.Write([]byte{0, 0x81}) },
		"half a hello":    func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0}) },
		"huge record":     func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 0xff, 0xff}) },
		"no certificate":  hello(func(c *tls.Config) { careless(c); c.Certificates = nil }),
		"foreign":         hello(func(c *tls.Config) { careless(c); c.Certificates = []tls.Certificate{foreign(t)} }),
		"another cluster": hello(func(c *tls.Config) { careless(c); c.Certificates = other.ClientTLS("").Certificates }),
		"two certificates": hello(func(c *tls.Config) {
			cert := c.Certificates[0]
			cert.Certificate = [][]byte{cert.Certificate[0], cert.Certificate[0]}
			c.Certificates = []tls.Certificate{cert}
		}),
		"certificate without its key": hello(func(c *tls.Config) {
			careless(c)
			cert := c.Certificates[0]
			cert.PrivateKey = other.ClientTLS("").Certificates[0].PrivateKey
			c.Certificates = []tls.Certificate{cert}
		}),
		"TLS 1.2":          hello(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
		"no protocol":      hello(func(c *tls.Config) { c.NextProtos = nil }),
		"unknown protocol": hello(func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
		"protocol not on":  hello(func(c *tls.Config) { c.NextProtos = []string{ALPNWAL} }),
	} {
		t.Run(name, func(t *testing.T) {
			before := m.Stats()
			raw, err := net.Dial("tcp", m.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = raw.Close() }()
			act(raw)
			_ = raw.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, raw); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Fatal("the connection was not closed")
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
		return len(m.gate.sources) == 0 && m.gate.handshakes == 0 && m.gate.conns == 0
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

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestWrongSecretIsNamed(t *testing.T) {
	noLeaks(t)
	server := open(t, identity(t, "right"), nil)
	go new(accepted).serve(server.Stream(ALPNRaft))
	addr := server.Addr().String()

	_, err := open(t, identity(t, "wrong"), nil).Dial(t.Context(), addr, ALPNRaft)
	var typed *WrongSecretError
	if !errors.Is(err, ErrWrongSecret) || !errors.As(err, &typed) || typed.Addr != addr || typed.ByPeer {
		t.Errorf("refused by us: %v", err)
	}

	// This client takes the server's secret but proves one the server does not
	// take: it learns that at its first read, even if it has written meanwhile.
	client := open(t, identity(t, "wrong", "right"), nil)
	for range 50 {
		before := server.Stats().Rejected
		c, err := client.Dial(t.Context(), addr, ALPNRaft)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server refuses", func() bool { return server.Stats().Rejected > before })
		for range 10 {
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				t.Fatalf("a broken pipe came before the reason: %v", err)
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		if !errors.Is(err, ErrWrongSecret) || !errors.As(err, &typed) || typed.Addr != addr || !typed.ByPeer {
			t.Fatalf("refused by the peer: %v", err)
		}
		_ = c.Close()
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

func TestPortTaken(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	m := open(t, id, nil)
	check := func(addr, network string) {
		t.Helper()
		_, err := Listen(addr, id, nil)
		var typed *PortTakenError
		if !errors.Is(err, ErrPortTaken) || !errors.As(err, &typed) || typed.Network != network || typed.Addr != addr {
			t.Fatalf("%v", err)
		}
		for _, want := range []string{addr, network, "AIONDB_HA_PORT"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in %q", want, err)
			}
		}
	}
	check(m.Addr().String(), "tcp")
	// A port that is free for TCP and taken for UDP. TCP is let go before the
	// check, so another process may come in between; then it is tried again.
	for try := 1; ; try++ {
		tcp, udp, err := bind("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := udp.LocalAddr().String()
		_ = tcp.Close()
		_, err = Listen(addr, id, nil)
		var typed *PortTakenError
		if errors.As(err, &typed) && typed.Network == "tcp" && try < 10 {
			_ = udp.Close()
			continue
		}
		check(addr, "udp")
		_ = udp.Close()
		break
	}
	for _, addr := range []string{"nonsense", "192.0.2.1:7600"} {
		if _, err := Listen(addr, id, nil); err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestPortsOfTCPAndUDPAreOne(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0", ":0"} {
		m, err := Listen(addr, id, nil)
		if err != nil {
			if strings.HasPrefix(addr, "[") {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		if udp := m.PacketConn().LocalAddr().(*net.UDPAddr).Port; udp != m.Port() || udp == 0 {
			t.Errorf("%s: tcp %d, udp %d", addr, m.Port(), udp)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	a, b := open(t, id, nil), open(t, id, nil)
	l := b.Stream(ALPNRaft)
	c, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"dialed": c, "accepted": s} {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("the %s connection is still open: %v", name, err)
		}
		_ = conn.Close()
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err := b.Stream(ALPNGossip).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a listener made after close: %v", err)
	}
	if _, err := b.Dial(t.Context(), a.Addr().String(), ALPNProbe); !errors.Is(err, ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
	again, err := Listen(b.Addr().String(), id, nil)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	_ = again.Close()
}

func TestListenerCloseRefusesTheProtocol(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	a, b := open(t, id, nil), open(t, id, nil)
	if _, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft); err == nil {
		t.Error("a protocol nobody listens to was accepted")
	}
	l := b.Stream(ALPNRaft)
	if b.Stream(ALPNRaft) != l {
		t.Error("two listeners for one protocol")
	}
	c, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	eventually(t, "it waits in the queue", func() bool { return b.Stats().Accepted == 1 })
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a queued connection outlives its listener: %v", err)
	}
	if _, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft); err == nil {
		t.Error("accepted after close")
	}
	if b.Stream(ALPNRaft) == l {
		t.Error("a closed listener was handed out again")
	}
}

func TestGateBounds(t *testing.T) {
	var g gate
	src := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range maxHandshakesPerSource {
		if !g.knock(src(0)) {
			t.Fatalf("handshake %d of one source refused", i)
		}
	}
	if g.knock(src(0)) {
		t.Error("one source takes more than its part")
	}
	for i := range maxHandshakes - maxHandshakesPerSource {
		if !g.knock(src(1 + i)) {
			t.Fatalf("handshake %d refused", i)
		}
	}
	if g.knock(src(1000)) {
		t.Error("more handshakes than allowed")
	}
	for i := range maxHandshakes - maxHandshakesPerSource {
		g.turnAway(src(1 + i))
	}
	for range maxHandshakesPerSource {
		if !g.admit(src(0)) {
			t.Fatal("not admitted")
		}
	}
	for i := maxHandshakesPerSource; i < maxConnsPerSource; i++ {
		if !g.knock(src(0)) || !g.admit(src(0)) {
			t.Fatalf("connection %d refused", i)
		}
	}
	if !g.knock(src(0)) || g.admit(src(0)) {
		t.Error("one source holds more connections than its part")
	}
	for range maxConnsPerSource {
		g.leave(src(0))
	}
	if len(g.sources) != 0 || g.conns != 0 || g.handshakes != 0 {
		t.Errorf("something is left: %+v", g.sources)
	}
}

func TestQuiet(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quiet{now: func() time.Time { return now }}
	if !q.say("a") || q.say("a") || !q.say("b") {
		t.Error("not once per source")
	}
	now = now.Add(quietWindow)
	if !q.say("a") || q.say("a") {
		t.Error("not once per window")
	}
	lines := 0
	for i := range 3 * quietSources {
		if q.say(fmt.Sprint("source ", i)) {
			lines++
		}
	}
	if lines != quietSources || len(q.seen) != quietSources {
		t.Errorf("%d lines, %d sources remembered", lines, len(q.seen))
	}
}

func TestCheckPeers(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	self, friend := open(t, id, nil), open(t, id, nil)
	friend.setNode(2)
	stranger := open(t, identity(t, "wrong"), nil)
	half := open(t, identity(t, "right-too"), nil) // we take its secret, it does not take ours
	probing, err := Listen("127.0.0.1:0", identity(t, "right", "right-too"), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probing.Close() }()
	hole, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	gone := open(t, id, nil)
	_ = gone.Close()

	addr := func(m *Mux) string { return m.Addr().String() }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := CheckPeers(ctx, probing, []string{addr(friend), addr(stranger), addr(half), hole.Addr().String(), addr(gone), addr(probing), addr(self)})
	if got := fmt.Sprint(r.Accepted); got != fmt.Sprint([]string{addr(friend), addr(self)}) {
		t.Errorf("accepted %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Rejected); got != fmt.Sprint([]string{addr(stranger), addr(half)}) {
		t.Errorf("rejected %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Unreachable); got != fmt.Sprint([]string{hole.Addr().String(), addr(gone)}) {
		t.Errorf("unreachable %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Self); got != fmt.Sprint([]string{addr(probing)}) {
		t.Errorf("self %v", got)
	}
	if r.Nodes[addr(friend)] != 2 || r.Nodes[addr(self)] != 0 {
		t.Errorf("nodes %v", r.Nodes)
	}
	if err := r.Errors[hole.Addr().String()]; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the silent one: %v", err)
	}
	for a, ofPeer := range map[string]bool{addr(stranger): false, addr(half): true} {
		var typed *WrongSecretError
		if !errors.As(r.Errors[a], &typed) || typed.ByPeer != ofPeer || typed.Addr != a {
			t.Errorf("%s: %v", a, r.Errors[a])
		}
	}
}
