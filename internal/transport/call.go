package transport

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Call sends m to a node and returns its answer. ctx bounds all of it:
// waiting for a place, connecting, the answer; a minute where it has no
// deadline. Every error is a *CallError: ErrNotSent and the request may safely
// be repeated, ErrNoAnswer and it may or may not have been done.
//
// Connections are kept and used again. A kept one may have died unseen; then
// the request is sent once more, on a new connection, provided that it was
// certainly not executed or does no harm when it is executed twice.
func (s *Messenger) Call(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, maxCallTime)
	defer cancel()
	fail := func(addr string, sent bool, err error) (protocol.Message, error) {
		switch {
		case s.ctx.Err() != nil:
			err = ErrClosed
		case ctx.Err() != nil && !errors.Is(err, ErrWrongSecret) && !errors.Is(err, ErrCertificate):
			err = context.Cause(ctx)
		}
		return nil, &CallError{To: to, Addr: addr, Sent: sent, Err: err}
	}
	if _, err := protocol.Encode(m); err != nil {
		return fail("", false, err)
	}
	if to == s.local || to == protocol.NoNode {
		return fail("", false, fmt.Errorf("node %d is not another node", to))
	}
	addr, ok := s.lookup(to)
	if !ok {
		return fail("", false, ErrUnknownAddress)
	}
	p := s.peer(to)
	select {
	case p.calls <- struct{}{}:
		defer func() { <-p.calls }()
	case <-ctx.Done():
		return fail(addr, false, ctx.Err())
	case <-s.ctx.Done():
		return fail(addr, false, ErrClosed)
	}
	if c := p.take(addr, s.mux.Identity()); c != nil {
		answer, sent, err := c.roundTrip(ctx, m)
		if err == nil {
			p.keep(c, s.mux.Identity())
			return answer, nil
		}
		if ctx.Err() != nil || s.ctx.Err() != nil || (sent && !repeatable(m)) {
			return fail(addr, sent, err)
		}
	}
	c, err := s.connect(ctx, to, addr)
	if err != nil {
		return fail(addr, false, err)
	}
	answer, sent, err := c.roundTrip(ctx, m)
	if err != nil {
		return fail(addr, sent, err)
	}
	p.keep(c, s.mux.Identity())
	return answer, nil
}

// repeatable reports whether executing m twice is the same as executing it
// once. What asks a leader to do something for a client is not.
func repeatable(m protocol.Message) bool {
	switch m := m.(type) {
	case protocol.Heartbeat, protocol.BallotRequest, protocol.PromoteNotify, protocol.DemoteRequest, protocol.VoteRequest:
		return true
	case protocol.ForwardRequest:
		return m.Kind == protocol.ForwardReadIndex
	}
	return false
}

// peer is what a Messenger keeps for one node.
type peer struct {
	calls chan struct{} // a place per call under way

	mu   sync.Mutex
	idle []*callConn // newest last
}

func (s *Messenger) peer(id protocol.NodeID) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[id]
	if p == nil {
		p = &peer{calls: make(chan struct{}, maxCallsPerPeer)}
		s.peers[id] = p
	}
	return p
}

// take returns the newest idle connection to addr that is alive, nil if there
// is none. Those to another address are closed: the node has moved; and so are
// those made with another identity than now's: it is being replaced, and what
// was made with it may end at any time.
func (p *peer) take(addr string, id *Identity) *callConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle[len(p.idle)-1] = nil
		p.idle = p.idle[:len(p.idle)-1]
		if c.addr == addr && c.conn.id == id && c.rest.Stop() && !c.isDead() {
			return c
		}
		_ = c.conn.Close()
	}
	return nil
}

// keep puts a connection back, unless it was made with another identity than
// now's. It is closed when nobody takes it for clientIdle.
// There are never more than maxCallsPerPeer, because each call returns at most one.
func (p *peer) keep(c *callConn, id *Identity) {
	if c.isDead() {
		return
	}
	if c.conn.id != id {
		_ = c.conn.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	live := p.idle[:0]
	for _, other := range p.idle {
		if !other.isDead() {
			live = append(live, other)
		}
	}
	clear(p.idle[len(live):])
	if len(live) >= maxCallsPerPeer {
		_ = live[0].conn.Close()
		live = append(live[:0], live[1:]...)
	}
	c.rest = time.AfterFunc(clientIdle, func() { _ = c.conn.Close() })
	p.idle = append(live, c)
}

// callConn is a connection we dialed. A goroutine reads it all the time, so
// that its end is known when it happens and not at the next request.
type callConn struct {
	addr    string
	to      protocol.NodeID
	conn    *peerConn
	sealer  *protocol.Sealer
	answers chan protocol.Message // room for one
	dead    chan struct{}         // closed when the reader has ended
	err     error                 // why; read after dead
	rest    *time.Timer           // closes it while idle
}

func (c *callConn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// connect dials, greets, and starts the reader.
func (s *Messenger) connect(ctx context.Context, to protocol.NodeID, addr string) (*callConn, error) {
	dialed, err := s.mux.DialNode(ctx, to, addr, ALPNMessage)
	if err != nil {
		return nil, err
	}
	conn := dialed.(*peerConn)
	r := bufio.NewReader(conn)
	if err := s.greet(ctx, conn, r, to, addr); err != nil {
		_ = conn.Close()
		return nil, err
	}
	sealer, opener, err := conn.session()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &callConn{addr: addr, to: to, conn: conn, sealer: sealer, answers: make(chan protocol.Message, 1), dead: make(chan struct{})}
	if !s.spawn(conn, func() {
		defer close(c.dead)
		c.err = c.read(r, opener)
	}) {
		return nil, ErrClosed
	}
	return c, nil
}

// greet says who calls whom and checks who answers.
func (s *Messenger) greet(ctx context.Context, conn net.Conn, r io.Reader, to protocol.NodeID, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer context.AfterFunc(s.ctx, cancel)()
	var greeting [greetingSize]byte
	greeting[0] = greetingVersion
	binary.LittleEndian.PutUint64(greeting[1:9], uint64(s.local))
	binary.LittleEndian.PutUint64(greeting[9:17], uint64(to))
	_, writeErr := conn.Write(greeting[:])
	var welcome [welcomeSize]byte
	if _, err := io.ReadFull(r, welcome[:]); err != nil {
		// If the peer refused us, the read knows why a write failed.
		if writeErr != nil && !errors.Is(err, ErrWrongSecret) && !errors.Is(err, ErrCertificate) {
			err = writeErr
		}
		return fmt.Errorf("greet %s: %w", addr, err)
	}
	if welcome[0] != greetingVersion {
		return fmt.Errorf("%s speaks message protocol version %d, this node %d: run the same release on all nodes", addr, welcome[0], greetingVersion)
	}
	if got := protocol.NodeID(binary.LittleEndian.Uint64(welcome[1:])); got != to {
		return &WrongNodeError{Addr: addr, Want: to, Got: got}
	}
	return nil
}

// read passes answers on until the connection ends or an answer comes that
// nobody asked for.
func (c *callConn) read(r io.Reader, opener *protocol.Opener) error {
	for {
		m, err := opener.Read(r, nil)
		if err != nil {
			return err
		}
		if err := speaksFor(c.to, m); err != nil {
			return err
		}
		select {
		case c.answers <- m:
		default:
			return errors.New("the peer sent an answer that nobody asked for")
		}
	}
}

// speaksFor refuses a message that names another sender than the one it came from.
func speaksFor(from protocol.NodeID, m protocol.Message) error {
	if id, ok := protocol.Speaker(m); ok && id != from {
		return fmt.Errorf("node %d sent a message in the name of node %d", from, id)
	}
	return nil
}

// roundTrip sends one message and waits for one answer. After an error the
// connection is closed. sent is false only if the peer certainly did not get
// the whole frame: a frame that is not whole is never executed.
func (c *callConn) roundTrip(ctx context.Context, m protocol.Message) (answer protocol.Message, sent bool, err error) {
	select {
	case <-c.answers:
		_ = c.conn.Close()
		return nil, false, errors.New("the peer sent an answer that nobody asked for")
	default:
	}
	frame, err := c.sealer.Seal(m)
	if err != nil {
		_ = c.conn.Close()
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	// One Write, and an error of it means that not all bytes left: TLS records
	// go out in order, so the last one is missing.
	if _, err := c.conn.Write(frame); err != nil {
		_ = c.conn.Close()
		return nil, false, err
	}
	select {
	case m := <-c.answers:
		return m, true, nil
	case <-c.dead:
	}
	select {
	case m := <-c.answers: // came just before the end
		return m, true, nil
	default:
	}
	_ = c.conn.Close()
	return nil, true, c.err
}
