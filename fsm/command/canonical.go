package command

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// IsCanonical reports whether data is, byte for byte, what Encode gives for
// some command. It allocates nothing. It shares no code with Encode and Decode:
// each is the other's check.
func IsCanonical(data []byte) bool {
	if len(data) > MaxCommandLen {
		return false
	}
	if string(data) == `"Noop"` {
		return true
	}
	c := cursor{rest: data}
	if !c.literal(`{"`) {
		return false
	}
	var ok bool
	switch {
	case c.literal(`AddNode":{"node_id":`):
		ok = c.number(math.MaxUint64) && c.literal(`,"address":`) && c.text()
	case c.literal(`RemoveNode":{"node_id":`):
		ok = c.number(math.MaxUint64)
	case c.literal(`AssignShard":{"table_id":`):
		ok = c.number(math.MaxUint64) && c.literal(`,"shard_id":`) && c.number(math.MaxUint32) &&
			c.literal(`,"node_id":`) && c.number(math.MaxUint64)
	case c.literal(`TransferShard":{"table_id":`):
		ok = c.number(math.MaxUint64) && c.literal(`,"shard_id":`) && c.number(math.MaxUint32) &&
			c.literal(`,"from_node":`) && c.number(math.MaxUint64) && c.literal(`,"to_node":`) && c.number(math.MaxUint64)
	case c.literal(`UpdateConfig":{"key":`):
		ok = c.text() && c.literal(`,"value":`) && c.text()
	case c.literal(`KvWrite":{"key":`):
		ok = c.byteString() && c.literal(`,"value":`) && (c.literal(`null`) || c.byteString())
	}
	return ok && c.literal(`}}`) && len(c.rest) == 0
}

// cursor eats canonical text from the front. A method that returns false
// leaves it anywhere, except literal, which then leaves it where it was.
type cursor struct{ rest []byte }

func (c *cursor) literal(s string) bool {
	if len(c.rest) < len(s) || string(c.rest[:len(s)]) != s {
		return false
	}
	c.rest = c.rest[len(s):]
	return true
}

// number eats a whole number up to limit without leading zeros.
func (c *cursor) number(limit uint64) bool {
	var n uint64
	i := 0
	for ; i < len(c.rest) && c.rest[i]-'0' <= 9; i++ {
		d := uint64(c.rest[i] - '0')
		if i > 0 && n == 0 || n > (limit-d)/10 {
			return false
		}
		n = n*10 + d
	}
	c.rest = c.rest[i:]
	return i > 0
}

// text eats a string in which nothing is escaped that need not be.
func (c *cursor) text() bool {
	if !c.literal(`"`) {
		return false
	}
	from := 0
	for i := 0; i < len(c.rest); i++ {
		switch b := c.rest[i]; {
		case b == '"':
			if !utf8.Valid(c.rest[from:i]) {
				return false
			}
			c.rest = c.rest[i+1:]
			return true
		case b == '\\':
			n := escapeLen(c.rest[i:])
			if n == 0 || !utf8.Valid(c.rest[from:i]) {
				return false
			}
			i += n - 1
			from = i + 1
		case b < ' ':
			return false
		}
	}
	return false
}

// escapeLen returns the length of the canonical escape that s begins with, 0
// if it begins with none.
func escapeLen(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	if strings.IndexByte(`"\bfnrt`, s[1]) >= 0 {
		return 2
	}
	if len(s) < 6 || string(s[1:4]) != `u00` || s[4] != '0' && s[4] != '1' {
		return 0
	}
	low := strings.IndexByte(`0123456789abcdef`, s[5])
	// U+0008 to U+000D have short escapes, except for U+000B.
	if low < 0 || s[4] == '0' && low >= 0x8 && low <= 0xd && low != 0xb {
		return 0
	}
	return 6
}

// byteString eats an array of numbers up to 255.
func (c *cursor) byteString() bool {
	if !c.literal(`[`) {
		return false
	}
	if c.literal(`]`) {
		return true
	}
	for len(c.rest) >= 8 {
		if ok, end := c.twoNumbers(); !ok || end {
			return ok
		}
	}
	for c.number(math.MaxUint8) {
		if c.literal(`]`) {
			return true
		}
		if !c.literal(`,`) {
			return false
		}
	}
	return false
}

// twoNumbers eats the next two numbers of an array and what stands behind each,
// or one if that is the last; end tells that the array ends there. Both lie within
// the next eight characters, or one of them has more than three digits. There is no
// branch that depends on how many digits they have, which nobody could foretell.
func (c *cursor) twoNumbers() (ok, end bool) {
	const zeros, sevenBits, overNine, highBits = 0x3030303030303030, 0x7f7f7f7f7f7f7f7f, 0x7676767676767676, 0x8080808080808080
	w := binary.LittleEndian.Uint64(c.rest)
	digits := w ^ zeros                                        // a byte for each character: 0 to 9 if it is a digit
	marks := (digits&sevenBits + overNine | digits) & highBits // those that are none
	first := bits.TrailingZeros64(marks) / 8
	second := bits.TrailingZeros64(marks&(marks-1)) / 8 // 8: there is no second one
	if !isByte(uint32(digits), first) {
		return false, false
	}
	switch byte(w >> (8 * first)) {
	case ']':
		c.rest = c.rest[first+1:]
		return true, true
	case ',':
	default:
		return false, false
	}
	if second == 8 || !isByte(uint32(digits>>(8*first+8)), second-first-1) {
		return false, false
	}
	end = byte(w>>(8*second)) == ']'
	ok = end || byte(w>>(8*second)) == ','
	c.rest = c.rest[second+1:]
	return ok, end
}

// isByte tells whether the first n bytes of digits, the lowest first, are a number
// up to 255 without leading zeros.
func isByte(digits uint32, n int) bool {
	if n < 1 || n > 3 {
		return false
	}
	aligned := digits << (32 - 8*n) // the last digit in the highest byte, zeros below the first
	value := aligned>>24 + aligned>>16&0xff*10 + aligned>>8&0xff*100
	return value <= math.MaxUint8 && (n == 1 || digits&0xff != 0)
}
