package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// Keys implements logstore.KeyLister.
func (s *Store) Keys() ([][]byte, error) {
	if s.closed.Load() {
		return nil, logstore.ErrClosed
	}
	return sortedKeys(s.stable.Load().values), nil
}

func sortedKeys(values map[string][]byte) [][]byte {
	var keys [][]byte
	for _, k := range slices.Sorted(maps.Keys(values)) {
		keys = append(keys, []byte(k))
	}
	return keys
}

// Source reads a state directory without changing it, for copying. While it is
// open no Store can open the directory, if one has done so before. It is safe
// for concurrent use.
type Source struct {
	dir         string
	opts        []Option
	unlock      func() error
	first, last uint64
	values      map[string][]byte
}

var (
	_ logstore.Source = (*Source)(nil)
	_ logstore.Source = (*Store)(nil)
)

// OpenSource opens a state directory and verifies all of it. What a crash left
// behind the last entry is passed over. Errors wrap *logstore.InUseError if a
// Store holds the directory, and logstore.ErrCorrupt for damage.
func OpenSource(dir string, opts ...Option) (*Source, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	s := &Source{dir: dir, opts: opts, unlock: func() error { return nil }}
	unlock, err := vfs.LockShared(filepath.Join(dir, LockFile))
	var locked *vfs.LockedError
	switch {
	case err == nil:
		s.unlock = unlock
	case errors.As(err, &locked):
		return nil, &logstore.InUseError{Dir: dir, Holder: locked.Holder}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Source) load() error {
	o, err := collect(s.opts)
	if err != nil {
		return err
	}
	report, err := Verify(s.dir, s.opts...)
	if err != nil {
		return err
	}
	if !report.OK() {
		return report.Damage[0]
	}
	s.first, s.last = report.First, report.Last
	loaded, err := loadState(o.fs, filepath.Join(s.dir, StateFile))
	if err != nil {
		return err
	}
	if loaded.st == nil {
		return fmt.Errorf("%s has no %s, without which its term and vote are unknown; open it once with the store to have one made from the log", s.dir, StateFile)
	}
	s.values = loaded.st.values
	return nil
}

// FirstIndex implements logstore.Source.
func (s *Source) FirstIndex() (uint64, error) { return s.first, nil }

// LastIndex implements logstore.Source.
func (s *Source) LastIndex() (uint64, error) { return s.last, nil }

// GetLog implements logstore.Source. It walks to the entry; Each is the way to
// read many.
func (s *Source) GetLog(index uint64, log *raft.Log) error {
	if s.last == 0 || index < s.first || index > s.last {
		return raft.ErrLogNotFound
	}
	return s.Each(index, func(l *raft.Log) bool {
		*log = *l
		return false
	})
}

// Each calls yield with every entry from index on, in order, until yield
// returns false. The entry belongs to the caller.
func (s *Source) Each(index uint64, yield func(*raft.Log) bool) error {
	for l, err := range Cat(s.dir, s.opts...) {
		if err != nil {
			return err
		}
		if l.Index >= index && l.Index <= s.last && !yield(l) {
			return nil
		}
	}
	return nil
}

// Get implements logstore.Source.
func (s *Source) Get(key []byte) ([]byte, error) {
	value, ok := s.values[string(key)]
	if !ok {
		return nil, logstore.ErrKeyNotFound
	}
	return append([]byte{}, value...), nil
}

// Keys implements logstore.Source.
func (s *Source) Keys() ([][]byte, error) { return sortedKeys(s.values), nil }

// Close lets a Store open the directory again. It may be called once.
func (s *Source) Close() error { return s.unlock() }
