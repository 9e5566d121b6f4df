package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
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
	reasonNoProtocol = "no protocol named, or none that is served"
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
			m.reject(raw, source, reasonBusy, nil)
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
	conn := tls.Server(raw, m.serverTLS.Load())
	if err := conn.Handshake(); err != nil {
		if errors.Is(err, ErrWrongSecret) {
			m.letRead(raw)
		}
		m.gate.turnAway(source)
		m.reject(raw, source, handshakeReason(err), err)
		return
	}
	_ = raw.SetDeadline(time.Time{})
	proto := conn.ConnectionState().NegotiatedProtocol
	m.mu.Lock()
	l := m.streams[proto]
	m.mu.Unlock()
	if l == nil {
		m.gate.turnAway(source)
		m.reject(raw, source, reasonNoProtocol, nil)
		return
	}
	if !m.gate.admit(source) {
		m.reject(raw, source, reasonFull, nil)
		return
	}
	if !m.track(raw, proto) {
		m.gate.leave(source)
		m.forget(raw)
		_ = raw.Close()
		return
	}
	c := &peerConn{Conn: conn, mux: m, proto: proto, release: func() { m.gate.leave(source) }}
	if !l.deliver(c) {
		_ = c.Close()
		m.stats.rejected.Add(1)
		m.logReject(source, proto+": "+reasonQueue, nil)
		return
	}
	m.stats.accepted.Add(1)
}

// letRead closes our half and reads on for a moment: closing with unread bytes
// in the socket would reset the connection and take our alert with it. Only
// for a peer that came as far as a certificate.
func (m *Mux) letRead(raw *net.TCPConn) {
	_ = raw.CloseWrite()
	_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, raw, lingerBytes)
}

// reject closes a connection, counts it, and says so once per source and window.
func (m *Mux) reject(raw net.Conn, source netip.Addr, reason string, err error) {
	_ = raw.Close()
	m.forget(raw)
	m.stats.rejected.Add(1)
	m.logReject(source, reason, err)
}

func (m *Mux) logReject(source netip.Addr, reason string, err error) {
	if m.ctx.Err() != nil || !m.quiet.say(source.String()) {
		return
	}
	args := []any{"from", source.String(), "reason", reason}
	if err != nil && (reason == reasonHandshake) {
		args = append(args, "error", err)
	}
	level := hclog.Warn
	if reason == reasonNoProtocol {
		level = hclog.Debug // a node that starts, or ends, is asked for what it does not serve: nothing is wrong
	}
	m.logger.Log(level, "connection refused; of this source no more is said for a minute", args...)
}

// handshakeReason sorts the errors of a failed handshake.
func handshakeReason(err error) string {
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
	case strings.Contains(err.Error(), "unsupported application protocols"): // crypto/tls has no type for it
		return reasonNoProtocol
	}
	return reasonHandshake
}
