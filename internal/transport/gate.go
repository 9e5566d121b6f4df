package transport

import (
	"net"
	"net/netip"
	"sync"
)

// Bounds of what strangers, and a peer gone wild, may hold open at a time.
const (
	// maxHandshakes bounds connections that have not proved the secret yet.
	maxHandshakes = 128
	// maxHandshakesPerSource is the part of it one IP address may take.
	maxHandshakesPerSource = 32
	// maxConns bounds connections that have proved it. A node needs about ten
	// per peer.
	maxConns = 1024
	// maxConnsPerSource is the part of it one IP address may take. A whole
	// cluster on one machine fits.
	maxConnsPerSource = 512
)

// gate counts connections: first as handshakes, then, once admitted, as
// connections. It holds an entry per source that has any open, so the bounds
// above bound it too. It is safe for concurrent use.
type gate struct {
	mu         sync.Mutex
	handshakes int
	conns      int
	sources    map[netip.Addr]*sourceCount
}

type sourceCount struct{ handshakes, conns int }

// knock takes a handshake's place; false if there is none.
func (g *gate) knock(source netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[source]
	if g.handshakes >= maxHandshakes || (s != nil && s.handshakes >= maxHandshakesPerSource) {
		return false
	}
	if s == nil {
		s = &sourceCount{}
		if g.sources == nil {
			g.sources = make(map[netip.Addr]*sourceCount)
		}
		g.sources[source] = s
	}
	g.handshakes++
	s.handshakes++
	return true
}

// turnAway gives back the place knock took.
func (g *gate) turnAway(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handshakes--
	g.sources[source].handshakes--
	g.forget(source)
}

// admit turns the place knock took into a connection's; false, and the place
// given back, if there is none.
func (g *gate) admit(source netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[source]
	g.handshakes--
	s.handshakes--
	if g.conns >= maxConns || s.conns >= maxConnsPerSource {
		g.forget(source)
		return false
	}
	g.conns++
	s.conns++
	return true
}

// leave gives back the place admit took.
func (g *gate) leave(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns--
	g.sources[source].conns--
	g.forget(source)
}

func (g *gate) forget(source netip.Addr) {
	if s := g.sources[source]; s.handshakes == 0 && s.conns == 0 {
		delete(g.sources, source)
	}
}

// sourceOf returns the IP address of the other side, without zone or port; the zero Addr
// if it has none.
func sourceOf(addr net.Addr) netip.Addr {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
