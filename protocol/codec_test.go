package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var testSecret = bytes.Repeat([]byte{0x5a}, MinSecretLen)

func TestEncodeRefuses(t *testing.T) {
	big := func(n int) []byte { return make([]byte, n) }
	for name, m := range map[string]Message{
		"nil":                     nil,
		"pointer":                 &Heartbeat{},
		"role":                    Heartbeat{Role: 3},
		"address too long":        PromoteNotify{NewPrimaryAddr: strings.Repeat("a", MaxAddrLen+1)},
		"address not UTF-8":       PromoteNotify{NewPrimaryAddr: "\xff"},
		"append entries":          AppendEntries{big(MaxRaftPayload + 1)},
		"append entries response": AppendEntriesResponse{big(MaxRaftPayload + 1)},
		"ballot reason":           BallotAnswer{Refusal: 4},
		"forward kind 0":          ForwardRequest{Payload: []byte("x")},
		"forward kind 5":          ForwardRequest{Kind: 5, Payload: []byte("x")},
		"propose nothing":         ForwardRequest{Kind: ForwardPropose},
		"propose too much":        ForwardRequest{Kind: ForwardPropose, Payload: big(MaxForwardPayload + 1)},
		"read index payload":      ForwardRequest{Kind: ForwardReadIndex, Payload: big(1)},
		"switchover 7":            ForwardRequest{Kind: ForwardSwitchover, Payload: big(7)},
		"propose nothing if":      ForwardRequest{Kind: ForwardProposeIf, Payload: big(8)},
		"propose too much if":     ForwardRequest{Kind: ForwardProposeIf, Payload: big(MaxForwardPayload + 1)},
		"reply status":            ForwardReply{Status: 6},
		"reply revision of 7":     ForwardReply{Status: ForwardDiffers, Payload: big(7)},
		"reply revision of 9":     ForwardReply{Status: ForwardDiffers, Payload: big(9)},
		"reply reason":            ForwardReply{Status: ForwardRefused, Payload: []byte("\xc3")},
		"reply too much":          ForwardReply{Payload: big(MaxReplyPayload + 1)},
	} {
		if b, err := Encode(m); b != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: Encode gives %d bytes, %v", name, len(b), err)
		}
		if b, err := EncodeAuthenticated(m, testSecret); b != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: EncodeAuthenticated gives %d bytes, %v", name, len(b), err)
		}
	}
}

// What is exactly at its limit goes through, in both directions.
func TestLimits(t *testing.T) {
	for _, m := range []Message{
		PromoteNotify{NewPrimaryAddr: strings.Repeat("ä", MaxAddrLen/2)},
		AppendEntries{make([]byte, MaxRaftPayload)},
		AppendEntriesResponse{make([]byte, MaxRaftPayload)},
		ForwardRequest{Kind: ForwardPropose, Payload: make([]byte, MaxForwardPayload)},
		ForwardRequest{Kind: ForwardProposeIf, Payload: make([]byte, MaxForwardPayload)},
		ForwardRequest{Kind: ForwardProposeIf, Payload: make([]byte, 9)},
		ForwardReply{Status: ForwardDiffers, Payload: make([]byte, 8)},
		ForwardReply{Payload: make([]byte, MaxReplyPayload)},
	} {
		frame, err := EncodeAuthenticated(m, testSecret)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		got, err := ReadFrame(bytes.NewReader(frame), testSecret)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		again, err := EncodeAuthenticated(got, testSecret)
		if err != nil || !bytes.Equal(again, frame) {
			t.Errorf("%T: comes back different (%v)", m, err)
		}
	}
}

// Every byte of a frame counts: change one, cut anywhere, and it is refused.
func TestEveryByteCounts(t *testing.T) {
	frame, err := EncodeAuthenticated(BallotAnswer{Epoch: 7, VoterID: 2, Floor: 7, Position: Position{6, 99}}, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		bad := bytes.Clone(frame)
		bad[i] ^= 0x10
		if m, err := DecodeAuthenticated(bad, testSecret); err != ErrBadHMAC {
			t.Errorf("byte %d changed: %+v, %v", i, m, err)
		}
		if m, err := ReadFrame(bytes.NewReader(bad), testSecret); !isRefusal(err) {
			t.Errorf("byte %d changed: ReadFrame gives %+v, %v", i, m, err)
		}
		if m, err := DecodeAuthenticated(frame[:i], testSecret); !isRefusal(err) {
			t.Errorf("cut at %d: %+v, %v", i, m, err)
		}
		m, err := ReadFrame(bytes.NewReader(frame[:i]), testSecret)
		if i == 0 && err != io.EOF {
			t.Errorf("nothing: %+v, %v, want io.EOF", m, err)
		}
		if i > 0 && !(errors.Is(err, io.ErrUnexpectedEOF) && errors.Is(err, ErrMalformed)) {
			t.Errorf("cut at %d: ReadFrame gives %+v, %v", i, m, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	short := testSecret[:MinSecretLen-1]
	if _, err := ComputeHMAC(short, nil); err != ErrShortSecret {
		t.Errorf("ComputeHMAC: %v", err)
	}
	if err := VerifyHMAC(nil, nil, nil); err != ErrShortSecret {
		t.Errorf("VerifyHMAC: %v", err)
	}
	if _, err := EncodeAuthenticated(Ack{}, short); err != ErrShortSecret {
		t.Errorf("EncodeAuthenticated: %v", err)
	}
	if _, err := DecodeAuthenticated(make([]byte, 100), short); err != ErrShortSecret {
		t.Errorf("DecodeAuthenticated: %v", err)
	}
	if _, err := ReadFrame(strings.NewReader("x"), short); err != ErrShortSecret {
		t.Errorf("ReadFrame: %v", err)
	}
	mac, err := ComputeHMAC(testSecret, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyHMAC(testSecret, []byte("data"), mac[:]); err != nil {
		t.Errorf("VerifyHMAC: %v", err)
	}
	for _, bad := range [][]byte{nil, mac[:HMACSize-1], append(mac[:], 0)} {
		if err := VerifyHMAC(testSecret, []byte("data"), bad); err != ErrBadHMAC {
			t.Errorf("VerifyHMAC with a mac of %d bytes: %v", len(bad), err)
		}
	}
}

// ReadFrame takes one frame off a stream and leaves the next where it is.
func TestReadFrameStream(t *testing.T) {
	var stream bytes.Buffer
	for i := range 100 {
		frame, err := EncodeAuthenticated(AppendEntries{make([]byte, i*1000)}, testSecret)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(frame)
	}
	for i := range 100 {
		m, err := ReadFrame(&stream, testSecret)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if got := len(m.(AppendEntries).Payload); got != i*1000 {
			t.Fatalf("frame %d has %d bytes", i, got)
		}
	}
	if _, err := ReadFrame(&stream, testSecret); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF", err)
	}
}

// brokenReader gives some bytes and then an error of its own.
type brokenReader struct {
	data []byte
	err  error
}

func (r *brokenReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, r.err
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func TestReadFrameKeepsTheReadersError(t *testing.T) {
	broken := fmt.Errorf("cable cut")
	frame, err := EncodeAuthenticated(Ack{Epoch: 1, NodeID: 2}, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		if _, err := ReadFrame(&brokenReader{frame[:i], broken}, testSecret); !errors.Is(err, broken) || errors.Is(err, ErrMalformed) {
			t.Errorf("after %d bytes: %v", i, err)
		}
	}
}

// Who announces 8 MiB and sends nothing makes the decoder hold a few KiB; who
// announces what no tag allows makes it hold the header.
func TestReadFrameMemory(t *testing.T) {
	stream := make([]byte, HMACSize+HeaderSize)
	stream[HMACSize] = byte(TagForwardRequest)
	stream[HMACSize+3] = 0x80 // 8 MiB
	bytesPerRun := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ReadFrame(bytes.NewReader(stream), testSecret); !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if bytesPerRun > 64<<10 {
		t.Errorf("%d bytes allocated for an empty payload", bytesPerRun)
	}
}

func BenchmarkReadFrame(b *testing.B) {
	frame, err := EncodeAuthenticated(Heartbeat{Epoch: 1, NodeID: 2, Role: RolePrimary}, testSecret)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var r bytes.Reader
	for b.Loop() {
		r.Reset(frame)
		if _, err := ReadFrame(&r, testSecret); err != nil {
			b.Fatal(err)
		}
	}
}
