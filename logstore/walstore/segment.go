package walstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/aiondb/aiondb-ha/logstore"
)

const (
	fileHeaderBytes  = 32
	frameHeaderBytes = 8
	segmentMagic     = 0x58eb6b0d

	// readBytes is how much of a segment is read at a time.
	readBytes = 1 << 18
)

// batch is what stands between two commits: acknowledged together.
type batch struct {
	first  uint64   // index of its first entry
	frames [][]byte // payloads of its entries; valid until the next batch
}

// tail describes what a walk over a segment came to.
type tail struct {
	next   uint64 // index behind the last committed entry
	offset int64  // behind the last commit
	junk   bool   // something other than zeros follows
}

// walkSegment calls yield with every committed batch of a segment, in order,
// and checks its checksum before that. It stops at the first frame that cannot
// be one of a committed batch: the end of the segment, unless a later commit
// shows that it is damage.
func walkSegment(path string, info types.SegmentInfo, yield func(batch) error) (tail, error) {
	t := tail{next: info.BaseIndex, offset: 0}
	f, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, readBytes)
	header := make([]byte, fileHeaderBytes)
	if _, err := io.ReadFull(r, header); err != nil {
		return t, endOf(err)
	}
	if isZero(header) {
		return t, nil // made, and never written to
	}
	sum := crc32.Update(0, castagnoli(), header)
	var (
		b      = batch{first: info.BaseIndex}
		room   []byte // of the frames of b
		offset = int64(fileHeaderBytes)
		frame  [frameHeaderBytes]byte
	)
	for {
		if _, err := io.ReadFull(r, frame[:]); err != nil {
			if endOf(err) != nil {
				return t, err
			}
			break
		}
		kind, n := frame[0], binary.LittleEndian.Uint32(frame[4:])
		if kind == segment.FrameCommit && frame[1]|frame[2]|frame[3] == 0 {
			if n != sum {
				break
			}
			if t.offset == 0 {
				if err := checkHeader(header, info); err != nil {
					return t, damaged(path, 0, err.Error())
				}
			}
			if err := yield(b); err != nil {
				return t, err
			}
			offset += frameHeaderBytes
			t.next, t.offset = b.first+uint64(len(b.frames)), offset
			b, room, sum = batch{first: t.next, frames: b.frames[:0]}, room[:0], 0
			continue
		}
		if kind != segment.FrameEntry && kind != segment.FrameIndex || frame[1]|frame[2]|frame[3] != 0 || n > segment.MaxEntrySize {
			break
		}
		padded := int(n+frameHeaderBytes-1) &^ (frameHeaderBytes - 1)
		from := len(room)
		room = append(room, make([]byte, padded)...)
		if _, err := io.ReadFull(r, room[from:]); err != nil {
			if endOf(err) != nil {
				return t, err
			}
			break
		}
		sum = crc32.Update(crc32.Update(sum, castagnoli(), frame[:]), castagnoli(), room[from:])
		if kind == segment.FrameEntry {
			b.frames = append(b.frames, room[from:from+int(n)])
		}
		offset += int64(frameHeaderBytes + padded)
	}
	return t, t.judge(f, path)
}

// judge looks at what follows the last commit. A crash may leave anything of one
// unfinished batch there, but no other batch that is whole.
func (t *tail) judge(f *os.File, path string) error {
	from := max(t.offset, fileHeaderBytes)
	end, err := lastNonzero(f, from)
	if err != nil || end == from {
		return err
	}
	t.junk = true
	rest := make([]byte, end-from)
	if _, err := f.ReadAt(rest, from); err != nil {
		return err
	}
	// Batches follow each other, so one that is whole lies between two commits.
	last := -1 // end of the last thing that looks like a commit
	for at := 0; at+frameHeaderBytes <= len(rest); at += frameHeaderBytes {
		if binary.LittleEndian.Uint32(rest[at:]) != uint32(segment.FrameCommit) {
			continue
		}
		if last >= 0 && at > last && crc32.Checksum(rest[last:at], castagnoli()) == binary.LittleEndian.Uint32(rest[at+4:]) {
			return damaged(path, t.offset, fmt.Sprintf("entry %d and what follows cannot be read, but a whole batch stands behind it at byte offset %d", t.next, from+int64(last)))
		}
		last = at + frameHeaderBytes
	}
	return nil
}

// maxSegmentBytes bounds what is read of one segment: offsets in it have 32 bits.
const maxSegmentBytes = 1 << 32

func checkHeader(h []byte, info types.SegmentInfo) error {
	switch {
	case binary.LittleEndian.Uint64(h) != segmentMagic:
		return errors.New("it is no segment of raft-wal, or of a version that is not known here")
	case binary.LittleEndian.Uint64(h[8:]) != info.BaseIndex, binary.LittleEndian.Uint64(h[16:]) != info.ID, binary.LittleEndian.Uint64(h[24:]) != info.Codec:
		return errors.New("its header says that it is another segment than its name")
	}
	return nil
}

// endOf is nil for the errors that say that a file ends.
func endOf(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// lastNonzero returns the offset behind the last byte of f that is not zero, at
// least from. Segments end in much room.
func lastNonzero(f *os.File, from int64) (int64, error) {
	zeros, buf := make([]byte, readBytes), make([]byte, readBytes)
	end := from
	for at := from; at-from < maxSegmentBytes; {
		n, err := f.ReadAt(buf, at)
		if endOf(err) != nil {
			return 0, err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			end = at + int64(len(bytes.TrimRight(buf[:n], "\x00")))
		}
		if err != nil {
			return end, nil
		}
		at += int64(n)
	}
	return end, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func damaged(path string, offset int64, reason string) error {
	if offset > 0 {
		reason = fmt.Sprintf("at byte offset %d: %s", offset, reason)
	}
	return &logstore.CorruptionError{File: path, Reason: reason, Advice: "take the directory from a backup, or let this voter join anew"}
}
