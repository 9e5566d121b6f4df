// Package protocol holds the words every other package speaks: who a node is,
// which epoch it is in, where its write-ahead log stands, and the messages the
// nodes exchange about that.
//
//	            +----------------- frame ------------------------------+
//	EncodeAuth: | hmac (32) | tag (1) | payload_len (4, LE) | payload  |
//	            +------------------------------------------------------+
//	                          '---------- raw (Encode) ----------------'
//	              HMAC-SHA256 over raw, keyed with the cluster secret
//
// The package is pure: no goroutines, no clock, no disk, no network. It leans
// on the standard library alone.
package protocol

import (
	"cmp"
	"fmt"
	"strconv"
)

// NodeID names a node of the cluster. IDs are 1-based positions in the
// configured node list; 0 names nobody.
type NodeID uint64

// NoNode is the NodeID that names nobody.
const NoNode NodeID = 0

// String returns the ID in decimal, the form in which Raft knows the node.
func (id NodeID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ParseNodeID reads the decimal form written by String. It refuses 0.
func ParseNodeID(s string) (NodeID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return NoNode, fmt.Errorf("node ID %q: want a whole number from 1 up", s)
	}
	return NodeID(n), nil
}

// Epoch is the Raft term in which a leader committed its own first entry. It
// names one term of office of one primary: there is at most one primary per
// epoch, ever. It is also the name of the timeline that primary writes. 0 is
// before the first.
type Epoch uint64

// LSN is a position in a node's write-ahead log. What one unit of it is
// belongs to the database (bytes or records); the rules here only compare. An
// LSN means something only together with the timeline it was written on: see
// Position.
type LSN uint64

// MaxLSN is the end of a timeline that is still being written.
const MaxLSN LSN = 1<<64 - 1

// Position says how far a write-ahead log reaches: the timeline of its last
// record and the LSN up to which it is flushed to disk.
type Position struct {
	// Timeline is the epoch that wrote the log's last record; 0 for an empty log.
	Timeline Epoch `json:"timeline"`
	// LSN is the end of what is durable; 0 for an empty log.
	LSN LSN `json:"lsn"`
}

// Compare orders positions by timeline first and LSN second, and returns -1, 0
// or +1. Timeline comes first because a longer log of an older epoch may hold
// nothing but writes that were never acknowledged, while the shorter log of a
// newer epoch holds acknowledged ones.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Timeline, q.Timeline); c != 0 {
		return c
	}
	return cmp.Compare(p.LSN, q.LSN)
}

// String returns "timeline/lsn" in decimal.
func (p Position) String() string {
	return strconv.FormatUint(uint64(p.Timeline), 10) + "/" + strconv.FormatUint(uint64(p.LSN), 10)
}

// NodeRole is what a node's database does at present.
type NodeRole uint8

// The roles, with the values they have on the wire.
const (
	RoleStandalone NodeRole = 0 // alone: neither sends nor receives WAL
	RolePrimary    NodeRole = 1 // accepts writes, sends WAL
	RoleReplica    NodeRole = 2 // receives WAL
)

// Valid reports whether r is one of the roles above.
func (r NodeRole) Valid() bool { return r <= RoleReplica }

// String returns standalone, primary or replica.
func (r NodeRole) String() string {
	switch r {
	case RoleStandalone:
		return "standalone"
	case RolePrimary:
		return "primary"
	case RoleReplica:
		return "replica"
	}
	return "role(" + strconv.Itoa(int(r)) + ")"
}

// MarshalText writes the word of String; an unknown role is an error.
func (r NodeRole) MarshalText() ([]byte, error) {
	if !r.Valid() {
		return nil, fmt.Errorf("unknown node role %d", uint8(r))
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads the word MarshalText writes.
func (r *NodeRole) UnmarshalText(text []byte) error {
	for _, role := range []NodeRole{RoleStandalone, RolePrimary, RoleReplica} {
		if role.String() == string(text) {
			*r = role
			return nil
		}
	}
	return fmt.Errorf("unknown node role %q: want standalone, primary or replica", text)
}
