package command

import (
	"math"
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
