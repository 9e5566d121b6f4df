package jsonlstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/aiondb/aiondb-ha/logstore"
)

// stableState is what raft_state.json says. It never changes; the writer makes
// a new one and swaps the pointer.
type stableState struct {
	values map[string][]byte
	commit uint64 // commit_index; never above the last index of the log

	// Entries below first are deleted, wherever their lines are; 0: it is not
	// known where the log begins, and whatever is there belongs to it.
	first uint64
	// cut, if not nil, is a cut of the tail that is not finished: entries above
	// *cut are deleted, all of them if it is 0. Nobody changes what it points to.
	cut *uint64

	foreign bool // as the original wrote it, without a checksum
}

// Get implements raft.StableStore. A missing key is logstore.ErrKeyNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, logstore.ErrClosed
	}
	val, ok := s.stable.Load().values[string(key)]
	if !ok {
		return nil, logstore.ErrKeyNotFound
	}
	return append([]byte{}, val...), nil
}

// GetUint64 implements raft.StableStore. A missing key is
// logstore.ErrKeyNotFound.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	if s.closed.Load() {
		return 0, logstore.ErrClosed
	}
	val, ok := s.stable.Load().values[string(key)]
	if !ok {
		return 0, logstore.ErrKeyNotFound
	}
	return logstore.Uint64Value(key, val)
}

// SetUint64 implements raft.StableStore; see Set.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// Set implements raft.StableStore: raft_state.json is replaced as a whole and
// durable when Set returns. A value that is there already is not written
// again.
//
// A CurrentTerm below the present one changes nothing; see logstore.Store.
//
// An error leaves the old value. It wraps logstore.ErrVoted for a vote that was
// given already, logstore.ErrTooLarge, what the file system said, or logstore.ErrFailed when a sync failed and the store must be
// opened again: then, and only then, either value may be there afterwards.
func (s *Store) Set(key, val []byte) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	cur := s.stable.Load()
	next := &stableState{values: maps.Clone(cur.values), commit: s.snap.Load().commit, first: cur.first, cut: cur.cut}
	if err := logstore.SetStable(next.values, string(key), val); err != nil {
		return err
	}
	if maps.EqualFunc(cur.values, next.values, bytes.Equal) {
		if !bytes.Equal(next.values[string(key)], val) {
			s.logger.Warn("Raft asked for a lower term, which is not stored", "dir", s.dir, "term", binary.BigEndian.Uint64(val))
		}
		return nil
	}
	return s.replaceState(next)
}

// replaceState writes raft_state.json and lets readers see the new state.
func (s *Store) replaceState(next *stableState) error {
	text := encodeState(next)
	if len(text) > MaxStateBytes {
		return &logstore.TooLargeError{What: s.statePath(), SizeBytes: int64(len(text)), Limit: MaxStateBytes}
	}
	if err := s.writeState(text); err != nil {
		return fmt.Errorf("replacing %s: %w", s.statePath(), err)
	}
	s.stable.Store(next)
	return nil
}
