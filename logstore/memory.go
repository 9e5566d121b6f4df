package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Memory is the reference Store: the contract spelled out with slices and maps
// under one lock, for tests and for comparing other stores with. It keeps
// nothing on disk and never fails. Use NewMemory; it is safe for concurrent
// use.
type Memory struct {
	mu     sync.RWMutex
	closed bool
	logs   []raft.Log // contiguous
	stable map[string][]byte
	staged uint64 // by StageCommitIndex
	commit uint64 // as of the last StoreLogs
}

var (
	_ Store  = (*Memory)(nil)
	_ Source = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{stable: make(map[string][]byte)}
}

// Clone returns an independent copy of what m holds, open even if m is closed.
func (m *Memory) Clone() *Memory {
	m.mu.RLock()
	defer m.mu.RUnlock()
	// Entries and values are never changed in place, so sharing them is safe.
	return &Memory{
		logs:   append([]raft.Log(nil), m.logs...),
		stable: maps.Clone(m.stable),
		staged: m.staged,
		commit: m.commit,
	}
}

// DropStaged forgets a commit index that was staged and not stored, as a
// restart does.
func (m *Memory) DropStaged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = m.commit
}

// FirstIndex implements raft.LogStore.
func (m *Memory) FirstIndex() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, ErrClosed
	}
	return m.first(), nil
}

// LastIndex implements raft.LogStore.
func (m *Memory) LastIndex() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, ErrClosed
	}
	return m.last(), nil
}

func (m *Memory) first() uint64 {
	if len(m.logs) == 0 {
		return 0
	}
	return m.logs[0].Index
}

func (m *Memory) last() uint64 {
	if len(m.logs) == 0 {
		return 0
	}
	return m.logs[len(m.logs)-1].Index
}

// GetLog implements raft.LogStore.
func (m *Memory) GetLog(index uint64, log *raft.Log) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return ErrClosed
	}
	if index == 0 || index < m.first() || index > m.last() {
		return raft.ErrLogNotFound
	}
	*log = cloneLog(&m.logs[index-m.first()])
	return nil
}

// StoreLog implements raft.LogStore.
func (m *Memory) StoreLog(log *raft.Log) error { return m.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (m *Memory) StoreLogs(logs []*raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if err := CheckAppend(m.last(), logs); err != nil {
		return err
	}
	for _, l := range logs {
		m.logs = append(m.logs, cloneLog(l))
	}
	if len(logs) > 0 {
		m.commit = max(m.commit, min(m.staged, m.last()))
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (m *Memory) DeleteRange(minIndex, maxIndex uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	cut, err := CheckDelete(m.first(), m.last(), minIndex, maxIndex)
	if err != nil {
		return err
	}
	switch cut {
	case CutAll:
		m.logs = nil
	case CutFront:
		m.logs = append([]raft.Log(nil), m.logs[maxIndex-m.first()+1:]...)
	case CutTail:
		m.logs = append([]raft.Log(nil), m.logs[:minIndex-m.first()]...)
	}
	if cut == CutAll || cut == CutTail {
		m.commit = min(m.commit, m.last())
		m.staged = min(m.staged, m.last())
	}
	return nil
}

// IsMonotonic implements raft.MonotonicLogStore: gaps are refused.
func (m *Memory) IsMonotonic() bool { return true }

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (m *Memory) StageCommitIndex(idx uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.staged = idx
	return nil
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (m *Memory) GetCommitIndex() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, ErrClosed
	}
	return m.commit, nil
}

// Set implements raft.StableStore.
func (m *Memory) Set(key, val []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	return SetStable(m.stable, string(key), val)
}

// SetUint64 implements raft.StableStore.
func (m *Memory) SetUint64(key []byte, val uint64) error {
	return m.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// Get implements raft.StableStore.
func (m *Memory) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	val, ok := m.stable[string(key)]
	if !ok {
		return nil, ErrKeyNotFound
	}
	return append([]byte{}, val...), nil
}

// Keys implements KeyLister.
func (m *Memory) Keys() ([][]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	var keys [][]byte
	for _, k := range slices.Sorted(maps.Keys(m.stable)) {
		keys = append(keys, []byte(k))
	}
	return keys, nil
}

// GetUint64 implements raft.StableStore.
func (m *Memory) GetUint64(key []byte) (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return 0, ErrClosed
	}
	val, ok := m.stable[string(key)]
	if !ok {
		return 0, ErrKeyNotFound
	}
	return Uint64Value(key, val)
}

// WriteInFlight implements Store: memory does not keep anybody waiting.
func (m *Memory) WriteInFlight() time.Time { return time.Time{} }

// Close implements io.Closer.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// SetStable changes values as Set(key, val) demands, with the rules for Raft's
// three keys. It copies val. On an error, and for a CurrentTerm that would go
// down, nothing is changed.
func SetStable(values map[string][]byte, key string, val []byte) error {
	switch key {
	case KeyCurrentTerm, KeyLastVoteTerm:
		given, err := Uint64Value([]byte(key), val)
		if err != nil {
			return err
		}
		old, ok := values[key]
		if !ok {
			break
		}
		switch before, err := Uint64Value([]byte(key), old); {
		case err != nil:
			return err
		case given == before:
			return nil
		case given < before && key == KeyCurrentTerm:
			return nil
		case given < before:
			return &VoteError{Term: given, LastTerm: before}
		}
	case KeyLastVoteCand:
		old, voted := values[key]
		if term, ok := values[KeyLastVoteTerm]; ok && voted && !bytes.Equal(old, val) {
			n, err := Uint64Value([]byte(KeyLastVoteTerm), term)
			return errors.Join(&VoteError{Term: n, LastTerm: n, Given: string(old)}, err)
		}
	}
	if key == KeyLastVoteTerm {
		delete(values, KeyLastVoteCand)
	}
	values[key] = append([]byte{}, val...)
	return nil
}

// Uint64Value reads a stable value as the uint64 that SetUint64 wrote.
func Uint64Value(key, val []byte) (uint64, error) {
	if len(val) != 8 {
		return 0, fmt.Errorf("stable value %q has %d bytes: a uint64 has 8", key, len(val))
	}
	return binary.BigEndian.Uint64(val), nil
}

// cloneLog copies an entry with its bytes; nil stays nil.
func cloneLog(l *raft.Log) raft.Log {
	c := *l
	c.Data = bytes.Clone(l.Data)
	c.Extensions = bytes.Clone(l.Extensions)
	return c
}
