package protocol

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// redactedSecret is all that is ever printed of a Secret.
const redactedSecret = "(secret)"

// Secret holds bytes that must not be shown: printed, logged or encoded, by any
// verb and any encoder, also from an unexported field, it is one fixed word or
// an address. The zero value is the empty secret. It is immutable.
type Secret struct {
	// Behind a pointer, because fmt asks no methods of unexported fields, and
	// not a slice, because some loggers print slices without asking at all.
	hidden *string
}

// NewSecret returns a Secret of a copy of raw.
func NewSecret[T ~string | ~[]byte](raw T) Secret {
	if len(raw) == 0 {
		return Secret{}
	}
	text := string(raw)
	return Secret{&text}
}

// Bytes returns a copy of what is kept secret; nil if it is empty.
func (s Secret) Bytes() []byte {
	if s.hidden == nil {
		return nil
	}
	return []byte(*s.hidden)
}

// Len returns the number of bytes.
func (s Secret) Len() int {
	if s.hidden == nil {
		return 0
	}
	return len(*s.hidden)
}

// Equal compares in a time that depends on the lengths only.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256(s.Bytes()), sha256.Sum256(other.Bytes())
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns the fixed word.
func (s Secret) String() string { return redactedSecret }

// GoString is String, for %#v.
func (s Secret) GoString() string { return redactedSecret }

// Format writes the fixed word whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedSecret) }

// MarshalText is String, for JSON and other encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redactedSecret), nil }

// LogValue is String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redactedSecret) }
