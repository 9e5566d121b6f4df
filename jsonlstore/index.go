package jsonlstore

import (
	"cmp"
	"slices"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// chunkLen is how many offsets a chunk of the index holds.
const chunkLen = 1 << 12

type chunk [chunkLen]int64

// snapshot is what a reader sees of the log: which entries there are, in which
// files, and where. It never changes. The writer makes a new one for every
// change and swaps the pointer, so that readers need no lock and never wait for
// the disk.
//
// Neighbouring snapshots share chunks. A chunk's places are filled once and for
// all; only the writer fills them, always behind count, where no reader looks.
type snapshot struct {
	first  uint64        // index of the first entry, if count > 0; before it, there may be deleted ones in the part that holds it
	parts  []*sealedPart // in order; they end where the open part begins
	gen    uint64        // counts the changes that make offsets of older snapshots stale
	commit uint64

	// The open part. It holds an entry if the log does.
	file   vfs.File
	base   uint64 // index of its first entry, if count > 0
	count  int
	end    int64 // behind its last entry
	chunks []*chunk
}

func (s *snapshot) last() uint64 {
	if s.count == 0 {
		return 0
	}
	return s.base + uint64(s.count) - 1
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

// partOf returns which of the sealed parts holds an entry that is in s and below
// base.
func (s *snapshot) partOf(index uint64) int {
	n, found := slices.BinarySearchFunc(s.parts, index, func(p *sealedPart, index uint64) int { return cmp.Compare(p.first, index) })
	if !found {
		n--
	}
	return n
}

// offset returns where the entry begins that is n places behind the first of the
// open part; n may be count: the end.
func (s *snapshot) offset(n int) int64 {
	if n == s.count {
		return s.end
	}
	return s.chunks[n/chunkLen][n%chunkLen]
}

// span returns where the line of an entry of the open part begins and ends.
func (s *snapshot) span(index uint64) (from, to int64) {
	n := int(index - s.base)
	return s.offset(n), s.offset(n + 1)
}

// add fills the place behind the last entry. Only on a snapshot that nobody
// else has seen yet.
func (s *snapshot) add(index uint64, offset, end int64) {
	if s.count == 0 {
		s.base, s.chunks = index, nil
		if len(s.parts) == 0 {
			s.first = index
		}
	}
	if s.count/chunkLen == len(s.chunks) {
		// Never in place: older snapshots share the array behind the slice.
		s.chunks = append(slices.Clip(s.chunks), new(chunk))
	}
	s.chunks[s.count/chunkLen][s.count%chunkLen] = offset
	s.count++
	s.end = end
}

// cutOpen drops the last entries of the open part until count are left. The places
// it frees will be filled again, so the last chunk is copied for those who still
// read the old one.
func (s *snapshot) cutOpen(count int) {
	end := s.offset(count)
	s.count, s.end = count, end
	if count == 0 {
		s.first, s.base, s.chunks = 0, 0, nil
		return
	}
	s.chunks = slices.Clone(s.chunks[:(count+chunkLen-1)/chunkLen])
	if count%chunkLen != 0 {
		last := *s.chunks[len(s.chunks)-1]
		s.chunks[len(s.chunks)-1] = &last
	}
}

// index returns the open part's index, to seal it with.
func (s *snapshot) index() *partIndex {
	x := &partIndex{partHead: partHead{first: s.base, count: s.count, bytes: s.end}, starts: newStarts(s.count, s.end)}
	for n := range s.count {
		x.starts.add(s.offset(n))
	}
	return x
}

// trimmed is s with an open part that begins with the first entry of the log. What
// stood there at the offset from stands at the front of file.
func (s *snapshot) trimmed(from int64, file vfs.File) *snapshot {
	next := &snapshot{gen: s.gen, commit: s.commit, file: file}
	for n := int(s.first - s.base); n < s.count; n++ {
		next.add(s.base+uint64(n), s.offset(n)-from, s.offset(n+1)-from)
	}
	return next
}

// reopen makes a sealed part, of which it leaves the entries up to last, the open
// one. Those behind it are no longer in the log.
func (s *snapshot) reopen(x *partIndex, file vfs.File, last uint64) {
	s.file, s.count, s.end = file, 0, 0
	s.parts = slices.Clip(s.parts[:s.partOf(x.first)])
	first := s.first
	for index := x.first; index <= last; index++ {
		from, to := x.span(index)
		s.add(index, from, to)
	}
	s.first = first
}
