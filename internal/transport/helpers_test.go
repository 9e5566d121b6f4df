package transport

import (
	"bytes"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// patience is how long a test waits for what must happen; only a failing test
// takes that long.
const patience = 15 * time.Second

func secret(word string) []byte { return bytes.Repeat([]byte(word+"-"), 32) }

func identity(t testing.TB, words ...string) *Identity {
	t.Helper()
	var secrets [][]byte
	for _, w := range words {
		secrets = append(secrets, secret(w))
	}
	id, err := NewIdentity(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// open opens a Mux on a free loopback port; closed with the test.
func open(t testing.TB, id *Identity, logger hclog.Logger) *Mux {
	t.Helper()
	return openAt(t, "127.0.0.1:0", id, logger)
}

func openAt(t testing.TB, addr string, id *Identity, logger hclog.Logger) *Mux {
	t.Helper()
	m, err := Listen(addr, id, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// noLeaks fails the test if goroutines of this package outlive it. It must be
// called first, so that it looks last.
func noLeaks(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		var left string
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if left = ours(); left == "" {
				return
			}
		}
		t.Errorf("goroutines left:\n%s", left)
	})
}

// ours returns the stacks of goroutines that run code of this package, without the tests'.
func ours() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "internal/transport.") && !strings.Contains(g, "testing.tRunner") {
			out = append(out, g)
		}
	}
	return strings.Join(out, "\n\n")
}

// sink is a log that can be read while it is written.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *sink) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: s, Level: hclog.Trace})
}

// accepted counts what a listener sees, closing each.
type accepted struct {
	mu    sync.Mutex
	count int
}

func (a *accepted) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.count++
		a.mu.Unlock()
		_ = c.Close()
	}
}

func (a *accepted) get() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}
