package walplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds of one record.
const (
	MaxKeyLen   = 1024    // bytes
	MaxValueLen = 1 << 20 // bytes

	recordHeader   = 8                          // crc and len
	recordFixed    = 8 + 8 + 8 + 1 + 2          // what len counts besides key and value
	minRecordBytes = recordHeader + recordFixed // a begin record
	maxRecordBytes = minRecordBytes + MaxKeyLen + MaxValueLen
)

// kind says what a record does.
type kind uint8

const (
	kindBegin  kind = 1 // first of its epoch; no key, no value
	kindPut    kind = 2
	kindDelete kind = 3 // no value
)

// record is one entry of the log. Decoded records share memory with the buffer
// they were decoded from.
type record struct {
	epoch  protocol.Epoch
	lsn    protocol.LSN
	synced protocol.LSN // log file only: what was flushed when it was written
	kind   kind
	key    []byte
	value  []byte
}

func (r record) size() int { return minRecordBytes + len(r.key) + len(r.value) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errShortRecord = errors.New("record is cut short")
	errBadRecord   = errors.New("not a record")
)

// checksum covers the salt and everything behind the checksum itself.
func checksum(salt uint64, body []byte) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, body)
}

// appendRecord encodes r, which must be within its bounds.
func appendRecord(dst []byte, salt uint64, r record) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.size()-recordHeader))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.epoch))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.lsn))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.synced))
	dst = append(dst, byte(r.kind))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(r.key)))
	dst = append(dst, r.key...)
	dst = append(dst, r.value...)
	binary.LittleEndian.PutUint32(dst[start:], checksum(salt, dst[start+4:]))
	return dst
}

// recordSize reads the whole size of the record at the start of b. It returns
// errShortRecord if b is shorter than a record's header, and errBadRecord if
// what is there cannot be one.
func recordSize(b []byte) (int, error) {
	if len(b) < recordHeader {
		return 0, errShortRecord
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	if n < recordFixed || n > maxRecordBytes-recordHeader {
		return 0, fmt.Errorf("%w: length %d", errBadRecord, n)
	}
	return recordHeader + n, nil
}

// decodeRecord reads the record at the start of b and returns it with its
// size. The error wraps errShortRecord if b ends before the record does, and
// errBadRecord for everything that is not a record of this salt.
func decodeRecord(b []byte, salt uint64) (record, int, error) {
	n, err := recordSize(b)
	if err != nil {
		return record{}, 0, err
	}
	if len(b) < n {
		return record{}, 0, errShortRecord
	}
	b = b[:n:n]
	if binary.LittleEndian.Uint32(b) != checksum(salt, b[4:]) {
		return record{}, 0, fmt.Errorf("%w: checksum does not match", errBadRecord)
	}
	body := b[recordHeader:]
	r := record{
		epoch:  protocol.Epoch(binary.LittleEndian.Uint64(body)),
		lsn:    protocol.LSN(binary.LittleEndian.Uint64(body[8:])),
		synced: protocol.LSN(binary.LittleEndian.Uint64(body[16:])),
		kind:   kind(body[24]),
	}
	keyLen := int(binary.LittleEndian.Uint16(body[25:]))
	data := body[recordFixed:]
	if keyLen > len(data) {
		return record{}, 0, fmt.Errorf("%w: key of %d bytes in %d", errBadRecord, keyLen, len(data))
	}
	r.key, r.value = data[:keyLen:keyLen], data[keyLen:]
	if err := r.valid(); err != nil {
		return record{}, 0, err
	}
	return r, n, nil
}

// valid checks what can be said of a record alone.
func (r record) valid() error {
	switch {
	case r.epoch == 0 || r.lsn == 0:
		return fmt.Errorf("%w: epoch %d, lsn %d", errBadRecord, r.epoch, r.lsn)
	case r.synced >= r.lsn:
		return fmt.Errorf("%w: lsn %d written when %d was flushed", errBadRecord, r.lsn, r.synced)
	case len(r.key) > MaxKeyLen || len(r.value) > MaxValueLen:
		return fmt.Errorf("%w: key of %d bytes, value of %d", errBadRecord, len(r.key), len(r.value))
	}
	switch r.kind {
	case kindBegin:
		if len(r.key) == 0 && len(r.value) == 0 {
			return nil
		}
	case kindPut:
		return nil
	case kindDelete:
		if len(r.value) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: kind %d with key of %d bytes, value of %d", errBadRecord, r.kind, len(r.key), len(r.value))
}

// follows checks that r may stand right behind a log that ends at last.
func (r record) follows(last protocol.Position) error {
	switch {
	case r.lsn != last.LSN+1:
		return fmt.Errorf("lsn %d follows lsn %d", r.lsn, last.LSN)
	case r.epoch < last.Timeline:
		return fmt.Errorf("lsn %d of epoch %d follows epoch %d", r.lsn, r.epoch, last.Timeline)
	case (r.kind == kindBegin) != (r.epoch > last.Timeline):
		return fmt.Errorf("lsn %d: epoch %d follows epoch %d, and the record is %s", r.lsn, r.epoch, last.Timeline,
			map[bool]string{true: "its begin record", false: "not its begin record"}[r.kind == kindBegin])
	}
	return nil
}

func (r record) position() protocol.Position {
	return protocol.Position{Timeline: r.epoch, LSN: r.lsn}
}
