package jsonlstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// stableState is what raft_state.json says. It never changes; the writer makes
// a new one and swaps the pointer.
type stableState struct {
	values map[string][]byte
	commit uint64 // commit_index; never above the last index of the log

	// Entries below first are deleted, wherever their lines are; 0: it is not
	// known where the log begins, and whatever is there belongs to it.
	first uint64
	// cut, if not nil, is a cut of the tail that is not finished: entries above
	// *cut are deleted, all of them if it is 0. Nobody changes what it points to.
	cut *uint64

	foreign bool // as the original wrote it, without a checksum
}

// Get implements raft.StableStore. A missing key is logstore.ErrKeyNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, logstore.ErrClosed
	}
	val, ok := s.stable.Load().values[string(key)]
	if !ok {
		return nil, logstore.ErrKeyNotFound
	}
	return append([]byte{}, val...), nil
}

// GetUint64 implements raft.StableStore. A missing key is
// logstore.ErrKeyNotFound.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	if s.closed.Load() {
		return 0, logstore.ErrClosed
	}
	val, ok := s.stable.Load().values[string(key)]
	if !ok {
		return 0, logstore.ErrKeyNotFound
	}
	return logstore.Uint64Value(key, val)
}

// SetUint64 implements raft.StableStore; see Set.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// Set implements raft.StableStore: raft_state.json is replaced as a whole and
// durable when Set returns. A value that is there already is not written
// again.
//
// An error leaves the old value. It wraps logstore.ErrTermDecrease for a
// CurrentTerm below the present one, logstore.ErrTooLarge, what the file
// system said, or logstore.ErrFailed when a sync failed and the store must be
// opened again: then, and only then, either value may be there afterwards.
func (s *Store) Set(key, val []byte) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	cur := s.stable.Load()
	next := &stableState{values: maps.Clone(cur.values), commit: s.snap.Load().commit, first: cur.first, cut: cur.cut}
	if err := logstore.SetStable(next.values, string(key), val); err != nil {
		return err
	}
	if maps.EqualFunc(cur.values, next.values, bytes.Equal) {
		return nil
	}
	return s.replaceState(next)
}

// replaceState writes raft_state.json and lets readers see the new state.
func (s *Store) replaceState(next *stableState) error {
	text := encodeState(next)
	if len(text) > MaxStateBytes {
		return &logstore.TooLargeError{What: s.statePath(), SizeBytes: int64(len(text)), Limit: MaxStateBytes}
	}
	if err := s.writeState(text); err != nil {
		return fmt.Errorf("replacing %s: %w", s.statePath(), err)
	}
	s.stable.Store(next)
	return nil
}

// stateFiles are the state file and the one before it, which waits under the
// temporary name to be written over with the next: a file that is there already
// and as long as before is synced in one write to the disk.
type stateFiles struct {
	current vfs.File // nil: not ours to write over, so the next one replaces it
	spare   vfs.File // nil: there is none
	size    int64    // of the spare
	curSize int64    // of current
}

// writeState gives the text the state file's name once it is on disk. Until then
// the state file is not touched.
func (s *Store) writeState(text []byte) error {
	temp := s.statePath() + tempSuffix
	text = padState(text)
	if err := s.writeSpare(temp, text); err != nil {
		return errors.Join(err, s.dropSpare(temp))
	}
	f := &s.stateFiles
	exchanged := false
	if f.current != nil {
		err := s.fs.Exchange(temp, s.statePath())
		if exchanged = err == nil; !exchanged && !errors.Is(err, errors.ErrUnsupported) {
			return errors.Join(err, s.dropSpare(temp))
		}
	}
	if !exchanged {
		if err := s.fs.Rename(temp, s.statePath()); err != nil {
			return errors.Join(err, s.dropSpare(temp))
		}
		s.closeQuietly(f.current)
		f.current, f.curSize = nil, 0
	}
	f.current, f.spare = f.spare, f.current
	f.curSize, f.size = f.size, f.curSize
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.latch(err)
	}
	return nil
}

// writeSpare has the text on disk under the temporary name.
func (s *Store) writeSpare(temp string, text []byte) error {
	f := &s.stateFiles
	if f.spare != nil && f.size != int64(len(text)) {
		if err := s.dropSpare(temp); err != nil {
			return err
		}
	}
	if f.spare == nil {
		if err := removeIfThere(s.fs, temp); err != nil {
			return err
		}
		file, err := s.fs.Create(temp, filePerm)
		if err != nil {
			return err
		}
		f.spare, f.size = file, int64(len(text))
	}
	n, err := f.spare.WriteAt(text, 0)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	if err := f.spare.Sync(); err != nil {
		return s.latch(err)
	}
	return nil
}

// dropSpare removes the file under the temporary name.
func (s *Store) dropSpare(temp string) error {
	s.closeQuietly(s.stateFiles.spare)
	s.stateFiles.spare, s.stateFiles.size = nil, 0
	return removeIfThere(s.fs, temp)
}

// closeQuietly closes a file that has nothing left to say.
func (s *Store) closeQuietly(file vfs.File) {
	if file == nil {
		return
	}
	if err := file.Close(); err != nil {
		s.logger.Warn("closing a state file", "dir", s.dir, "error", err)
	}
}

// closeStateFiles gives the state files up.
func (s *Store) closeStateFiles() {
	s.closeQuietly(s.stateFiles.current)
	s.stateFiles.current = nil
	if s.stateFiles.spare == nil {
		return
	}
	if err := s.dropSpare(s.statePath() + tempSuffix); err != nil {
		s.logger.Warn("removing a state file that is no longer needed", "dir", s.dir, "error", err) // Open will
	}
}

// statePad is what the length of a state file is a multiple of, so that it does
// not change with every digit.
const statePad = vfs.SectorSize

// padState puts blanks before the last newline.
func padState(text []byte) []byte {
	if missing := statePad - len(text)%statePad; missing < statePad {
		text = append(text[:len(text)-1], blanks[:missing]...)
		text = append(text, '\n')
	}
	return text
}
