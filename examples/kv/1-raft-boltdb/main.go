// Command 1-raft-boltdb keeps its log in raft-boltdb: DIR/raft.db.
package main

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/aiondb/aiondb-ha/examples/kv"
)

func main() { kv.Main(start) }

// start starts the node whose log is in dir.
func start(dir string, fsm raft.FSM) (*raft.Raft, io.Closer, error) {
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		return nil, store, errors.Join(err, store.Close())
	}
	node, err := raft.NewRaft(kv.Config(), fsm, store, store, snapshots, kv.Transport())
	if err != nil {
		return nil, store, errors.Join(err, store.Close())
	}
	return node, store, nil
}
