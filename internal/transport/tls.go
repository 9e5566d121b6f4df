package transport

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The protocols of the HA port, as named in the TLS handshake (ALPN).
const (
	ALPNRaft    = "aiondb-ha/raft"   // hashicorp/raft RPC
	ALPNMessage = "aiondb-ha/msg"    // HA messages, request and answer
	ALPNGossip  = "aiondb-ha/gossip" // memberlist streams
	ALPNProbe   = "aiondb-ha/probe"  // who are you, and do we share a secret
	ALPNWAL     = "aiondb-ha/wal"    // the data plane's stream, on a port of its own

	alpnPrefix = "aiondb-ha/"
)

// serverTLS returns the configuration of a listener that speaks the given
// protocols: TLS 1.3, a client certificate required and checked, no session
// tickets (each connection proves itself anew). A client that names no
// protocol at all passes the handshake with NegotiatedProtocol "".
func (id *Identity) serverTLS(protos ...string) *tls.Config {
	c := id.config(protos, x509.ExtKeyUsageClientAuth)
	// Any certificate is let as far as VerifyConnection, which looks for ours.
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// clientTLS returns the configuration of a dialer that speaks proto, good for
// one connection: it knocks with a number used once. A server that proves
// something else fails the handshake with ErrWrongSecret or ErrCertificate. A
// server that refuses *our* certificate is seen only at the first read, because
// in TLS 1.3 the client is done before the server has looked at its
// certificate: see refusedByPeer.
func (id *Identity) clientTLS(proto string) *tls.Config {
	c := id.config([]string{proto}, x509.ExtKeyUsageServerAuth)
	c.ServerName = id.accepted[0].newKnock()
	// Chains and names are replaced, not skipped: VerifyConnection compares
	// the peer's public key with those the accepted secrets give, or looks for
	// a chain to the operator's CA and a node ID.
	c.InsecureSkipVerify = true // VerifyConnection does it instead
	return c
}

func (id *Identity) config(protos []string, usage x509.ExtKeyUsage) *tls.Config {
	own := id.accepted[0].cert
	if id.certs != nil {
		own = id.certs.own
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		NextProtos:             append([]string(nil), protos...),
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := id.check(state.PeerCertificates, usage, time.Now())
			return err
		},
	}
}

// check is who may be talked to. By the secret: exactly one certificate, and
// its key is one we accept; the node is then not known, every holder of the
// secret is believed. By certificates: see certificates.check.
func (id *Identity) check(chain []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) (protocol.NodeID, error) {
	if id.certs != nil {
		return id.certs.check(chain, usage, at)
	}
	if len(chain) != 1 {
		return protocol.NoNode, &WrongSecretError{}
	}
	public, ok := chain[0].PublicKey.(ed25519.PublicKey)
	if !ok || id.find(public) == nil {
		return protocol.NoNode, &WrongSecretError{}
	}
	return protocol.NoNode, nil
}
