// Package kinds knows every kind of store that this module can open, and how a
// log moves from one to another.
//
//	jsonl     a directory with raft_log.jsonl and raft_state.json   (package jsonlstore)
//	wal       a directory of hashicorp/raft-wal                     (package walstore)
//	boltdb    a file of hashicorp/raft-boltdb, version 1 or 2       (package boltstore)
//	memory    nothing on disk                                       (logstore.Memory)
//
// It depends on all of them. A program that uses one store should import that
// store's package alone.
package kinds

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/metadb"

	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/boltstore"
	"github.com/aiondb/aiondb-ha/logstore/walstore"
)

// All returns the registry of all kinds.
func All() *logstore.Registry {
	return logstore.NewRegistry(JSONL(), WAL(), BoltDB(), Memory())
}

// JSONL is the kind of package jsonlstore.
func JSONL() logstore.Kind {
	return logstore.Kind{
		Name:    "jsonl",
		Summary: "a directory with " + jsonlstore.LogFile + ", a log that grep and jq can read",
		Looks: func(path string) bool {
			return isFile(filepath.Join(path, jsonlstore.LogFile)) || isFile(filepath.Join(path, jsonlstore.StateFile))
		},
		Open: func(path string) (logstore.Store, error) { return jsonlstore.Open(path) },
		OpenSource: func(path string) (logstore.Source, error) {
			return jsonlstore.OpenSource(path)
		},
		Program: func(path string) string {
			return fmt.Sprintf(`import "github.com/aiondb/aiondb-ha/jsonlstore"

store, err := jsonlstore.Open(%q)
if err != nil {
	return err
}
defer store.Close() // after raft's Shutdown
r, err := raft.NewRaft(config, fsm, store, store, snapshots, transport)`, path)
		},
	}
}

// WAL is the kind of hashicorp/raft-wal.
func WAL() logstore.Kind {
	return logstore.Kind{
		Name:    "wal",
		Summary: "a directory of hashicorp/raft-wal",
		Looks:   func(path string) bool { return isFile(filepath.Join(path, metadb.FileName)) },
		Open: func(path string) (logstore.Store, error) {
			s, err := walstore.Open(path)
			if err != nil {
				return nil, err
			}
			return logstore.Checked(s), nil
		},
		OpenSource: func(path string) (logstore.Source, error) { return walstore.OpenSource(path) },
		Program: func(path string) string {
			return fmt.Sprintf(`import wal "github.com/hashicorp/raft-wal"

store, err := wal.Open(%q)
if err != nil {
	return err
}
defer store.Close() // after raft's Shutdown
r, err := raft.NewRaft(config, fsm, store, store, snapshots, transport)`, path)
		},
	}
}

// BoltDB is the kind of hashicorp/raft-boltdb.
func BoltDB() logstore.Kind {
	return logstore.Kind{
		Name:    "boltdb",
		Summary: "a file of hashicorp/raft-boltdb, version 1 or 2, mostly called raft.db",
		Looks: func(path string) bool {
			if !isFile(path) {
				return false
			}
			s, err := boltstore.Open(path, boltstore.Options{ReadOnly: true})
			if err != nil {
				return false
			}
			return s.Close() == nil
		},
		Open:     func(path string) (logstore.Store, error) { return openBolt(path, boltstore.Options{}) },
		OpenFast: func(path string) (logstore.Store, error) { return openBolt(path, boltstore.Options{NoSync: true}) },
		OpenSource: func(path string) (logstore.Source, error) {
			return boltstore.Open(path, boltstore.Options{ReadOnly: true})
		},
		Program: func(path string) string {
			return fmt.Sprintf(`import raftboltdb "github.com/hashicorp/raft-boltdb/v2"

store, err := raftboltdb.NewBoltStore(%q)
if err != nil {
	return err
}
defer store.Close() // after raft's Shutdown
r, err := raft.NewRaft(config, fsm, store, store, snapshots, transport)`, path)
		},
	}
}

func openBolt(path string, o boltstore.Options) (logstore.Store, error) {
	s, err := boltstore.Open(path, o)
	if err != nil {
		return nil, err
	}
	return logstore.Checked(s), nil
}

// Memory is the kind of logstore.Memory. Its path means nothing.
func Memory() logstore.Kind {
	return logstore.Kind{
		Name:    "memory",
		Summary: "in memory, for tests: gone when the program ends",
		Open:    func(string) (logstore.Store, error) { return logstore.NewMemory(), nil },
		Program: func(string) string {
			return `import "github.com/aiondb/aiondb-ha/logstore"

store := logstore.NewMemory()
r, err := raft.NewRaft(config, fsm, store, store, snapshots, transport)`
		},
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
