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
		at, err := s.place(snap, index)
		if errors.Is(err, fs.ErrClosed) || errors.Is(err, fs.ErrNotExist) && s.snap.Load() != snap {
			continue // the part was removed, or the store was closed
		}
		if err != nil {
			return fmt.Errorf("reading log entry %d: %w", index, err)
		}
		buf := lineBuffers.Get().(*lineBuffer) //nolint:forcetypeassert // nothing else is in it
		text, err := buf.line(at, snap.gen)
		if errors.Is(err, fs.ErrClosed) {
			giveBack(buf)
			continue // the entry is read from another file now, or the store was closed
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
			return fmt.Errorf("reading log entry %d from %s: %w", index, s.pathOf(at), err)
		}
		err = parseEntry(text, index, log)
		if err == nil {
			giveBack(buf)
			return nil
		}
		buf.file = nil
		giveBack(buf)
		if at.part != nil && s.shelf.lookAgain(at.part, at.loaded) {
			continue
		}
		return s.damageAt(at, index, err)
	}
}

// place says where the line of an entry is.
type place struct {
	file     vfs.File
	from, to int64
	limit    int64 // behind the last entry in the file

	part   *sealedPart // nil: it is the open one
	loaded *loadedPart
}

func (s *Store) place(snap *snapshot, index uint64) (at place, err error) {
	if index >= snap.base {
		at.file, at.limit = snap.file, snap.end
		at.from, at.to = snap.span(index)
		return at, nil
	}
	at.part = snap.parts[snap.partOf(index)]
	if at.loaded, err = s.shelf.get(at.part); err != nil {
		return at, err
	}
	at.file, at.limit = at.loaded.file, at.loaded.bytes
	at.from, at.to = at.loaded.span(index)
	return at, nil
}

func (s *Store) pathOf(at place) string {
	if at.part != nil {
		return at.part.path
	}
	return s.logPath()
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

// line returns the bytes of a line, whose file has not changed since gen; good until
// the next call. With an error it may be fewer.
func (b *lineBuffer) line(at place, gen uint64) ([]byte, error) {
	same := b.file == at.file && b.gen == gen
	goesOn := same && at.from == b.next
	b.next = at.to
	if same && at.from >= b.from && at.to <= b.from+int64(len(b.bytes)) {
		return b.bytes[at.from-b.from : at.to-b.from], nil
	}
	size := int(at.to - at.from)
	if goesOn {
		size = max(size, int(min(at.limit-at.from, readAheadBytes)))
	}
	if cap(b.bytes) < size {
		b.bytes = make([]byte, size, size+size/2)
	}
	n, err := at.file.ReadAt(b.bytes[:size], at.from)
	b.bytes, b.file, b.gen, b.from = b.bytes[:n], at.file, gen, at.from
	if err != nil {
		b.file = nil
	}
	if n >= int(at.to-at.from) {
		return b.bytes[:at.to-at.from], nil
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
func (s *Store) damageAt(at place, index uint64, reason error) error {
	return &logstore.CorruptionError{
		File: s.pathOf(at), Line: lineAt(at.file, at.from), Offset: at.from, Index: index,
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
