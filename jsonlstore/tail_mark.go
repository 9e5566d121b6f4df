package jsonlstore

import (
	"bytes"
	"hash/crc32"
	"io"
)

// mark is the place of an entry, and what stood there.
type mark struct {
	index    uint64
	from, to int64 // its bytes, without blanks and newline
	end      int64 // behind its line
	sum      uint32
	path     string // of the part that it was read in
}

// markOf describes the entry of a line.
func markOf(path string, index uint64, line rawLine, end int64) mark {
	text := trimTail(line.text)
	from := line.offset + line.skipped + int64(len(line.text)-len(bytes.TrimLeft(line.text, unwrittenOrBlank)))
	m := mark{path: path, index: index, from: from, to: from + int64(len(text)), end: end}
	head, tail := m.ends()
	m.sum = crc32.Update(crc32.Checksum(text[:head], castagnoli), castagnoli, text[int64(len(text))-tail:])
	return m
}

// markedBytes bounds how much of an entry's front and end is looked at to find
// out whether it is still there: the one has its index and term, the other the
// checksum of it all.
const markedBytes = 512

// ends returns how many bytes at the front and at the end a mark's sum covers.
func (m mark) ends() (head, tail int64) {
	head = min(m.to-m.from, markedBytes)
	return head, min(m.to-m.from-head, markedBytes)
}

// stands tells whether an entry is where it was.
func stands(file io.ReaderAt, m mark) bool {
	var buf [2 * markedBytes]byte
	head, tail := m.ends()
	// What cannot be read is not there.
	n, _ := file.ReadAt(buf[:head], m.from)
	k, _ := file.ReadAt(buf[head:head+tail], m.to-tail)
	return int64(n) == head && int64(k) == tail && crc32.Checksum(buf[:head+tail], castagnoli) == m.sum
}

// unwrittenOrBlank is what may stand around a line: blanks, and what a disk shows
// that never wrote.
const unwrittenOrBlank = " \t\r\n\x00"

func trimTail(text []byte) []byte { return bytes.Trim(text, unwrittenOrBlank) }
