// Package quiet keeps a log readable while somebody makes the same thing happen
// over and over.
package quiet

import (
	"maps"
	"sync"
	"time"
)

const (
	// Window is how long one source stays unmentioned after a line about it.
	Window = time.Minute
	// Sources bounds how many sources are remembered; while there are more,
	// the others share one line a window.
	Sources = 1024
)

// Quiet decides which of many equal lines go to the log: one of each source, and
// no other for a window from then on. It is safe for concurrent use.
type Quiet struct {
	now func() time.Time

	mu    sync.Mutex
	said  map[string]time.Time // when a source was last mentioned, if that is less than a window ago, or was not looked at since
	swept time.Time            // when those that are over were last left out
	more  time.Time            // when the line for the sources beyond the bound was written
}

// New returns a Quiet that has seen nothing yet; now is asked for the time.
func New(now func() time.Time) *Quiet { return &Quiet{now: now, said: make(map[string]time.Time)} }

// Say reports whether a line about source should be written now.
func (q *Quiet) Say(source string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	over := func(at time.Time) bool { return at.IsZero() || now.Sub(at) >= Window }
	if at, known := q.said[source]; known {
		if !over(at) {
			return false
		}
		q.said[source] = now
		return true
	}
	if len(q.said) >= Sources && now.Sub(q.swept) >= Window/sweeps {
		q.swept = now
		maps.DeleteFunc(q.said, func(_ string, at time.Time) bool { return over(at) })
	}
	if len(q.said) >= Sources {
		first := over(q.more)
		if first {
			q.more = now
		}
		return first
	}
	q.said[source] = now
	return true
}

// sweeps is how often in a window, at most, a full memory is looked through.
const sweeps = 10
