package protocol

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

// seeds adds all vectors, good and bad, without their HMAC.
func seeds(f *testing.F, add func(raw []byte)) {
	for _, dir := range []string{"testdata/interop", "testdata/own"} {
		for _, file := range []string{"/frames.jsonl", "/frames_hostile.jsonl"} {
			for _, v := range readVectors(f, dir+file, 1) {
				if frame := unhex(f, v.FrameHex); len(frame) >= HMACSize {
					add(frame[HMACSize:])
				}
			}
		}
	}
}

// FuzzDecode: whatever decodes has one encoding, the bytes it came from.
func FuzzDecode(f *testing.F) {
	seeds(f, func(raw []byte) { f.Add(raw) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Decode(raw)
		if err != nil {
			if !isRefusal(err) || m != nil {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		again, err := Encode(m)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%+v encodes to %x, %v; came from %x", m, again, err, raw)
		}
	})
}

// FuzzReadFrame: a frame with a good HMAC, whatever is in it, and something behind
// it. The stream decoder and the single-frame decoder must agree, and what is
// behind the frame must still be there.
func FuzzReadFrame(f *testing.F) {
	seeds(f, func(raw []byte) { f.Add(raw, []byte("behind"), uint16(0)) })
	f.Fuzz(func(t *testing.T, raw, behind []byte, flip uint16) {
		mac, err := ComputeHMAC(testSecret, raw)
		if err != nil {
			t.Fatal(err)
		}
		frame := append(mac[:], raw...)
		frame[int(flip)%HMACSize] ^= byte(flip >> 8)
		single, singleErr := DecodeAuthenticated(frame, testSecret)

		stream := bytes.NewReader(append(bytes.Clone(frame), behind...))
		m, err := ReadFrame(iotest.HalfReader(stream), testSecret)
		switch {
		case singleErr == nil:
			if err != nil || m.Tag() != single.Tag() {
				t.Fatalf("stream: %+v, %v; single: %+v", m, err, single)
			}
			if left, _ := io.ReadAll(stream); !bytes.Equal(left, behind) {
				t.Fatalf("left behind the frame: %x, want %x", left, behind)
			}
			again, err := EncodeAuthenticated(m, testSecret)
			if err != nil || !bytes.Equal(again, frame) {
				t.Fatalf("%+v encodes to %x, %v; came from %x", m, again, err, frame)
			}
		case err == nil:
			t.Fatalf("stream: %+v; single: %v", m, singleErr)
		case !isRefusal(err):
			t.Fatalf("stream: %v", err)
		}
	})
}
