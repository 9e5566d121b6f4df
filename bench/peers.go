package main

import (
	"errors"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// store is what hashicorp/raft needs on disk, in one value.
type store interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// kind is one of the stores that are compared.
type kind struct {
	name string
	open func(dir string) (store, error) // dir exists
}

// The columns of every table. The raw disk is no store, but stands beside
// them wherever one write or one read has a meaning.
const (
	nameJSONL = "jsonlstore"
	nameWAL   = "raft-wal"
	nameBolt  = "raft-boltdb"
	nameDisk  = "disk"
)

// kinds lists the stores, each opened as its own documentation recommends and
// with every write synced.
var kinds = []kind{
	{nameJSONL, func(dir string) (store, error) { return jsonlstore.Open(dir) }},
	{nameWAL, openWAL},
	{nameBolt, func(dir string) (store, error) {
		return raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(dir, "raft.db"),
			BoltOptions: &bbolt.Options{FreelistType: bbolt.FreelistMapType},
		})
	}},
}

// walStore closes what raft-wal v0.4.0 leaves open: its Close forgets the
// database of its segments, whose lock then keeps the same process from ever opening
// the directory again.
type walStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

// openWAL opens raft-wal with its defaults, which include a BoltMetaDB; here
// it is one that can be closed.
func openWAL(dir string) (store, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(hclog.NewNullLogger()), wal.WithMetaStore(meta))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return walStore{w, meta}, nil
}

func (w walStore) Close() error { return errors.Join(w.WAL.Close(), w.meta.Close()) }
