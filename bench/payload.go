package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// payloads makes the Data of log entries: a pure function of the index, so
// that every store gets the same bytes and every read can be checked.
type payloads interface {
	name() string
	// fill overwrites dst, which has the payload's size.
	fill(dst []byte, index uint64)
	// is tells whether data is the payload of index. It allocates nothing, and
	// may be called by several goroutines.
	is(data []byte, index uint64) bool
	size() int
}

// variants is how many different payloads there are, apart from the index in
// each of them.
const variants = 16

// opaque payloads are bytes that look random, as those of an application with
// a binary encoding do.
type opaque struct{ bodies [variants][]byte }

func newOpaque(size int) *opaque {
	rng := rand.New(rand.NewPCG(1, uint64(size))) //nolint:gosec // G115: a size
	o := &opaque{}
	for i := range o.bodies {
		body := make([]byte, size)
		for j := range body {
			body[j] = byte(rng.Uint32()) //nolint:gosec // G115: the low bits are meant
		}
		o.bodies[i] = body
	}
	return o
}

func (o *opaque) name() string { return "opaque" }
func (o *opaque) size() int    { return len(o.bodies[0]) }

func (o *opaque) fill(dst []byte, index uint64) {
	copy(dst, o.bodies[index%variants])
	binary.BigEndian.PutUint64(dst, index)
}

func (o *opaque) is(data []byte, index uint64) bool {
	return len(data) == o.size() && binary.BigEndian.Uint64(data) == index &&
		bytes.Equal(data[8:], o.bodies[index%variants][8:])
}

// commands are KvWrite commands in canonical form, the payloads AionDB has in
// its log. The key is the index in eight decimal digits, hence eight numbers
// of two digits in the encoding, and the text is of the same length for all.
type commands struct {
	bodies [variants][]byte
	keyAt  int
}

const (
	keyLen      = 8
	keyFront    = `{"KvWrite":{"key":[`
	minCommand  = len(keyFront) + 3*keyLen + len(`],"value":[0]}}`) + 8
	digitStride = 3 // "48,"
)

func newCommands(size int) *commands {
	if size < minCommand {
		panic(fmt.Sprintf("a command of %d bytes is too short, want at least %d", size, minCommand))
	}
	rng := rand.New(rand.NewPCG(2, uint64(size)))
	c := &commands{keyAt: len(keyFront)}
	empty, err := command.Encode(command.KvWrite{Key: []byte("00000000"), Value: []byte{}})
	if err != nil {
		panic(err)
	}
	for i := range c.bodies {
		body, err := command.Encode(command.KvWrite{Key: []byte("00000000"), Value: valueOfLen(rng, size-len(empty))})
		if err != nil || len(body) != size || string(body[:len(keyFront)]) != keyFront {
			panic(fmt.Sprintf("command of %d bytes, want %d: %v", len(body), size, err))
		}
		c.bodies[i] = body
	}
	return c
}

// valueOfLen returns bytes whose encoding, numbers with commas between them,
// has the given length.
func valueOfLen(rng *rand.Rand, length int) []byte {
	rest := length + 1 // as if a comma stood behind the last, too
	var v []byte
	add := func(b byte) {
		v = append(v, b)
		rest -= len(fmt.Sprint(b)) + 1
	}
	for rest > 8 {
		add(byte(rng.Uint32())) //nolint:gosec // G115: the low bits are meant
	}
	for rest > 4 {
		if rest == 5 {
			add(7)
		} else {
			add(42)
		}
	}
	add([]byte{7, 42, 142}[rest-2])
	return v
}

func (c *commands) name() string { return "KvWrite" }
func (c *commands) size() int    { return len(c.bodies[0]) }

func (c *commands) fill(dst []byte, index uint64) {
	copy(dst, c.bodies[index%variants])
	for i := keyLen - 1; i >= 0; i-- {
		at := c.keyAt + i*digitStride
		code := '0' + byte(index%10)
		dst[at], dst[at+1] = '0'+code/10, '0'+code%10
		index /= 10
	}
}

func (c *commands) is(data []byte, index uint64) bool {
	body := c.bodies[index%variants]
	keyEnd := c.keyAt + keyLen*digitStride
	if len(data) != len(body) || !bytes.Equal(data[:c.keyAt], body[:c.keyAt]) || !bytes.Equal(data[keyEnd:], body[keyEnd:]) {
		return false
	}
	for i := keyLen - 1; i >= 0; i-- {
		at := c.keyAt + i*digitStride
		code := '0' + byte(index%10)
		if data[at] != '0'+code/10 || data[at+1] != '0'+code%10 {
			return false
		}
		index /= 10
	}
	return true
}
