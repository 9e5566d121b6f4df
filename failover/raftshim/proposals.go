package raftshim

import (
	"context"
	"fmt"
	"sync"

	"github.com/aiondb/aiondb-ha/failover"
)

// proposals is the way of entries to Raft. It can be held closed, so that a log
// ends where it ends while another node is to catch up with it. The zero value
// is open. It is safe for concurrent use.
type proposals struct {
	mu      sync.Mutex
	held    int           // by how many
	pending int           // with Raft, without an outcome
	changed chan struct{} // closed when either becomes 0; nil: nobody waits
}

// enter waits until nobody holds the way closed. Whoever entered calls leave when
// Raft has told the outcome. An error wraps failover.ErrNoQuorum or
// failover.ErrClosed: nothing was done.
func (p *proposals) enter(ctx context.Context, done <-chan struct{}) error {
	for {
		p.mu.Lock()
		if p.held == 0 {
			p.pending++
			p.mu.Unlock()
			return nil
		}
		changed := p.waitLocked()
		p.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			return failover.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: held back while leadership is handed over, nothing was done: %w", failover.ErrNoQuorum, context.Cause(ctx))
		}
	}
}

func (p *proposals) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending--
	p.tellLocked(p.pending)
}

// hold closes the way and waits until Raft has told the outcome of everything
// that entered. release opens it again, and must be called, also after an error.
func (p *proposals) hold(ctx context.Context, done <-chan struct{}) (release func(), err error) {
	p.mu.Lock()
	p.held++
	p.mu.Unlock()
	release = sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held--
		p.tellLocked(p.held)
	})
	for {
		p.mu.Lock()
		pending, changed := p.pending, p.waitLocked()
		p.mu.Unlock()
		if pending == 0 {
			return release, nil
		}
		select {
		case <-changed:
		case <-done:
			return release, failover.ErrClosed
		case <-ctx.Done():
			return release, fmt.Errorf("%d entries are not committed in time: %w", pending, context.Cause(ctx))
		}
	}
}

func (p *proposals) waitLocked() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

func (p *proposals) tellLocked(left int) {
	if left == 0 && p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}
