// Package kv is all of a small key-value program on hashicorp/raft but the
// start of its node, which is what changes when its log moves to another store:
//
//	1-raft-boltdb    the program as it was
//	2-trial          raft-boltdb in use, jsonlstore on trial beside it
//	3-jsonlstore     the program on jsonlstore
//	wal-before       the program on raft-wal
//	wal-after        and then on jsonlstore
//
// docs/swap.md goes through the steps.
package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// applyTimeout bounds the wait for one command, and for the election of the
// only voter.
const applyTimeout = 30 * time.Second

// alone is how long the only node waits for a leader before it becomes one:
// there is nobody else to wait for.
const alone = 50 * time.Millisecond

// Start starts a node whose log is in dir. The store it returns is closed after the
// node is shut down.
type Start func(dir string, fsm raft.FSM) (node *raft.Raft, store io.Closer, err error)

// Main is the program.
func Main(start Start) {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: DIR put KEY VALUE | get KEY | list | snapshot")
		os.Exit(2)
	}
	if err := run(start, os.Args[1], os.Args[2:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		os.Exit(1)
	}
}

// Config is the configuration of the only node.
func Config() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = "kv"
	conf.Logger = hclog.NewNullLogger()
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = alone, alone, alone
	return conf
}

// Transport is the network of a cluster of one.
func Transport() raft.Transport {
	_, transport := raft.NewInmemTransport("kv")
	return transport
}

func run(start Start, dir string, args []string, out io.Writer) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	m := &Machine{values: make(map[string]string)}
	node, store, err := start(dir, m)
	if err != nil {
		return err
	}
	// A store is closed after Raft, which never closes one.
	defer func() { err = errors.Join(err, node.Shutdown().Error(), store.Close()) }()
	self := raft.Configuration{Servers: []raft.Server{{ID: "kv", Address: "kv"}}}
	if err := node.BootstrapCluster(self).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return err // ErrCantBootstrap: it was started before
	}
	select {
	case <-node.LeaderCh():
	case <-time.After(applyTimeout):
		return errors.New("no leader was elected")
	}
	if err := node.Barrier(applyTimeout).Error(); err != nil { // everything in the log is applied
		return err
	}
	return do(node, m, args, out)
}

func do(node *raft.Raft, m *Machine, args []string, out io.Writer) error {
	switch {
	case args[0] == "put" && len(args) == 3:
		command, err := json.Marshal(put{args[1], args[2]})
		if err != nil {
			return err
		}
		return node.Apply(command, applyTimeout).Error()
	case args[0] == "get" && len(args) == 2:
		value, ok := m.Get(args[1])
		if !ok {
			return fmt.Errorf("no value for %q", args[1])
		}
		_, err := fmt.Fprintln(out, value)
		return err
	case args[0] == "list" && len(args) == 1:
		return m.list(out)
	case args[0] == "snapshot" && len(args) == 1:
		return node.Snapshot().Error()
	}
	return fmt.Errorf("no such command: %q", args)
}

// put is the only command there is.
type put struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Machine is the state machine. It is safe for concurrent use.
type Machine struct {
	mu     sync.Mutex
	values map[string]string
}

// Get returns the value of a key.
func (m *Machine) Get(key string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.values[key]
	return value, ok
}

func (m *Machine) list(out io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		if _, err := fmt.Fprintf(out, "%s=%s\n", key, m.values[key]); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements raft.FSM.
func (m *Machine) Apply(l *raft.Log) any {
	var p put
	if err := json.Unmarshal(l.Data, &p); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[p.Key] = p.Value
	return nil
}

// Snapshot implements raft.FSM.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return snapshot(maps.Clone(m.values)), nil
}

// Restore implements raft.FSM.
func (m *Machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	values := make(map[string]string)
	if err := json.NewDecoder(r).Decode(&values); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values = values
	return nil
}

// snapshot is a copy of the values.
type snapshot map[string]string

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
