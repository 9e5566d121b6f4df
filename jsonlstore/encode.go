package jsonlstore

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// The tail of every line written here: `,"crc":"` + 8 hex digits + `"}`.
const (
	crcField   = `,"crc":"`
	crcDigits  = 8
	crcTailLen = len(crcField) + crcDigits + len(`"}`)
)

// opaqueCommand is what stands under "command" when the payload stands
// elsewhere: the one command that changes nothing for whoever reads no more
// than that.
const opaqueCommand = `"Noop"`

// The words for raft.LogType in a line. A plain command has none, and a type
// without a word is written as its number.
var typeWords = [...]string{
	raft.LogCommand:              "command",
	raft.LogNoop:                 "noop",
	raft.LogAddPeerDeprecated:    "add_peer_deprecated",
	raft.LogRemovePeerDeprecated: "remove_peer_deprecated",
	raft.LogBarrier:              "barrier",
	raft.LogConfiguration:        "configuration",
}

func typeWord(t raft.LogType) string {
	if int(t) < len(typeWords) {
		return typeWords[t]
	}
	return strconv.Itoa(int(t))
}

func parseTypeWord(s []byte) (raft.LogType, bool) {
	for t, word := range typeWords {
		if string(s) == word {
			return raft.LogType(t), true
		}
	}
	n, err := strconv.ParseUint(string(s), 10, 8)
	return raft.LogType(n), err == nil && typeWord(raft.LogType(n)) == string(s)
}

// castagnoli is CRC-32C, the sum that processors compute themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine appends the line of one entry, newline included. commit 0: none;
// batch 0: the entry is the first of its batch.
func appendLine(dst []byte, l *raft.Log, commit, batch uint64) []byte {
	start := len(dst)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendUint(dst, l.Index, 10)
	dst = append(dst, `,"term":`...)
	dst = strconv.AppendUint(dst, l.Term, 10)
	dst = append(dst, `,"command":`...)
	if l.Type == raft.LogCommand && isPlain(l.Data) {
		dst = appendUnblanked(dst, l.Data)
	} else {
		dst = append(dst, opaqueCommand...)
		dst = append(dst, `,"type":"`...)
		dst = append(dst, typeWord(l.Type)...)
		dst = append(dst, '"')
		dst = appendBytesField(dst, `,"data":"`, l.Data)
	}
	dst = appendBytesField(dst, `,"ext":"`, l.Extensions)
	dst = appendTimeField(dst, l.AppendedAt)
	if commit > 0 {
		dst = append(dst, `,"commit":`...)
		dst = strconv.AppendUint(dst, commit, 10)
	}
	if batch > 0 {
		dst = append(dst, `,"batch":`...)
		dst = strconv.AppendUint(dst, batch, 10)
	}
	return append(appendCRC(dst, start), '\n')
}

// appendCRC closes the object that begins at start with its checksum.
func appendCRC(dst []byte, start int) []byte {
	sum := crc32.Checksum(dst[start:], castagnoli)
	dst = append(dst, crcField...)
	dst = hex.AppendEncode(dst, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return append(dst, `"}`...)
}

// appendBytesField appends nothing for nil, so that nil and empty come back as
// what they were.
func appendBytesField(dst []byte, field string, b []byte) []byte {
	if b == nil {
		return dst
	}
	dst = append(dst, field...)
	dst = appendEncoded(dst, b)
	return append(dst, '"')
}

// unixTimePrefix begins an "at" outside the years RFC 3339 can write.
const unixTimePrefix = "unix:"

func appendTimeField(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	dst = append(dst, `,"at":"`...)
	if utc := t.UTC(); utc.Year() >= 0 && utc.Year() <= 9999 {
		dst = utc.AppendFormat(dst, time.RFC3339Nano)
	} else {
		dst = append(dst, unixTimePrefix...)
		dst = strconv.AppendInt(dst, t.Unix(), 10)
		dst = append(dst, '.')
		dst = strconv.AppendInt(dst, int64(t.Nanosecond()), 10)
	}
	return append(dst, '"')
}

// blankRun is more blanks in a row than a line ever holds. Below a sector's
// length, so that a sector that is all blank was never written.
const blankRun = vfs.SectorSize / 2

// isPlain tells whether a payload is written as the command it is: one in
// canonical form, that is no longer than a command may be once its blanks are
// escaped.
func isPlain(data []byte) bool {
	if !command.IsCanonical(data) {
		return false
	}
	escapes := len(data) / blankRun * len(escapedBlank)
	return len(data)+escapes <= command.MaxCommandLen || !bytes.Contains(data, longBlank())
}

func longBlank() []byte { return bytes.Repeat([]byte{' '}, blankRun) }

const escapedBlank = `\u0020`

// appendUnblanked appends a canonical command, with one blank in every
// blankRun of a long row of them escaped: the same JSON value, and no sector
// of it can be mistaken for one that the disk never wrote.
func appendUnblanked(dst, data []byte) []byte {
	if len(data) < vfs.SectorSize || bytes.IndexByte(data, ' ') < 0 {
		return append(dst, data...)
	}
	run := longBlank()
	for {
		i := bytes.Index(data, run)
		if i < 0 {
			return append(dst, data...)
		}
		dst = append(dst, data[:i+blankRun-1]...)
		dst = append(dst, escapedBlank...)
		data = data[i+blankRun:]
	}
}

// maxLineLen bounds a line whose entry keeps to maxEntry: base64 takes four
// bytes for three, escaped blanks take less.
func maxLineLen(maxEntry int) int { return maxEntry/3*4 + maxLineOverhead }

// maxLineOverhead is room for everything in a line but data and ext.
const maxLineOverhead = 1024

// checkSize refuses an entry that is too large.
func checkSize(l *raft.Log, maxEntry int) error {
	if size := len(l.Data) + len(l.Extensions); size > maxEntry {
		return &logstore.TooLargeError{
			What:      "entry " + strconv.FormatUint(l.Index, 10),
			SizeBytes: int64(size), Limit: int64(maxEntry),
		}
	}
	return nil
}
