package jsonlstore

import (
	"bytes"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/logstore"
)

// parseWritten reads a line as appendLine writes it: these fields, in this order,
// without blanks, under a right checksum. ok is false for every other line,
// good or bad; parseLine decides about those. What it does take, parseLine takes
// too and reads the same, but for what only a wrong line under a right checksum
// could hold: the inside of a byte string, and what a long base64 string is made
// of, which entry looks at. It allocates nothing.
func parseWritten(text []byte) (p parsedLine, ok bool) {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	body := len(text) - crcTailLen
	if body < 0 || string(text[body:body+len(crcField)]) != crcField || string(text[len(text)-2:]) != `"}` {
		return p, false
	}
	sum, ok := parseSum(text[body+len(crcField) : body+len(crcField)+crcDigits])
	if !ok || crc32.Checksum(text[:body], castagnoli) != sum {
		return p, false
	}
	p.summed = true
	e := eater{text[:body]}
	if !e.number(`{"index":`, &p.index) || !e.number(`,"term":`, &p.term) || !e.literal(`,"command":`) ||
		p.index == 0 || p.index > logstore.MaxIndex {
		return p, false
	}
	n := commandLen(e.rest)
	if n == 0 {
		return p, false
	}
	p.command, e.rest = e.rest[:n], e.rest[n:]
	var word []byte
	if p.plain = !e.text(`,"type":`, &word); !p.plain {
		if p.typ, ok = parseTypeWord(word[1 : len(word)-1]); !ok {
			return p, false
		}
		e.text(`,"data":`, &p.data)
	}
	e.text(`,"ext":`, &p.ext)
	e.text(`,"at":`, &p.at)
	e.number(`,"commit":`, &p.commit)
	e.number(`,"batch":`, &p.batch)
	return p, len(e.rest) == 0 && (p.batch == 0 || p.batch < p.index)
}

// eater eats a line from the front. A method that returns false leaves it where
// it was.
type eater struct{ rest []byte }

func (e *eater) literal(s string) bool {
	if len(e.rest) < len(s) || string(e.rest[:len(s)]) != s {
		return false
	}
	e.rest = e.rest[len(s):]
	return true
}

// number eats a field that is a whole number without leading zeros.
func (e *eater) number(field string, to *uint64) bool {
	before := e.rest
	if !e.literal(field) {
		return false
	}
	n := 0
	for n < len(e.rest) && e.rest[n]-'0' <= 9 {
		n++
	}
	val, err := parseUint(e.rest[:n])
	if err != nil || (n > 1 && e.rest[0] == '0') {
		e.rest = before
		return false
	}
	*to, e.rest = val, e.rest[n:]
	return true
}

// text eats a field that is a string without escapes, quotes included, of
// printable ASCII: base64, times and words are.
func (e *eater) text(field string, to *[]byte) bool {
	if len(e.rest) <= len(field) || string(e.rest[:len(field)]) != field || e.rest[len(field)] != '"' {
		return false
	}
	value := e.rest[len(field):]
	n := bytes.IndexByte(value[1:], '"')
	if n < 0 || !simple(value[1:1+n]) {
		return false
	}
	*to, e.rest = value[:n+2], value[n+2:]
	return true
}

// simple tells whether a string stands for itself. Long ones are base64, and
// their decoder looks at every byte.
func simple(text []byte) bool {
	if len(text) > maxSimple {
		return true
	}
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

const maxSimple = 48

// commandLen returns how much of text is the command that it begins with, 0 if
// that is for parseLine to find out.
func commandLen(text []byte) int {
	e := eater{text}
	switch {
	case e.literal(opaqueCommand):
	case e.literal(`{"KvWrite":{"key":`):
		if !e.byteString() || !e.literal(`,"value":`) || (!e.literal(`null`) && !e.byteString()) || !e.literal(`}}`) {
			return 0
		}
	default:
		return shortCommandLen(text)
	}
	n := len(text) - len(e.rest)
	if n > command.MaxCommandLen {
		return 0
	}
	return n
}

// byteString eats an array, without a look at its inside.
func (e *eater) byteString() bool {
	if len(e.rest) == 0 || e.rest[0] != '[' {
		return false
	}
	n := bytes.IndexByte(e.rest, ']')
	if n < 0 || bytes.IndexByte(e.rest[:n], '"') >= 0 {
		return false
	}
	e.rest = e.rest[n+1:]
	return true
}

// shortCommandLen is commandLen for the commands without byte strings.
func shortCommandLen(text []byte) int {
	for from := 0; ; {
		n := bytes.Index(text[from:], []byte(`}}`))
		if n < 0 {
			return 0
		}
		from += n + 2
		// }} may be part of a string.
		if command.IsCanonical(text[:from]) {
			return from
		}
		if from > maxShortCommand {
			return 0
		}
	}
}

// maxShortCommand bounds how far shortCommandLen looks for the end, behind what
// looks like one.
const maxShortCommand = 256

// entry makes the entry that the line of parseWritten stands for, as fill does,
// with no more memory than its bytes. ok is false if fill must decide.
func (p *parsedLine) entry(log *raft.Log) (ok bool) {
	l := raft.Log{Index: p.index, Term: p.term, Type: p.typ}
	switch {
	case p.plain:
		l.Data = make([]byte, len(p.command))
		copy(l.Data, p.command)
	case p.data != nil:
		if l.Data, ok = decodeBase64(inner(p.data)); !ok {
			return false
		}
	}
	if p.ext != nil {
		if l.Extensions, ok = decodeBase64(inner(p.ext)); !ok {
			return false
		}
	}
	if p.at != nil {
		if l.AppendedAt, ok = quickTime(p.at); !ok {
			return false
		}
	}
	*log = l
	return true
}

// inner returns what stands between the quotes.
func inner(value []byte) []byte { return value[1 : len(value)-1] }

// quickTime reads 2006-01-02T15:04:05.999999999Z with no more digits than
// needed, which is how times of this age are written.
func quickTime(value []byte) (time.Time, bool) {
	const front = `"2006-01-02T15:04:05`
	n := len(value) - len(`Z"`)
	if n < len(front) || string(value[n:]) != `Z"` ||
		value[5] != '-' || value[8] != '-' || value[11] != 'T' || value[14] != ':' || value[17] != ':' {
		return time.Time{}, false
	}
	num := func(from, to int) int {
		v := 0
		for _, c := range value[from:to] {
			if c-'0' > 9 {
				return -1
			}
			v = v*10 + int(c-'0')
		}
		return v
	}
	year, month, day := num(1, 5), num(6, 8), num(9, 11)
	hour, minute, sec := num(12, 14), num(15, 17), num(18, 20)
	// Days that not every month has are left to the library, as is the rest.
	if year < 1 || month < 1 || month > 12 || day < 1 || day > 28 && (day > 30 || month == 2) || hour < 0 || hour > 23 ||
		minute < 0 || minute > 59 || sec < 0 || sec > 59 {
		return time.Time{}, false
	}
	nsec := 0
	if n > len(front) {
		digits := n - len(front) - 1
		if value[len(front)] != '.' || digits < 1 || digits > 9 || value[n-1] == '0' {
			return time.Time{}, false
		}
		if nsec = num(len(front)+1, n); nsec < 0 {
			return time.Time{}, false
		}
		for range 9 - digits {
			nsec *= 10
		}
	}
	return time.Date(year, time.Month(month), day, hour, minute, sec, nsec, time.UTC), true
}
