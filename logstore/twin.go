package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Mismatch tells of a call that two stores answered differently.
type Mismatch struct {
	Call           string // method and arguments, such as GetLog(7)
	InUse, OnTrial string // the two answers, for people
}

func (m Mismatch) String() string {
	return fmt.Sprintf("%s: the one in use answers %s, the one on trial %s", m.Call, m.InUse, m.OnTrial)
}

// Twin puts a store on trial beside the one in use: every call goes to both,
// the answers are compared, the answer given is that of the store in use.
// report is told each difference; it may be called by many goroutines at once
// and must not call the stores.
//
// Writes keep the two in step, one at a time, the store in use first. A write
// that it refuses is given to the other one, too, which should refuse it. A read
// never overlaps a write, or it would see one store before it and the other after. So a
// Twin costs the time of both, and its readers wait for a sync: a tool for a
// trial, not for production.
//
// Errors are compared by whether there is one, and the ones that Raft compares
// exactly: raft.ErrLogNotFound and ErrKeyNotFound. The commit index is the store in
// use's alone, as few stores keep one. Close closes both.
func Twin(inUse, onTrial Store, report func(Mismatch)) *TwinStore {
	return &TwinStore{Store: inUse, trial: onTrial, report: report}
}

// TwinStore is made by Twin. It is safe for concurrent use.
type TwinStore struct {
	Store // the one in use
	trial Store

	report func(Mismatch)
	mu     sync.RWMutex // for writing by whoever changes both
}

var _ Store = (*TwinStore)(nil)

// answer is what a call came to, in a form that can be compared and shown.
type answer struct {
	value string
	err   error
}

func (a answer) String() string {
	if a.err != nil {
		return "the error: " + a.err.Error()
	}
	if a.value == "" {
		return "success"
	}
	return a.value
}

func (a answer) same(b answer) bool {
	for _, exact := range []error{raft.ErrLogNotFound, ErrKeyNotFound} {
		if (a.err == exact) != (b.err == exact) { //nolint:errorlint // Raft compares these by identity or text
			return false
		}
	}
	return (a.err == nil) == (b.err == nil) && (a.err != nil || a.value == b.value)
}

// read compares one read.
func (t *TwinStore) read(call string, ask func(Store) answer) {
	t.mu.RLock()
	a, b := ask(t.Store), ask(t.trial)
	t.mu.RUnlock()
	if !a.same(b) {
		t.report(Mismatch{Call: call, InUse: a.String(), OnTrial: b.String()})
	}
}

// write makes one change in both.
func (t *TwinStore) write(call string, do func(Store) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := do(t.Store)
	a, b := answer{err: err}, answer{err: do(t.trial)}
	if !a.same(b) {
		t.report(Mismatch{Call: call, InUse: a.String(), OnTrial: b.String()})
	}
	return err
}

// FirstIndex implements raft.LogStore.
func (t *TwinStore) FirstIndex() (index uint64, err error) {
	t.read("FirstIndex()", t.number(&index, &err, Store.FirstIndex))
	return index, err
}

// LastIndex implements raft.LogStore.
func (t *TwinStore) LastIndex() (index uint64, err error) {
	t.read("LastIndex()", t.number(&index, &err, Store.LastIndex))
	return index, err
}

// number asks for a number and keeps what the store in use says.
func (t *TwinStore) number(n *uint64, failed *error, ask func(Store) (uint64, error)) func(Store) answer {
	return func(s Store) answer {
		v, err := ask(s)
		if s == t.Store {
			*n, *failed = v, err
		}
		return answer{value: fmt.Sprint(v), err: err}
	}
}

// GetLog implements raft.LogStore.
func (t *TwinStore) GetLog(index uint64, log *raft.Log) (err error) {
	t.read(fmt.Sprintf("GetLog(%d)", index), func(s Store) answer {
		var l raft.Log
		e := s.GetLog(index, &l)
		if s == t.Store {
			if err = e; e == nil {
				*log = l
			}
		}
		return answer{value: describe(&l), err: e}
	})
	return err
}

// describe tells an entry so that two are equal if and only if their
// descriptions are; nil bytes and empty ones are the same.
func describe(l *raft.Log) string {
	return fmt.Sprintf("entry %d of term %d, %v, data %q, extensions %q, appended %d",
		l.Index, l.Term, l.Type, l.Data, l.Extensions, l.AppendedAt.UnixNano())
}

// StoreLog implements raft.LogStore.
func (t *TwinStore) StoreLog(log *raft.Log) error { return t.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (t *TwinStore) StoreLogs(logs []*raft.Log) error {
	call := "StoreLogs()"
	if n := len(logs); n > 0 && logs[0] != nil && logs[n-1] != nil {
		call = fmt.Sprintf("StoreLogs(%d to %d)", logs[0].Index, logs[n-1].Index)
	}
	return t.write(call, func(s Store) error { return s.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (t *TwinStore) DeleteRange(minIndex, maxIndex uint64) error {
	return t.write(fmt.Sprintf("DeleteRange(%d, %d)", minIndex, maxIndex), func(s Store) error { return s.DeleteRange(minIndex, maxIndex) })
}

// Set implements raft.StableStore.
func (t *TwinStore) Set(key, value []byte) error {
	return t.write(fmt.Sprintf("Set(%q)", key), func(s Store) error { return s.Set(key, bytes.Clone(value)) })
}

// SetUint64 implements raft.StableStore.
func (t *TwinStore) SetUint64(key []byte, value uint64) error {
	return t.write(fmt.Sprintf("SetUint64(%q, %d)", key, value), func(s Store) error { return s.SetUint64(key, value) })
}

// Get implements raft.StableStore.
func (t *TwinStore) Get(key []byte) (value []byte, err error) {
	t.read(fmt.Sprintf("Get(%q)", key), func(s Store) answer {
		v, e := s.Get(key)
		if s == t.Store {
			value, err = v, e
		}
		return answer{value: fmt.Sprintf("%q", v), err: e}
	})
	return value, err
}

// GetUint64 implements raft.StableStore.
func (t *TwinStore) GetUint64(key []byte) (value uint64, err error) {
	t.read(fmt.Sprintf("GetUint64(%q)", key), t.number(&value, &err, func(s Store) (uint64, error) { return s.GetUint64(key) }))
	return value, err
}

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (t *TwinStore) StageCommitIndex(index uint64) error {
	return t.write(fmt.Sprintf("StageCommitIndex(%d)", index), func(s Store) error { return s.StageCommitIndex(index) })
}

// WriteInFlight implements Store: the earlier of the two, as either keeps the
// caller waiting.
func (t *TwinStore) WriteInFlight() time.Time {
	a, b := t.Store.WriteInFlight(), t.trial.WriteInFlight()
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Close implements Store.
func (t *TwinStore) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.Store.Close(), t.trial.Close())
}
