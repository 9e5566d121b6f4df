package sim

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// snapshots keeps the newest of Raft's snapshots. One that was not closed is
// lost in a crash.
type snapshots struct {
	p      *process
	mu     sync.Mutex
	latest *snapshot // never changed; nil: none
}

type snapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

var _ raft.SnapshotStore = (*snapshots)(nil)

func (s *snapshots) now() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	latest := s.now()
	if latest == nil {
		return nil, nil
	}
	meta := latest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	latest := s.now()
	if latest == nil || latest.meta.ID != id {
		return nil, nil, fmt.Errorf("there is no snapshot %s", id)
	}
	meta := latest.meta
	return &meta, io.NopCloser(bytes.NewReader(latest.data)), nil
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{s: s, snapshot: snapshot{meta: raft.SnapshotMeta{Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex}}}, nil
}

type sink struct {
	s *snapshots
	snapshot
	ended bool
}

func (k *sink) ID() string    { return k.meta.ID }
func (k *sink) Cancel() error { k.ended = true; return nil }

func (k *sink) Write(p []byte) (int, error) {
	k.data = append(k.data, p...)
	k.meta.Size += int64(len(p))
	return len(p), nil
}

func (k *sink) Close() error {
	if k.ended {
		return nil
	}
	k.ended = true
	k.s.p.m.disk.sync(k.s.p)
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.s.latest = &k.snapshot
	return nil
}
