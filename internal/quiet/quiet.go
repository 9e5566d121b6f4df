// Package quiet keeps a log readable while somebody makes the same thing happen
// over and over.
package quiet

import (
	"sync"
	"time"
)

const (
	// Window is how long one source stays unmentioned after a line about it.
	Window = time.Minute
	// Sources bounds how many sources are remembered; beyond it, in one
	// window, further sources share one line.
	Sources = 1024
)

// Quiet decides which of many equal lines go to the log: the first of each
// source in a window. It is safe for concurrent use.
type Quiet struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time           // begin of the window
	seen  map[string]struct{} // the sources of this window
	more  bool                // the line for the sources beyond the bound was written
}

// New returns a Quiet that has seen nothing yet; now is asked for the time.
func New(now func() time.Time) *Quiet { return &Quiet{now: now} }

// Say reports whether a line about source should be written now.
func (q *Quiet) Say(source string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if q.seen == nil || now.Sub(q.since) >= Window {
		q.since, q.seen, q.more = now, make(map[string]struct{}), false
	}
	if _, said := q.seen[source]; said {
		return false
	}
	if len(q.seen) >= Sources {
		first := !q.more
		q.more = true
		return first
	}
	q.seen[source] = struct{}{}
	return true
}
