package gossip

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// bridgeWindow is how long a line of the same kind is not written again.
	bridgeWindow = time.Minute
	// bridgeKinds bounds how many kinds of lines are told apart in a window.
	bridgeKinds = 128
)

// bridge is the io.Writer memberlist logs to. Each line begins with a level in
// brackets; it is passed on one level quieter, because what matters of
// membership is logged by this package, and what a stranger can provoke is
// passed on once a minute and kind.
//
// memberlist's goroutines end a little after its Shutdown, and complain until
// then; what comes after ended is dropped.
type bridge struct {
	logger hclog.Logger
	ended  <-chan struct{} // nil: never

	mu    sync.Mutex
	since time.Time
	seen  map[string]bool
}

// Write passes on one line.
func (b *bridge) Write(p []byte) (int, error) {
	select {
	case <-b.ended:
		return len(p), nil
	default:
	}
	level, text := splitLevel(string(bytes.TrimSpace(p)))
	if b.wants(level) && (level <= hclog.Debug || b.first(text)) {
		b.logger.Log(level, text)
	}
	return len(p), nil
}

func (b *bridge) wants(level hclog.Level) bool {
	return level >= b.logger.GetLevel()
}

// splitLevel takes the level off a line and says at which level it is passed on.
func splitLevel(line string) (hclog.Level, string) {
	word, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "] ")
	if !ok || !strings.HasPrefix(line, "[") {
		return hclog.Debug, line
	}
	rest = strings.TrimPrefix(rest, "memberlist: ")
	switch word {
	case "ERR", "ERROR":
		return hclog.Warn, rest
	case "WARN":
		return hclog.Info, rest
	case "INFO":
		return hclog.Debug, rest
	}
	return hclog.Trace, rest
}

// first reports whether a line is the first of its kind in the window. Its kind
// is its words up to the first digit or quote: what follows is an address, a
// name, or somebody's bytes.
func (b *bridge) first(text string) bool {
	kind := text
	if i := strings.IndexAny(text, "0123456789\""); i >= 0 {
		kind = text[:i]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); b.seen == nil || now.Sub(b.since) >= bridgeWindow {
		b.since, b.seen = now, make(map[string]bool)
	}
	if b.seen[kind] || len(b.seen) >= bridgeKinds {
		return false
	}
	b.seen[kind] = true
	return true
}
