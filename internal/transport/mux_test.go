package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
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
