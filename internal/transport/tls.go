package transport

import "crypto/tls"

// The protocols of the HA port, as named in the TLS handshake (ALPN).
const (
	ALPNRaft    = "aiondb-ha/raft"   // hashicorp/raft RPC
	ALPNMessage = "aiondb-ha/msg"    // HA messages, request and answer
	ALPNGossip  = "aiondb-ha/gossip" // memberlist streams
	ALPNProbe   = "aiondb-ha/probe"  // who are you, and do we share a secret
	ALPNWAL     = "aiondb-ha/wal"    // the data plane's stream, on a port of its own

	alpnPrefix = "aiondb-ha/"
)

// ServerTLS returns the configuration of a listener that speaks the given
// protocols: TLS 1.3, a client certificate required and pinned, no session
// tickets (each connection proves the secret anew). A client that names no
// protocol at all passes the handshake with NegotiatedProtocol "": the caller
// closes it, as Mux does.
func (id *Identity) ServerTLS(protos ...string) *tls.Config {
	c := id.config(protos)
	// Any certificate is let as far as VerifyConnection, which wants ours.
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// ClientTLS returns the configuration of a dialer that speaks proto. A server
// that proves another secret fails the handshake with ErrWrongSecret. A
// server that refuses *our* secret is seen only at the first read, because in
// TLS 1.3 the client is done before the server has looked at its certificate:
// pass the error of that read through RefusedByPeer.
func (id *Identity) ClientTLS(proto string) *tls.Config {
	c := id.config([]string{proto})
	// Chains and names are replaced, not skipped: VerifyConnection compares
	// the peer's public key with those the accepted secrets give.
	c.InsecureSkipVerify = true //nolint:gosec // G402: VerifyConnection pins the key instead
	return c
}

func (id *Identity) config(protos []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.accepted[0].cert},
		NextProtos:             append([]string(nil), protos...),
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := id.check(state)
			return err
		},
	}
}
