package jsonlstore

import (
	"bytes"
	"io"
)

// rawLine is one line of a file, with its place.
type rawLine struct {
	text       []byte // without the newline; valid until the next call; nil if tooLong
	number     int    // from 1
	offset     int64  // of the first byte
	skipped    int64  // blanks at its front that are not in text
	end        int64  // behind the newline, or the end of the file
	terminated bool   // ends in a newline
	tooLong    bool   // longer than the bound; its text was not kept
}

// lineReader cuts a file into lines. It holds one line in memory, and of a
// line beyond the bound or of room written ahead not even that.
type lineReader struct {
	r       io.ReaderAt
	size    int64
	maxLine int

	buf    []byte // bytes read and not handed out yet
	bufOff int64  // offset of buf[0]
	start  []byte // the array behind buf, for reuse
	number int
}

const readChunk = 256 << 10

func newLineReader(r io.ReaderAt, size int64, maxLine int) *lineReader {
	return &lineReader{r: r, size: size, maxLine: maxLine, start: make([]byte, min(readChunk, int(min(size, readChunk))+1))}
}

// next returns the next line, or io.EOF when there is none. The end of the
// file is where it was when the reader was made.
func (lr *lineReader) next() (rawLine, error) {
	lr.number++
	line := rawLine{number: lr.number, offset: lr.bufOff}
	searched := 0
	for {
		if i := bytes.IndexByte(lr.buf[searched:], '\n'); i >= 0 {
			n := searched + i
			if !line.tooLong {
				line.text = lr.buf[:n]
			}
			line.terminated = true
			lr.advance(n + 1)
			line.end = lr.bufOff
			return line, nil
		}
		if isRoom(lr.buf) && !line.tooLong {
			line.skipped += int64(len(lr.buf))
			lr.advance(len(lr.buf))
		}
		searched = len(lr.buf)
		if searched > lr.maxLine {
			line.tooLong = true
			lr.advance(searched)
			searched = 0
		}
		switch n, err := lr.fill(); {
		case err != nil:
			return line, err
		case n > 0:
			continue
		}
		// The end of the file.
		if lr.bufOff == line.offset && len(lr.buf) == 0 {
			lr.number--
			return line, io.EOF
		}
		if !line.tooLong {
			line.text = lr.buf
		}
		lr.advance(len(lr.buf))
		line.end = lr.bufOff
		return line, nil
	}
}

func (lr *lineReader) advance(n int) {
	lr.buf = lr.buf[n:]
	lr.bufOff += int64(n)
}

// fill reads more of the file behind buf; 0 at its end.
func (lr *lineReader) fill() (int, error) {
	at := lr.bufOff + int64(len(lr.buf))
	want := min(lr.size-at, readChunk)
	if want <= 0 {
		return 0, nil
	}
	need := len(lr.buf) + int(want)
	if need > cap(lr.buf) {
		if need > len(lr.start) {
			lr.start = make([]byte, max(need, min(2*len(lr.start), lr.maxLine+readChunk)))
		}
		n := copy(lr.start, lr.buf)
		lr.buf = lr.start[:n]
	}
	n, err := lr.r.ReadAt(lr.buf[len(lr.buf):need], at)
	lr.buf = lr.buf[:len(lr.buf)+n]
	if n > 0 {
		err = nil // whatever comes behind it is met by the next read
	}
	if err == io.EOF { // shorter than it was: cut meanwhile by a live writer
		lr.size = at
		err = nil
	}
	return n, err
}
