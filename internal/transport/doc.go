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
//	       | a knock, TLS 1.3       | memberlist packets that
//	       | both sides             | one of the keys opens
//	       v ALPN                   v
//	  +---------+-----------+-----------------+----------+
//	  | raft    | msg       | gossip          | probe    |
//	  +---------+-----------+-----------------+----------+
//	   Raft-       Messenger   Mux.Gossip-      CheckPeers
//	   Transport               Transport
//
// A connection goes through three doors, each with bounds of its own, and
// becomes visible to the room behind its protocol after the last:
//
//   - The knock (see knock.go): the first packet shows that the dialing side
//     holds the secret. Whoever does not gets not one byte in answer, except
//     that a node of another secret is told so, and costs one reading of a
//     ClientHello.
//   - TLS 1.3, both sides: by the secret, each compares the other's public key
//     with those the accepted secrets give, and dates and names in the
//     certificate decide nothing; or by certificates of the operator, whose
//     chain and dates are checked and which name the node (see certificates.go).
//   - A place among the connections of its source.
//
// The log tells of what is refused once per source and minute.
//
// # Who speaks
//
// Where nodes have certificates, a node is only ever taken for the one its
// certificate names: it is dialed as that (DialNode), its messages and Raft's
// must name it as their sender (Messenger, RaftTransport). By the secret alone,
// every holder is believed. Gossip packets are encrypted with a key all nodes
// share, so what they tell is evidence and decides nothing.
//
// # Rotation
//
// An Identity holds one secret that it presents and any number that it
// accepts; Mux.Renew replaces it while the port is open. A secret is replaced
// in three steps through all nodes, and at each any two of them understand each
// other: (old) -> (old, new) -> (new, old) -> (new). Certificates of the same
// CA are simply replaced; a CA is, by way of a file with both.
//
// Open connections stay until what they were made with is no longer accepted.
// Message connections are given up by the dialing side as soon as they rest,
// so that none is left by then with a request on it.
//
// # What is promised of a call
//
// Messenger.Call tells an answer, a request that certainly was not executed
// (ErrNotSent), and a request of which nobody can say (ErrNoAnswer) apart. It
// never sends twice what may not be done twice.
//
// Frames are authenticated with keys that exist for one direction of one
// connection (TLS exporter and message key), and numbered: one that is
// repeated, comes from another connection, or comes back is refused without
// being looked into.
package transport
