package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// A Sealer authenticates the frames that go out over one direction of one
// connection, an Opener those that come in. A frame looks as EncodeAuthenticated
// makes it; its HMAC covers, in front of the message, the number of the frame
// (u64 LE, from 0), which itself is not sent:
//
//	HMAC-SHA256(key, number | tag | length | payload)
//
// With a key that no other connection or direction has, a frame that is
// repeated, left out, moved, sent back or taken from elsewhere is refused with
// ErrBadHMAC.
//
// Neither is safe for concurrent use.
type Sealer struct{ session }

// An Opener is the other end of a Sealer.
type Opener struct{ session }

type session struct {
	key    []byte
	number uint64
}

// NewSealer returns a Sealer that begins with frame 0. The key, at least
// MinSecretLen bytes (ErrShortSecret), is not copied.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) < MinSecretLen {
		return nil, ErrShortSecret
	}
	return &Sealer{session{key: key}}, nil
}

// NewOpener returns an Opener that expects frame 0; see NewSealer.
func NewOpener(key []byte) (*Opener, error) {
	if len(key) < MinSecretLen {
		return nil, ErrShortSecret
	}
	return &Opener{session{key: key}}, nil
}

// next returns the HMAC of the next frame's message and counts the frame.
func (s *session) next(message []byte) (sum [HMACSize]byte) {
	h := hmac.New(sha256.New, s.key)
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], s.number)
	h.Write(number[:])
	h.Write(message)
	h.Sum(sum[:0])
	s.number++
	return sum
}

// Seal returns m as the next frame. After an error, which is Encode's, no
// frame is counted.
func (s *Sealer) Seal(m Message) ([]byte, error) {
	if err := check(m); err != nil {
		return nil, err
	}
	frame := make([]byte, HMACSize, HMACSize+HeaderSize+sizeHint(m))
	frame, err := appendMessage(frame, m)
	if err != nil {
		return nil, err
	}
	sum := s.next(frame[HMACSize:])
	copy(frame, sum[:])
	return frame, nil
}

// Read reads the next frame from r, under the rules of ReadFrame. room, which
// may be nil, is called once the header has announced a payload of more than
// ReadChunk bytes, before memory is taken for it; its error ends the reading.
func (s *Opener) Read(r io.Reader, room func(payload int) error) (Message, error) {
	frame, err := readFrame(r, room)
	if err != nil {
		return nil, err
	}
	if sum := s.next(frame[HMACSize:]); !hmac.Equal(sum[:], frame[:HMACSize]) {
		return nil, ErrBadHMAC
	}
	return Decode(frame[HMACSize:])
}
