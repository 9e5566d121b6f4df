package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// TestHostileGreetings: a holder of the secret who does not keep to the protocol.
func TestHostileGreetings(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	var calls atomic.Int64
	m, _ := answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		calls.Add(1)
		return protocol.Ack{}, nil
	})
	greeting := func(version byte, from, to uint64) []byte {
		b := []byte{version}
		b = binary.LittleEndian.AppendUint64(b, from)
		return binary.LittleEndian.AppendUint64(b, to)
	}
	frame, err := protocol.EncodeAuthenticated(ballot, id.MessageKey())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := protocol.EncodeAuthenticated(ballot, identity(t, "wrong").MessageKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"another version":   append(greeting(9, 1, 2), frame...),
		"to another node":   append(greeting(1, 1, 3), frame...),
		"from ourselves":    append(greeting(1, 2, 2), frame...),
		"from nobody":       append(greeting(1, 0, 2), frame...),
		"no frame":          append(greeting(1, 1, 2), make([]byte, 200)...),
		"forged frame":      append(greeting(1, 1, 2), forged...),
		"changed frame":     append(append(greeting(1, 1, 2), frame[:len(frame)-1]...), frame[len(frame)-1]^1),
		"frame without end": append(greeting(1, 1, 2), frame[:len(frame)-1]...),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := open(t, id, nil).Dial(t.Context(), m.Addr().String(), ALPNMessage)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write(raw); err != nil {
				t.Fatal(err)
			}
			if name == "frame without end" {
				_ = conn.(*peerConn).CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Error("the connection was not closed")
			}
		})
	}
	if calls.Load() != 0 {
		t.Errorf("%d of them reached the handler", calls.Load())
	}
}

// TestRotation walks a secret through its three steps: at each, every two nodes
// that may meet understand each other, in both directions.
func TestRotation(t *testing.T) {
	noLeaks(t)
	steps := [][]string{{"old"}, {"old", "new"}, {"new", "old"}, {"new"}}
	call := func(from, to []string) error {
		book := &phonebook{}
		answerer(t, identity(t, to...), book, "127.0.0.1:0", ack)
		_, err := caller(t, identity(t, from...), book).Call(within(t, patience), 2, propose)
		return err
	}
	for i := range steps {
		for _, j := range []int{i - 1, i, i + 1} {
			if j < 0 || j >= len(steps) {
				continue
			}
			if err := call(steps[i], steps[j]); err != nil {
				t.Errorf("%v calls %v: %v", steps[i], steps[j], err)
			}
		}
	}
	if err := call(steps[0], steps[3]); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("before the rotation and after it: %v", err)
	}
}
