// Command raft17 runs a node of hashicorp/raft v1.7 on jsonlstore: a counter of
// the commands that were ever given to it. Its go.mod says how the older raft is kept.
//
//	cd examples/raft17 && go run . DIR one two three
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// timeout bounds the wait for one command, and for the election.
const timeout = 30 * time.Second

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: raft17 DIR [COMMAND...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "raft17:", err)
		os.Exit(1)
	}
}

func run(dir string, commands []string, out io.Writer) (err error) {
	store, err := jsonlstore.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		return err
	}
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "counter", hclog.NewNullLogger()
	address, transport := raft.NewInmemTransport("counter")
	fsm := &counter{}
	node, err := raft.NewRaft(conf, fsm, store, store, snapshots, transport)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Shutdown().Error()) }()
	self := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: address}}}
	if err := node.BootstrapCluster(self).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return err
	}
	select {
	case <-node.LeaderCh():
	case <-time.After(timeout):
		return errors.New("no leader was elected")
	}
	for _, c := range commands {
		if c == "snapshot" {
			err = node.Snapshot().Error()
		} else {
			err = node.Apply([]byte(c), timeout).Error()
		}
		if err != nil {
			return err
		}
	}
	if err := node.Barrier(timeout).Error(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, fsm.count.Load())
	return err
}

// counter is the state machine.
type counter struct{ count atomic.Int64 }

// Apply implements raft.FSM.
func (c *counter) Apply(*raft.Log) any { return c.count.Add(1) }

// Snapshot implements raft.FSM.
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return snapshot(c.count.Load()), nil }

// Restore implements raft.FSM.
func (c *counter) Restore(r io.ReadCloser) error {
	defer r.Close()
	var n int64
	if err := json.NewDecoder(r).Decode(&n); err != nil {
		return err
	}
	c.count.Store(n)
	return nil
}

type snapshot int64

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(int64(s)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
