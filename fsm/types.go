package fsm

import (
	"errors"
	"fmt"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Member is a node of the cluster, as registered by AddNode.
type Member struct {
	NodeID  protocol.NodeID `json:"node_id"`
	Address string          `json:"address"`
}

// Shard is a shard of a table and the member it is assigned to.
type Shard struct {
	TableID uint64          `json:"table_id"`
	ShardID uint32          `json:"shard_id"`
	NodeID  protocol.NodeID `json:"node_id"`
}

// Setting is a key of the replicated configuration and its value.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Entry is a key of the key-value space. Its slices belong to the caller.
type Entry struct {
	Key      []byte `json:"key"`
	Value    []byte `json:"value"`
	Revision uint64 `json:"revision"` // Raft index of the entry that last changed it
}

// Result says what a command did. The zero Result of an entry means that it
// changed nothing because there was nothing to change.
type Result struct {
	Index   uint64  `json:"index"`             // Raft index of the entry
	Changed bool    `json:"changed"`           // the state is not what it was
	Removed []Shard `json:"removed,omitempty"` // assignments a RemoveNode took away, sorted
	Refused string  `json:"refused,omitempty"` // why the command was not carried out, a sentence; "" if it was
}

// Err returns nil, or a *RefusedError if the command was refused.
func (r Result) Err() error {
	if r.Refused == "" {
		return nil
	}
	return &RefusedError{Index: r.Index, Reason: r.Refused}
}

// ErrRefused is what errors.Is finds in a *RefusedError.
var ErrRefused = errors.New("refused")

// RefusedError says that a command was committed, understood, and refused by
// the rules of the state, on every node alike. Nothing was changed.
type RefusedError struct {
	Index  uint64 // Raft index of the entry
	Reason string
}

// Error returns the reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("refused: %s", e.Reason) }

// Is reports whether target is ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// RevisionError says that a key has another revision than a write was to depend
// on. Nothing was proposed, and nothing changed.
type RevisionError struct {
	Key  []byte
	Want uint64 // what the write depended on; 0: that the key is not there
	Have uint64 // what the key has; 0: it is not there
}

// Error names the key and what it has.
func (e *RevisionError) Error() string {
	switch {
	case e.Have == 0:
		return fmt.Sprintf("key %q is not there, want revision %d: nothing was written", e.Key, e.Want)
	case e.Want == 0:
		return fmt.Sprintf("key %q is there already, with revision %d: nothing was written", e.Key, e.Have)
	}
	return fmt.Sprintf("key %q has revision %d, want %d: nothing was written", e.Key, e.Have, e.Want)
}

// Change is what an OnApply function is told of one applied entry. What it
// points to is shared by all of them and must not be modified.
type Change struct {
	Index, Term uint64
	Command     command.Command
	Result      Result
	// Restored is true when the whole state was replaced by a snapshot that
	// reaches to Index: anything may have changed. Command is Noop then.
	Restored bool
}

// Consistency says how fresh a read must be.
type Consistency uint8

// The kinds of reads.
const (
	// Linearizable reads see every write that was acknowledged before they began.
	Linearizable Consistency = 0
	// Stale reads see what this node happens to have; the answer says how old that may be.
	Stale Consistency = 1
)

// String returns linearizable or stale.
func (c Consistency) String() string {
	switch c {
	case Linearizable:
		return "linearizable"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("consistency(%d)", uint8(c))
}

// Freshness says what a read saw.
type Freshness struct {
	Stale bool   `json:"stale"`  // it was not linearizable
	AgeMS int64  `json:"age_ms"` // how long ago, in ms, the state was known to be current; -1: never heard of a leader
	Index uint64 `json:"index"`  // Raft index of the last command applied to what was read
}
