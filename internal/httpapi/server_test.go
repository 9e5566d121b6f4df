package httpapi

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// pipeListener hands out connections that are held in memory, so that a test
// runs on a clock of its own.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

// dial returns the client's end.
func (l *pipeListener) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- localConn{theirs}
	return ours
}

// localConn is a connection of this machine.
type localConn struct{ net.Conn }

func (localConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// slowly serves a fake node on a clock of its own.
func slowly(t *testing.T, access *Access, f func(dial func() net.Conn, node *fakeBackend)) {
	synctest.Test(t, func(t *testing.T) {
		node := newFake()
		l := newPipeListener()
		server := NewServer(serveWith(node, access), hclog.NewNullLogger())
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		f(l.dial, node)
		_ = server.Close()
		<-done
		time.Sleep(time.Second) // net/http lingers half of that on what it closes
	})
}

// ends waits until the server has closed the connection and returns how long
// that took and what it said.
func ends(t *testing.T, conn net.Conn) (time.Duration, string) {
	t.Helper()
	start := time.Now()
	said, _ := io.ReadAll(conn)
	_ = conn.Close()
	return time.Since(start), string(said)
}

func TestSlowClients(t *testing.T) {
	everybody := NewAccess(nil, Tokens{})
	slowly(t, everybody, func(dial func() net.Conn, node *fakeBackend) {
		// Says nothing at all.
		if took, said := ends(t, dial()); took > headerTimeout+time.Second || said != "" {
			t.Errorf("silence: %s, %q", took, said)
		}
		// A header a byte a second.
		conn := dial()
		start := time.Now()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for _, c := range []byte("GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX-A: aaaaaaaaaaaa\r\n\r\n") {
			if _, err := conn.Write([]byte{c}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		_ = conn.Close()
		if took := time.Since(start); took > headerTimeout+2*time.Second {
			t.Errorf("a slow header: %s", took)
		}
		// A body a byte a second: the answer comes, and nothing was done.
		conn = dial()
		answer := make(chan string, 1)
		start = time.Now()
		go func() {
			said, _ := io.ReadAll(conn)
			answer <- string(said)
		}()
		_, _ = io.WriteString(conn, "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		said := <-answer
		_ = conn.Close()
		if took := time.Since(start); took > bodyTimeout+2*time.Second || !strings.HasPrefix(said, "HTTP/1.1 400") || !strings.Contains(said, `"code":"bad_request"`) {
			t.Errorf("a slow body: %s, %q", took, said)
		}
		if len(node.proposed) > 0 {
			t.Errorf("half a value was written: %v", node.proposed)
		}
		// Kept open without a further request.
		conn = dial()
		_, _ = io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if took, said := ends(t, conn); took > idleTimeout+time.Second || !strings.HasPrefix(said, "HTTP/1.1 200") {
			t.Errorf("idle: %s, %q", took, said)
		}
	})
}

// A body's deadline does not end the waiting for an answer.
func TestSlowAnswer(t *testing.T) {
	slowly(t, NewAccess(nil, Tokens{}), func(dial func() net.Conn, node *fakeBackend) {
		node.wait = true
		for _, request := range []string{
			"PUT /v1/kv/a?timeout=50s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv",
			"POST /v1/switchover?timeout=50s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		} {
			conn := dial()
			start := time.Now()
			go func() { _, _ = io.WriteString(conn, request) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusGatewayTimeout || time.Since(start) != 50*time.Second {
				t.Errorf("after %s: %v, %v", time.Since(start), resp, err)
			}
			_ = conn.Close()
		}
	})
}

// A stranger's body is not waited for longer than anybody's, and not kept.
func TestStrangersBody(t *testing.T) {
	slowly(t, newTestAccess(), func(dial func() net.Conn, node *fakeBackend) {
		conn := dial()
		start := time.Now()
		go func() {
			_, _ = io.WriteString(conn, "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nx")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%v, %v", resp, err)
		}
		_, _ = io.Copy(io.Discard, conn)
		if took := time.Since(start); took > bodyTimeout+time.Second {
			t.Errorf("the connection lasted %s", took)
		}
		_ = conn.Close()
	})
}

func TestLargeRequests(t *testing.T) {
	slowly(t, NewAccess(nil, Tokens{}), func(dial func() net.Conn, node *fakeBackend) {
		for _, c := range []struct {
			name, request string
			want          int
		}{
			{"a value", "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 131073\r\n\r\n" + strings.Repeat("v", MaxValueLen+1), 413},
			{"a value in chunks", "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n20001\r\n" + strings.Repeat("v", MaxValueLen+1) + "\r\n0\r\n\r\n", 413},
			{"a promise", "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\nExpect: 100-continue\r\n\r\n", 413},
			{"a key", "PUT /v1/kv/" + strings.Repeat("k", MaxKeyLen+1) + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 413},
			{"a header", "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("h", 40<<10) + "\r\n\r\n", 431},
			{"a JSON body", "POST /v1/nodes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n" + strings.Repeat(" ", MaxBodyLen+1), 413},
			{"two lengths", "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nvv", 400},
			{"length and chunks", "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked, chunked\r\n\r\nv", 501},
			{"a star", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
			{"everything", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
			{"a tunnel", "CONNECT evil.test:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 403},
			{"another method", "BREW /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		} {
			conn := dial()
			go func() { _, _ = io.WriteString(conn, c.request) }()
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != c.want {
				t.Errorf("%s: %v, %v; want %d", c.name, resp, err, c.want)
			}
			_ = conn.Close()
		}
		if len(node.proposed) > 0 {
			t.Errorf("proposed %d", len(node.proposed))
		}
	})
}

type fakeConn struct {
	net.Conn
	from   net.Addr
	closed chan struct{}
	once   sync.Once
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }
func (c *fakeConn) Close() error         { c.once.Do(func() { close(c.closed) }); return nil }

func TestConnectionBounds(t *testing.T) {
	l := newPipeListener()
	bounded := Listener(l, nil)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := bounded.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	offer := func(ip string, n int) (taken []net.Conn) {
		for range n {
			c := &fakeConn{from: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}, closed: make(chan struct{})}
			l.conns <- c
			select {
			case conn := <-accepted:
				taken = append(taken, conn)
			case <-c.closed:
			}
		}
		return taken
	}
	first := offer("10.0.0.1", MaxConnsPerSource+5)
	if len(first) != MaxConnsPerSource {
		t.Errorf("%d connections from one address", len(first))
	}
	second := append(offer("2001:db8::1", MaxConnsPerSource-1), offer("2001:db8::2", 5)...)
	if len(second) != MaxConnsPerSource {
		t.Errorf("%d connections from one network", len(second))
	}
	local := offer("127.0.0.1", MaxConns)
	if n := len(local) + len(first) + len(second); n != MaxConns {
		t.Errorf("%d connections in all", n)
	}
	_ = first[0].Close()
	_ = first[0].Close() // gives its place back once
	if n := len(offer("10.0.0.1", 2)); n != 1 {
		t.Errorf("%d places for one that was given back", n)
	}
	for _, c := range append(append(first, second...), local...) {
		_ = c.Close()
	}
	if n := len(offer("10.0.0.2", MaxConnsPerSource)); n != MaxConnsPerSource {
		t.Errorf("%d places after all were given back", n)
	}
	_ = bounded.Close()
	<-accepted
}

// What the API itself answers to a mistake is JSON, wherever it was made.
func TestEveryErrorIsJSON(t *testing.T) {
	h := open(newFake())
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/nothing", 404}, {"GET", "/v1", 404}, {"GET", "/v1/kv/", 400}, {"GET", "/v1/config/", 400}, {"POST", "/v1/status", 405}, {"POST", "/", 405},
		{"PATCH", "/v1/kv/a", 405}, {"DELETE", "/v1/config/a", 405}, {"POST", "/health", 405}, {"PUT", "/v1/session", 405}, {"POST", "/v1/events", 405},
		{"GET", "/v1/kv/a?stale=perhaps", 400}, {"GET", "/v1/kv/a?x=1", 400}, {"GET", "/v1/kv?limit=0", 400}, {"GET", "/v1/kv?all=perhaps", 400}, {"GET", "/v1/events?after=x", 400},
		{"GET", "/v1/status?timeout=1", 400}, {"GET", "/v1/status?%zz", 400}, {"DELETE", "/v1/nodes/x", 400}, {"POST", "/v1/nodes", 400},
		{"PUT", "/v1/kv/ha/x", 409}, {"PUT", "/v1/kv/%68a%2fx", 409}, {"DELETE", "/v1/kv/ha/x", 409},
	} {
		w := call(h, c.method, c.path, "")
		if w.Code != c.want || errorCode(t, w) == "" || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, w.Code, c.want, w.Body)
		}
		if c.want == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}
