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

// Secret is bytes that must not be shown: printed, logged or encoded, by any
// verb and any encoder that asks, it is one fixed word. Convert it to []byte to
// use it.
//
// Package fmt asks no methods of unexported fields: whoever keeps a Secret in
// one should give it up once it has been used.
type Secret []byte

// Equal compares in a time that depends on neither content nor length.
func (s Secret) Equal(other []byte) bool {
	a, b := sha256.Sum256(s), sha256.Sum256(other)
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
