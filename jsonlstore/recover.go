package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// deriveState stands in for a state file that is not there, beside a log whose
// entries reach up to maxTerm.
//
// A new directory has neither, and starts from nothing. A log without a state
// (the original's trimmed_front, or a file copied by itself) shows that its
// last term had a leader, and not for whom this node voted in it. So the term
// does not start from zero and the vote of that term counts as used up: nobody
// gets a second one. Votes of higher terms, if there were any, are beyond
// knowing; that is why losing raft_state.json is never harmless, and why the
// store always writes it before the first entry.
func deriveState(maxTerm uint64) *stableState {
	st := &stableState{values: make(map[string][]byte)}
	if maxTerm > 0 {
		putUint64(st.values, logstore.KeyCurrentTerm, maxTerm)
		putUint64(st.values, logstore.KeyLastVoteTerm, maxTerm)
		st.values[logstore.KeyLastVoteCand] = nobody
	}
	return st
}

// compare holds the two files against each other.
func (op *opening) compare() error {
	s, last := op.s, op.log.last()
	if op.state == nil {
		op.state, op.newState = deriveState(op.maxTerm), true
		if op.maxTerm > 0 {
			s.logger.Warn("a log without a state file: the term is taken from the log, its vote counts as used up",
				"file", s.statePath(), "term", op.maxTerm)
		}
	}
	if op.state.commit > last {
		// Ours is lowered before the log is cut. The original's may be older
		// than its log.
		if !op.state.foreign {
			return commitBeyondLog(op.openAt, op.scan.lines, op.log.end, last, op.state.commit)
		}
		op.state.commit = last
	}
	op.log.commit = max(op.state.commit, lastMark(op.log.parts, s.marks))
	return nil
}

// recover is the first step that changes files: it removes what a crash left
// unfinished, and makes durable what it found.
func (op *opening) recover() error {
	s := op.s
	if op.torn != nil {
		s.logger.Warn("cutting off a write that never finished", "file", s.logPath(),
			"line", op.torn.Line, "offset", op.torn.Offset, "bytes", op.torn.Bytes, "reason", op.torn.Reason)
	}
	// What the state file says must be on disk before anything goes because of it.
	if err := s.settleState(op.loaded); err != nil {
		return op.unwritable(err)
	}
	if len(op.useless) > 0 || op.cutting() {
		if err := s.fs.SyncDir(s.dir); err != nil {
			return op.unwritable(err)
		}
	}
	for _, path := range append(op.useless, s.logPath()+tempSuffix) {
		if err := removeIfThere(s.fs, path); err != nil {
			return op.unwritable(err)
		}
	}
	if err := op.repairTail(); err != nil {
		return fmt.Errorf("recovering %s: %w", op.openAt, err)
	}
	if op.openAt != s.logPath() {
		if err := s.fs.Rename(op.openAt, s.logPath()); err != nil {
			return op.unwritable(err)
		}
	}
	if err := op.tidyParts(); err != nil {
		return op.unwritable(err)
	}
	// The names, too: a rename may have been the last thing before the crash.
	if err := s.fs.SyncDir(s.dir); err != nil {
		return op.unwritable(err)
	}
	return nil
}

// repairTail leaves the file ending with its last good line, or the room behind
// it, on disk.
func (op *opening) repairTail() error {
	// Also when there is nothing behind it, for the reason that
	// rewriteLastBatch gives: the last thing a store did may have been a cut
	// whose sync failed. Then there is no room behind it, which stands only
	// where a batch was written since.
	if op.s.size == op.log.end {
		if err := op.file.Truncate(op.log.end); err != nil {
			return err
		}
	}
	if !op.cutting() { // what a cut leaves was not written lately
		if err := op.rewriteLastBatch(); err != nil {
			return err
		}
	}
	if op.scan.unended {
		if _, err := op.file.WriteAt([]byte{'\n'}, op.log.end); err != nil {
			return err
		}
		op.log.end++
		op.s.size++
	}
	if err := op.file.Chmod(filePerm); err != nil {
		return err
	}
	return op.file.Sync()
}

// rewriteLastBatch writes the last batch once more where it stands. If its sync
// failed before the store was closed, the kernel may show it and yet believe
// that there is nothing left to be written; these writes make it believe
// otherwise, so that the sync that follows means what it says. The bytes are
// the same, so a crash in between changes nothing. No earlier batch can be in
// that state: a failed sync is the last thing a store does.
func (op *opening) rewriteLastBatch() error {
	buf := make([]byte, min(readChunk, op.log.end-op.scan.batchAt))
	for at := op.scan.batchAt; at < op.log.end; {
		n, err := op.file.ReadAt(buf[:min(int64(len(buf)), op.log.end-at)], at)
		if n == 0 {
			return err
		}
		if _, err := op.file.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// finishState makes sure that there is a state file, so that a missing one
// later means that it was lost, and that it knows of no unfinished cut any more.
func (op *opening) finishState() error {
	if op.newState || op.cutting() {
		op.state.cut = nil
		if err := op.s.writeState(encodeState(op.state)); err != nil {
			return op.unwritable(err)
		}
	}
	if err := op.s.adoptState(op.loaded); err != nil {
		return op.unwritable(err)
	}
	if err := op.s.reserveTwin(); err != nil {
		return op.unwritable(err)
	}
	op.s.stable.Store(op.state)
	return nil
}

func removeIfThere(fsys vfs.FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
