package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// stateFiles are raft_state.json and its twin, raft_state.json.tmp. A new state
// goes to the twin first and then, once it is on disk there, over the old one in
// place. So at any moment one of the two is whole and on disk, and neither
// changes its length, its blocks or its name: each sync is one write to the
// disk, with no journal of the file system behind it.
//
//	twin     old | torn |  new  |  new  | new
//	state    old |  old |  old  |  torn | new
//	          write   sync   write   sync   return nil
//
// The state file counts whenever it is whole: a twin that differs from it is
// either what was never acknowledged, or older than a state file that somebody
// put there. Only a state file that is not whole, and as long as the twin (no
// crash in the middle of this makes it shorter), is taken from the twin.
type stateFiles struct {
	state vfs.File // nil: not known to be ours and as long as text, so the next one replaces it
	twin  vfs.File // nil: there is none
	text  []byte   // what state holds
}

// writeState has the text in the state file and on disk.
func (s *Store) writeState(text []byte) error {
	f := &s.stateFiles
	text = padState(text, len(f.text))
	if f.state == nil || len(text) != len(f.text) {
		if err := s.replaceStateFile(text); err != nil {
			return err
		}
		return s.reserveTwin()
	}
	if err := s.writeTwin(text); err != nil {
		return err
	}
	if err := writeAll(f.state, text); err != nil {
		// The twin has what is not to be; the old text must be whole and on
		// disk again before anybody is told that nothing has changed.
		undoErr := writeAll(f.state, f.text)
		if undoErr == nil {
			undoErr = f.state.Sync()
		}
		if undoErr != nil {
			return s.latch(errors.Join(err, undoErr))
		}
		return err
	}
	if err := f.state.Sync(); err != nil {
		return s.latch(err)
	}
	f.text = text
	return nil
}

// reserveTwin makes the twin while there is room, so that a disk that fills up
// later does not keep a term or a vote from being written: Raft panics over a term
// that it cannot store. Without room it is left for later, which is no error.
func (s *Store) reserveTwin() error {
	if s.stateFiles.twin != nil || s.stateFiles.state == nil {
		return nil
	}
	if err := s.writeTwin(s.stateFiles.text); err != nil {
		if s.failed != nil {
			return err
		}
		s.logger.Warn("no room for the twin of the state file: a full disk can stop this node", "dir", s.dir, "error", err)
	}
	return nil
}

// adoptState has the state file that Open found be written over in place from now on, if
// it is one of ours and fills its sectors.
func (s *Store) adoptState(l loadedState) error {
	f := &s.stateFiles
	if f.state != nil || l.st == nil || l.st.foreign || len(l.text) == 0 || len(l.text)%statePad != 0 {
		return nil
	}
	file, err := s.fs.OpenReadWrite(s.statePath())
	if err != nil {
		return err
	}
	f.state, f.text = file, l.text
	return nil
}

// writeTwin has the text in the twin and on disk. Until it is there, the state
// file is not touched.
func (s *Store) writeTwin(text []byte) error {
	f := &s.stateFiles
	made := f.twin == nil
	if made {
		file, err := createAnew(s.fs, s.twinPath())
		if err != nil {
			return err
		}
		f.twin = file
	}
	if err := writeAll(f.twin, text); err != nil {
		if made {
			err = errors.Join(err, s.dropTwin())
		}
		return err
	}
	if err := f.twin.Sync(); err != nil {
		return s.latch(err)
	}
	if made {
		if err := s.fs.SyncDir(s.dir); err != nil {
			return s.latch(err)
		}
	}
	return nil
}

// replaceStateFile gives the state file's name to a new file with the text. It is
// the way of the first write, and of a state that has outgrown its sectors.
func (s *Store) replaceStateFile(text []byte) error {
	if err := s.dropTwin(); err != nil {
		return err
	}
	f := &s.stateFiles
	file, err := createAnew(s.fs, s.twinPath())
	if err != nil {
		return err
	}
	f.twin = file
	if err := writeAll(file, text); err != nil {
		return errors.Join(err, s.dropTwin())
	}
	if err := file.Sync(); err != nil {
		return s.latch(err)
	}
	if err := s.fs.Rename(s.twinPath(), s.statePath()); err != nil {
		return errors.Join(err, s.dropTwin())
	}
	s.closeQuietly(f.state)
	f.state, f.twin, f.text = file, nil, text
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.latch(err)
	}
	return nil
}

func createAnew(fsys vfs.FS, name string) (vfs.File, error) {
	if err := removeIfThere(fsys, name); err != nil {
		return nil, err
	}
	return fsys.Create(name, filePerm)
}

func writeAll(file vfs.File, text []byte) error {
	n, err := file.WriteAt(text, 0)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	return err
}

// dropTwin removes the twin. The state file must be whole and on disk.
func (s *Store) dropTwin() error {
	s.closeQuietly(s.stateFiles.twin)
	s.stateFiles.twin = nil
	return removeIfThere(s.fs, s.twinPath())
}

// closeQuietly closes a file that has nothing left to say.
func (s *Store) closeQuietly(file vfs.File) {
	if file == nil {
		return
	}
	if err := file.Close(); err != nil {
		s.logger.Warn("closing a file", "dir", s.dir, "error", err)
	}
}

// closeStateFiles gives the state files up.
func (s *Store) closeStateFiles() {
	f := &s.stateFiles
	s.closeQuietly(f.state)
	s.closeQuietly(f.twin)
	f.state, f.twin = nil, nil
}

// endState removes a twin that is not needed any more.
func (s *Store) endState() {
	if s.failed != nil || s.stateFiles.twin == nil {
		return
	}
	if err := s.dropTwin(); err != nil {
		s.logger.Warn("removing the twin of the state file", "dir", s.dir, "error", err) // Open will
	}
}

// settleState leaves what loadState found in the state file and on disk, and no
// twin that says otherwise.
func (s *Store) settleState(l loadedState) (err error) {
	f := &s.stateFiles
	switch {
	case l.st == nil || l.twinLen == 0:
		return removeIfThere(s.fs, s.twinPath())
	case l.torn:
		s.logger.Warn("a change of the state file was interrupted: it is made once more, from its twin", "file", s.statePath())
		if f.state, err = s.fs.OpenReadWrite(s.statePath()); err != nil {
			return err
		}
		if err := writeAll(f.state, l.text); err != nil {
			return err
		}
		f.text = l.text
		return f.state.Sync()
	case int64(len(l.text)) != l.twinLen:
		return removeIfThere(s.fs, s.twinPath()) // the state file was not being written over
	}
	// If its sync failed, the state file is whole to whoever looks, and not on
	// disk. So it is written once more, as any change is.
	if f.twin, err = s.fs.OpenReadWrite(s.twinPath()); err != nil {
		return err
	}
	if f.state, err = s.fs.OpenReadWrite(s.statePath()); err != nil {
		return err
	}
	f.text = l.text
	return s.writeState(l.text)
}

// loadedState is what the state files say.
type loadedState struct {
	st      *stableState // nil: there is no state file
	text    []byte       // what it stands in
	twinLen int64        // length of the twin, whole or not; 0: there is none
	torn    bool         // the state file is not whole: st and text are the twin's
}

// stateAttempts is how often a state file that is not whole is read again, in
// case a running node was writing it.
const stateAttempts = 4

// loadState reads the state in a directory. It changes nothing, and may run beside a
// store that does. A state file that cannot be believed, with no twin to stand
// in for it, is a *logstore.CorruptionError.
func loadState(fsys vfs.FS, path string) (l loadedState, err error) {
	var before []byte
	for attempt := range stateAttempts {
		text, err := readBounded(fsys, path)
		if err != nil {
			return l, err
		}
		twin, err := readBounded(fsys, path+tempSuffix)
		if err != nil {
			return l, err
		}
		l = loadedState{text: text, twinLen: int64(len(twin))}
		if text == nil {
			return l, nil
		}
		var reason error
		l.st, reason = decodeState(text)
		if reason == nil && !l.st.foreign {
			return l, nil
		}
		// What is left of two states of ours is taken for one of the original's at
		// most; and that is never as long as ours.
		if len(twin) == len(text) {
			if st, err := decodeState(twin); err == nil && !st.foreign {
				l.st, l.text, l.torn = st, twin, true
				return l, nil
			}
		}
		if reason == nil {
			return l, nil
		}
		if attempt > 0 && bytes.Equal(before, text) || attempt == stateAttempts-1 {
			return loadedState{}, &logstore.CorruptionError{File: path, Reason: reason.Error(), Advice: stateAdvice}
		}
		before = text
	}
	return l, err
}

// readBounded reads a file up to a little more than a state may have; nil if there is
// none.
func readBounded(fsys vfs.FS, path string) ([]byte, error) {
	file, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer file.Close() // only read from
	text, err := io.ReadAll(io.NewSectionReader(file, 0, MaxStateBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return text, nil
}

// statePad is what the length of a state file is a multiple of, so that it does
// not change with every digit.
const statePad = vfs.SectorSize

// padState puts blanks before the last newline, for whole sectors and no fewer
// bytes than atLeast, which is such a length or 0.
func padState(text []byte, atLeast int) []byte {
	size := max((len(text)+statePad-1)/statePad*statePad, atLeast)
	if missing := size - len(text); missing > 0 {
		text = append(text[:len(text)-1], bytes.Repeat([]byte{' '}, missing)...)
		text = append(text, '\n')
	}
	return text
}
