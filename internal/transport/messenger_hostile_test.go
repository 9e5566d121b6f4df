package transport

import (
	"bytes"
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
		return protocol.Ack{NodeID: 2}, nil
	})
	greeting := func(version byte, from, to uint64) []byte {
		b := []byte{version}
		b = binary.LittleEndian.AppendUint64(b, from)
		return binary.LittleEndian.AppendUint64(b, to)
	}
	// What the secret alone can make: a frame of no connection.
	frame, err := protocol.EncodeAuthenticated(ballot, id.accepted[0].message)
	if err != nil {
		t.Fatal(err)
	}
	good := greeting(greetingVersion, 1, 2)
	type framer func(*protocol.Sealer, *protocol.Opener) []byte
	seal := func(s *protocol.Sealer, m protocol.Message) []byte {
		frame, err := s.Seal(m)
		if err != nil {
			t.Fatal(err)
		}
		return frame
	}
	var old []byte // a good frame of an earlier connection
	for _, tc := range []struct {
		name     string
		greeting []byte
		frames   framer
		reached  int64
	}{
		{"another version", greeting(1, 1, 2), func(s *protocol.Sealer, _ *protocol.Opener) []byte { return seal(s, ballot) }, 0},
		{"to another node", greeting(greetingVersion, 1, 3), func(s *protocol.Sealer, _ *protocol.Opener) []byte { return seal(s, ballot) }, 0},
		{"from ourselves", greeting(greetingVersion, 2, 2), func(s *protocol.Sealer, _ *protocol.Opener) []byte { return seal(s, ballot) }, 0},
		{"from nobody", greeting(greetingVersion, 0, 2), func(s *protocol.Sealer, _ *protocol.Opener) []byte { return seal(s, ballot) }, 0},
		{"no frame", good, func(*protocol.Sealer, *protocol.Opener) []byte { return make([]byte, 200) }, 0},
		{"frame of no connection", good, func(*protocol.Sealer, *protocol.Opener) []byte { return frame }, 0},
		{"good, then the same again", good, func(s *protocol.Sealer, _ *protocol.Opener) []byte {
			old = seal(s, ballot)
			return append(bytes.Clone(old), old...)
		}, 1},
		{"frame of an earlier connection", good, func(*protocol.Sealer, *protocol.Opener) []byte { return old }, 0},
		{"second frame first", good, func(s *protocol.Sealer, _ *protocol.Opener) []byte {
			seal(s, ballot)
			return seal(s, ballot)
		}, 0},
		{"changed frame", good, func(s *protocol.Sealer, _ *protocol.Opener) []byte {
			f := seal(s, ballot)
			f[len(f)-1] ^= 1
			return f
		}, 0},
		{"in the name of another node", good, func(s *protocol.Sealer, _ *protocol.Opener) []byte {
			return seal(s, protocol.BallotRequest{Epoch: 7, CandidateID: 3})
		}, 0},
		{"frame without end", good, func(s *protocol.Sealer, _ *protocol.Opener) []byte { f := seal(s, ballot); return f[:len(f)-1] }, 0},
		{"huge frame", good, func(*protocol.Sealer, *protocol.Opener) []byte {
			return append(make([]byte, protocol.HMACSize), byte(protocol.TagForwardRequest), 0xff, 0xff, 0xff, 0xff)
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := calls.Load()
			dialed, err := open(t, id, nil).Dial(t.Context(), m.Addr().String(), ALPNMessage)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = dialed.Close() }()
			conn := dialed.(*peerConn)
			sealer, opener, err := conn.session()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(append(bytes.Clone(tc.greeting), tc.frames(sealer, opener)...)); err != nil {
				t.Fatal(err)
			}
			if tc.name == "frame without end" {
				_ = conn.CloseWrite()
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Error("the connection was not closed")
			}
			if n := calls.Load() - before; n != tc.reached {
				t.Errorf("%d frames reached the handler, want %d", n, tc.reached)
			}
		})
	}
}

// TestReflection: what a node has said is not taken from it when it comes back.
func TestReflection(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	m, _ := answerer(t, id, book, "127.0.0.1:0", ack)
	dialed, err := open(t, id, nil).Dial(t.Context(), m.Addr().String(), ALPNMessage)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dialed.Close() }()
	conn := dialed.(*peerConn)
	sealer, _, err := conn.session()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := sealer.Seal(ballot)
	if err != nil {
		t.Fatal(err)
	}
	greeting := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{greetingVersion}, 1), 2)
	if _, err := conn.Write(append(greeting, frame...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, welcomeSize+protocol.HMACSize+protocol.HeaderSize+16)
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(answer[welcomeSize:]); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.Copy(io.Discard, conn); n != 0 || isTimeout(err) {
		t.Errorf("%d bytes in answer to the own answer, %v", n, err)
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
