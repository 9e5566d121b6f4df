package walstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/boltstore"
)

// ErrNotWAL is wrapped when a directory is not one of raft-wal.
var ErrNotWAL = errors.New("not a directory of raft-wal")

// Source reads a directory without changing it. While it is open no raft-wal
// can open the directory. It is safe for concurrent use.
type Source struct {
	dir         string
	meta        *boltstore.Database
	segments    []types.SegmentInfo // with MaxIndex set for all; those without entries left out
	first, last uint64
	torn        string
}

var _ logstore.Source = (*Source)(nil)

// OpenSource opens a directory and checks everything in it. Errors wrap
// *logstore.InUseError if a raft-wal has the directory open, ErrNotWAL,
// fs.ErrNotExist, or logstore.ErrCorrupt.
func OpenSource(dir string) (*Source, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w: it is no directory", dir, ErrNotWAL)
	}
	meta, err := boltstore.OpenDatabase(filepath.Join(dir, metadb.FileName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w: it has no %s", dir, ErrNotWAL, metadb.FileName)
	case errors.Is(err, logstore.ErrInUse):
		return nil, &logstore.InUseError{Dir: dir}
	case err != nil:
		return nil, err
	}
	s := &Source{dir: dir, meta: meta}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return s, nil
}

func (s *Source) load() error {
	raw, err := s.meta.Get(metadb.MetaBucket, []byte(metadb.MetaKey))
	if err != nil {
		return err
	}
	var state types.PersistentState
	if raw != nil {
		if err := json.Unmarshal(raw, &state); err != nil {
			return damaged(s.meta.Path(), 0, "its list of segments cannot be read: "+err.Error())
		}
	}
	for i, info := range state.Segments {
		if err := s.add(info, i == len(state.Segments)-1); err != nil {
			return err
		}
	}
	if n := len(s.segments); n > 0 {
		s.first, s.last = s.segments[0].MinIndex, s.segments[n-1].MaxIndex
	}
	return nil
}

// add checks a segment and enters it in the list if it holds anything.
func (s *Source) add(info types.SegmentInfo, isLast bool) error {
	path := s.path(info)
	if info.Codec != (&wal.BinaryCodec{}).ID() {
		return fmt.Errorf("%s is written with codec %d: only raft-wal's own can be read", path, info.Codec)
	}
	sealed := !info.SealTime.IsZero()
	if !sealed && !isLast {
		return damaged(s.meta.Path(), 0, fmt.Sprintf("segment %s is not sealed and not the last one", filepath.Base(path)))
	}
	end, err := walkSegment(path, info, func(batch) error { return nil })
	switch {
	case errors.Is(err, fs.ErrNotExist) && !sealed:
		return nil // entered in the list before it is made
	case errors.Is(err, fs.ErrNotExist):
		return damaged(path, 0, "it is missing")
	case err != nil:
		return err
	}
	if sealed {
		if end.next <= info.MaxIndex {
			return damaged(path, end.offset, fmt.Sprintf("it ends before entry %d, and should reach to %d", end.next, info.MaxIndex))
		}
	} else {
		info.MaxIndex = end.next - 1
		if end.junk {
			s.torn = fmt.Sprintf("%s: what follows byte offset %d, behind entry %d, was taken for a write that a crash interrupted", path, end.offset, info.MaxIndex)
		}
	}
	info.MinIndex = max(info.MinIndex, info.BaseIndex)
	if info.MaxIndex < info.MinIndex {
		return nil
	}
	if n := len(s.segments); n > 0 && s.segments[n-1].MaxIndex+1 != info.MinIndex {
		return damaged(s.meta.Path(), 0, fmt.Sprintf("the segments have a hole between entries %d and %d", s.segments[n-1].MaxIndex, info.MinIndex))
	}
	s.segments = append(s.segments, info)
	return nil
}

func (s *Source) path(info types.SegmentInfo) string {
	return filepath.Join(s.dir, segment.FileName(info))
}

// Torn describes what was left out as a write that a crash interrupted; "": nothing.
func (s *Source) Torn() string { return s.torn }

// FirstIndex implements logstore.Source.
func (s *Source) FirstIndex() (uint64, error) { return s.first, nil }

// LastIndex implements logstore.Source.
func (s *Source) LastIndex() (uint64, error) { return s.last, nil }

// GetLog implements logstore.Source. It walks to the entry; Each is the way to
// read many.
func (s *Source) GetLog(index uint64, log *raft.Log) error {
	if s.last == 0 || index < s.first || index > s.last {
		return raft.ErrLogNotFound
	}
	return s.Each(index, func(l *raft.Log) bool {
		*log = *l
		return false
	})
}

var errStop = errors.New("stop")

// Each calls yield with every entry from index on, in order, until yield
// returns false. The entry belongs to the caller.
func (s *Source) Each(index uint64, yield func(*raft.Log) bool) error {
	codec := &wal.BinaryCodec{}
	for _, info := range s.segments {
		if info.MaxIndex < index {
			continue
		}
		path := s.path(info)
		_, err := walkSegment(path, info, func(b batch) error {
			for i, frame := range b.frames {
				at := b.first + uint64(i)
				if at < max(index, info.MinIndex) {
					continue
				}
				if at > info.MaxIndex {
					return errStop
				}
				l := new(raft.Log)
				if err := codec.Decode(frame, l); err != nil {
					return damaged(path, 0, fmt.Sprintf("entry %d cannot be decoded: %v", at, err))
				}
				if l.Index != at {
					return damaged(path, 0, fmt.Sprintf("in the place of entry %d stands entry %d", at, l.Index))
				}
				if !yield(l) {
					index = 0
					return errStop
				}
			}
			return nil
		})
		switch {
		case errors.Is(err, errStop) && index == 0:
			return nil
		case err != nil && !errors.Is(err, errStop):
			return err
		}
		index = info.MaxIndex + 1
	}
	return nil
}

// Get implements logstore.Source.
func (s *Source) Get(key []byte) ([]byte, error) {
	value, err := s.meta.Get(metadb.StableBucket, key)
	if err == nil && value == nil {
		return nil, logstore.ErrKeyNotFound
	}
	return swapNumber(key, value), err
}

// Keys implements logstore.Source.
func (s *Source) Keys() ([][]byte, error) { return s.meta.Keys(metadb.StableBucket) }

// Close lets raft-wal open the directory again.
func (s *Source) Close() error { return s.meta.Close() }

// swapNumber turns the bytes of Raft's two numbers around.
func swapNumber(key, value []byte) []byte {
	if k := string(key); k != logstore.KeyCurrentTerm && k != logstore.KeyLastVoteTerm || len(value) != 8 {
		return value
	}
	swapped := bytes.Clone(value)
	for i := range value {
		swapped[i] = value[len(value)-1-i]
	}
	return swapped
}
