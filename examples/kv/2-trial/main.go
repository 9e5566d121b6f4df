// Command 2-trial keeps its log in raft-boltdb as before, and in jsonlstore on
// trial: everything is done in both, the answers are compared, and that of
// raft-boltdb counts. The trial begins with a copy of the log:
//
//	aiondb-ha log migrate --from boltdb:DIR/raft.db --to jsonl:DIR/raft
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/aiondb/aiondb-ha/examples/kv"
	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore"
)

func main() { kv.Main(start) }

// start starts the node whose log is in dir.
func start(dir string, fsm raft.FSM) (*raft.Raft, io.Closer, error) {
	inUse, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, nil, err
	}
	onTrial, err := jsonlstore.Open(filepath.Join(dir, "raft"))
	if err != nil {
		return nil, nil, errors.Join(err, inUse.Close())
	}
	store := logstore.Twin(logstore.Checked(inUse), onTrial, func(m logstore.Mismatch) {
		fmt.Fprintln(os.Stderr, "the trial differs:", m)
	})
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
