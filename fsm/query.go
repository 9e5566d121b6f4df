package fsm

import (
	"bytes"
	"slices"
	"strings"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Applied returns index and term of the last command applied; 0, 0 before the
// first. A refused command counts. Entries of Raft's own do not.
func (s *State) Applied() (index, term uint64) { return s.index, s.term }

// Members returns the members, sorted by node ID, in a slice of the caller's own.
func (s *State) Members() []Member {
	all := make([]Member, 0, s.members.size)
	for id, address := range s.members.all {
		all = append(all, Member{NodeID: id, Address: address})
	}
	return all
}

// Member returns the member with that ID.
func (s *State) Member(id protocol.NodeID) (Member, bool) {
	address, ok := s.members.get(id)
	return Member{NodeID: id, Address: address}, ok
}

// Shards returns the shard assignments, sorted by table and shard, in a slice
// of the caller's own.
func (s *State) Shards() []Shard {
	return slices.AppendSeq(make([]Shard, 0, s.shards.size), s.eachShard)
}

// eachShard iterates over the shard assignments in order.
func (s *State) eachShard(yield func(Shard) bool) {
	for key, owner := range s.shards.all {
		if !yield(Shard{TableID: key.table, ShardID: key.shard, NodeID: owner}) {
			return
		}
	}
}

// Config returns the value of one setting.
func (s *State) Config(key string) (string, bool) { return s.settings.get(key) }

// Settings returns all settings, sorted by key, in a slice of the caller's own.
func (s *State) Settings() []Setting {
	all := make([]Setting, 0, s.settings.size)
	for key, value := range s.settings.all {
		all = append(all, Setting{Key: key, Value: value})
	}
	return all
}

// KVGet returns one key of the key-value space.
func (s *State) KVGet(key []byte) (Entry, bool) {
	v, ok := s.kv.get(string(key))
	if !ok {
		return Entry{}, false
	}
	return v.entry(string(key)), true
}

// KVRevision returns the revision of one key, 0 if it is not there.
func (s *State) KVRevision(key []byte) uint64 {
	v, _ := s.kv.get(string(key))
	return v.revision
}

// KVList returns the keys that begin with prefix, sorted as bytes, at most
// limit of them. A limit of 0, or one above MaxKVList, means MaxKVList.
func (s *State) KVList(prefix []byte, limit int) []Entry {
	if limit <= 0 || limit > MaxKVList {
		limit = MaxKVList
	}
	entries := []Entry{}
	s.KVScan(prefix, func(key string, entry func() Entry) bool {
		if len(entries) == limit {
			return false
		}
		entries = append(entries, entry())
		return true
	})
	return entries
}

// KVScan calls visit for each key that begins with prefix, in order, until it
// returns false. entry, to be called within visit, makes a copy of key and value.
func (s *State) KVScan(prefix []byte, visit func(key string, entry func() Entry) bool) {
	begin := string(prefix)
	s.kv.ascend(begin, func(key string, v kvValue) bool {
		return strings.HasPrefix(key, begin) && visit(key, func() Entry { return v.entry(key) })
	})
}

func (v kvValue) entry(key string) Entry {
	return Entry{Key: []byte(key), Value: append([]byte{}, v.data...), Revision: v.revision}
}

// History returns the timeline history, in a slice of the caller's own.
func (s *State) History() protocol.History { return slices.Clone(s.history) }

// equal reports whether both states hold the same.
func (s *State) equal(o *State) bool {
	var a, b bytes.Buffer
	return s.WriteSnapshot(&a) == nil && o.WriteSnapshot(&b) == nil && bytes.Equal(a.Bytes(), b.Bytes())
}
