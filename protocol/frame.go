package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Sizes of authentication, in bytes.
const (
	// HMACSize is the size of the HMAC-SHA256 in front of a frame.
	HMACSize = sha256.Size
	// MinSecretLen is the length of the shortest secret that is accepted.
	MinSecretLen = 32
)

// ReadChunk is how much of a payload ReadFrame makes room for before it has
// seen any of it, in bytes: who announces megabytes must send them.
const ReadChunk = 16 << 10

var (
	// ErrShortSecret means that the secret has fewer than MinSecretLen bytes.
	ErrShortSecret = fmt.Errorf("secret is too short: use at least %d bytes", MinSecretLen)
	// ErrBadHMAC means that the bytes were changed on the way, or that the
	// sender has another secret.
	ErrBadHMAC = errors.New("message authentication failed: sender has another secret, or the bytes were changed")
)

// ComputeHMAC returns the HMAC-SHA256 of data. The only error is
// ErrShortSecret.
func ComputeHMAC(secret, data []byte) ([HMACSize]byte, error) {
	var sum [HMACSize]byte
	if len(secret) < MinSecretLen {
		return sum, ErrShortSecret
	}
	h := hmac.New(sha256.New, secret)
	h.Write(data)
	h.Sum(sum[:0])
	return sum, nil
}

// VerifyHMAC returns nil when mac is the HMAC of data, ErrBadHMAC when it is
// not, whatever its length, and ErrShortSecret. The time it takes does not
// depend on where mac differs.
func VerifyHMAC(secret, data, mac []byte) error {
	sum, err := ComputeHMAC(secret, data)
	if err != nil {
		return err
	}
	if !hmac.Equal(sum[:], mac) {
		return ErrBadHMAC
	}
	return nil
}

// EncodeAuthenticated returns m as a frame: the HMAC, then what Encode gives.
// Errors are Encode's and ErrShortSecret.
func EncodeAuthenticated(m Message, secret []byte) ([]byte, error) {
	if len(secret) < MinSecretLen {
		return nil, ErrShortSecret
	}
	if err := check(m); err != nil {
		return nil, err
	}
	frame := make([]byte, HMACSize, HMACSize+HeaderSize+sizeHint(m))
	frame, err := appendMessage(frame, m)
	if err != nil {
		return nil, err
	}
	sum, err := ComputeHMAC(secret, frame[HMACSize:])
	if err != nil {
		return nil, err
	}
	copy(frame, sum[:])
	return frame, nil
}

// DecodeAuthenticated reads one whole frame and nothing else. The HMAC is
// checked, over everything behind it, before anything else is looked at. Errors
// are ErrShortSecret, ErrBadHMAC, or wrap ErrMalformed. A payload slice of the
// message is part of frame.
func DecodeAuthenticated(frame, secret []byte) (Message, error) {
	if len(secret) < MinSecretLen {
		return nil, ErrShortSecret
	}
	if len(frame) < HMACSize {
		return nil, malformed("%d bytes, shorter than the HMAC of %d", len(frame), HMACSize)
	}
	if err := VerifyHMAC(secret, frame[HMACSize:], frame[:HMACSize]); err != nil {
		return nil, err
	}
	return Decode(frame[HMACSize:])
}

// ReadFrame reads exactly one frame from r and leaves what follows it unread.
// Of the header it believes only what bounds the frame: a tag that exists and a
// length that tag may have. The rest is looked at after the HMAC has been
// checked. Memory grows with the bytes received, not with the length announced.
//
// It returns io.EOF, unwrapped, only when r ends before the frame's first byte; an
// end inside the frame wraps io.ErrUnexpectedEOF and ErrMalformed. Errors of r
// are wrapped. After any error but ErrShortSecret the stream is of no further
// use: where the next frame begins is not known.
func ReadFrame(r io.Reader, secret []byte) (Message, error) {
	if len(secret) < MinSecretLen {
		return nil, ErrShortSecret
	}
	frame, err := readFrame(r, nil)
	if err != nil {
		return nil, err
	}
	return DecodeAuthenticated(frame, secret)
}

// readFrame reads the bytes of one frame, believing only its bounds.
func readFrame(r io.Reader, room func(payload int) error) ([]byte, error) {
	frame := make([]byte, HMACSize+HeaderSize, HMACSize+HeaderSize+64)
	if n, err := io.ReadFull(r, frame); err != nil {
		if n == 0 && err == io.EOF {
			return nil, io.EOF
		}
		return nil, cut(n, err)
	}
	_, size, err := checkHeader(frame[HMACSize:])
	if err != nil {
		return nil, err
	}
	if room != nil && size > ReadChunk {
		if err := room(size); err != nil {
			return nil, err
		}
	}
	for want := len(frame) + size; len(frame) < want; {
		at := len(frame)
		frame = append(frame, make([]byte, min(want-at, max(at, ReadChunk)))...)
		if n, err := io.ReadFull(r, frame[at:]); err != nil {
			return nil, cut(at+n, err)
		}
	}
	return frame, nil
}

// cut wraps the error that ended a frame after n bytes.
func cut(n int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut off after %d bytes: %w", ErrMalformed, n, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("read frame: %w", err)
}
