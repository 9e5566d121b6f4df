package fencing

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// handClock is a clock that is set by hand.
type handClock struct{ now atomic.Int64 }

func (c *handClock) read() time.Duration { return time.Duration(c.now.Load()) }

func TestGuard(t *testing.T) {
	clock := &handClock{}
	g := NewGuard(clock.read)
	check := func(epoch protocol.Epoch, want error) {
		t.Helper()
		if got := g.Check(epoch); got != want {
			t.Errorf("Check(%d) = %v, want %v", epoch, got, want)
		}
	}
	check(0, ErrNotPrimary)
	check(5, ErrNotPrimary)
	g.Extend(5, NoDeadline)
	check(5, ErrNotPrimary)
	if err := g.Open(5); err != nil {
		t.Fatal(err)
	}
	check(5, ErrLeaseExpired)
	g.Extend(5, 100)
	check(5, nil)
	check(4, ErrNotPrimary)
	check(6, ErrNotPrimary)
	clock.now.Store(99)
	check(5, nil)
	clock.now.Store(100)
	check(5, ErrLeaseExpired) // I4
	g.Extend(5, 90)           // never shortens, nor helps when late
	check(5, ErrLeaseExpired)
	g.Extend(4, 500)
	check(5, ErrLeaseExpired)
	g.Extend(5, 200)
	check(5, nil)
	ctx, err := g.Context(5)
	if err != nil || ctx.Err() != nil {
		t.Fatal(err)
	}
	g.CloseBelow(5, nil)
	check(5, nil)
	cause := errors.New("ballot of epoch 6")
	g.CloseBelow(6, cause)
	check(5, ErrNotPrimary)
	if got := context.Cause(ctx); !errors.Is(got, cause) || !errors.Is(got, ErrNotPrimary) {
		t.Errorf("the context's cause is %v", got)
	}
	g.Extend(5, NoDeadline)
	check(5, ErrNotPrimary)
	for _, epoch := range []protocol.Epoch{0, 3, 5} { // I5
		if err := g.Open(epoch); !errors.Is(err, ErrNotPrimary) || !errors.Is(err, cause) && epoch == 5 {
			t.Errorf("Open(%d) after it was closed: %v", epoch, err)
		}
	}
	if err := g.Open(7); err != nil {
		t.Fatal(err)
	}
	if err := g.Open(6); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("a lower epoch opened beside a higher one: %v", err)
	}
	g.Extend(7, NoDeadline)
	if err := g.Open(9); err != nil { // I1
		t.Fatal(err)
	}
	check(7, ErrNotPrimary)
	if epoch, open := g.Epoch(); epoch != 9 || !open {
		t.Errorf("open in %d, %v", epoch, open)
	}
	g.Close(nil)
	g.Close(nil)
	if _, open := g.Epoch(); open {
		t.Error("open after Close")
	}
	if _, err := g.Context(9); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("a context of a closed epoch: %v", err)
	}
	if err := g.Open(9); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("reopened: %v", err)
	}
}

func TestGuardWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		g := NewGuard(func() time.Duration { return time.Since(began) })
		if err := g.Wait(t.Context(), 1); !errors.Is(err, ErrNotPrimary) {
			t.Errorf("nothing open: %v", err)
		}
		if err := g.Open(1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := g.Wait(ctx, 1); !errors.Is(err, ErrLeaseExpired) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no lease in time: %v", err)
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if err := g.Wait(t.Context(), 1); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		g.Extend(1, time.Since(began)) // over as it comes
		synctest.Wait()
		g.Extend(1, time.Since(began)+time.Second)
		all.Wait()
		time.Sleep(2 * time.Second)
		cause := errors.New("leadership lost")
		for range 10 {
			all.Go(func() {
				if err := g.Wait(t.Context(), 1); !errors.Is(err, ErrNotPrimary) || !errors.Is(err, cause) {
					t.Errorf("closed while waiting: %v", err)
				}
			})
		}
		synctest.Wait()
		g.CloseBelow(2, cause)
		all.Wait()
	})
}

// twinGuard is the guard as one would write it without a thought for speed.
type twinGuard struct {
	open, closed protocol.Epoch
	deadline     time.Duration
}

func (g *twinGuard) check(now time.Duration, epoch protocol.Epoch) error {
	if g.open == 0 || g.open != epoch {
		return ErrNotPrimary
	}
	if g.deadline != NoDeadline && now >= g.deadline {
		return ErrLeaseExpired
	}
	return nil
}

func TestGuardAgainstTwin(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		clock := &handClock{}
		g, twin := NewGuard(clock.read), &twinGuard{}
		for step := range 200 {
			epoch, now := protocol.Epoch(rnd.IntN(8)), clock.read()
			switch op := rnd.IntN(6); op {
			case 0:
				ok := epoch > twin.closed && epoch >= twin.open
				if ok && epoch != twin.open {
					twin.closed = max(twin.closed, twin.open)
					twin.open, twin.deadline = epoch, -1
				}
				if err := g.Open(epoch); (err == nil) != ok {
					t.Fatalf("seed %d step %d: Open(%d) = %v", seed, step, epoch, err)
				}
			case 1:
				deadline := now + time.Duration(rnd.IntN(20)-5)
				if rnd.IntN(10) == 0 {
					deadline = NoDeadline
				}
				if twin.open != 0 && twin.open == epoch {
					if twin.deadline = max(twin.deadline, deadline); twin.deadline == NoDeadline {
						twin.deadline = deadline
					}
				}
				g.Extend(epoch, deadline)
			case 2:
				if rnd.IntN(4) == 0 {
					twin.closed, twin.open = max(twin.closed, twin.open), 0
					g.Close(nil)
				}
			case 3:
				if rnd.IntN(4) == 0 && epoch > 0 {
					twin.closed = max(twin.closed, epoch-1)
					if twin.open <= twin.closed {
						twin.open = 0
					}
					g.CloseBelow(epoch, nil)
				}
			default:
				clock.now.Add(int64(rnd.IntN(4)))
			}
			for e := range protocol.Epoch(9) {
				if got, want := g.Check(e), twin.check(clock.read(), e); got != want {
					t.Fatalf("seed %d step %d: Check(%d) = %v, want %v", seed, step, e, got, want)
				}
			}
		}
	}
}

// After CloseBelow(e) has returned, no Check of an epoch below e that begins
// later succeeds, whatever else goes on.
func TestGuardClosesForAll(t *testing.T) {
	g := NewGuard(func() time.Duration { return 0 })
	var closed atomic.Uint64
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				below := protocol.Epoch(closed.Load())
				for e := max(below, 3) - 3; e < below; e++ {
					if g.Check(e) == nil {
						t.Errorf("Check(%d) = nil after CloseBelow(%d)", e, below)
						return
					}
				}
			}
		})
	}
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if e, open := g.Epoch(); open {
					g.Extend(e, NoDeadline)
				}
			}
		}
	})
	for e := protocol.Epoch(1); e < 3000; e++ {
		if err := g.Open(e); err != nil {
			t.Fatal(err)
		}
		g.Extend(e, NoDeadline)
		g.CloseBelow(e+1, nil)
		closed.Store(uint64(e + 1))
	}
	close(done)
	all.Wait()
}

func TestCheckDoesNotAllocate(t *testing.T) {
	m := &machine{}
	quick := leased(t, m, time.Hour)
	exact := NewGuard(m.boot)
	if err := exact.Open(1); err != nil {
		t.Fatal(err)
	}
	exact.Extend(1, time.Hour)
	for _, g := range []*Guard{quick, exact} {
		if n := testing.AllocsPerRun(100, func() { _ = g.Check(1); _ = g.Check(2) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
