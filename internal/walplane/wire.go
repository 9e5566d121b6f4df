package walplane

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The stream between a replica and its primary, integers little-endian:
//
//	frame:    len (4) | type (1) | payload          len counts type and payload
//	hello:    "AWAL" | version (2) | node (8) | epoch (8) | timeline (8) | lsn (8)      replica first
//	welcome:  status (1) | epoch (8) | reason (the rest)                                the answer; the primary's epoch
//	batch:    epoch (8) | commit (8) | echo (8) | count (4) | records                   count 0 keeps alive
//	ack:      epoch (8) | flushed (8) | stamp (8)                                       answers every batch
//
// Records are as in the log file, with salt and synced 0. stamp is the
// replica's clock when it sent the ack; the primary gives it back as echo once
// its guard has said yes after that, so the replica learns, by its own clock, how
// old what it has is at most. 0 is no stamp.
const (
	wireMagic   = "AWAL"
	wireVersion = 1

	frameHello   = 1
	frameWelcome = 2
	frameBatch   = 3
	frameAck     = 4

	frameHeader   = 5
	helloBytes    = 4 + 2 + 4*8
	batchHeader   = 3*8 + 4
	ackBytes      = 3 * 8
	maxReason     = 512 // bytes
	maxFrameBytes = 1 + batchHeader + maxBatchBytes + maxRecordBytes
)

var errWire = errors.New("this is not the stream of such a log")

type hello struct {
	node     protocol.NodeID
	epoch    protocol.Epoch
	position protocol.Position
}

type welcome struct {
	status uint8
	epoch  protocol.Epoch
	reason string
}

// The statuses of a welcome.
const (
	welcomeOK      = 0
	welcomeRefused = 1
)

type batch struct {
	epoch   protocol.Epoch
	commit  protocol.LSN
	echo    time.Duration
	records []record // when decoded, good until the next frame is read
}

type ack struct {
	epoch   protocol.Epoch
	flushed protocol.LSN
	stamp   time.Duration
}

// frame begins a frame in dst[:0]; endFrame fills in its length.
func frame(dst []byte, kind byte) []byte { return append(dst[:0], 0, 0, 0, 0, kind) }

func endFrame(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func appendHello(dst []byte, h hello) []byte {
	b := append(frame(dst, frameHello), wireMagic...)
	b = binary.LittleEndian.AppendUint16(b, wireVersion)
	for _, v := range []uint64{uint64(h.node), uint64(h.epoch), uint64(h.position.Timeline), uint64(h.position.LSN)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return endFrame(b)
}

func parseHello(p []byte) (hello, error) {
	if len(p) != helloBytes || string(p[:4]) != wireMagic {
		return hello{}, fmt.Errorf("%w: bad hello", errWire)
	}
	if v := binary.LittleEndian.Uint16(p[4:]); v != wireVersion {
		return hello{}, fmt.Errorf("%w: version %d, this node speaks %d", errWire, v, wireVersion)
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(p[6+8*i:]) }
	return hello{
		node:     protocol.NodeID(u(0)),
		epoch:    protocol.Epoch(u(1)),
		position: protocol.Position{Timeline: protocol.Epoch(u(2)), LSN: protocol.LSN(u(3))},
	}, nil
}

func appendWelcome(dst []byte, w welcome) []byte {
	b := append(frame(dst, frameWelcome), w.status)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.epoch))
	return endFrame(append(b, w.reason[:min(len(w.reason), maxReason)]...))
}

func parseWelcome(p []byte) (welcome, error) {
	if len(p) < 9 || len(p) > 9+maxReason {
		return welcome{}, fmt.Errorf("%w: bad welcome", errWire)
	}
	return welcome{status: p[0], epoch: protocol.Epoch(binary.LittleEndian.Uint64(p[1:])), reason: string(p[9:])}, nil
}

func appendBatch(dst []byte, m batch) []byte {
	b := frame(dst, frameBatch)
	for _, v := range []uint64{uint64(m.epoch), uint64(m.commit), uint64(m.echo)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.records)))
	for _, r := range m.records {
		r.synced = 0
		b = appendRecord(b, 0, r)
	}
	return endFrame(b)
}

// parseBatch decodes into records[:0]; they share p's memory.
func parseBatch(p []byte, records []record) (batch, error) {
	if len(p) < batchHeader {
		return batch{}, fmt.Errorf("%w: bad batch", errWire)
	}
	m := batch{
		epoch:  protocol.Epoch(binary.LittleEndian.Uint64(p)),
		commit: protocol.LSN(binary.LittleEndian.Uint64(p[8:])),
		echo:   time.Duration(binary.LittleEndian.Uint64(p[16:])),
	}
	count := int(binary.LittleEndian.Uint32(p[24:]))
	p = p[batchHeader:]
	if count > len(p)/minRecordBytes {
		return batch{}, fmt.Errorf("%w: %d records in %d bytes", errWire, count, len(p))
	}
	m.records = records[:0]
	for range count {
		r, n, err := decodeRecord(p, 0)
		if err != nil {
			return batch{}, fmt.Errorf("%w: %w", errWire, err)
		}
		m.records = append(m.records, r)
		p = p[n:]
	}
	if len(p) != 0 {
		return batch{}, fmt.Errorf("%w: %d bytes behind the last record", errWire, len(p))
	}
	return m, nil
}

func appendAck(dst []byte, a ack) []byte {
	b := frame(dst, frameAck)
	for _, v := range []uint64{uint64(a.epoch), uint64(a.flushed), uint64(a.stamp)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return endFrame(b)
}

func parseAck(p []byte) (ack, error) {
	if len(p) != ackBytes {
		return ack{}, fmt.Errorf("%w: bad ack", errWire)
	}
	return ack{
		epoch:   protocol.Epoch(binary.LittleEndian.Uint64(p)),
		flushed: protocol.LSN(binary.LittleEndian.Uint64(p[8:])),
		stamp:   time.Duration(binary.LittleEndian.Uint64(p[16:])),
	}, nil
}

// readFrame reads the next frame, which must be of type want and at most limit
// bytes of payload, into buf, and returns the payload (which is buf's memory).
func readFrame(in *bufio.Reader, want byte, limit int, buf *[]byte) ([]byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:])) - 1
	if head[4] != want || n < 0 || n > int64(limit) {
		return nil, fmt.Errorf("%w: frame of type %d with %d bytes, want type %d with at most %d", errWire, head[4], n, want, limit)
	}
	if int64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	p := (*buf)[:n]
	_, err := io.ReadFull(in, p)
	return p, err
}
