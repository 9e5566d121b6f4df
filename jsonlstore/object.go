package jsonlstore

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"unicode/utf8"
)

// errField is returned for a field whose value is not of the wanted kind.
var errField = errors.New("wrong kind of value")

// eachField calls visit with every key and value of the one JSON object that
// text holds, in order. key and value alias text; value is valid JSON without
// blanks around it. Anything but one object, or text that is not UTF-8, is an
// error, as is one from visit. Nesting is bounded by encoding/json.
func eachField(text []byte, visit func(key, value []byte) error) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	if !json.Valid(text) {
		return errors.New("not JSON")
	}
	// From here on the text is known to be well-formed: what follows only has
	// to find where values end.
	i := skipBlank(text, 0)
	if text[i] != '{' {
		return errors.New("not a JSON object")
	}
	for i = skipBlank(text, i+1); text[i] != '}'; {
		if text[i] == ',' {
			i = skipBlank(text, i+1)
		}
		keyEnd := skipValue(text, i)
		key, err := unquote(text[i:keyEnd])
		if err != nil {
			return err
		}
		i = skipBlank(text, keyEnd) // at the colon
		i = skipBlank(text, i+1)
		valueEnd := skipValue(text, i)
		if err := visit(key, text[i:valueEnd]); err != nil {
			return err
		}
		i = skipBlank(text, valueEnd)
	}
	return nil
}

func skipBlank(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}

// skipValue returns the end of the value that begins at i.
func skipValue(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = skipString(text, i) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth == 0 {
				return skipScalar(text, i)
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

func skipString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func skipScalar(text []byte, i int) int {
	for i < len(text) {
		switch text[i] {
		case ',', '}', ']', ' ', '\t', '\r', '\n':
			return i
		}
		i++
	}
	return i
}

// unquote returns what a JSON string says; without escapes that is part of the
// text itself.
func unquote(value []byte) ([]byte, error) {
	if len(value) < 2 || value[0] != '"' {
		return nil, errField
	}
	inner := value[1 : len(value)-1]
	for _, c := range inner {
		if c == '\\' {
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				return nil, err
			}
			return []byte(s), nil
		}
	}
	return inner, nil
}

// parseUint reads a whole number from 0 to 2^64-1 in plain digits.
func parseUint(value []byte) (uint64, error) {
	if len(value) == 0 || len(value) > 20 {
		return 0, errField
	}
	var n uint64
	for _, c := range value {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, errField
		}
		n = n*10 + d
	}
	return n, nil
}

// parseBytes reads a base64 string; never nil without an error.
func parseBytes(value []byte) ([]byte, error) {
	text, err := unquote(value)
	if err != nil {
		return nil, err
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := strictBase64.Decode(out, text)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return out[:n:n], nil
}

// parseSum reads the eight lower-case hex digits of a checksum.
func parseSum(text []byte) (sum uint32, ok bool) {
	for _, c := range text {
		digit := c - '0'
		if digit > 9 {
			if digit = c - 'a' + 10; c < 'a' || c > 'f' {
				return 0, false
			}
		}
		sum = sum<<4 | uint32(digit)
	}
	return sum, len(text) == crcDigits
}
