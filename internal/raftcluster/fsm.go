package raftcluster

import (
	"encoding/json"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// fsm remembers the commands it was given, in order.
type fsm struct {
	mu       sync.Mutex
	commands []string
}

func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, string(l.Data))
	return len(f.commands)
}

func (f *fsm) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot(f.all()), nil }

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	var commands []string
	if err := json.NewDecoder(r).Decode(&commands); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = commands
	return nil
}

type snapshot []string

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode([]string(s)); err != nil {
		_ = sink.Cancel() // the encoder's error says more
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}
