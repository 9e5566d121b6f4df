package transport

import (
	"sync"
	"time"
)

const (
	// quietWindow is how long one source stays unmentioned after a line about it.
	quietWindow = time.Minute
	// quietSources bounds how many sources are remembered; beyond it, in one
	// window, further sources share one line.
	quietSources = 1024
)

// quiet decides which of many equal lines go to the log: the first of each
// source in a window. It is safe for concurrent use.
type quiet struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time      // begin of the window
	seen  map[string]int // source -> how many lines were kept back in this window
	more  bool           // the line for the sources beyond the bound was written
}

// say reports whether a line about source should be written now.
func (q *quiet) say(source string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if q.seen == nil || now.Sub(q.since) >= quietWindow {
		q.since, q.seen, q.more = now, make(map[string]int), false
	}
	if n, ok := q.seen[source]; ok {
		q.seen[source] = n + 1
		return false
	}
	if len(q.seen) >= quietSources {
		first := !q.more
		q.more = true
		return first
	}
	q.seen[source] = 0
	return true
}
