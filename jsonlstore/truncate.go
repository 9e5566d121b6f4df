package jsonlstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// DeleteRange implements raft.LogStore. Cutting the front notes where the log
// begins, removes the sealed parts before that and writes the open part anew if it
// begins earlier; cutting the tail, or everything, shortens a file and removes those
// behind it. A crash leaves the log as it was or as it was to be.
func (s *Store) DeleteRange(minIndex, maxIndex uint64) error {
	defer measure(s.metrics.deleteRange, time.Now())
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	if err := s.finishCut(); err != nil {
		return err
	}
	cur := s.snap.Load()
	cut, err := logstore.CheckDelete(cur.firstIndex(), cur.last(), minIndex, maxIndex)
	if err != nil {
		return err
	}
	switch cut {
	case logstore.CutFront:
		err = s.cutFront(cur, maxIndex+1)
	case logstore.CutTail:
		err = s.cutTail(cur, minIndex-1)
	case logstore.CutAll:
		err = s.cutTail(cur, 0)
	}
	if err == nil {
		err = s.trimOpenPart()
	}
	if err != nil {
		return fmt.Errorf("deleting log entries %d to %d in %s: %w", minIndex, maxIndex, s.logPath(), err)
	}
	return nil
}

// cutFront has the log begin with first. The state file decides; the parts that
// nobody needs then go one by one, and whichever of them a crash leaves is removed
// by Open.
func (s *Store) cutFront(cur *snapshot, first uint64) error {
	changed := *s.stable.Load()
	changed.first, changed.commit = first, cur.commit
	if err := s.replaceState(&changed); err != nil {
		return err
	}
	next := *cur
	next.first = first
	keep := len(cur.parts)
	if first < cur.base {
		keep = cur.partOf(first)
	}
	next.parts = slices.Clone(cur.parts[keep:])
	s.snap.Store(&next)
	s.stale = append(s.stale, cur.parts[:keep]...)
	if err := s.removeStale(); err != nil {
		s.logger.Warn("deleted log entries still take room", "error", err)
	}
	return nil
}

// trimOpenPart has the open part begin where the log does: raft_log.jsonl by itself
// shows no entry that is deleted. What is left of it is written to another file,
// which takes its name:
//
//	write what is left and room, sync     raft_log.jsonl.tmp
//	rename, sync of DIR                   raft_log.jsonl is the new file
//
// The state file says already where the log begins, so a crash loses nothing, and
// Open trims again. So does the next cut, if it fails: only a failed sync is an error.
func (s *Store) trimOpenPart() error {
	cur := s.snap.Load()
	if s.cut != nil || cur.count == 0 || cur.first <= cur.base {
		return nil
	}
	from, _ := cur.span(cur.first)
	temp := s.logPath() + tempSuffix
	file, size, err := s.writeNewPart(temp, func(file vfs.File) (int64, error) {
		return cur.end - from, copyRange(file, cur.file, from, cur.end)
	})
	if err == nil {
		if err = s.replaceOpenPart(temp); err != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if s.failed != nil {
		return err
	}
	if err != nil {
		s.logger.Warn("deleted log entries still stand in the log's open part", "file", s.logPath(), "before", cur.first, "error", err)
		return nil
	}
	s.size, s.sealAt = size, s.partBytes
	s.marks = slices.DeleteFunc(s.marks, func(m commitMark) bool { return m.index < cur.first })
	s.snap.Store(cur.trimmed(from, file))
	s.free(cur.file) // who reads from it and comes too late looks again
	return nil
}

// removeStale removes the parts that have yet to be removed.
func (s *Store) removeStale() error {
	for len(s.stale) > 0 {
		if err := s.removePart(s.stale[0]); err != nil {
			return err
		}
		s.stale = s.stale[1:]
	}
	s.stale = nil
	return nil
}

// cutTail leaves the entries up to last; 0: none.
func (s *Store) cutTail(cur *snapshot, last uint64) error {
	if last < cur.base && (len(cur.parts) > 0 || s.stable.Load().first > 0) {
		return s.cutParts(cur, last)
	}
	next := *cur
	next.gen++
	if last == 0 {
		next.cutOpen(0)
		next.end = 0 // with all blank lines
	} else {
		next.cutOpen(int(last - cur.base + 1))
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

// keepCommit prepares the state file for an open part that is about to shrink to
// next, where marks are: it must never claim more than the log holds, and it takes
// over the commit index if the line that carries it goes.
func (s *Store) keepCommit(next *snapshot, marks []commitMark) error {
	stable := s.stable.Load()
	if max(stable.commit, lastMark(next.parts, marks)) == next.commit {
		return nil
	}
	changed := *stable
	changed.commit = next.commit
	return s.replaceState(&changed)
}

// lastMark returns the commit index that the lines of the log say, given the marks in
// the open part; 0: none.
func lastMark(parts []*sealedPart, marks []commitMark) uint64 {
	if n := len(marks); n > 0 {
		return marks[n-1].commit
	}
	for _, p := range slices.Backward(parts) {
		if p.mark.index > 0 {
			return p.mark.commit
		}
	}
	return 0
}

// pendingCut is a cut of the tail that the state file knows of and that is not
// finished. Until it is, nothing else is written to the log.
type pendingCut struct {
	reopen string // path of the sealed part that becomes the open one; "": the open one stays
	gone   []*sealedPart
}

// cutParts is cutTail for cuts that no single truncation makes: because sealed parts
// go, or because nothing is left and the next entry may have an index that is deleted
// now. The state file decides, and what it says is then carried out, here or by Open:
//
//	state file: cut_after               the entries behind it are deleted
//	truncate, sync                      the part that ends with it now
//	rename it to raft_log.jsonl         in the place of the open part
//	remove the parts behind it, sync of DIR
//	state file: no cut_after
func (s *Store) cutParts(cur *snapshot, last uint64) error {
	next := snapshot{file: cur.file, gen: cur.gen + 1}
	cut, maxTerm := &pendingCut{gone: cur.parts}, s.maxTerm
	if last > 0 {
		n := cur.partOf(last)
		p := cur.parts[n]
		l, err := s.shelf.get(p)
		if err != nil {
			return err
		}
		file, err := s.fs.OpenReadWrite(p.path)
		if err != nil {
			return fmt.Errorf("opening %s: %w", p.path, err)
		}
		next = *cur
		next.gen++
		next.reopen(l.partIndex, file, last)
		next.commit = min(cur.commit, last)
		maxTerm = max(maxTerm, p.maxTerm)
		cut.reopen, cut.gone = p.path, cur.parts[n:]
	}
	changed := *s.stable.Load()
	changed.commit, changed.cut = next.commit, &last
	if last == 0 {
		changed.first = 0
	}
	if err := s.replaceState(&changed); err != nil {
		if next.file != cur.file {
			s.closeQuietly(next.file)
		}
		return err
	}
	s.snap.Store(&next)
	s.cut, s.maxTerm = cut, maxTerm
	s.marks = nil // the state file's commit index is no lower than any that is left
	s.staged.Store(min(s.staged.Load(), last))
	if next.file != cur.file {
		s.closeQuietly(cur.file)
	}
	if err := s.finishCut(); err != nil {
		if s.failed != nil {
			return err
		}
		// It cannot be taken back, and need not: it is as good as done.
		s.logger.Warn("deleted log entries are still there; nothing is written until they are gone", "error", err)
	}
	return nil
}

// finishCut finishes what cutParts has begun. It begins anew after an error.
func (s *Store) finishCut() error {
	if s.cut == nil {
		return nil
	}
	if err := s.carryOut(s.cut); err != nil {
		return fmt.Errorf("finishing the deletion of log entries in %s: %w", s.dir, err)
	}
	s.cut = nil
	return nil
}

func (s *Store) carryOut(cut *pendingCut) error {
	cur := s.snap.Load()
	if err := cur.file.Truncate(cur.end); err != nil {
		return err
	}
	s.size, s.sealAt = cur.end, s.partBytes
	if err := cur.file.Sync(); err != nil {
		return s.latch(err)
	}
	if cut.reopen != "" {
		held := s.hold(s.logPath())
		err := s.fs.Rename(cut.reopen, s.logPath())
		s.free(held)
		if err != nil {
			return err
		}
		cut.reopen = ""
	}
	// Those whose removal failed before, too: soon their indexes may be used again.
	s.stale = append(s.stale, cut.gone...)
	cut.gone = nil
	if err := s.removeStale(); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.latch(err)
	}
	changed := *s.stable.Load()
	changed.cut = nil
	return s.replaceState(&changed)
}
