package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// served is a node of a cluster of one, run in this process.
type served struct {
	t      *testing.T
	cancel context.CancelFunc
	stdin  *io.PipeWriter
	stdout *lineWriter
	stderr *lockedBuffer
	code   chan int
}

// lockedBuffer is a buffer that one goroutine writes and another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startNode serves a node with its data in dir; variables are added to its
// environment.
func startNode(t *testing.T, dir string, variables ...string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stdin, in := io.Pipe()
	s := &served{t: t, cancel: cancel, stdin: in, stdout: &lineWriter{lines: make(chan string, 16)}, stderr: &lockedBuffer{}, code: make(chan int, 1)}
	addr := freeAddr(t)
	a := &app{ctx: ctx, stdin: stdin, stdout: s.stdout, stderr: s.stderr, environ: append([]string{
		"AIONDB_HA_NODE_ID=1", "AIONDB_HA_CLUSTER_NODES=" + addr, "AIONDB_HA_DATA_DIR=" + dir,
		"AIONDB_HA_AUTH_TOKEN=0123456789abcdef0123456789abcdef", "AIONDB_HA_API_ADDR=127.0.0.1:0", "AIONDB_HA_DATA_ADDR=127.0.0.1:0",
	}, variables...)}
	go func() { s.code <- a.run([]string{"serve"}) }()
	t.Cleanup(func() { cancel(); in.Close() })
	return s
}

// freeAddr returns an address that nobody listened at a moment ago, with TCP
// and UDP.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		p, err := net.ListenPacket("udp", addr)
		l.Close()
		if err == nil {
			p.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// ready waits for the ready line and returns the API's URL.
func (s *served) ready() string {
	s.t.Helper()
	select {
	case line := <-s.stdout.lines:
		m := regexp.MustCompile(`^node 1 ready: ha 127\.0\.0\.1:\d+, api (http://127\.0\.0\.1:\d+), data 127\.0\.0\.1:\d+, state .*ha/node-1\n$`).FindStringSubmatch(filepath.ToSlash(line))
		if m == nil {
			s.t.Fatalf("ready line %q", line)
		}
		return m[1]
	case code := <-s.code:
		s.t.Fatalf("exit %d: %s", code, s.stderr)
	case <-time.After(30 * time.Second):
		s.t.Fatalf("not ready: %s", s.stderr)
	}
	return ""
}

// ended waits for the exit code.
func (s *served) ended() int {
	s.t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(30 * time.Second):
		s.t.Fatalf("still running: %s", s.stderr)
	}
	return -1
}

func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := startNode(t, dir, "AIONDB_HA_NODEID=1")
	c := &cli{t, s.ready()}
	if code, stdout, stderr := c.run("", "kv", "put", "greeting", "hello", "--timeout", "20s"); code != 0 {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := c.run("", "kv", "get", "greeting"); code != 0 || stdout != "hello" {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := c.run("", "status"); code != 0 || !strings.Contains(stdout, "1 of 1 voters reachable") {
		t.Errorf("exit %d: %s", code, stdout)
	}
	if !strings.Contains(s.stderr.String(), "did you mean AIONDB_HA_NODE_ID?") {
		t.Errorf("no warning in the log: %s", s.stderr)
	}

	// The directory is in use; nothing is taken from the one who has it.
	second := startNode(t, dir)
	if code := second.ended(); code != 1 || strings.Count(second.stderr.String(), "\n") != 1 || !strings.Contains(second.stderr.String(), "in use") {
		t.Errorf("exit %d: %s", code, second.stderr)
	}
	if code, stdout, _ := c.run("", "kv", "get", "greeting"); code != 0 || stdout != "hello" {
		t.Errorf("exit %d: %s", code, stdout)
	}

	s.cancel() // as a signal does
	if code := s.ended(); code != 0 {
		t.Errorf("exit %d: %s", code, s.stderr)
	}
	if code, _, _ := c.run("", "status"); code != 1 {
		t.Error("the API still answers")
	}

	// What was written is there after a restart; the end of standard input
	// ends the node.
	s = startNode(t, dir, "AIONDB_HA_EXIT_WITH_STDIN=1")
	c.url = s.ready()
	if code, stdout, stderr := c.run("", "kv", "get", "greeting", "--timeout", "20s"); code != 0 || stdout != "hello" {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	s.stdin.Close()
	if code := s.ended(); code != 0 {
		t.Errorf("exit %d: %s", code, s.stderr)
	}
}

func TestServeTakesItsPortsFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for variable, want := range map[string]string{
		"AIONDB_HA_API_ADDR=" + taken:                             "aiondb-ha: the API address " + taken + " is taken by another program: stop it, or set AIONDB_HA_API_ADDR (--api-addr) to another\n",
		"AIONDB_HA_DATA_ADDR=" + taken:                            "aiondb-ha: the data address " + taken + " is taken by another program: stop it, or set AIONDB_HA_DATA_ADDR (--data-addr) to another\n",
		fmt.Sprintf("AIONDB_HA_BIND_ADDR=%s", taken):              "AIONDB_HA_PORT",
		"AIONDB_HA_API_ADDR=192.0.2.1:7700":                       "nobody would be asked for a token",
		"AIONDB_HA_API_TLS_CERT=/nowhere":                         "AIONDB_HA_API_TLS_KEY is not set",
		"AIONDB_HA_BIND_ADDR=192.0.2.1":                           "192.0.2.1:",
		"AIONDB_HA_DATA_ADDR=" + "nowhere.invalid" + ":" + "7700": "cannot listen at the data address",
	} {
		dir := t.TempDir()
		s := startNode(t, dir, variable)
		if code := s.ended(); code != 1 || !strings.Contains(s.stderr.String(), want) || strings.Count(s.stderr.String(), "\n") != 1 {
			t.Errorf("%s: exit %d: %s", variable, code, s.stderr)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("%s: left behind: %v", variable, entries)
		}
	}
}
