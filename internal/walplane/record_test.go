package walplane

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/aiondb/aiondb-ha/protocol"
)

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []record{
		{epoch: 1, lsn: 1, kind: kindBegin, key: []byte{}, value: []byte{}},
		{epoch: 7, lsn: 9, synced: 8, kind: kindPut, key: []byte("k"), value: []byte("v")},
		{epoch: 7, lsn: 9, synced: 3, kind: kindPut, key: []byte("k"), value: []byte{}},
		{epoch: 1 << 63, lsn: 1<<64 - 1, kind: kindDelete, key: bytes.Repeat([]byte("k"), MaxKeyLen), value: []byte{}},
		{epoch: 2, lsn: 2, kind: kindPut, key: []byte("k"), value: bytes.Repeat([]byte("v"), MaxValueLen)},
	} {
		b := appendRecord([]byte("before"), 42, r)[len("before"):]
		if len(b) != r.size() {
			t.Fatalf("%d bytes, size says %d", len(b), r.size())
		}
		got, n, err := decodeRecord(append(b, "behind"...), 42)
		if err != nil || n != len(b) || !reflect.DeepEqual(got, r) {
			t.Fatalf("decode: %+v, %d, %v; want %+v", got, n, err, r)
		}
		if _, _, err := decodeRecord(b, 43); !errors.Is(err, errBadRecord) {
			t.Fatalf("another file's salt: %v", err)
		}
		if len(b) > 200 {
			continue
		}
		for i := range b {
			if _, _, err := decodeRecord(b[:i], 42); !errors.Is(err, errShortRecord) {
				t.Fatalf("cut at %d: %v", i, err)
			}
			b[i] ^= 0x10
			if _, _, err := decodeRecord(b, 42); err == nil {
				t.Fatalf("flipped bit in byte %d goes unnoticed", i)
			}
			b[i] ^= 0x10
		}
	}
}

func TestRecordRefusesNonsense(t *testing.T) {
	for name, r := range map[string]record{
		"epoch 0":           {lsn: 1, kind: kindPut, key: []byte("k")},
		"lsn 0":             {epoch: 1, kind: kindPut, key: []byte("k")},
		"synced beyond":     {epoch: 1, lsn: 3, synced: 3, kind: kindPut, key: []byte("k")},
		"kind 0":            {epoch: 1, lsn: 1},
		"kind 4":            {epoch: 1, lsn: 1, kind: 4},
		"begin with a key":  {epoch: 1, lsn: 1, kind: kindBegin, key: []byte("k")},
		"delete with value": {epoch: 1, lsn: 1, kind: kindDelete, key: []byte("k"), value: []byte("v")},
		"long key":          {epoch: 1, lsn: 1, kind: kindPut, key: make([]byte, MaxKeyLen+1)},
	} {
		if _, _, err := decodeRecord(appendRecord(nil, 0, r), 0); !errors.Is(err, errBadRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuorumLSN(t *testing.T) {
	for _, c := range []struct {
		flushed []protocol.LSN
		voters  int
		want    protocol.LSN
	}{
		{nil, 1, 0},
		{[]protocol.LSN{5}, 1, 5},
		{[]protocol.LSN{5}, 2, 0},
		{[]protocol.LSN{5, 3}, 2, 3},
		{[]protocol.LSN{5}, 3, 0},
		{[]protocol.LSN{5, 2}, 3, 2},
		{[]protocol.LSN{9, 5, 2}, 3, 5},
		{[]protocol.LSN{1, 9, 5, 2}, 5, 2},
		{[]protocol.LSN{1, 9, 5, 2}, 4, 2},
	} {
		if got := quorumLSN(append([]protocol.LSN(nil), c.flushed...), c.voters); got != c.want {
			t.Errorf("%v of %d voters: %d, want %d", c.flushed, c.voters, got, c.want)
		}
		// The dumb twin: the highest LSN that enough have.
		var dumb protocol.LSN
		for lsn := protocol.LSN(1); lsn < 12; lsn++ {
			n := 0
			for _, f := range c.flushed {
				if f >= lsn {
					n++
				}
			}
			if n >= c.voters/2+1 {
				dumb = lsn
			}
		}
		if dumb != c.want {
			t.Errorf("%v of %d voters: the twin says %d", c.flushed, c.voters, dumb)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, 0, record{epoch: 1, lsn: 1, kind: kindBegin}))
	f.Add(appendRecord(nil, 0, record{epoch: 3, lsn: 5, synced: 2, kind: kindPut, key: []byte("k"), value: []byte("v")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := decodeRecord(b, 0)
		if err != nil {
			return
		}
		if again := appendRecord(nil, 0, r); !bytes.Equal(again, b[:n]) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b[:n], r, again)
		}
	})
}

func FuzzFrames(f *testing.F) {
	body := func(b []byte) []byte { return b[frameHeader:] }
	f.Add(body(appendHello(nil, hello{node: 2, epoch: 3, position: protocol.Position{Timeline: 1, LSN: 7}})))
	f.Add(body(appendWelcome(nil, welcome{epoch: 3, reason: "no"})))
	f.Add(body(appendAck(nil, ack{epoch: 3, flushed: 9, stamp: 1})))
	f.Add(body(appendBatch(nil, batch{epoch: 3, commit: 8, echo: 1, records: []record{{epoch: 3, lsn: 9, kind: kindPut, key: []byte("k")}}})))
	f.Fuzz(func(t *testing.T, p []byte) {
		if h, err := parseHello(p); err == nil && !bytes.Equal(body(appendHello(nil, h)), p) {
			t.Fatal("hello")
		}
		if w, err := parseWelcome(p); err == nil && !bytes.Equal(body(appendWelcome(nil, w)), p) {
			t.Fatal("welcome")
		}
		if a, err := parseAck(p); err == nil && !bytes.Equal(body(appendAck(nil, a)), p) {
			t.Fatal("ack")
		}
		if m, err := parseBatch(p, nil); err == nil {
			for _, r := range m.records {
				if r.synced != 0 {
					return // a sender's synced is dropped
				}
			}
			if !bytes.Equal(body(appendBatch(nil, m)), p) {
				t.Fatal("batch")
			}
		}
	})
}
