package jsonlstore

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// StoreLog implements raft.LogStore; see StoreLogs.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore: one write and one sync for all of them.
//
// An error leaves the log as it was. It wraps a *logstore.ContiguityError for
// indexes that do not follow, logstore.ErrTooLarge, what the file system said
// (syscall.ENOSPC and the like: try again when there is room), or
// logstore.ErrFailed when a sync failed and the store must be opened again:
// then, and only then, the entries may be there afterwards or not.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	if err := s.finishCut(); err != nil {
		return err
	}
	cur := s.snap.Load()
	if err := logstore.CheckAppend(cur.last(), logs); err != nil {
		return err
	}
	if len(logs) == 0 {
		return nil
	}
	for _, l := range logs {
		if err := checkSize(l, s.maxEntry); err != nil {
			return err
		}
	}
	next, size, err := s.storeBatch(cur, logs)
	if err != nil {
		return fmt.Errorf("storing log entries %d to %d in %s: %w", logs[0].Index, logs[len(logs)-1].Index, s.logPath(), err)
	}
	if next.commit != cur.commit {
		s.marks = append(s.marks, commitMark{index: next.last(), commit: next.commit})
	}
	if next.base != cur.base {
		s.maxTerm = 0
	}
	for _, l := range logs {
		s.maxTerm = max(s.maxTerm, l.Term)
	}
	s.snap.Store(next)
	measure(s.metrics.storeLogs, start)
	sample(s.metrics.logsPerBatch, len(logs))
	sample(s.metrics.logBatchSize, size)
	return nil
}

// storeBatch has a batch on disk, in the open part or in a new one, and returns what
// the log is then, and how many bytes it took.
func (s *Store) storeBatch(cur *snapshot, logs []*raft.Log) (*snapshot, int, error) {
	if cur.end >= s.sealAt && cur.count > 0 {
		next, size, err := s.storeInNewPart(cur, logs)
		if err == nil || s.failed != nil {
			return next, size, err
		}
		s.logger.Warn("the log's open part cannot be sealed yet and grows further", "file", s.logPath(), "error", err)
		s.sealAt = cur.end + s.partBytes/sealAgain
		if err := removeIfThere(s.fs, indexPath(s.dir, cur.base)); err != nil {
			s.logger.Warn("removing an index file that is not needed", "dir", s.dir, "error", err) // Open will
		}
	}
	next, buf := s.encodeBatch(cur, logs)
	return next, len(buf), s.appendBytes(cur, buf)
}

// encodeBatch returns the lines of a batch, and what the log is once they are
// behind the open part's last one. The commit index stands in the last line: with less than the whole
// batch it is not there.
func (s *Store) encodeBatch(cur *snapshot, logs []*raft.Log) (*snapshot, []byte) {
	next := *cur
	buf := s.buf[:0]
	first, last := logs[0].Index, logs[len(logs)-1].Index
	for _, l := range logs {
		var commit, batch uint64
		if l.Index != first {
			batch = first
		}
		if l.Index == last {
			if c := min(s.staged.Load(), last); c > cur.commit {
				commit, next.commit = c, c
			}
		}
		from := len(buf)
		buf = appendLine(buf, l, commit, batch)
		next.add(l.Index, cur.end+int64(from), cur.end+int64(len(buf)))
		sample(s.metrics.logSize, len(buf)-from)
	}
	if cap(buf) <= keepBufferBytes {
		s.buf = buf
	} else {
		s.buf = nil
	}
	return &next, buf
}

// appendBytes writes behind the last entry and syncs. A write that fails, for want of
// room or otherwise, is taken back, and the log goes on as it was.
func (s *Store) appendBytes(cur *snapshot, buf []byte) error {
	n, err := cur.file.WriteAt(buf, cur.end)
	if err == nil && n < len(buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		if undoErr := s.takeBack(cur); undoErr != nil {
			return s.latch(errors.Join(err, undoErr))
		}
		return err
	}
	if end := cur.end + int64(len(buf)); end > s.size {
		s.size = makeRoom(cur.file, end, s.room)
	}
	if err := cur.file.Sync(); err != nil {
		return s.latch(err)
	}
	return nil
}

// takeBack removes what a failed write may have left behind the log, for good:
// the next batch must find nothing there that could be taken for part of it.
func (s *Store) takeBack(cur *snapshot) error {
	if err := cur.file.Truncate(cur.end); err != nil {
		return err
	}
	s.size = cur.end
	return cur.file.Sync()
}
