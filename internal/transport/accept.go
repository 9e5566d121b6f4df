package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
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
	reasonStranger   = "not a node of this cluster"
	reasonSecret     = "another cluster secret"
	reasonRepeated   = "the first packet of an earlier connection, sent again"
	reasonBusy       = "too many unfinished handshakes"
	reasonFull       = "too many connections"
	reasonNoTLS      = "not TLS"
	reasonTimeout    = "handshake took too long"
	reasonGone       = "closed by the other side during the handshake"
	reasonTurned     = "silent, and its place was needed"
	reasonCert       = "certificate not accepted"
	reasonHandshake  = "handshake failed"
	reasonNoProtocol = "no protocol of ours named"
	reasonNotServed  = "protocol not served, or not yet"
	reasonQueue      = "accept queue full"
)

func (m *Mux) acceptLoop(l *net.TCPListener) {
	pause := acceptPauseMin
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if m.quiet.Say("accept") {
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
		raw := &muteConn{TCPConn: tcp}
		v, out := m.gate.call(raw, sourceOf(raw.RemoteAddr()), time.Now())
		if out != nil {
			_ = out.conn.Close() // its handshake ends, and says why
		}
		if !m.track(raw, "") {
			m.gate.leave(v)
			_ = raw.Close()
			return
		}
		m.wg.Go(func() { m.handshake(raw, v) })
	}
}

// handshake takes a connection from the first byte to the queue of its
// protocol, or closes it.
func (m *Mux) handshake(raw *muteConn, v *visitor) {
	refuse := func(reason string, err error) {
		turned := m.gate.turnedOut(v)
		m.gate.leave(v)
		m.forget(raw)
		_ = raw.Close()
		if turned {
			reason = reasonTurned
		}
		m.note(v.source, reason, err)
	}
	_ = raw.SetDeadline(time.Now().Add(m.handshakeTimeout + rand.N(m.handshakeTimeout/patienceParts)))
	served := m.served.Load()
	id, config := served.id, served.config.Clone()
	var asked []string // the protocols the client named
	var secret *credential
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		asked = hello.SupportedProtos
		nonce, mac, ok := parseKnock(hello.ServerName)
		if !ok || noProtocol(asked) == reasonNoProtocol {
			return nil, errStranger
		}
		if secret = id.knocked(nonce, mac); secret == nil {
			return nil, errOtherSecret
		}
		if !m.nonces.first(nonce) {
			return nil, errRepeated
		}
		if !m.gate.advance(v) {
			return nil, errCrowded
		}
		raw.open.Store(true)
		return nil, nil // go on with config
	}
	conn := tls.Server(raw, config)
	if err := conn.Handshake(); err != nil {
		switch {
		case errors.Is(err, errOtherSecret):
			_, _ = raw.TCPConn.Write(accessDenied)
		case errors.Is(err, ErrWrongSecret), errors.Is(err, ErrCertificate):
			m.letRead(raw)
		}
		refuse(handshakeReason(err, asked, config.NextProtos), err)
		return
	}
	_ = raw.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	m.mu.Lock()
	l := m.streams[state.NegotiatedProtocol]
	m.mu.Unlock()
	if l == nil {
		refuse(noProtocol(asked), nil)
		return
	}
	at := time.Now()
	node, err := id.check(state.PeerCertificates, x509.ExtKeyUsageClientAuth, at)
	if err != nil {
		refuse(reasonHandshake, err)
		return
	}
	if !m.gate.advance(v) {
		refuse(reasonFull, nil)
		return
	}
	c := &peerConn{
		Conn: conn, mux: m, proto: state.NegotiatedProtocol, release: func() { m.gate.leave(v) },
		id: id, secret: secret, node: node, at: at,
	}
	if !m.keep(raw, c) {
		_ = c.Close()
		return
	}
	m.stats.accepted.Add(1)
	if !l.deliver(c) {
		_ = c.Close()
		m.note(v.source, c.proto+": "+reasonQueue, nil)
	}
}

// letRead closes our half and reads on for a moment: closing with unread bytes
// in the socket resets the connection, and the peer would see a broken pipe
// instead of our alert. Only for a peer that came as far as a certificate.
func (m *Mux) letRead(raw *muteConn) {
	_ = raw.CloseWrite()
	_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, raw, lingerBytes)
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
	if m.ctx.Err() != nil || !m.quiet.Say(key) {
		return
	}
	args := []any{"from", source.String(), "reason", reason}
	if err != nil && (reason == reasonHandshake || reason == reasonCert) {
		args = append(args, "error", err)
	}
	m.logger.Log(level, "connection refused; of this source no more is said for a minute", args...)
}

// handshakeReason sorts the errors of a failed handshake. asked are the
// protocols the client named, nil if it did not come that far.
func handshakeReason(err error, asked, served []string) string {
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errStranger):
		return reasonStranger
	case errors.Is(err, ErrWrongSecret), errors.Is(err, errOtherSecret):
		return reasonSecret
	case errors.Is(err, errRepeated):
		return reasonRepeated
	case errors.Is(err, errCrowded):
		return reasonBusy
	case errors.Is(err, ErrCertificate):
		return reasonCert
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
