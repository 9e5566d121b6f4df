package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// lane is one open store and what has been put into it.
type lane struct {
	kind  kind
	dir   string
	store store
	data  payloads
	term  uint64
	first atomic.Uint64
	last  atomic.Uint64 // acknowledged

	conflicts atomic.Uint64 // cuts of the tail that have begun

	logs []*raft.Log // reused from batch to batch: stores must not keep them
}

// openLane opens the store in dir, which it makes if need be.
func openLane(k kind, dir string, data payloads) (*lane, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &lane{kind: k, dir: dir, data: data, term: 1}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lane) open() error {
	s, err := l.kind.open(l.dir)
	if err != nil {
		return fmt.Errorf("opening %s: %w", l.kind.name, err)
	}
	l.store = s
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	l.first.Store(first)
	l.last.Store(last)
	return nil
}

func (l *lane) close() error {
	if l.store == nil {
		return nil
	}
	s := l.store
	l.store = nil
	return s.Close()
}

// appendedAt is when the entry is said to have been appended: Raft's leader
// sets it in each.
func appendedAt(index uint64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(index) * 1_234_567 * time.Nanosecond).UTC() //nolint:gosec // G115: some millions
}

// batch prepares the next n entries.
func (l *lane) batch(n int) []*raft.Log {
	for len(l.logs) < n {
		l.logs = append(l.logs, &raft.Log{Data: make([]byte, l.data.size())})
	}
	next := l.last.Load() + 1
	for i, log := range l.logs[:n] {
		index := next + uint64(i)
		l.data.fill(log.Data, index)
		*log = raft.Log{Index: index, Term: l.term, Type: raft.LogCommand, Data: log.Data, AppendedAt: appendedAt(index)}
	}
	return l.logs[:n]
}

// append stores the next n entries in one call and tells how long that took.
func (l *lane) append(n int) (time.Duration, error) {
	logs := l.batch(n)
	start := time.Now()
	err := l.store.StoreLogs(logs)
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("StoreLogs of %d to %d: %w", logs[0].Index, logs[n-1].Index, err)
	}
	if l.first.Load() == 0 {
		l.first.Store(logs[0].Index)
	}
	l.last.Store(logs[n-1].Index)
	return took, nil
}

// fillTo appends in large batches until there are n entries in all.
func (l *lane) fillTo(n int) error {
	for {
		missing := n - int(l.last.Load()) //nolint:gosec // G115: some millions
		if missing <= 0 {
			return nil
		}
		if _, err := l.append(min(1024, missing)); err != nil {
			return err
		}
	}
}

// delete calls DeleteRange and checks what is left.
func (l *lane) delete(from, to uint64) (time.Duration, error) {
	first, last := l.first.Load(), l.last.Load()
	start := time.Now()
	err := l.store.DeleteRange(from, to)
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("DeleteRange of %d to %d: %w", from, to, err)
	}
	if from <= first {
		first = to + 1
	} else {
		last = from - 1
	}
	l.first.Store(first)
	l.last.Store(last)
	return took, l.checkEnds()
}

func (l *lane) checkEnds() error {
	first, err := l.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.store.LastIndex()
	if err != nil {
		return err
	}
	if first != l.first.Load() || last != l.last.Load() {
		return fmt.Errorf("%s holds %d to %d, want %d to %d", l.kind.name, first, last, l.first.Load(), l.last.Load())
	}
	for _, index := range []uint64{first, last} {
		if err := l.readOne(index); err != nil {
			return err
		}
	}
	return nil
}

// readOne reads and checks one entry.
func (l *lane) readOne(index uint64) error {
	var log raft.Log
	if err := l.store.GetLog(index, &log); err != nil {
		return fmt.Errorf("GetLog of %d: %w", index, err)
	}
	return l.check(&log, index)
}

func (l *lane) check(log *raft.Log, index uint64) error {
	if log.Index != index || log.Type != raft.LogCommand || !log.AppendedAt.Equal(appendedAt(index)) || !l.data.is(log.Data, index) {
		return fmt.Errorf("%s returned a wrong entry for index %d: %+.200v", l.kind.name, index, *log)
	}
	return nil
}
