package jsonlstore

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Payloads are most of what is read and written here, so base64 has code of its
// own: the library's takes twice the time, one character after the other. What is decoded here, and
// to what, is exactly what strictBase64 does to text without newlines.

// strictBase64 refuses what an encoder would not have written.
var strictBase64 = base64.StdEncoding.Strict()

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// base64Pairs holds the two digits of every 12 bits, the first in the upper byte.
// base64Values is the way back, for two characters with the first in the lower
// byte, as they are read; notBase64 if they are no digits.
var (
	base64Pairs  = newBase64Pairs()
	base64Values = newBase64Values()
)

const notBase64 = 1 << 15

func newBase64Pairs() (t [1 << 12]uint16) {
	for n := range t {
		t[n] = uint16(base64Digits[n>>6])<<8 | uint16(base64Digits[n&63])
	}
	return t
}

func newBase64Values() (t [1 << 16]uint16) {
	for n := range t {
		t[n] = notBase64
	}
	for n, pair := range base64Pairs {
		t[bits.ReverseBytes16(pair)] = uint16(n)
	}
	return t
}

// decodeBase64 decodes a string of digits and padding into new memory. ok is
// false if no encoder would have written it.
func decodeBase64(text []byte) (data []byte, ok bool) {
	if len(text)%4 != 0 {
		return nil, false
	}
	out := make([]byte, len(text)/4*3)
	bad := uint16(0)
	dst, src := out, text
	for len(src) >= 12 && len(dst) >= 8 { // the end, with its padding, is for the library
		v := binary.LittleEndian.Uint64(src)
		a, b, c, d := base64Values[uint16(v)], base64Values[uint16(v>>16)], base64Values[uint16(v>>32)], base64Values[v>>48]
		bad |= a | b | c | d
		binary.BigEndian.PutUint64(dst, uint64(a)<<52|uint64(b)<<40|uint64(c)<<28|uint64(d)<<16)
		dst, src = dst[6:], src[8:]
	}
	if bad&notBase64 != 0 || bytes.IndexByte(src, '\n') >= 0 || bytes.IndexByte(src, '\r') >= 0 { // the library passes over these
		return nil, false
	}
	n, err := strictBase64.Decode(dst, src)
	n += len(out) - len(dst)
	return out[:n:n], err == nil
}

// appendEncoded appends data in base64.
func appendEncoded(dst, data []byte) []byte {
	from := len(dst)
	n := base64.StdEncoding.EncodedLen(len(data))
	dst = slices.Grow(dst, n)[:from+n]
	out := dst[from:]
	t := &base64Pairs
	for len(data) >= 8 && len(out) >= 8 {
		v := binary.BigEndian.Uint64(data)
		binary.BigEndian.PutUint64(out, uint64(t[v>>52])<<48|uint64(t[v>>40&0xfff])<<32|uint64(t[v>>28&0xfff])<<16|uint64(t[v>>16&0xfff]))
		data, out = data[6:], out[8:]
	}
	base64.StdEncoding.Encode(out, data)
	return dst
}
