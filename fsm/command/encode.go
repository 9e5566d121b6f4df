package command

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Encode returns the canonical encoding of c, in a slice of the caller's own.
// Errors are Append's.
func Encode(c Command) ([]byte, error) { return Append(nil, c) }

// Append appends the canonical encoding of c to dst and returns the extended
// slice. On an error it returns dst as it was. An error wraps ErrMalformed: a
// string that is not UTF-8, a delete that carries a value, a type that is no command, or,
// with ErrTooLong, an encoding over MaxCommandLen.
func Append(dst []byte, c Command) ([]byte, error) {
	if err := check(c); err != nil {
		return dst, err
	}
	out := appendCommand(dst, c)
	if n := len(out) - len(dst); n > MaxCommandLen {
		return dst, tooLong(n)
	}
	return out, nil
}

func tooLong(n int) error {
	return fmt.Errorf("%w: %w: %d bytes, limit %d: send less data at once", ErrMalformed, ErrTooLong, n, MaxCommandLen)
}

// check refuses what has no encoding, and what is certain to be too long,
// before any of it is written.
func check(c Command) error {
	var texts [2]string
	switch c := c.(type) {
	case Noop, RemoveNode, AssignShard, TransferShard:
		return nil
	case AddNode:
		texts[0] = c.Address
	case UpdateConfig:
		texts = [2]string{c.Key, c.Value}
	case KvWrite:
		if c.Delete && len(c.Value) > 0 {
			return fmt.Errorf("%w: a KvWrite that deletes must not carry a value", ErrMalformed)
		}
		// A byte takes at least one digit and, but for the last, a comma.
		if n := len(c.Key) + len(c.Value); n > MaxCommandLen/2 {
			return tooLong(2 * n)
		}
		return nil
	default:
		return fmt.Errorf("%w: %T is no command", ErrMalformed, c)
	}
	if n := len(texts[0]) + len(texts[1]); n > MaxCommandLen {
		return tooLong(n)
	}
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%w: %s with text that is not UTF-8", ErrMalformed, c.Name())
		}
	}
	return nil
}

func appendCommand(dst []byte, c Command) []byte {
	switch c := c.(type) {
	case Noop:
		return append(dst, `"Noop"`...)
	case AddNode:
		dst = appendUint(dst, `{"AddNode":{"node_id":`, uint64(c.NodeID))
		dst = appendString(append(dst, `,"address":`...), c.Address)
	case RemoveNode:
		dst = appendUint(dst, `{"RemoveNode":{"node_id":`, uint64(c.NodeID))
	case AssignShard:
		dst = appendUint(dst, `{"AssignShard":{"table_id":`, c.TableID)
		dst = appendUint(dst, `,"shard_id":`, uint64(c.ShardID))
		dst = appendUint(dst, `,"node_id":`, uint64(c.NodeID))
	case TransferShard:
		dst = appendUint(dst, `{"TransferShard":{"table_id":`, c.TableID)
		dst = appendUint(dst, `,"shard_id":`, uint64(c.ShardID))
		dst = appendUint(dst, `,"from_node":`, uint64(c.FromNode))
		dst = appendUint(dst, `,"to_node":`, uint64(c.ToNode))
	case UpdateConfig:
		dst = appendString(append(dst, `{"UpdateConfig":{"key":`...), c.Key)
		dst = appendString(append(dst, `,"value":`...), c.Value)
	case KvWrite:
		dst = appendBytes(append(dst, `{"KvWrite":{"key":`...), c.Key)
		dst = append(dst, `,"value":`...)
		if c.Delete {
			dst = append(dst, `null`...)
		} else {
			dst = appendBytes(dst, c.Value)
		}
	}
	return append(dst, `}}`...)
}

func appendUint(dst []byte, before string, n uint64) []byte {
	return strconv.AppendUint(append(dst, before...), n, 10)
}

// appendString appends s, which is UTF-8, as canonical JSON.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		short := shortEscape(s[i])
		if short == 0 && s[i] >= ' ' {
			continue
		}
		dst = append(dst, s[from:i]...)
		if short != 0 {
			dst = append(dst, '\\', short)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigit(s[i]>>4), hexDigit(s[i]&0xf))
		}
		from = i + 1
	}
	return append(append(dst, s[from:]...), '"')
}

// shortEscape returns the letter behind the backslash for the bytes whose
// canonical escape has two characters, 0 for all others.
func shortEscape(b byte) byte {
	switch b {
	case '"', '\\':
		return b
	case '\b':
		return 'b'
	case '\t':
		return 't'
	case '\n':
		return 'n'
	case '\f':
		return 'f'
	case '\r':
		return 'r'
	}
	return 0
}

func hexDigit(n byte) byte { return "0123456789abcdef"[n] }

func appendBytes(dst, data []byte) []byte {
	dst = append(dst, '[')
	for i, b := range data {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}
