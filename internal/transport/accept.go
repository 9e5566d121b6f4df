package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// acceptPauseMin and acceptPauseMax bound the pause after an accept that
	// failed, which is what a process out of file descriptors sees.
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
	// lingerTimeout and lingerBytes bound how long a refused node is listened
	// to so that it gets to read why it was refused.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 64 << 10
)

// Why a connection was closed before any protocol saw it, for the log.
const (
	reasonBusy       = "too many unfinished handshakes"
	reasonFull       = "too many connections"
	reasonSecret     = "another cluster secret"
	reasonNoTLS      = "not TLS"
	reasonTimeout    = "handshake took too long"
	reasonGone       = "closed by the other side during the handshake"
	reasonHandshake  = "handshake failed"
	reasonNoProtocol = "no protocol of ours named"
	reasonNotServed  = "protocol not served, or not yet"
	reasonQueue      = "accept queue full"
)

func (m *Mux) acceptLoop() {
	pause := acceptPauseMin
	for {
		raw, err := m.tcp.AcceptTCP()
		if err != nil {
			if m.ctx.Err() != nil {
				return
			}
			if m.quiet.say("accept") {
				m.logger.Error("cannot accept connections", "error", err)
			}
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		pause = acceptPauseMin
		source := sourceOf(raw.RemoteAddr())
		if !m.gate.knock(source) {
			m.reject(raw, source, reasonBusy)
			continue
		}
		if !m.track(raw, "") {
			m.gate.turnAway(source)
			_ = raw.Close()
			return
		}
		m.wg.Go(func() { m.handshake(raw, source) })
	}
}

// handshake takes a connection from the first byte to the queue of its
// protocol, or closes it.
func (m *Mux) handshake(raw *net.TCPConn, source netip.Addr) {
	_ = raw.SetDeadline(time.Now().Add(m.handshakeTimeout))
	var asked []string // the protocols the client named
	config := m.serverTLS.Load().Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		asked = hello.SupportedProtos
		return nil, nil // go on with config
	}
	conn := tls.Server(raw, config)
	if err := conn.Handshake(); err != nil {
		m.note(source, handshakeReason(err, asked, config.NextProtos), err)
		if errors.Is(err, ErrWrongSecret) {
			m.letRead(raw)
		}
		m.gate.turnAway(source)
		m.forget(raw)
		_ = raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	proto := conn.ConnectionState().NegotiatedProtocol
	m.mu.Lock()
	l := m.streams[proto]
	m.mu.Unlock()
	if l == nil {
		m.gate.turnAway(source)
		m.reject(raw, source, noProtocol(asked))
		return
	}
	if !m.gate.admit(source) {
		m.reject(raw, source, reasonFull)
		return
	}
	if !m.track(raw, proto) {
		m.gate.leave(source)
		m.forget(raw)
		_ = raw.Close()
		return
	}
	c := &peerConn{Conn: conn, mux: m, proto: proto, release: func() { m.gate.leave(source) }}
	m.stats.accepted.Add(1)
	if !l.deliver(c) {
		_ = c.Close()
		m.note(source, proto+": "+reasonQueue, nil)
	}
}

// letRead closes our half and reads on for a moment: closing with unread bytes
// in the socket resets the connection, and the peer would see a broken pipe
// instead of our alert. Only for a peer that came as far as a certificate.
func (m *Mux) letRead(raw *net.TCPConn) {
	_ = raw.CloseWrite()
	_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, raw, lingerBytes)
}

// reject closes a connection and notes why.
func (m *Mux) reject(raw net.Conn, source netip.Addr, reason string) {
	m.forget(raw)
	_ = raw.Close()
	m.note(source, reason, nil)
}

// note counts a refused connection and says so once per source and window.
func (m *Mux) note(source netip.Addr, reason string, err error) {
	m.stats.rejected.Add(1)
	level, key := hclog.Warn, source.String()
	if reason == reasonNotServed || !m.serves() {
		// A node that starts, or ends, is asked for what it does not serve:
		// nothing is wrong, and what is must still be said.
		level, key = hclog.Debug, key+" "+reason
	}
	if m.ctx.Err() != nil || !m.quiet.say(key) {
		return
	}
	args := []any{"from", source.String(), "reason", reason}
	if err != nil && reason == reasonHandshake {
		args = append(args, "error", err)
	}
	m.logger.Log(level, "connection refused; of this source no more is said for a minute", args...)
}

// handshakeReason sorts the errors of a failed handshake. asked are the
// protocols the client named, nil if it did not come that far.
func handshakeReason(err error, asked, served []string) string {
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrWrongSecret):
		return reasonSecret
	case errors.As(err, &record):
		return reasonNoTLS
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return reasonGone
	case len(asked) > 0 && !slices.ContainsFunc(asked, func(p string) bool { return slices.Contains(served, p) }):
		return noProtocol(asked)
	}
	return reasonHandshake
}

// noProtocol tells a node that came too early from a stranger.
func noProtocol(asked []string) string {
	for _, p := range asked {
		if strings.HasPrefix(p, alpnPrefix) {
			return reasonNotServed
		}
	}
	return reasonNoProtocol
}
