package jsonlstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// DeleteRange implements raft.LogStore. Cutting the front writes what is left to
// a new file; cutting the tail, or everything, shortens the file. A crash
// leaves the log as it was or as it was to be.
func (s *Store) DeleteRange(minIndex, maxIndex uint64) error {
	defer measure(s.metrics.deleteRange, time.Now())
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	cur := s.snap.Load()
	cut, err := logstore.CheckDelete(cur.firstIndex(), cur.last(), minIndex, maxIndex)
	if err != nil {
		return err
	}
	switch cut {
	case logstore.CutFront:
		err = s.cutFront(cur, maxIndex)
	case logstore.CutTail:
		err = s.cutTail(cur, int(minIndex-cur.first))
	case logstore.CutAll:
		err = s.cutTail(cur, 0)
	}
	if err != nil {
		return fmt.Errorf("deleting log entries %d to %d in %s: %w", minIndex, maxIndex, s.logPath(), err)
	}
	return nil
}

// cutTail leaves the first count entries.
func (s *Store) cutTail(cur *snapshot, count int) error {
	next := *cur
	next.gen++
	next.cutTail(count)
	if count == 0 {
		next.end = 0 // with all blank lines
	}
	marks := s.marks
	for len(marks) > 0 && marks[len(marks)-1].index > next.last() {
		marks = marks[:len(marks)-1]
	}
	next.commit = min(cur.commit, next.last())
	if err := s.keepCommit(&next, marks); err != nil {
		return err
	}

	// Readers are turned away from the tail before its bytes go. If they do not
	// go, they are let in again.
	s.snap.Store(&next)
	if err := cur.file.Truncate(next.end); err != nil {
		back := *cur
		back.gen = next.gen + 1
		s.snap.Store(&back)
		return err
	}
	s.size = next.end
	s.marks = slices.Clip(marks)
	s.staged.Store(min(s.staged.Load(), next.last()))
	if err := cur.file.Sync(); err != nil {
		return s.latch(err)
	}
	return nil
}

// cutFront drops all entries up to index.
func (s *Store) cutFront(cur *snapshot, index uint64) error {
	n := int(index - cur.first + 1)
	marks := s.marks
	for len(marks) > 0 && marks[0].index <= index {
		marks = marks[1:]
	}
	if err := s.keepCommit(cur, marks); err != nil {
		return err
	}
	file, err := s.rewriteLog(cur, cur.offset(n))
	if err != nil {
		return err
	}
	next := *cur
	next.cutFront(n, file)
	s.size = next.end
	s.marks = slices.Clone(marks)
	s.snap.Store(&next)
	// A reader that still has the old file and comes too late starts again
	// with the new one.
	if err := cur.file.Close(); err != nil {
		s.logger.Warn("closing the log file that was replaced", "file", s.logPath(), "error", err)
	}
	return nil
}

// keepCommit prepares the state file for a log that is about to shrink to next:
// it must never claim more than the log holds, and it takes over the commit
// index if the line that carries it goes.
func (s *Store) keepCommit(next *snapshot, marks []commitMark) error {
	stable := s.stable.Load()
	known := stable.commit
	if n := len(marks); n > 0 {
		known = max(known, marks[n-1].commit)
	}
	if known == next.commit {
		return nil
	}
	changed := *stable
	changed.commit = next.commit
	return s.replaceState(&changed)
}

// rewriteLog puts a file that holds what stands in the log from offset on in
// the log's place, and returns it open.
func (s *Store) rewriteLog(cur *snapshot, offset int64) (vfs.File, error) {
	temp := s.logPath() + tempSuffix
	if err := removeIfThere(s.fs, temp); err != nil {
		return nil, err
	}
	file, err := s.fs.Create(temp, filePerm)
	if err != nil {
		return nil, err
	}
	if err := copyRange(file, cur.file, offset, cur.end); err != nil {
		return nil, errors.Join(err, file.Close(), s.fs.Remove(temp))
	}
	if err := file.Sync(); err != nil {
		return nil, errors.Join(s.latch(err), file.Close(), s.fs.Remove(temp))
	}
	if err := s.fs.Rename(temp, s.logPath()); err != nil {
		return nil, errors.Join(err, file.Close(), s.fs.Remove(temp))
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		// The new file has the name, the old one is still read from: both hold
		// what readers may ask for, and nothing more is written.
		return nil, errors.Join(s.latch(err), file.Close())
	}
	return file, nil
}

// copyRange writes the bytes [from, to) of src to the front of dst.
func copyRange(dst vfs.File, src io.ReaderAt, from, to int64) error {
	buf := make([]byte, min(readChunk, to-from))
	for at := int64(0); from < to; {
		n, err := src.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		w, err := dst.WriteAt(buf[:n], at)
		if err == nil && w < n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		from, at = from+int64(n), at+int64(n)
	}
	return nil
}
