package jsonlstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/aiondb/aiondb-ha/logstore"
)

// stableState is what raft_state.json says. It never changes; the writer makes
// a new one and swaps the pointer.
type stableState struct {
	values map[string][]byte
	commit uint64 // commit_index; never above the last index of the log

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
// An error leaves the old value. It wraps logstore.ErrTermDecrease for a
// CurrentTerm below the present one, logstore.ErrTooLarge, what the file
// system said, or logstore.ErrFailed when a sync failed and the store must be
// opened again: then, and only then, either value may be there afterwards.
func (s *Store) Set(key, val []byte) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	cur := s.stable.Load()
	next := &stableState{values: maps.Clone(cur.values), commit: s.snap.Load().commit}
	if err := logstore.SetStable(next.values, string(key), val); err != nil {
		return err
	}
	if maps.EqualFunc(cur.values, next.values, bytes.Equal) {
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

// writeState gives the text the state file's name once it is on disk.
func (s *Store) writeState(text []byte) error {
	temp := s.statePath() + tempSuffix
	if err := removeIfThere(s.fs, temp); err != nil {
		return err
	}
	file, err := s.fs.Create(temp, filePerm)
	if err != nil {
		return err
	}
	n, err := file.WriteAt(text, 0)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err == nil {
		if syncErr := file.Sync(); syncErr != nil {
			err = s.latch(syncErr)
		}
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = s.fs.Rename(temp, s.statePath())
	}
	if err != nil {
		return errors.Join(err, removeIfThere(s.fs, temp))
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.latch(err)
	}
	return nil
}
