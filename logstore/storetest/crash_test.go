package storetest

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// toy is a machine whose disk holds a whole store: each change of it is one
// operation, which a crash leaves out or, for an unsynced one, may take back.
type toy struct {
	disk, synced *logstore.Memory
	ops, crashAt int
	crashed      bool
	defect       string
}

var errPower = errors.New("the power is cut")

func newToy(defect string) func(testing.TB) Machine {
	return func(testing.TB) Machine {
		return &toy{disk: logstore.NewMemory(), synced: logstore.NewMemory(), defect: defect}
	}
}

func (m *toy) Open() (logstore.Store, error) {
	if m.crashed {
		return nil, errPower
	}
	if m.defect == "does not open" && m.ops > 0 {
		return nil, errors.New("no")
	}
	return &toyStore{Memory: m.disk, m: m}, nil
}

func (m *toy) Ops() int      { return m.ops }
func (m *toy) CrashAt(n int) { m.crashAt = m.ops + n }
func (m *toy) Crashed() bool { return m.crashed }

func (m *toy) AfterCrash(seed uint64) Machine {
	from := m.synced
	if seed%2 == 1 {
		from = m.disk
	}
	return &toy{disk: from.Clone(), synced: from.Clone(), ops: m.ops, defect: m.defect}
}

// change does one operation and syncs it, unless the defect is that it does not.
func (m *toy) change(synced bool, do func() error) error {
	if m.ops++; m.ops == m.crashAt {
		m.crashed = true
	}
	if m.crashed {
		return errPower
	}
	err := do()
	if synced {
		m.synced = m.disk.Clone()
	}
	return err
}

// toyStore is open on a toy.
type toyStore struct {
	*logstore.Memory
	m *toy
}

func (s *toyStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *toyStore) StoreLogs(logs []*raft.Log) error {
	return s.m.change(s.m.defect != "entries are not synced", func() error { return s.Memory.StoreLogs(logs) })
}

func (s *toyStore) DeleteRange(from, to uint64) error {
	return s.m.change(true, func() error { return s.Memory.DeleteRange(from, to) })
}

func (s *toyStore) Set(k, v []byte) error {
	return s.m.change(s.m.defect != "votes are not synced", func() error { return s.Memory.Set(k, v) })
}

func (s *toyStore) SetUint64(k []byte, v uint64) error {
	return s.m.change(true, func() error { return s.Memory.SetUint64(k, v) })
}

func (s *toyStore) Close() error { return nil }

// TestRunCrash shows that a store without a defect passes, and one with any
// does not.
func TestRunCrash(t *testing.T) {
	RunCrash(t, newToy(""))
	for _, defect := range []string{"entries are not synced", "votes are not synced", "does not open"} {
		t.Run(defect, func(t *testing.T) {
			RunCrash(t, newToy(defect), Deviation{Check: "PowerCut", Reason: defect}, Deviation{Check: "PowerCutWhileRecovering", Reason: defect})
		})
	}
}
