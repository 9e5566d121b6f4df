package jsonlstore

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// explained tells whether a crash in the middle of a write explains a line that
// is no entry: it stops short of its end, or a sector of it was never written.
func (s *scanner) explained(line rawLine, text []byte) (bool, error) {
	if !line.terminated && !line.tooLong && stopsShort(bytes.TrimLeft(text, " ")) {
		return true, nil
	}
	if !line.tooLong && line.skipped == 0 {
		return hasBlankSector(bytes.NewReader(text), -line.offset, line.offset, line.offset+int64(len(text)))
	}
	return hasBlankSector(s.r, 0, line.offset, line.end)
}

// stopsShort tells whether text is the front part of a JSON object: whatever
// is wrong with it can be put right by what would have come next.
func stopsShort(text []byte) bool {
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	var object json.RawMessage
	err := json.NewDecoder(bytes.NewReader(text)).Decode(&object)
	return errors.Is(err, io.ErrUnexpectedEOF)
}

// hasBlankSector tells whether the part that lies in [from, to) of any sector
// of the file is all unwritten. Offset o of the file is read from r at o+shift.
func hasBlankSector(r io.ReaderAt, shift, from, to int64) (bool, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(r, from+shift, to-from), int(min(to-from, readChunk)))
	var buf [vfs.SectorSize]byte
	for from < to {
		next := min(to, (from/vfs.SectorSize+1)*vfs.SectorSize)
		part := buf[:next-from]
		if _, err := io.ReadFull(in, part); err != nil {
			return false, err
		}
		if len(trimUnwritten(part)) == 0 {
			return true, nil
		}
		from = next
	}
	return false, nil
}

// trimUnwritten cuts off the end what a disk that never wrote there shows: the
// zeros of a file that was made longer, or the blanks of room written ahead.
func trimUnwritten(text []byte) []byte { return bytes.TrimRight(text, "\x00 ") }
