package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	if s.closed.Load() {
		return 0, logstore.ErrClosed
	}
	return s.snap.Load().firstIndex(), nil
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	if s.closed.Load() {
		return 0, logstore.ErrClosed
	}
	return s.snap.Load().last(), nil
}

// IsMonotonic implements raft.MonotonicLogStore: gaps are refused.
func (s *Store) IsMonotonic() bool { return true }

// StageCommitIndex implements raft.CommitTrackingLogStore. It does not wait for
// a write in progress.
func (s *Store) StageCommitIndex(index uint64) error {
	if s.closed.Load() {
		return logstore.ErrClosed
	}
	s.staged.Store(index)
	return nil
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (s *Store) GetCommitIndex() (uint64, error) {
	if s.closed.Load() {
		return 0, logstore.ErrClosed
	}
	return s.snap.Load().commit, nil
}

// GetLog implements raft.LogStore. Every read checks the line it finds; damage
// is an error that wraps logstore.ErrCorrupt. A disk that cannot be read is an
// error of that one read.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	defer measure(s.metrics.getLog, time.Now())
	for {
		if s.closed.Load() {
			return logstore.ErrClosed
		}
		snap := s.snap.Load()
		if !snap.holds(index) {
			return raft.ErrLogNotFound
		}
		from, to := snap.span(index)
		buf := lineBuffers.Get().(*lineBuffer) //nolint:forcetypeassert // nothing else is in it
		text, err := buf.line(snap, from, to)
		if errors.Is(err, fs.ErrClosed) {
			giveBack(buf)
			continue // the log moved to another file, or the store was closed
		}
		// What was read counts only if the tail was not cut meanwhile: the
		// bytes may be those of a later batch, not synced yet.
		if s.snap.Load().gen != snap.gen {
			buf.file = nil
			giveBack(buf)
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			giveBack(buf)
			return fmt.Errorf("reading log entry %d from %s: %w", index, s.logPath(), err)
		}
		err = parseEntry(text, index, log)
		giveBack(buf)
		if err != nil {
			return s.damageAt(snap.file, from, index, err)
		}
		return nil
	}
}

// lineBuffer holds bytes of a log file. What lies before the end of a snapshot does
// not change as long as file and gen stay the same, so it may serve
// later reads, too: whoever reads entry after entry has them read ahead.
type lineBuffer struct {
	bytes []byte
	file  vfs.File // nil: the bytes are no longer worth anything
	gen   uint64
	from  int64 // of the bytes in the file
	next  int64 // where the last line ended
}

// readAheadBytes is how much is read at a time for a reader who goes through
// the log.
const readAheadBytes = 16 << 10

// line returns the bytes [from, to) of the log; good until the next call. With
// an error it may be fewer.
func (b *lineBuffer) line(snap *snapshot, from, to int64) ([]byte, error) {
	same := b.file == snap.file && b.gen == snap.gen
	goesOn := same && from == b.next
	b.next = to
	if same && from >= b.from && to <= b.from+int64(len(b.bytes)) {
		return b.bytes[from-b.from : to-b.from], nil
	}
	size := int(to - from)
	if goesOn {
		size = max(size, int(min(snap.end-from, readAheadBytes)))
	}
	if cap(b.bytes) < size {
		b.bytes = make([]byte, size, size+size/2)
	}
	n, err := snap.file.ReadAt(b.bytes[:size], from)
	b.bytes, b.file, b.gen, b.from = b.bytes[:n], snap.file, snap.gen, from
	if err != nil {
		b.file = nil
	}
	if n >= int(to-from) {
		return b.bytes[:to-from], nil
	}
	return b.bytes, err
}

// lineBuffers lets a read allocate nothing but the entry's own bytes.
var lineBuffers = sync.Pool{New: func() any { return new(lineBuffer) }}

// keepLineBytes bounds the buffers in lineBuffers.
const keepLineBytes = 256 << 10

func giveBack(b *lineBuffer) {
	if cap(b.bytes) <= keepLineBytes {
		lineBuffers.Put(b)
	}
}

// parseEntry reads the line of the entry that must have the given index.
func parseEntry(text []byte, index uint64, log *raft.Log) error {
	if p, ok := parseWritten(text); ok && p.index == index && p.entry(log) {
		return nil
	}
	p, err := parseLine(text)
	if err != nil {
		return err
	}
	if p.index != index {
		return &logstore.ContiguityError{Expected: index, Given: p.index}
	}
	return p.fill(log)
}

// damageAt names the place of a line that has turned out to be damaged.
func (s *Store) damageAt(file vfs.File, offset int64, index uint64, reason error) error {
	return &logstore.CorruptionError{
		File: s.logPath(), Line: lineAt(file, offset), Offset: offset, Index: index,
		Reason: reason.Error(), Advice: logAdvice,
	}
}

// lineAt returns the number of the line that begins at offset, 0 if the file
// cannot be read up to there. It reads all that: for error messages only.
func lineAt(r io.ReaderAt, offset int64) int {
	number := 1
	buf := make([]byte, 64<<10)
	for at := int64(0); at < offset; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), offset-at)], at)
		if n == 0 && err != nil {
			return 0
		}
		number += bytes.Count(buf[:n], []byte{'\n'})
		at += int64(n)
	}
	return number
}
