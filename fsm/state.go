package fsm

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Limits of the state. A command that would go over one is refused; one that
// does not add anything never is.
const (
	// MaxMembers bounds the members.
	MaxMembers = 1 << 10
	// MaxShards bounds the shard assignments.
	MaxShards = 1 << 16
	// MaxDataSize bounds settings and key-value space together: the lengths
	// of keys and values in bytes, and RecordOverhead for each. Keys under
	// ReservedPrefix do not count, so that a full state does not stop a failover.
	MaxDataSize = 256 << 20
	// MaxReservedSize bounds the keys under ReservedPrefix likewise, except
	// for the timeline history.
	MaxReservedSize = 16 << 20
	// MaxForks bounds the timeline history.
	MaxForks = 1 << 20
	// RecordOverhead is what a setting or a key counts for beside its bytes.
	RecordOverhead = 128
	// MaxKVList bounds what one KVList returns, in entries.
	MaxKVList = 10_000
)

// State is what the cluster agrees on. It is pure and deterministic, and not
// safe for concurrent use. Copy it with Clone only.
type State struct {
	members  tree[protocol.NodeID, string]
	shards   tree[shardKey, protocol.NodeID]
	settings tree[string, string]
	kv       tree[string, kvValue]

	history      protocol.History // the forks of the timeline keys in kv, only ever appended to
	dataSize     int              // as MaxDataSize counts
	reservedSize int              // as MaxReservedSize counts
	index, term  uint64           // of the last command applied
}

type shardKey struct {
	table uint64
	shard uint32
}

type kvValue struct {
	data     []byte // never changed
	revision uint64
}

// NewState returns the state before the first command.
func NewState() *State {
	return &State{
		members: tree[protocol.NodeID, string]{compare: cmp.Compare[protocol.NodeID]},
		shards: tree[shardKey, protocol.NodeID]{compare: func(a, b shardKey) int {
			return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.shard, b.shard))
		}},
		settings: tree[string, string]{compare: strings.Compare},
		kv:       tree[string, kvValue]{compare: strings.Compare},
	}
}

// Clone returns an independent copy. It costs next to nothing, however much the
// state holds: both share memory that neither ever changes.
func (s *State) Clone() *State {
	// The history is clipped, so that an append to the copy does not write
	// where the original's next fork will stand.
	c := *s
	c.history = slices.Clip(c.history)
	return &c
}

// Apply carries out the command of the entry at index, written in term, and
// says what came of it. Indexes must rise and terms must not fall, as Raft sees to;
// an entry for which they do not is refused. Apply keeps nothing of c's memory.
//
// What a command must have to be carried out: AddNode a node ID and an address
// of 1 to protocol.MaxAddrLen bytes; AssignShard and TransferShard a target that
// is a member; TransferShard a source that owns the shard; RemoveNode a member.
// A command whose effect is there already changes nothing and is not refused.
func (s *State) Apply(index, term uint64, c command.Command) Result {
	if index <= s.index || term < s.term {
		return Result{Index: index, Refused: fmt.Sprintf(
			"entry %d of term %d does not come after entry %d of term %d", index, term, s.index, s.term)}
	}
	s.index, s.term = index, term
	r := s.carryOut(c)
	r.Index = index
	return r
}

// carryOut is Apply for the entry at s.index of s.term.
func (s *State) carryOut(c command.Command) Result {
	switch c := c.(type) {
	case command.Noop:
		return Result{}
	case command.AddNode:
		return s.addNode(c)
	case command.RemoveNode:
		return s.removeNode(c)
	case command.AssignShard:
		return s.assignShard(c)
	case command.TransferShard:
		return s.transferShard(c)
	case command.UpdateConfig:
		return s.updateConfig(c)
	case command.KvWrite:
		return s.kvWrite(c)
	}
	return refuse("%T is no command", c)
}

func refuse(format string, args ...any) Result { return Result{Refused: fmt.Sprintf(format, args...)} }

func (s *State) addNode(c command.AddNode) Result {
	switch {
	case c.NodeID == protocol.NoNode:
		return refuse("node ID 0 names nobody: count from 1")
	case c.Address == "":
		return refuse("node %d needs an address", c.NodeID)
	case len(c.Address) > protocol.MaxAddrLen:
		return refuse("node %d has an address of %d bytes, the limit is %d", c.NodeID, len(c.Address), protocol.MaxAddrLen)
	case !utf8.ValidString(c.Address):
		return refuse("node %d has an address that is not UTF-8", c.NodeID)
	}
	address, member := s.members.get(c.NodeID)
	if address == c.Address {
		return Result{}
	}
	if !member && s.members.size >= MaxMembers {
		return refuse("there are %d members, and no room for more: remove one first", s.members.size)
	}
	s.members.put(c.NodeID, c.Address)
	return Result{Changed: true}
}

func (s *State) removeNode(c command.RemoveNode) Result {
	if !s.members.remove(c.NodeID) {
		return refuse("node %d is not a member", c.NodeID)
	}
	r := Result{Changed: true}
	for shard := range s.eachShard {
		if shard.NodeID == c.NodeID {
			r.Removed = append(r.Removed, shard)
		}
	}
	for _, shard := range r.Removed {
		s.shards.remove(shardKey{shard.TableID, shard.ShardID})
	}
	return r
}

func (s *State) assignShard(c command.AssignShard) Result {
	if _, ok := s.members.get(c.NodeID); !ok {
		return refuse("node %d is not a member: add it first", c.NodeID)
	}
	return s.giveShard(shardKey{c.TableID, c.ShardID}, c.NodeID)
}

func (s *State) transferShard(c command.TransferShard) Result {
	key := shardKey{c.TableID, c.ShardID}
	owner, ok := s.shards.get(key)
	if !ok {
		return refuse("shard %d of table %d is assigned to nobody: assign it instead", c.ShardID, c.TableID)
	}
	if owner != c.FromNode {
		return refuse("shard %d of table %d belongs to node %d, not to node %d", c.ShardID, c.TableID, owner, c.FromNode)
	}
	if _, ok := s.members.get(c.ToNode); !ok {
		return refuse("node %d is not a member: add it first", c.ToNode)
	}
	return s.giveShard(key, c.ToNode)
}

func (s *State) giveShard(key shardKey, to protocol.NodeID) Result {
	owner, assigned := s.shards.get(key)
	if assigned && owner == to {
		return Result{}
	}
	if !assigned && s.shards.size >= MaxShards {
		return refuse("there are %d shard assignments, and no room for more", s.shards.size)
	}
	s.shards.put(key, to)
	return Result{Changed: true}
}

func (s *State) updateConfig(c command.UpdateConfig) Result {
	if !utf8.ValidString(c.Key) || !utf8.ValidString(c.Value) {
		return refuse("settings must be UTF-8")
	}
	old, ok := s.settings.get(c.Key)
	if ok && old == c.Value {
		return Result{}
	}
	size := resized(s.dataSize, ok, len(c.Key), len(old), len(c.Value))
	if size > MaxDataSize {
		return refuse("the state holds %d of at most %d bytes: delete something first", s.dataSize, MaxDataSize)
	}
	s.settings.put(c.Key, c.Value)
	s.dataSize = size
	return Result{Changed: true}
}

func (s *State) kvWrite(c command.KvWrite) Result {
	key := string(c.Key)
	if strings.HasPrefix(key, TimelinePrefix) {
		return s.writeTimeline(key, c)
	}
	old, ok := s.kv.get(key)
	if c.Delete && !ok || !c.Delete && ok && bytes.Equal(old.data, c.Value) {
		return Result{}
	}
	account, limit := &s.dataSize, MaxDataSize
	if strings.HasPrefix(key, ReservedPrefix) {
		account, limit = &s.reservedSize, MaxReservedSize
	}
	if c.Delete {
		*account -= len(key) + len(old.data) + RecordOverhead
		s.kv.remove(key)
		return Result{Changed: true}
	}
	size := resized(*account, ok, len(key), len(old.data), len(c.Value))
	if size > limit {
		return refuse("the state holds %d of at most %d bytes: delete something first", *account, limit)
	}
	*account = size
	s.kv.put(key, kvValue{data: bytes.Clone(c.Value), revision: s.index})
	return Result{Changed: true}
}

// resized returns what an account of size counts after a record of that key
// was given a value of length after, in place of one of length before if it exists.
func resized(size int, exists bool, key, before, after int) int {
	if exists {
		return size - before + after
	}
	return size + key + after + RecordOverhead
}
