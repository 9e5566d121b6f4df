// Command wal-before keeps its log in raft-wal: DIR/wal-meta.db and DIR/*.wal.
package main

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/aiondb/aiondb-ha/examples/kv"
)

func main() { kv.Main(start) }

// start starts the node whose log is in dir.
func start(dir string, fsm raft.FSM) (*raft.Raft, io.Closer, error) {
	store, err := wal.Open(dir)
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
