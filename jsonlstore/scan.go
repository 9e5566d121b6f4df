package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/aiondb/aiondb-ha/logstore"
)

// scanner walks a log file and tells what is an entry, what is a torn write
// and what is damage. Opening, verifying and printing a log all use it.
//
// A torn write is what a crash leaves of a batch whose sync never returned: its
// end is not there, or whole sectors of it are blank because the disk never
// wrote them. That explains a bad line only if the line itself ends early or
// runs into such a sector (torn.go), and if nothing but lines of its own batch
// come behind it. Every other bad line is damage.
type scanner struct {
	r       io.ReaderAt
	size    int64
	file    string // path, for errors
	maxLine int
	// visit is called for every good line in order, and must not keep what it is
	// given; an error from it ends the
	// scan.
	visit func(rawLine, *parsedLine) error
	// damaged is called for every place of damage; an error from it ends the
	// scan. If it returns nil, the scan goes on behind that place.
	damaged func(*logstore.CorruptionError) error

	parsed parsedLine // what visit is given, made anew for every line

	lines int // how many the file has, blank and bad ones included

	// What the good lines add up to.
	last    uint64 // index of the last one; 0: none
	end     int64  // behind the last one
	unended bool   // the last one lacks its newline

	// The batch of the last good line.
	batch     uint64 // index it begins with, as its lines say
	batchAt   int64  // offset of its first line here
	batchLine int    // number of its first line here
	batchPrev uint64 // index before that line; 0: none

	bad       []badLine // lines that are no entries: torn, unless a later batch follows
	tailBatch uint64    // the batch that good lines behind the bad ones belong to; 0: none seen
	cutBatch  bool      // it is also the batch of the last good line before them
	resync    bool      // behind damage: any higher index may follow
	unwritten *TornTail // zeros at the end of the file
	room      int64     // blanks, and nothing else, at the end of the file
	blankFrom int64     // behind the last line that is not blank, without the blanks at its end
}

// badLine is a line that is no entry but may be torn.
type badLine struct {
	place logstore.CorruptionError
	end   int64 // behind it
}

// maxPendingBad bounds how many bad lines one torn batch may leave.
const maxPendingBad = 1 << 16

// logAdvice is what to do about a damaged log.
const logAdvice = "`aiondb-ha log verify DIR` lists all damage, `aiondb-ha log repair DIR` shows what can be saved"

// TornTail describes what is left of a batch whose write never finished. It
// was never acknowledged; opening the store cuts it off.
type TornTail struct {
	Line   int    // where it begins: the number of the line, from 1
	Offset int64  // where it begins: bytes from the start of the file
	Bytes  int64  // from there to the end of the file
	Reason string // what is wrong with its first line
}

// run walks the whole file. torn is nil if there is no torn tail. The fields
// of s describe the good lines that are left without it; some of those visited
// may have gone with it.
func (s *scanner) run() (torn *TornTail, err error) {
	lr := newLineReader(s.r, s.size, s.maxLine)
	for {
		line, err := lr.next()
		if errors.Is(err, io.EOF) {
			return s.finish(lr.bufOff), nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", s.file, err)
		}
		if err := s.step(line); err != nil {
			return nil, err
		}
	}
}

// step takes the next line.
func (s *scanner) step(line rawLine) error {
	s.lines = line.number
	text := line.text
	if !line.terminated {
		text = trimUnwritten(text)
		line.end -= int64(len(line.text) - len(text))
	}
	if !line.tooLong && len(trimBlanks(text)) == 0 {
		if !line.terminated {
			s.endsBlank(line)
		}
		return nil // a blank line, or room that was never written
	}
	parsed, reason := s.parse(line, text)
	s.parsed = parsed
	p := &s.parsed
	if reason != nil {
		s.blankFrom = line.end
		return s.addBad(line, text, reason)
	}
	err := s.checkFront(line, text, p)
	s.blankFrom = line.end
	if n := len(line.text) - len(bytes.TrimRight(line.text, " ")); n > 0 && line.terminated {
		s.blankFrom -= int64(n) + 1 // its own newline may be among what was never written
	}
	if err != nil {
		return err
	}
	if len(s.bad) > 0 {
		if s.sameBatch(p) {
			return nil // goes with the torn batch
		}
		if err := s.reportBad(); err != nil {
			return err
		}
	}
	if reason := s.follows(p.index); reason != nil {
		if err := s.damaged(s.place(line, text, reason)); err != nil {
			return err
		}
		if p.index <= s.last {
			return nil
		}
	}
	s.resync = false
	if p.batch == 0 {
		s.batch, s.batchAt, s.batchPrev, s.batchLine = p.index, line.offset, s.last, line.number
	} else if p.batch != s.batch { // its front was cut off
		s.batch, s.batchAt, s.batchPrev, s.batchLine = p.batch, line.offset, s.last, line.number
	}
	s.last, s.end, s.unended = p.index, line.end, !line.terminated
	return s.visit(line, p)
}

// endsBlank takes what stands behind the last newline: room written ahead, or
// what the disk shows where it never wrote.
func (s *scanner) endsBlank(line rawLine) {
	s.lines--
	if bytes.IndexByte(line.text, 0) >= 0 {
		s.unwritten = &TornTail{Line: line.number, Offset: line.offset, Reason: "zeros: it was never written"}
	} else if isRoom(line.text) {
		s.room = line.skipped + int64(len(line.text))
	}
}

// checkFront looks at the blanks before a good line that does not follow the
// last one, or of whose batch nothing stands before it: they may be sectors of its
// batch that hold whole lines and were never written. The newline of such a line may
// lie in a sector that was, so blank lines count, too.
func (s *scanner) checkFront(line rawLine, text []byte, p *parsedLine) error {
	reason := s.follows(p.index)
	if s.last == 0 && p.batch != 0 {
		reason = errors.New("what stands before it in its batch was never written")
	}
	if reason == nil || len(s.bad) > 0 || (line.offset == s.blankFrom && line.skipped == 0 && text[0] != ' ') {
		return nil
	}
	torn, err := hasBlankSector(s.r, 0, s.blankFrom, line.end)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.file, err)
	}
	if torn {
		s.bad = append(s.bad, badLine{place: *s.place(line, text, reason), end: line.offset + line.skipped})
	}
	return nil
}

// parse reads a line; reason says why it is no entry.
func (s *scanner) parse(line rawLine, text []byte) (p parsedLine, reason error) {
	if line.tooLong {
		return p, fmt.Errorf("the line is longer than the %d bytes that an entry may take", s.maxLine)
	}
	if p, ok := parseWritten(text); ok {
		return p, nil
	}
	p, err := parseLine(text)
	if err == nil && !p.summed {
		_, err = p.payload() // no checksum vouches for it
	}
	return p, err
}

// follows is the contiguity check.
func (s *scanner) follows(index uint64) error {
	switch {
	case s.last == 0 || index == s.last+1:
		return nil
	case s.resync && index > s.last:
		return nil
	}
	return &logstore.ContiguityError{Expected: s.last + 1, Given: index}
}

// sameBatch tells whether a good line behind bad ones proves that it belongs
// to their batch. Any other good line belongs to a later one, which would not
// have been written before the sync of theirs returned.
func (s *scanner) sameBatch(p *parsedLine) bool {
	if !p.summed || p.batch == 0 {
		return false
	}
	if s.tailBatch == 0 {
		s.tailBatch = p.batch
	}
	switch {
	case p.batch != s.tailBatch || s.resync:
		return false
	case s.last == 0: // nothing stands before the bad lines
		return true
	case p.index <= s.last+1:
		return false
	}
	s.cutBatch = p.batch == s.batch
	return s.cutBatch || p.batch == s.last+1
}

// addBad takes a line that is no entry.
func (s *scanner) addBad(line rawLine, text []byte, reason error) error {
	torn, err := s.explained(line, text)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.file, err)
	}
	s.bad = append(s.bad, badLine{place: *s.place(line, text, reason), end: line.end})
	if torn && len(s.bad) <= maxPendingBad {
		return nil
	}
	return s.reportBad()
}

// reportBad hands all pending bad lines out as damage.
func (s *scanner) reportBad() error {
	bad := s.bad
	s.bad, s.cutBatch, s.tailBatch, s.resync = nil, false, 0, true
	for i := range bad {
		s.end, s.unended = bad[i].end, false
		if err := s.damaged(&bad[i].place); err != nil {
			return err
		}
	}
	return nil
}

// finish is called at the end of the file, size.
func (s *scanner) finish(size int64) *TornTail {
	if len(s.bad) == 0 {
		if s.unwritten != nil {
			s.unwritten.Bytes = size - s.unwritten.Offset
		}
		return s.unwritten
	}
	first := s.bad[0].place
	torn := &TornTail{Line: first.Line, Offset: first.Offset, Reason: first.Reason}
	if s.cutBatch {
		torn.Line, torn.Offset = s.batchLine, s.batchAt
		s.last, s.end, s.unended = s.batchPrev, s.batchAt, false // now batchAt is end
	}
	torn.Bytes = size - torn.Offset
	return torn
}

// place describes where a bad line stands.
func (s *scanner) place(line rawLine, text []byte, reason error) *logstore.CorruptionError {
	e := &logstore.CorruptionError{
		File: s.file, Line: line.number, Offset: line.offset, Reason: reason.Error(), Advice: logAdvice,
	}
	if s.last != 0 && !s.resync {
		e.Index = s.last + 1 + uint64(len(s.bad))
	} else {
		e.Index = claimedIndex(text)
	}
	return e
}

// claimedIndex reads the index at the front of a line that may be damaged; 0 if it
// cannot be read.
func claimedIndex(text []byte) uint64 {
	const front = `{"index":`
	if len(text) < len(front) || string(text[:len(front)]) != front {
		return 0
	}
	digits := text[len(front):]
	n := 0
	for n < len(digits) && digits[n]-'0' <= 9 {
		n++
	}
	index, err := strconv.ParseUint(string(digits[:n]), 10, 64)
	if err != nil {
		return 0
	}
	return index
}
