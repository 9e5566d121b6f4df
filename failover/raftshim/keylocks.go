package raftshim

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/aiondb/aiondb-ha/failover"
)

// keyLocks orders the writes of each key: any number of plain ones at once, or
// one that depends on what the key is. First come, first served, so that neither
// kind starves the other. Keys do not wait for each other. What it remembers is
// bounded by the writes under way. The zero value is ready; it is safe for
// concurrent use.
type keyLocks struct {
	mu   sync.Mutex
	keys map[string]*keyLock // those that are held
}

type keyLock struct {
	shared    int // holders; 0 while exclusive
	exclusive bool
	queue     []*keyWaiter
}

type keyWaiter struct {
	exclusive bool
	granted   chan struct{} // closed by advanceLocked
}

// lock takes a key, and waits for it if it must. Whoever has it calls release,
// once or more often. An error wraps failover.ErrNoQuorum or failover.ErrClosed:
// the key is not held, and nothing was done.
func (l *keyLocks) lock(ctx context.Context, done <-chan struct{}, key string, exclusive bool) (release func(), err error) {
	w := &keyWaiter{exclusive: exclusive, granted: make(chan struct{})}
	release = sync.OnceFunc(func() { l.release(key, exclusive) })
	l.mu.Lock()
	k := l.keys[key]
	if k == nil {
		if l.keys == nil {
			l.keys = map[string]*keyLock{}
		}
		k = &keyLock{}
		l.keys[key] = k
	}
	k.queue = append(k.queue, w)
	k.advance()
	l.mu.Unlock()
	select {
	case <-w.granted:
		return release, nil
	default:
	}
	select {
	case <-w.granted:
		return release, nil
	case <-done:
		err = failover.ErrClosed
	case <-ctx.Done():
		err = fmt.Errorf("%w: an earlier write of the key is not decided yet, nothing was done: %w", failover.ErrNoQuorum, context.Cause(ctx))
	}
	l.mu.Lock()
	at := slices.Index(k.queue, w)
	if at >= 0 {
		k.queue = slices.Delete(k.queue, at, at+1)
		k.advance() // those behind may have waited for this one only
	}
	l.mu.Unlock()
	if at < 0 {
		release() // it was granted meanwhile
	}
	return nil, err
}

func (l *keyLocks) release(key string, exclusive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if exclusive {
		k.exclusive = false
	} else {
		k.shared--
	}
	k.advance()
	if !k.exclusive && k.shared == 0 { // then nobody waits either
		delete(l.keys, key)
	}
}

// advance grants the key to the first in the queue, as long as that can be.
func (k *keyLock) advance() {
	for len(k.queue) > 0 {
		w := k.queue[0]
		if k.exclusive || w.exclusive && k.shared > 0 {
			return
		}
		if k.exclusive = w.exclusive; !w.exclusive {
			k.shared++
		}
		k.queue[0] = nil
		k.queue = k.queue[1:]
		close(w.granted)
	}
}
