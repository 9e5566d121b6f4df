package transport

import (
	"container/list"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of what strangers, and a peer gone wild, may hold open at a time. The
// three stages are counted apart, so that whoever is many in one of them
// leaves the others alone.
const (
	// maxCallers bounds connections that have not knocked yet: strangers, all
	// of them, and nodes for the moment their first packet takes.
	maxCallers = 512
	// maxCallersPerSource is the part of it one IP address may take.
	maxCallersPerSource = 256
	// callerPatience is how long a caller may be silent before its place is
	// the first to be taken when one is needed: much longer than a node needs.
	callerPatience = 250 * time.Millisecond
	// maxHandshakes bounds connections that have knocked and are not done with
	// their handshake. This is all that ever costs public-key cryptography.
	maxHandshakes = 128
	// maxHandshakesPerSource is the part of it one IP address may take.
	maxHandshakesPerSource = 64
	// maxConns bounds connections that have proved themselves. A node needs
	// about ten per peer.
	maxConns = 1024
	// maxConnsPerSource is the part of it one IP address may take. A whole
	// cluster on one machine fits.
	maxConnsPerSource = 512
)

// stage is how far a connection has come.
type stage int

const (
	calling  stage = iota // has not knocked
	shaking               // has knocked: in the TLS handshake
	admitted              // has proved itself
	stages
)

// gate counts connections by stage and source. It holds an entry per source
// that has any open, so the bounds above bound it too. It is safe for
// concurrent use.
type gate struct {
	mu      sync.Mutex
	total   [stages]int
	sources map[netip.Addr]*sourceCount
	callers list.List // of *visitor: those in the first stage, the oldest first
}

type sourceCount struct {
	count   [stages]int
	callers list.List // as in gate
}

// visitor is an accepted connection as the gate counts it.
type visitor struct {
	source netip.Addr
	conn   net.Conn
	since  time.Time
	stage  stage
	turned bool          // turned out to make room for another
	at, in *list.Element // its places in gate.callers and sourceCount.callers
}

// call lets a connection in. Where its source, or all together, hold their
// bound already, one of those that have not knocked is returned instead, for
// the caller to close: the oldest if it had its time, or else one drawn by lot.
// A node knocks with its first packet, so that this falls on those who only
// hold a place.
func (g *gate) call(conn net.Conn, source netip.Addr, now time.Time) (v, out *visitor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[source]
	if s == nil {
		s = &sourceCount{}
		if g.sources == nil {
			g.sources = make(map[netip.Addr]*sourceCount)
		}
		g.sources[source] = s
	}
	switch {
	case s.callers.Len() >= maxCallersPerSource:
		out = choose(&s.callers, now)
	case g.callers.Len() >= maxCallers:
		out = choose(&g.callers, now)
	}
	v = &visitor{source: source, conn: conn, since: now}
	v.at, v.in = g.callers.PushBack(v), s.callers.PushBack(v)
	g.total[calling]++
	s.count[calling]++
	if out != nil {
		out.turned = true
		g.take(out)
	}
	return v, out
}

// choose says who of the callers, the oldest first, has to go.
func choose(callers *list.List, now time.Time) *visitor {
	e := callers.Front()
	if oldest := e.Value.(*visitor); now.Sub(oldest.since) >= callerPatience {
		return oldest
	}
	for range rand.IntN(callers.Len()) { //nolint:gosec // G404: nothing secret hangs on the lot
		e = e.Next()
	}
	return e.Value.(*visitor)
}

// take takes a visitor out of the count of its stage.
func (g *gate) take(v *visitor) {
	s := g.sources[v.source]
	g.total[v.stage]--
	s.count[v.stage]--
	if v.stage == calling {
		g.callers.Remove(v.at)
		s.callers.Remove(v.in)
	}
	if s.count == [stages]int{} {
		delete(g.sources, v.source)
	}
}

// advance moves a visitor to the next stage; false, and it stays where it is,
// if that is full or it was turned out meanwhile.
func (g *gate) advance(v *visitor) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	next, limit, perSource := shaking, maxHandshakes, maxHandshakesPerSource
	if v.stage == shaking {
		next, limit, perSource = admitted, maxConns, maxConnsPerSource
	}
	s := g.sources[v.source]
	if v.turned || g.total[next] >= limit || s.count[next] >= perSource {
		return false
	}
	// Counted there first: a source without a connection is forgotten.
	g.total[next]++
	s.count[next]++
	g.take(v)
	v.stage = next
	return true
}

// leave gives back the place of a visitor, whatever its stage. It must be
// called once.
func (g *gate) leave(v *visitor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !v.turned {
		g.take(v)
	}
}

// turnedOut reports whether the visitor had to make room for another.
func (g *gate) turnedOut(v *visitor) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return v.turned
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
