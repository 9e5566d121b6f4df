// Command store runs a hashicorp/raft node on jsonlstore: a counter that adds
// up the numbers it is given, in a log that can be read with grep and jq.
//
//	go run ./examples/store DIR 1 2 3
//	jq -c '[.index, .term, .type, .command]' DIR/raft_log.jsonl
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: store DIR [NUMBER...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

// run adds the numbers to the counter whose log is in dir, and prints the sum
// of all that were ever added.
func run(dir string, numbers []string, out io.Writer) (err error) {
	// These lines are all there is to the swap.
	store, err := jsonlstore.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	conf := raft.DefaultConfig()
	conf.LocalID = "counter"
	conf.Logger = hclog.NewNullLogger()
	addr, trans := raft.NewInmemTransport("")
	snapshots := raft.NewDiscardSnapshotStore() // the log is the whole history
	used, err := raft.HasExistingState(store, store, snapshots)
	if err != nil {
		return err
	}
	if !used {
		self := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: addr}}}
		if err := raft.BootstrapCluster(conf, store, store, snapshots, trans, self); err != nil {
			return err
		}
	}
	sum := &counter{}
	node, err := raft.NewRaft(conf, sum, store, store, snapshots, trans)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Shutdown().Error()) }()
	<-node.LeaderCh()
	for _, n := range numbers {
		if err := node.Apply([]byte(n), time.Second).Error(); err != nil {
			return err
		}
	}
	if err := node.Barrier(time.Second).Error(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, sum.total.Load())
	return err
}

// counter is the state machine.
type counter struct{ total atomic.Int64 }

func (c *counter) Apply(l *raft.Log) any {
	n, err := strconv.ParseInt(string(l.Data), 10, 64)
	if err == nil {
		c.total.Add(n)
	}
	return err
}

func (c *counter) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("the log is never compacted")
}

func (c *counter) Restore(io.ReadCloser) error { return errors.New("there are no snapshots") }
