package walplane

import (
	"bufio"
	"errors"
	"net"
	"testing"
	"time"
)

// wireEnd is one end of a stream, in the hands of a test.
type wireEnd struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

func newWireEnd(t testing.TB, conn net.Conn) *wireEnd {
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &wireEnd{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (e *wireEnd) send(frame []byte) {
	e.t.Helper()
	if _, err := e.conn.Write(frame); err != nil {
		e.t.Fatal(err)
	}
}

func (e *wireEnd) read(kind byte) []byte {
	e.t.Helper()
	p, err := readFrame(e.in, kind, maxFrameBytes, &e.buf)
	if err != nil {
		e.t.Fatal(err)
	}
	return p
}

// ended waits until the other side has hung up.
func (e *wireEnd) ended() {
	e.t.Helper()
	for {
		_, err := e.in.ReadByte()
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			e.t.Fatal("still connected")
		}
		if err != nil {
			return
		}
	}
}

func (e *wireEnd) batch() batch {
	e.t.Helper()
	m, err := parseBatch(e.read(frameBatch), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return m
}

func (e *wireEnd) ack(a ack) { e.t.Helper(); e.send(appendAck(nil, a)) }

func dialNode(t testing.TB, g *group, h hello, to string) (*wireEnd, welcome) {
	t.Helper()
	conn, err := net.Dial("tcp", g.net.addr[to])
	if err != nil {
		t.Fatal(err)
	}
	e := newWireEnd(t, conn)
	e.send(appendHello(nil, h))
	w, err := parseWelcome(e.read(frameWelcome))
	if err != nil {
		t.Fatal(err)
	}
	return e, w
}

// fakePrimary is a primary in the hands of a test.
type fakePrimary struct {
	t testing.TB
	l net.Listener
}

func newFakePrimary(t testing.TB) *fakePrimary {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &fakePrimary{t, l}
}

func (p *fakePrimary) addr() string { return p.l.Addr().String() }

// accept takes the next replica up to its hello.
func (p *fakePrimary) accept() (*wireEnd, hello) {
	p.t.Helper()
	conn, err := p.l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	e := newWireEnd(p.t, conn)
	h, err := parseHello(e.read(frameHello))
	if err != nil {
		p.t.Fatal(err)
	}
	return e, h
}

func (e *wireEnd) nextAck() ack {
	e.t.Helper()
	a, err := parseAck(e.read(frameAck))
	if err != nil {
		e.t.Fatal(err)
	}
	return a
}
