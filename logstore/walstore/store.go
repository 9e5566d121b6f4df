package walstore

import (
	"errors"
	"os"

	"github.com/hashicorp/go-hclog"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/aiondb/aiondb-ha/logstore"
)

const dirPerm = 0o700

// Store is a raft-wal at work. logstore.Checked puts the contract of a
// logstore.Store on top.
type Store struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

var _ logstore.Raw = (*Store)(nil)

// Open opens the directory and makes it if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.Mkdir(dir, dirPerm); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	// raft-wal waits for a directory in use without end; a Source does not.
	if _, err := os.Stat(dir); err == nil {
		s, err := OpenSource(dir)
		if errors.Is(err, logstore.ErrInUse) {
			return nil, err
		}
		if err == nil {
			if err := s.Close(); err != nil {
				return nil, err
			}
		}
	}
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(hclog.NewNullLogger()), wal.WithMetaStore(meta))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &Store{WAL: w, meta: meta}, nil
}

// Close gives the directory up; raft-wal v0.4.0 alone keeps its lock.
func (s *Store) Close() error { return errors.Join(s.WAL.Close(), s.meta.Close()) }

// Get implements raft.StableStore.
func (s *Store) Get(key []byte) ([]byte, error) {
	value, err := s.WAL.Get(key)
	return swapNumber(key, value), err
}

// Set implements raft.StableStore.
func (s *Store) Set(key, value []byte) error { return s.WAL.Set(key, swapNumber(key, value)) }
