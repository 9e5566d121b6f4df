package jsonlstore

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// partBytes is how long the open part gets before it is sealed. It is what Open has
// to read, what a cut of the front may leave unused on the disk, and, per 16 MiB
// written, what the four syncs of sealing are spread over.
const partBytes = 16 << 20

// sealAgain is after which fraction of a part sealing is tried again when it failed.
const sealAgain = 16

// storeInNewPart seals the open part and stores the batch in a new one, which has its
// name only when the batch is in it and on disk: so the open part is never empty
// behind a sealed one. Readers go on with the file that they have.
//
//	write the index file, sync            raft_log.N.index
//	write the batch and room, sync        raft_log.jsonl.tmp
//	link raft_log.jsonl, sync of DIR      raft_log.N.jsonl: the same file under two names
//	rename, sync of DIR                   raft_log.jsonl is the new file
//	cut the room off                      raft_log.N.jsonl, at leisure
//
// An error leaves the log as it was; then the batch may still be appended to the
// open part, unless the store is latched.
func (s *Store) storeInNewPart(cur *snapshot, logs []*raft.Log) (next *snapshot, size int, err error) {
	if err := s.noteFirst(cur); err != nil {
		return nil, 0, err
	}
	x := cur.index()
	x.maxTerm = s.maxTerm
	if n := len(s.marks); n > 0 {
		x.mark = s.marks[n-1]
	}
	if synced, err := writeIndex(s.fs, s.dir, x); err != nil {
		if synced {
			err = s.latch(err)
		}
		return nil, 0, err
	}
	sealed := &sealedPart{partHead: x.partHead, path: partPath(s.dir, x.first)}
	fresh := snapshot{first: cur.first, parts: append(slices.Clip(cur.parts), sealed), gen: cur.gen, commit: cur.commit}
	next, buf := s.encodeBatch(&fresh, logs)
	temp := s.logPath() + tempSuffix
	file, end, err := s.writeNewPart(temp, func(file vfs.File) (int64, error) {
		n, err := file.WriteAt(buf, 0)
		if err == nil && n < len(buf) {
			err = io.ErrShortWrite
		}
		return int64(n), err
	})
	if err != nil {
		return nil, 0, err
	}
	if err := s.exchangeOpenPart(temp, sealed.path); err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	next.file = file
	s.size, s.sealAt, s.marks = end, s.partBytes, nil
	s.shelf.put(sealed, &loadedPart{x, cur.file})
	if err := cur.file.Truncate(cur.end); err != nil {
		s.logger.Warn("cutting the room off a sealed part of the log", "part", sealed.path, "error", err) // blanks do no harm
	}
	return next, len(buf), nil
}

// noteFirst has the state file say where the log begins, before there is more than
// one part: then a missing one is noticed, whichever it is.
func (s *Store) noteFirst(cur *snapshot) error {
	stable := s.stable.Load()
	if stable.first > 0 {
		return nil
	}
	changed := *stable
	changed.first, changed.commit = cur.first, cur.commit
	return s.replaceState(&changed)
}

// writeNewPart has a file with what fill writes to it, from its front to the end that
// fill returns, and room behind that on disk.
func (s *Store) writeNewPart(path string, fill func(vfs.File) (end int64, err error)) (file vfs.File, size int64, err error) {
	if err := removeIfThere(s.fs, path); err != nil {
		return nil, 0, err
	}
	if file, err = s.fs.Create(path, filePerm); err != nil {
		return nil, 0, err
	}
	end, err := fill(file)
	if err != nil {
		return nil, 0, errors.Join(err, file.Close(), removeIfThere(s.fs, path))
	}
	size = makeRoom(file, end, s.room)
	if err := file.Sync(); err != nil {
		return nil, 0, errors.Join(s.latch(err), file.Close())
	}
	return file, size, nil
}

// exchangeOpenPart gives the open part a second name, and its first one to the file
// at temp.
func (s *Store) exchangeOpenPart(temp, sealed string) error {
	if err := s.fs.Link(s.logPath(), sealed); err != nil {
		return errors.Join(err, removeIfThere(s.fs, temp))
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.latch(err)
	}
	err := s.replaceOpenPart(temp)
	if err == nil || s.failed != nil {
		return err
	}
	// Should it come back with a crash, it still leads to the open part, and Open
	// removes it again.
	if undoErr := s.fs.Remove(sealed); undoErr != nil {
		return s.latch(errors.Join(err, undoErr))
	}
	return err
}

// replaceOpenPart has the file at temp, which is on disk, be raft_log.jsonl. If it
// fails, the old one still is, or the store is latched.
func (s *Store) replaceOpenPart(temp string) error {
	if err := s.fs.Rename(temp, s.logPath()); err != nil {
		return errors.Join(err, removeIfThere(s.fs, temp))
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		// The new file has the name; nothing more is written to the old one.
		return s.latch(err)
	}
	return nil
}

// maxHeld bounds how many files that have lost their names are open until somebody
// has the time to close them.
const maxHeld = 64

// hold opens a file that is about to lose its name, so that its blocks are not given
// back at that moment, which takes the file system milliseconds, but when the last to
// have it open closes it; see free. nil: nobody has the time for one more, or it
// cannot be opened.
func (s *Store) hold(path string) vfs.File {
	if s.held.Load() >= maxHeld {
		return nil
	}
	file, err := s.fs.Open(path)
	if err != nil {
		return nil // what is done to it next takes longer or says why
	}
	return file
}

// free has a file closed, nil included. Nobody waits for that but Close.
func (s *Store) free(file vfs.File) {
	if file == nil || s.held.Load() >= maxHeld {
		s.closeQuietly(file)
		return
	}
	s.held.Add(1)
	s.freeing.Go(func() {
		defer s.held.Add(-1)
		s.closeQuietly(file)
	})
}

// removePart removes a sealed part that belongs to the log no more. It may be called
// again.
func (s *Store) removePart(p *sealedPart) error {
	s.shelf.drop(p)
	defer s.free(s.hold(p.path))
	for _, path := range []string{indexPath(s.dir, p.first), p.path} {
		if err := removeIfThere(s.fs, path); err != nil {
			return fmt.Errorf("removing a part of the log that is no longer needed: %w", err)
		}
	}
	return nil
}
