package logstore_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func TestTwinIsAStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store {
		return logstore.Twin(logstore.NewMemory(), logstore.NewMemory(), func(m logstore.Mismatch) { t.Errorf("two equal stores differ: %v", m) })
	})
}

// lossy is a store with a fault for each kind of call.
type lossy struct {
	*logstore.Memory
	fault string
}

func (l *lossy) StoreLogs(logs []*raft.Log) error {
	if l.fault == "loses" {
		return l.Memory.StoreLogs(logs[:len(logs)-1])
	}
	return l.Memory.StoreLogs(logs)
}

func (l *lossy) GetLog(index uint64, log *raft.Log) error {
	err := l.Memory.GetLog(index, log)
	if l.fault == "changes" && err == nil {
		log.Data[0] ^= 1
	}
	return err
}

func (l *lossy) Get(key []byte) ([]byte, error) {
	v, err := l.Memory.Get(key)
	if l.fault == "nil" && err != nil {
		return nil, nil
	}
	return v, err
}

func (l *lossy) SetUint64(key []byte, v uint64) error {
	if l.fault == "refuses" {
		return logstore.ErrFailed
	}
	return l.Memory.SetUint64(key, v)
}

func TestTwinReports(t *testing.T) {
	for fault, want := range map[string]string{
		"loses":   "LastIndex(): the one in use answers 3, the one on trial 2",
		"changes": "GetLog(2): the one in use answers entry 2",
		"nil":     `Get("none"): the one in use answers the error: not found`,
		"refuses": `SetUint64("CurrentTerm", 4): the one in use answers success`,
		"":        "",
	} {
		var (
			mu   sync.Mutex
			seen []string
		)
		s := logstore.Twin(logstore.NewMemory(), &lossy{Memory: logstore.NewMemory(), fault: fault}, func(m logstore.Mismatch) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, m.String())
		})
		var logs []*raft.Log
		for i := uint64(1); i <= 3; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: 1, Data: []byte("data")})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		var l raft.Log
		if last, err := s.LastIndex(); last != 3 || err != nil {
			t.Fatalf("LastIndex: %d, %v", last, err)
		}
		if err := s.GetLog(2, &l); err != nil || string(l.Data) != "data" {
			t.Fatalf("GetLog: %v, %v", l, err)
		}
		if _, err := s.Get([]byte("none")); err != logstore.ErrKeyNotFound { //nolint:errorlint // the bare error is the contract
			t.Fatalf("Get: %v", err)
		}
		if err := s.SetUint64([]byte("CurrentTerm"), 4); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		all := strings.Join(seen, "\n")
		if want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("a store that %s: reported %q, want %q", fault, all, want)
		}
	}
}
