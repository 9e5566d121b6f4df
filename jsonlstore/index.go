package jsonlstore

import (
	"slices"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// chunkLen is how many offsets a chunk of the index holds.
const chunkLen = 1 << 12

type chunk [chunkLen]int64

// snapshot is what a reader sees of the log: which entries there are, in which
// file, and where. It never changes. The writer makes a new one for every
// change and swaps the pointer, so that readers need no lock and never wait for
// the disk.
//
// Neighbouring snapshots share chunks. A chunk's places are filled once and for
// all; only the writer fills them, always behind count, where no reader looks.
type snapshot struct {
	file   vfs.File
	gen    uint64 // counts the changes that make offsets of older snapshots stale
	first  uint64 // index of the first entry, if count > 0
	count  int
	skip   int   // places at the front of chunks that belong to deleted entries
	shift  int64 // to be subtracted from every offset in chunks
	end    int64 // behind the last entry
	commit uint64
	chunks []*chunk
}

func (s *snapshot) last() uint64 {
	if s.count == 0 {
		return 0
	}
	return s.first + uint64(s.count) - 1
}

func (s *snapshot) firstIndex() uint64 {
	if s.count == 0 {
		return 0
	}
	return s.first
}

func (s *snapshot) holds(index uint64) bool {
	return s.count > 0 && index >= s.first && index <= s.last()
}

// offset returns where the entry begins that is n places behind the first; n
// may be count: the end.
func (s *snapshot) offset(n int) int64 {
	if n == s.count {
		return s.end
	}
	n += s.skip
	return s.chunks[n/chunkLen][n%chunkLen] - s.shift
}

// span returns where the line of an entry that s holds begins and ends.
func (s *snapshot) span(index uint64) (from, to int64) {
	n := int(index - s.first)
	return s.offset(n), s.offset(n + 1)
}

// add fills the place behind the last entry. Only on a snapshot that nobody
// else has seen yet.
func (s *snapshot) add(index uint64, offset, end int64) {
	if s.count == 0 {
		s.first, s.skip, s.shift, s.chunks = index, 0, 0, nil
	}
	n := s.skip + s.count
	if n/chunkLen == len(s.chunks) {
		// Never in place: older snapshots share the array behind the slice.
		s.chunks = append(slices.Clip(s.chunks), new(chunk))
	}
	s.chunks[n/chunkLen][n%chunkLen] = offset + s.shift
	s.count++
	s.end = end
}

// cutTail drops the last entries until count are left. The places it frees
// will be filled again, so the last chunk is copied for those who still read
// the old one.
func (s *snapshot) cutTail(count int) {
	end := s.offset(count)
	s.count, s.end = count, end
	if count == 0 {
		s.first, s.skip, s.shift, s.chunks = 0, 0, 0, nil
		return
	}
	n := s.skip + count
	s.chunks = slices.Clone(s.chunks[:(n+chunkLen-1)/chunkLen])
	if n%chunkLen != 0 {
		last := *s.chunks[len(s.chunks)-1]
		s.chunks[len(s.chunks)-1] = &last
	}
}

// cutFront drops the first n entries; the rest has moved to the front of
// another file.
func (s *snapshot) cutFront(n int, file vfs.File) {
	moved := s.offset(n)
	s.file = file
	s.first += uint64(n)
	s.count -= n
	s.skip += n
	s.shift += moved
	s.end -= moved
	gone := s.skip / chunkLen
	s.chunks = slices.Clone(s.chunks[gone:])
	s.skip -= gone * chunkLen
}
