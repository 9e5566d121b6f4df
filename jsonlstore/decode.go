package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/logstore"
)

// parsedLine is what a line says. Byte slices alias the line.
type parsedLine struct {
	index, term uint64
	command     []byte // JSON, as it stands in the line
	typ         raft.LogType
	plain       bool   // no type field: the command is the payload
	data, ext   []byte // JSON strings in base64, nil if absent
	at          []byte // JSON string, nil if absent
	commit      uint64 // 0: none
	batch       uint64 // 0: first of its batch
	summed      bool   // has a crc, which is right
}

// errChecksum is what a line that is whole but for its sum is called.
var errChecksum = errors.New("the checksum does not fit the line")

// parseLine reads one line without its newline. A line has either a right crc,
// or none and then exactly the original's three fields: a crc whose name was
// damaged must not make a line pass unchecked. Payloads are looked at by
// fill.
func parseLine(text []byte) (parsedLine, error) {
	text = trimBlanks(text)
	var p parsedLine
	p.plain = true
	summed, err := checkCRC(text)
	if err != nil {
		return p, err
	}
	p.summed = summed
	var seen fieldSet
	err = eachField(text, func(key, value []byte) error { return p.setField(&seen, key, value) })
	switch {
	case err != nil:
		return p, err
	case !seen.has(fieldIndex) || !seen.has(fieldTerm) || !seen.has(fieldCommand):
		return p, errors.New("index, term or command is missing")
	case p.index == 0 || p.index > logstore.MaxIndex:
		return p, fmt.Errorf("index %d is out of range", p.index)
	case seen.has(fieldCRC) != p.summed:
		return p, errChecksum
	case p.batch >= p.index && p.batch != 0:
		return p, fmt.Errorf("batch %d does not begin before the entry", p.batch)
	case p.plain && p.data != nil:
		return p, errors.New("data without a type")
	case !p.summed && seen&^originalFields != 0:
		return p, errors.New("further fields, but no crc")
	}
	return p, nil
}

// checkCRC tells whether the line ends in a crc field, and fails if that field
// does not fit.
func checkCRC(text []byte) (summed bool, err error) {
	body := len(text) - crcTailLen
	if body < 0 || string(text[body:body+len(crcField)]) != crcField {
		return false, nil
	}
	want, ok := parseSum(text[body+len(crcField) : body+len(crcField)+crcDigits])
	if !ok || string(text[len(text)-2:]) != `"}` || crc32.Checksum(text[:body], castagnoli) != want {
		return false, errChecksum
	}
	return true, nil
}

type fieldSet uint16

const (
	fieldIndex fieldSet = 1 << iota
	fieldTerm
	fieldCommand
	fieldType
	fieldData
	fieldExt
	fieldAt
	fieldCommit
	fieldBatch
	fieldCRC
	fieldUnknown

	originalFields = fieldIndex | fieldTerm | fieldCommand
)

func (s fieldSet) has(f fieldSet) bool { return s&f != 0 }

func fieldOf(key []byte) fieldSet {
	switch string(key) {
	case "index":
		return fieldIndex
	case "term":
		return fieldTerm
	case "command":
		return fieldCommand
	case "type":
		return fieldType
	case "data":
		return fieldData
	case "ext":
		return fieldExt
	case "at":
		return fieldAt
	case "commit":
		return fieldCommit
	case "batch":
		return fieldBatch
	case "crc":
		return fieldCRC
	}
	return fieldUnknown
}

func (p *parsedLine) setField(seen *fieldSet, key, value []byte) (err error) {
	f := fieldOf(key)
	if seen.has(f) && f != fieldUnknown {
		return fmt.Errorf("field %q stands twice", key)
	}
	*seen |= f
	switch f {
	case fieldIndex:
		p.index, err = parseUint(value)
	case fieldTerm:
		p.term, err = parseUint(value)
	case fieldCommand:
		p.command = value
	case fieldType:
		p.plain = false
		word, wordErr := unquote(value)
		t, ok := parseTypeWord(word)
		if wordErr != nil || !ok {
			return fmt.Errorf("field \"type\": unknown entry type %.40q", value)
		}
		p.typ = t
	case fieldData:
		p.data, err = value, wantString(value)
	case fieldExt:
		p.ext, err = value, wantString(value)
	case fieldAt:
		p.at, err = value, wantString(value)
	case fieldCommit:
		p.commit, err = parseUint(value)
	case fieldBatch:
		p.batch, err = parseUint(value)
	}
	if err != nil {
		return fmt.Errorf("field %q: %w", key, err)
	}
	return nil
}

func wantString(value []byte) error {
	if len(value) == 0 || value[0] != '"' {
		return errField
	}
	return nil
}

// fill makes the entry that the line stands for. Its bytes are new, they do not
// alias the line.
func (p *parsedLine) fill(log *raft.Log) error {
	l := raft.Log{Index: p.index, Term: p.term, Type: p.typ}
	var err error
	if p.plain {
		l.Data, err = p.payload()
		if err != nil {
			return err
		}
	} else if p.data != nil {
		if l.Data, err = parseBytes(p.data); err != nil {
			return fmt.Errorf("field \"data\": %w", err)
		}
	}
	if p.ext != nil {
		if l.Extensions, err = parseBytes(p.ext); err != nil {
			return fmt.Errorf("field \"ext\": %w", err)
		}
	}
	if p.at != nil {
		if l.AppendedAt, err = parseTime(p.at); err != nil {
			return fmt.Errorf("field \"at\": %w", err)
		}
	}
	*log = l
	return nil
}

// payload returns the replicated bytes of the command in a plain line: its
// canonical form. A command that this version does not know is taken as it stands,
// whoever applies it decides; but only under a checksum, since a known command
// turns into an unknown one by a single flipped bit.
func (p *parsedLine) payload() ([]byte, error) {
	if command.IsCanonical(p.command) {
		return bytes.Clone(p.command), nil
	}
	c, err := command.Decode(p.command)
	switch {
	case errors.Is(err, command.ErrUnknown) && p.summed:
		return bytes.Clone(p.command), nil
	case err != nil:
		return nil, fmt.Errorf("field \"command\": %w", err)
	}
	return command.Encode(c)
}

func parseTime(value []byte) (time.Time, error) {
	raw, err := unquote(value)
	if err != nil {
		return time.Time{}, err
	}
	text := string(raw)
	rest, ok := strings.CutPrefix(text, unixTimePrefix)
	if !ok {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return time.Time{}, errors.New("not a time")
		}
		return t.UTC(), nil
	}
	sec, nsec, _ := strings.Cut(rest, ".")
	s, err1 := strconv.ParseInt(sec, 10, 64)
	ns, err2 := strconv.ParseUint(nsec, 10, 30)
	if err1 != nil || err2 != nil {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(s, int64(ns)).UTC(), nil
}

// trimBlanks cuts blanks from both ends.
func trimBlanks(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }
