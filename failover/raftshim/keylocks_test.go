package raftshim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
)

func TestKeyLocksAreGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keyLocks
		var mu sync.Mutex // for the race detector: they take turns anyway
		var order []string
		var held []func()
		take := func(name string, exclusive bool) {
			go func() {
				release, err := l.lock(t.Context(), nil, "k", exclusive)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
				held = append(held, release)
			}()
			synctest.Wait()
		}
		expect := func(want string) {
			t.Helper()
			if got := fmt.Sprint(order); got != want {
				t.Fatalf("held by %s, want %s", got, want)
			}
		}
		free := func() {
			release := held[0]
			held = held[1:]
			release()
			release() // does no harm
			synctest.Wait()
		}
		take("a", false)
		take("b", false) // plain writes share
		take("C", true)
		take("d", false) // behind C, though a and b would let it
		take("e", false)
		take("F", true)
		expect("[a b]")
		free()
		expect("[a b]")
		free()
		expect("[a b C]")
		free()
		synctest.Wait()
		if len(order) != 5 || order[4] == "F" {
			t.Fatalf("held by %v after C", order)
		}
		free()
		free()
		if len(order) != 6 || order[5] != "F" {
			t.Fatalf("held by %v at last", order)
		}
		if release, err := l.lock(t.Context(), nil, "other", true); err != nil {
			t.Fatal("another key waits")
		} else {
			release()
		}
		free()
		if len(l.keys) != 0 {
			t.Errorf("%d keys are remembered for nothing", len(l.keys))
		}
	})
}

// Who stops waiting gets nothing, and holds nobody up.
func TestKeyLocksOfThoseWhoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l keyLocks
		first, err := l.lock(t.Context(), nil, "k", false)
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, err := l.lock(ctx, nil, "k", true); left <- err }()
		synctest.Wait()
		behind := make(chan func(), 1)
		go func() { release, _ := l.lock(t.Context(), nil, "k", false); behind <- release }()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, failover.ErrNoQuorum) || !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		second := <-behind // waited for who left only
		done := make(chan struct{})
		go func() { _, err := l.lock(t.Context(), done, "k", true); left <- err }()
		synctest.Wait()
		close(done)
		if err := <-left; !errors.Is(err, failover.ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
		first()
		second()
		if len(l.keys) != 0 {
			t.Errorf("%d keys are remembered for nothing", len(l.keys))
		}
	})
}

// Whatever order they come, leave and end in: alone is alone, nobody waits
// for ever, nothing is left.
func TestKeyLocksUnderStress(t *testing.T) {
	var l keyLocks
	var all sync.WaitGroup
	state := map[string]*struct {
		mu             sync.Mutex
		plain, special int
	}{"a": {}, "b": {}}
	for n := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			for range 400 {
				key := []string{"a", "b"}[random.IntN(2)]
				exclusive := random.IntN(2) == 0
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if random.IntN(4) == 0 {
					cancel()
				}
				release, err := l.lock(ctx, nil, key, exclusive)
				if err == nil {
					s := state[key]
					s.mu.Lock()
					if s.special > 0 || exclusive && s.plain > 0 {
						t.Errorf("%s: %d alone, %d together, and one more (alone: %v)", key, s.special, s.plain, exclusive)
					}
					count := &s.plain
					if exclusive {
						count = &s.special
					}
					*count++
					s.mu.Unlock()
					runtime.Gosched()
					s.mu.Lock()
					*count--
					s.mu.Unlock()
					release()
				} else if ctx.Err() != context.Canceled { //nolint:errorlint // as package context gives it
					t.Errorf("waited in vain: %v", err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if len(l.keys) != 0 {
		t.Errorf("%d keys are remembered for nothing", len(l.keys))
	}
}
