// Package command holds the seven commands of the replicated state machine and
// their canonical encoding: compact JSON, the very text that stands in a line
// of raft_log.jsonl.
//
//	"Noop"
//	{"AddNode":{"node_id":1,"address":"10.0.0.1:5433"}}
//	{"RemoveNode":{"node_id":1}}
//	{"AssignShard":{"table_id":7,"shard_id":0,"node_id":1}}
//	{"TransferShard":{"table_id":7,"shard_id":0,"from_node":1,"to_node":3}}
//	{"UpdateConfig":{"key":"k","value":"v"}}
//	{"KvWrite":{"key":[107],"value":[118]}}        value null: delete
//
// It is AionDB's encoding byte for byte. Of the many JSON texts that mean the
// same command one is canonical: no blanks, fields in the order above, numbers
// without ornament, strings as they are except for ", \ and the control
// characters below U+0020, of which backspace, tab, newline, form feed and
// carriage return have the short escape and the others \u00xx in lower case.
// [Encode] writes only that one; [Decode] reads them all; [IsCanonical] tells
// which is which without decoding.
//
// The package is pure and its functions are safe for concurrent use.
package command

import (
	"errors"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Limits of a command.
const (
	// MaxCommandLen bounds the encoding of a command, in bytes. It has room for
	// the 4 characters that a byte takes in a byte string, for MaxDataLen
	// bytes, and for what stands around them.
	MaxCommandLen = 4*MaxDataLen + 1<<10
	// MaxDataLen is how many bytes of data a command can carry in any case, in
	// key and value (of a KvWrite) together. Data of small byte values fits in
	// larger amounts; what counts is MaxCommandLen.
	MaxDataLen = 1 << 20
	// MaxDepth bounds the nesting of the JSON that Decode reads, in arrays and
	// objects open at once. A command needs 3; the rest is for fields that a
	// later version may add.
	MaxDepth = 128
)

var (
	// ErrMalformed is wrapped by every error about bytes that are no command, and by
	// errors about a command that has no encoding.
	ErrMalformed = errors.New("malformed command")
	// ErrUnknown is wrapped, beside ErrMalformed, when the bytes name a command that this
	// version does not know: they may come from a newer one.
	ErrUnknown = errors.New("unknown command")
	// ErrTooLong is wrapped, beside ErrMalformed, when a command's encoding is longer
	// than MaxCommandLen.
	ErrTooLong = errors.New("command too long")
)

// Command is one of the command types of this file, as a value and not as a
// pointer. Byte slices in it belong to whoever made it.
type Command interface {
	// Name returns the command's name in the encoding, "AddNode" for an AddNode.
	Name() string
}

// Noop changes nothing. A leader commits one to learn its epoch.
type Noop struct{}

// AddNode makes a node a member, or gives a member another address.
type AddNode struct {
	NodeID  protocol.NodeID
	Address string // UTF-8
}

// RemoveNode takes a member and all its shard assignments away.
type RemoveNode struct {
	NodeID protocol.NodeID
}

// AssignShard gives a shard of a table to a member, whoever had it.
type AssignShard struct {
	TableID uint64
	ShardID uint32
	NodeID  protocol.NodeID
}

// TransferShard moves a shard of a table from its owner to another member.
type TransferShard struct {
	TableID  uint64
	ShardID  uint32
	FromNode protocol.NodeID
	ToNode   protocol.NodeID
}

// UpdateConfig sets one setting.
type UpdateConfig struct {
	Key   string // UTF-8
	Value string // UTF-8
}

// KvWrite sets or, with Delete, removes one key. nil and empty byte strings
// are the same; Decode gives empty ones that are not nil.
type KvWrite struct {
	Key    []byte
	Value  []byte // nothing in it when Delete is set
	Delete bool
}

// Name returns "Noop". The methods below return each type's own name.
func (Noop) Name() string          { return nameNoop }
func (AddNode) Name() string       { return nameAddNode }
func (RemoveNode) Name() string    { return nameRemoveNode }
func (AssignShard) Name() string   { return nameAssignShard }
func (TransferShard) Name() string { return nameTransferShard }
func (UpdateConfig) Name() string  { return nameUpdateConfig }
func (KvWrite) Name() string       { return nameKvWrite }

const (
	nameNoop          = "Noop"
	nameAddNode       = "AddNode"
	nameRemoveNode    = "RemoveNode"
	nameAssignShard   = "AssignShard"
	nameTransferShard = "TransferShard"
	nameUpdateConfig  = "UpdateConfig"
	nameKvWrite       = "KvWrite"
)
