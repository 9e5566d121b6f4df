package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// phonebook is the lookup of a test.
type phonebook struct {
	mu    sync.Mutex
	addrs map[protocol.NodeID]string
}

func (b *phonebook) set(id protocol.NodeID, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addrs == nil {
		b.addrs = map[protocol.NodeID]string{}
	}
	b.addrs[id] = addr
}

func (b *phonebook) lookup(id protocol.NodeID) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, ok := b.addrs[id]
	return addr, ok
}

// caller is a node that only calls.
func caller(t *testing.T, id *Identity, book *phonebook) *Messenger {
	t.Helper()
	m := open(t, id, nil)
	s := NewMessenger(m, 1, book.lookup, func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		return nil, errors.New("nobody calls here")
	}, nil)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// answerer is node 2, put into the book.
func answerer(t *testing.T, id *Identity, book *phonebook, addr string, h Handler) (*Mux, *Messenger) {
	t.Helper()
	m := openAt(t, addr, id, nil)
	s := NewMessenger(m, 2, book.lookup, h, nil)
	t.Cleanup(func() { _ = s.Close() })
	book.set(2, m.Addr().String())
	return m, s
}

var (
	ballot  = protocol.BallotRequest{Epoch: 7, CandidateID: 1, Position: protocol.Position{Timeline: 3, LSN: 99}}
	propose = protocol.ForwardRequest{Kind: protocol.ForwardPropose, TimeoutUS: 1000, Payload: []byte(`"Noop"`)}
)

func ack(_ context.Context, _ protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	if b, ok := m.(protocol.BallotRequest); ok {
		return protocol.Ack{Epoch: b.Epoch, NodeID: 2}, nil
	}
	return protocol.ForwardReply{}, nil
}

// within gives a context with a deadline only a failing test reaches.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantKind(t *testing.T, err error, kind error) *CallError {
	t.Helper()
	other := ErrNoAnswer
	if kind == ErrNoAnswer {
		other = ErrNotSent
	}
	var call *CallError
	if !errors.Is(err, kind) || errors.Is(err, other) || !errors.As(err, &call) {
		t.Fatalf("got %v, want one that is %v", err, kind)
	}
	return call
}

func TestCallIsAnswered(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	answerer(t, id, book, "127.0.0.1:0", ack)
	c := caller(t, id, book)
	for range 3 {
		got, err := c.Call(within(t, patience), 2, ballot)
		if want := (protocol.Ack{Epoch: 7, NodeID: 2}); err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if open := c.mux.Stats().Open; open != 1 {
		t.Errorf("three calls in a row use %d connections", open)
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	var now, most atomic.Int64
	answerer(t, id, book, "127.0.0.1:0", func(ctx context.Context, from protocol.NodeID, m protocol.Message) (protocol.Message, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		return protocol.Ack{Epoch: m.(protocol.BallotRequest).Epoch, NodeID: 2}, nil
	})
	c := caller(t, id, book)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			want := protocol.Ack{Epoch: protocol.Epoch(i), NodeID: 2}
			got, err := c.Call(within(t, patience), 2, protocol.BallotRequest{Epoch: protocol.Epoch(i), CandidateID: 1})
			if err != nil || got != want {
				t.Errorf("call %d: %+v, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	if most.Load() > maxCallsPerPeer || c.mux.Stats().Open > maxCallsPerPeer {
		t.Errorf("%d at a time on %d connections, limit %d", most.Load(), c.mux.Stats().Open, maxCallsPerPeer)
	}
}

func TestCallNotSent(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	c := caller(t, id, book)

	_, err := c.Call(within(t, patience), 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, ErrUnknownAddress) {
		t.Errorf("unknown address: %v", err)
	}

	gone := open(t, id, nil)
	_ = gone.Close()
	book.set(2, gone.Addr().String())
	_, err = c.Call(within(t, patience), 2, propose)
	if call := wantKind(t, err, ErrNotSent); call.Addr != gone.Addr().String() || call.To != 2 {
		t.Errorf("nobody there: %+v", call)
	}

	// A machine that is stopped: the kernel connects, nobody answers.
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	book.set(2, hole.Addr().String())
	_, err = c.Call(within(t, 100*time.Millisecond), 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("half open: %v", err)
	}

	// One that takes the connection and does not greet.
	mute := open(t, id, nil)
	mute.Stream(ALPNMessage)
	book.set(2, mute.Addr().String())
	_, err = c.Call(within(t, 100*time.Millisecond), 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("mute: %v", err)
	}

	stranger := open(t, identity(t, "wrong"), nil)
	stranger.Stream(ALPNMessage)
	book.set(2, stranger.Addr().String())
	_, err = c.Call(within(t, patience), 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, ErrWrongSecret) {
		t.Errorf("another secret: %v", err)
	}

	_, err = c.Call(within(t, patience), 1, propose)
	wantKind(t, err, ErrNotSent)

	_, err = c.Call(within(t, patience), 2, protocol.PromoteNotify{NewPrimaryAddr: strings.Repeat("x", 1000)})
	wantKind(t, err, ErrNotSent)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Call(ended, 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	_ = c.Close()
	_, err = c.Call(within(t, patience), 2, propose)
	wantKind(t, err, ErrNotSent)
	if !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestServerThatRefusesOurSecret(t *testing.T) {
	noLeaks(t)
	book := &phonebook{}
	answerer(t, identity(t, "right"), book, "127.0.0.1:0", ack)
	c := caller(t, identity(t, "wrong", "right"), book)
	_, err := c.Call(within(t, patience), 2, propose)
	wantKind(t, err, ErrNotSent)
	var typed *WrongSecretError
	if !errors.As(err, &typed) || !typed.ByPeer {
		t.Errorf("%v", err)
	}
}

func TestWrongNodeAnswers(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	var calls atomic.Int64
	m, _ := answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		calls.Add(1)
		return protocol.Ack{NodeID: 2}, nil
	})
	book.set(3, m.Addr().String())
	_, err := caller(t, id, book).Call(within(t, patience), 3, propose)
	wantKind(t, err, ErrNotSent)
	var typed *WrongNodeError
	if !errors.Is(err, ErrWrongNode) || !errors.As(err, &typed) || typed.Want != 3 || typed.Got != 2 {
		t.Errorf("%v", err)
	}
	if calls.Load() != 0 {
		t.Error("the request was executed on the wrong node")
	}
}

func TestNoAnswer(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	release := make(chan struct{})
	var calls atomic.Int64
	answerer(t, id, book, "127.0.0.1:0", func(ctx context.Context, _ protocol.NodeID, m protocol.Message) (protocol.Message, error) {
		calls.Add(1)
		select {
		case <-release:
			return protocol.Ack{NodeID: 2}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	c := caller(t, id, book)
	for _, m := range []protocol.Message{propose, ballot} {
		_, err := c.Call(within(t, 2*time.Second), 2, m) // the handshake is part of it
		wantKind(t, err, ErrNoAnswer)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	if calls.Load() != 2 {
		t.Errorf("%d executions of 2 requests", calls.Load())
	}
	close(release)
	// The late answers belong to nobody: the connections they are for are gone.
	got, err := c.Call(within(t, patience), 2, ballot)
	if err != nil || got != (protocol.Ack{NodeID: 2}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDeadConnectionIsReplaced kills the kept connection under the request:
// what may be done twice is sent again, what may not is reported.
func TestDeadConnectionIsReplaced(t *testing.T) {
	noLeaks(t)
	for _, tc := range []struct {
		m    protocol.Message
		runs int64
		ok   bool
	}{
		{ballot, 2, true},
		{protocol.Heartbeat{NodeID: 1}, 2, true},
		{protocol.ForwardRequest{Kind: protocol.ForwardReadIndex}, 2, true},
		{propose, 1, false},
		{protocol.ForwardRequest{Kind: protocol.ForwardSwitchover, Payload: make([]byte, 8)}, 1, false},
	} {
		t.Run(fmt.Sprintf("%T", tc.m), func(t *testing.T) {
			id, book := identity(t, "right"), &phonebook{}
			var calls atomic.Int64
			fail := false
			answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
				calls.Add(1)
				if fail {
					fail = false
					return nil, errors.New("the connection ends here, after the request")
				}
				return protocol.Ack{NodeID: 2}, nil
			})
			c := caller(t, id, book)
			if _, err := c.Call(within(t, patience), 2, ballot); err != nil { // now one is kept
				t.Fatal(err)
			}
			calls.Store(0)
			fail = true
			_, err := c.Call(within(t, patience), 2, tc.m)
			if tc.ok && err != nil {
				t.Error(err)
			}
			if !tc.ok {
				wantKind(t, err, ErrNoAnswer)
			}
			if calls.Load() != tc.runs {
				t.Errorf("executed %d times, want %d", calls.Load(), tc.runs)
			}
		})
	}
}

// TestFreshConnectionIsNotReplaced: a new connection that dies says something
// about the peer, so nothing is tried twice.
func TestFreshConnectionIsNotReplaced(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	var calls atomic.Int64
	answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		calls.Add(1)
		return nil, errors.New("no")
	})
	_, err := caller(t, id, book).Call(within(t, patience), 2, ballot)
	wantKind(t, err, ErrNoAnswer)
	if calls.Load() != 1 {
		t.Errorf("executed %d times", calls.Load())
	}
}

func TestPeerRestarts(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	m, s := answerer(t, id, book, "127.0.0.1:0", ack)
	c := caller(t, id, book)
	addr := m.Addr().String()
	for round := range 3 {
		// Not even a proposal is lost to a restart between two calls: the end of
		// the kept connection is seen before the next request.
		if _, err := c.Call(within(t, patience), 2, propose); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		_ = s.Close()
		_ = m.Close()
		_, err := c.Call(within(t, patience), 2, ballot)
		wantKind(t, err, ErrNotSent)
		m, s = answerer(t, id, book, addr, ack)
	}
	// And at another address.
	_ = s.Close()
	_ = m.Close()
	answerer(t, id, book, "127.0.0.1:0", ack)
	if _, err := c.Call(within(t, patience), 2, propose); err != nil {
		t.Fatal(err)
	}
}

func TestPeerMoves(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		return protocol.Ack{Epoch: 1, NodeID: 2}, nil
	})
	c := caller(t, id, book)
	if got, err := c.Call(within(t, patience), 2, ballot); err != nil || got != (protocol.Ack{Epoch: 1, NodeID: 2}) {
		t.Fatalf("%+v, %v", got, err)
	}
	// The old one still answers where it was, but the book says otherwise.
	answerer(t, id, book, "127.0.0.1:0", func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		return protocol.Ack{Epoch: 2, NodeID: 2}, nil
	})
	if got, err := c.Call(within(t, patience), 2, ballot); err != nil || got != (protocol.Ack{Epoch: 2, NodeID: 2}) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestMessengerCloseEndsCallsAndHandlers(t *testing.T) {
	noLeaks(t)
	id, book := identity(t, "right"), &phonebook{}
	running := make(chan struct{}, 2)
	_, s := answerer(t, id, book, "127.0.0.1:0", func(ctx context.Context, _ protocol.NodeID, _ protocol.Message) (protocol.Message, error) {
		running <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := caller(t, id, book)
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := c.Call(within(t, patience), 2, propose)
			errs <- err
		}()
		<-running
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := <-errs
		wantKind(t, err, ErrNoAnswer)
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil { // would hang if the handlers did not end
		t.Fatal(err)
	}
}
