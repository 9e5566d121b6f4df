// Package transport carries everything the nodes say to each other over one
// port, authenticated and encrypted by what they share: the cluster secret.
//
//	                     cluster secret (32 bytes or more)
//	                                |
//	                     HKDF-SHA256, a label each
//	       +------------------------+----------------------+
//	       | TLS key (Ed25519)      | gossip key (AES-256) | message key (HMAC)
//	       v                        v                      v
//	+-------------+          +-------------+        frames of ALPNMessage
//	| HA port TCP |          | HA port UDP |
//	+------+------+          +------+------+
//	       | TLS 1.3, both sides    | memberlist packets
//	       | pinned to that key     |
//	       v ALPN                   v
//	  +---------+-----------+-----------------+----------+
//	  | raft    | msg       | gossip          | probe    |
//	  +---------+-----------+-----------------+----------+
//	   RaftStream- Messenger   Mux.Gossip-      CheckPeers
//	   Layer                   Transport
//
// A connection becomes visible to the room behind its protocol only after both
// sides have proved the secret. Whatever else arrives (plaintext, random bytes,
// TLS below 1.3, no certificate, the certificate of another cluster, an unknown
// protocol) is closed, and the log says so once per source and minute.
//
// The certificate is a carrier for the public key and nothing more: its dates
// and names decide nothing, no clock is asked. Both sides compare the peer's
// key with those derived from the secrets they accept.
//
// # Rotation
//
// An Identity holds one secret that it presents and any number that it
// accepts. Three rolling restarts replace a secret, and at each step any two
// nodes understand each other: (old) -> (old, new) -> (new, old) -> (new).
//
// # What is promised of a call
//
// Messenger.Call tells an answer, a request that certainly was not executed
// (ErrNotSent), and a request of which nobody can say (ErrNoAnswer) apart. It
// never sends twice what may not be done twice.
//
// Replay within a connection and between connections is stopped by TLS: every
// record is numbered under keys that exist for one connection only. The HMAC of
// a message frame does not add to that; a sequence bound into the frame itself
// would only matter to one who already broke TLS.
package transport
