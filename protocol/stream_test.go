package protocol

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func pair(t testing.TB) (*Sealer, *Opener) {
	t.Helper()
	s, err := NewSealer(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func seal(t testing.TB, s *Sealer, m Message) []byte {
	t.Helper()
	frame, err := s.Seal(m)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// Frames are taken once, in their order, and look like those of the original.
func TestStreamOrder(t *testing.T) {
	s, o := pair(t)
	one, two := seal(t, s, Ack{Epoch: 1, NodeID: 2}), seal(t, s, Ack{Epoch: 1, NodeID: 2})
	if bytes.Equal(one, two) || !bytes.Equal(one[HMACSize:], two[HMACSize:]) {
		t.Error("two frames of one message differ in more, or less, than their HMAC")
	}
	for _, tc := range []struct {
		name   string
		frames [][]byte
		good   int
	}{
		{"in order", [][]byte{one, two}, 2},
		{"repeated", [][]byte{one, one}, 1},
		{"swapped", [][]byte{two, one}, 0},
		{"one left out", [][]byte{two}, 0},
	} {
		_, o := pair(t)
		r := bytes.NewReader(bytes.Join(tc.frames, nil))
		for i := range tc.frames {
			m, err := o.Read(r, nil)
			if i < tc.good && (err != nil || m != Message(Ack{Epoch: 1, NodeID: 2})) || i == tc.good && !errors.Is(err, ErrBadHMAC) {
				t.Errorf("%s: frame %d: %v, %v", tc.name, i, m, err)
			}
			if i == tc.good {
				break
			}
		}
	}
	if _, err := DecodeAuthenticated(one, testSecret); !errors.Is(err, ErrBadHMAC) {
		t.Errorf("a frame of a stream outside of it: %v", err)
	}
	if _, err := o.Read(bytes.NewReader(nil), nil); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
	if _, err := s.Seal(nil); err == nil {
		t.Error("nothing was sealed")
	}
	if _, err := NewSealer(testSecret[:MinSecretLen-1]); !errors.Is(err, ErrShortSecret) {
		t.Error(err)
	}
	if _, err := NewOpener(nil); !errors.Is(err, ErrShortSecret) {
		t.Error(err)
	}
}

// Room is asked for before memory is taken, and only for what is large.
func TestStreamRoom(t *testing.T) {
	s, o := pair(t)
	full := errors.New("no room")
	var asked []int
	room := func(n int) error { asked = append(asked, n); return full }
	small := seal(t, s, ForwardReply{Payload: make([]byte, ReadChunk-1)})
	if _, err := o.Read(bytes.NewReader(small), room); err != nil || asked != nil {
		t.Errorf("small: %v, %v", asked, err)
	}
	large := seal(t, s, ForwardReply{Payload: make([]byte, ReadChunk)})
	if _, err := o.Read(bytes.NewReader(large[:HMACSize+HeaderSize]), room); !errors.Is(err, full) || len(asked) != 1 || asked[0] != ReadChunk+1 {
		t.Errorf("large: %v, %v", asked, err)
	}
}

// FuzzOpener: whatever comes in, only the next frame of the Sealer is taken.
func FuzzOpener(f *testing.F) {
	s, _ := pair(f)
	f.Add(seal(f, s, Heartbeat{Epoch: 1, NodeID: 2}), uint16(0))
	f.Add([]byte{}, uint16(0x0103))
	seeds(f, func(raw []byte) { f.Add(raw, uint16(0)) })
	f.Fuzz(func(t *testing.T, raw []byte, change uint16) {
		_, o := pair(t)
		if m, err := o.Read(bytes.NewReader(raw), nil); err == nil {
			s, _ := pair(t)
			if again := seal(t, s, m); !bytes.HasPrefix(raw, again) {
				t.Fatalf("%x was taken for %+v", raw, m)
			}
		} else if !isRefusal(err) && err != io.EOF {
			t.Fatal(err)
		}
		// The same as a payload, sealed, and changed at one place.
		s, o := pair(t)
		frame := seal(t, s, ForwardReply{Payload: raw[:min(len(raw), 1<<12)]})
		frame[int(change&0xff)%len(frame)] ^= byte(change >> 8)
		if m, err := o.Read(bytes.NewReader(frame), nil); (err == nil) != (change>>8 == 0) {
			t.Fatalf("%+v, %v", m, err)
		}
	})
}
