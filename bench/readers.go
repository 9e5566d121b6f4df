package main

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Readers behave like Raft's replication goroutines: they read a run of
// neighbouring entries, send it off, and wait for the network.
const (
	readers    = 4
	burstLen   = 64
	networkLag = time.Millisecond
)

// burst reads burstLen entries and checks them.
type burst func(rng *rand.Rand) error

// beside runs body while n readers are at work, all of which have read before
// it begins. It returns the first error of any of them.
func beside(n int, read burst, body func() error) error {
	var started, done sync.WaitGroup
	stop := make(chan struct{})
	errs := make(chan error, n)
	for i := range n {
		started.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			rng := rand.New(rand.NewPCG(3, uint64(i))) //nolint:gosec // G115: a count
			err := read(rng)
			started.Done()
			for err == nil {
				select {
				case <-stop:
					return
				case <-time.After(networkLag):
					err = read(rng)
				}
			}
			errs <- err
		}()
	}
	started.Wait()
	err := body()
	close(stop)
	done.Wait()
	select {
	case readErr := <-errs:
		return readErr
	default:
		return err
	}
}

// recent returns a burst that reads a run somewhere among the last span
// entries.
func (l *lane) recent(span uint64) burst {
	return func(rng *rand.Rand) error {
		last, first := l.last.Load(), l.first.Load()
		if last < first+burstLen {
			return nil
		}
		from := max(first, last-min(last, span))
		from += rng.Uint64N(last - burstLen - from + 1)
		for i := range uint64(burstLen) {
			if err := l.readOne(from + i); err != nil {
				return err
			}
		}
		return nil
	}
}
