// Command wal-after keeps its log in jsonlstore: DIR/raft/raft_log.jsonl.
package main

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/examples/kv"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

func main() { kv.Main(start) }

// start starts the node whose log is in dir.
func start(dir string, fsm raft.FSM) (*raft.Raft, io.Closer, error) {
	store, err := jsonlstore.Open(filepath.Join(dir, "raft"))
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
