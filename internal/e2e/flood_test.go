package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
)

const (
	// floodEnv makes TestFlood measure: without it only what does not depend on
	// the machine is checked. See make flood.
	floodEnv = "AIONDB_E2E_FLOOD"
	// floodConns is how many hostile connections there are, fewer under the race
	// detector, which makes a node ten times slower; floodAtOnce, how many of
	// them at a time.
	floodConns     = 10_000
	floodConnsRace = 1_000
	floodAtOnce    = 400
	// floodPackets is how many hostile packets each node gets.
	floodPackets = 10_000
	// memorySlack is how much more memory a node may have after a flood than
	// before, bytes.
	memorySlack = 10 << 20
)

// scans are what strangers do on a port.
var scans = []struct {
	name string
	act  func(net.Conn)
}{
	{"silence", func(net.Conn) {}},
	{"http", func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }},
	{"random bytes", func(c net.Conn) { _, _ = io.CopyN(c, rand.Reader, 512) }},
	{"half a hello", func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}) }},
	{"a hello of 64 KiB", func(c net.Conn) {
		_, _ = c.Write(append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 0x4000-4)...))
	}},
	{"TLS without a certificate", saying(hello(&tls.Config{}))},
	{"TLS with our protocol", saying(hello(&tls.Config{NextProtos: []string{"aiondb-ha/raft"}}))},
	{"TLS 1.2", saying(hello(&tls.Config{MaxVersion: tls.VersionTLS12}))},
}

// hello is the first packet of a TLS client: made once, so that the flood costs
// those who are flooded and not the one who floods.
func hello(config *tls.Config) []byte {
	config.InsecureSkipVerify, config.ServerName = true, "localhost"
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, config).Handshake()
		_ = client.Close()
	}()
	buf := make([]byte, 1<<14)
	n, _ := server.Read(buf)
	return buf[:n]
}

func saying(what []byte) func(net.Conn) {
	return func(c net.Conn) { _, _ = c.Write(what) }
}

// deaf is a connection that counts what it is told.
type deaf struct {
	net.Conn
	heard atomic.Int64
}

func (d *deaf) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	d.heard.Add(int64(n))
	return n, err
}

// scan does one thing at an address and waits until the other side has closed.
func scan(ctx context.Context, addr string, act func(net.Conn)) (heard int64, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	c := &deaf{Conn: conn}
	act(c)
	_, err = io.Copy(io.Discard, c)
	if ctx.Err() != nil {
		return c.heard.Load(), fmt.Errorf("it was not closed: %w", ctx.Err())
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return c.heard.Load(), err
	}
	return c.heard.Load(), nil
}

// A stranger who looks at the ports between nodes is told nothing, and the log
// says so once.
func TestPortScan(t *testing.T) {
	c, _ := startCluster(t, 3)
	ctx := within(t, time.Minute)
	var all sync.WaitGroup
	for _, n := range c.Nodes() {
		for _, addr := range []string{n.Addr, n.WALAddr} {
			for _, s := range scans {
				for range 3 {
					all.Go(func() {
						if heard, err := scan(ctx, addr, s.act); err != nil || heard != 0 {
							t.Errorf("%s at %s: %d bytes in answer, %v", s.name, addr, heard, err)
						}
					})
				}
			}
		}
		packets(t, n.Addr, 100)
	}
	all.Wait()
	settle(t, c)
	for _, n := range c.Nodes() {
		checkQuiet(t, n)
	}
}

// packets sends packets of every length to a node.
func packets(t *testing.T, addr string, count int) {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	garbage := make([]byte, 1400)
	_, _ = rand.Read(garbage)
	for i := range count {
		garbage[0] = byte(i) & 1
		_, _ = conn.Write(garbage[:1+i%len(garbage)])
	}
}

// checkQuiet checks that a node has said something of strangers, and no more
// than once a minute and kind: all of them come from one address.
func checkQuiet(t *testing.T, n democluster.Node) {
	t.Helper()
	log, err := os.ReadFile(n.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"connection refused;", "gossip packet dropped"} {
		times := 0
		var last time.Time
		for l := range strings.Lines(string(log)) {
			if !strings.Contains(l, line) {
				continue
			}
			times++
			at, err := time.Parse("2006-01-02T15:04:05.000Z07:00", strings.Fields(l)[0])
			if err != nil {
				t.Errorf("node %d: %v", n.ID, err)
			}
			if !last.IsZero() && at.Sub(last) < time.Minute-time.Second {
				t.Errorf("node %d says %q again after %v", n.ID, line, at.Sub(last))
			}
			last = at
		}
		if times == 0 {
			t.Errorf("node %d does not say %q at all", n.ID, line)
		}
	}
}

// memory is the resident memory of a process, bytes.
func memory(t *testing.T, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Skipf("no /proc to read memory from: %v", err)
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// Ten thousand hostile connections, and as many packets, from the nodes' own
// address during write load: no failover, no request fails, nothing is said to
// anybody, and the memory comes back.
func TestFlood(t *testing.T) {
	measured := os.Getenv(floodEnv) != ""
	var env []string
	calm := 10_000 // writes, and as many again for memory to settle
	if !measured {
		env, calm = patient, 3000
	}
	c := newClusterWith(t, democluster.Config{Nodes: 3, Env: env})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	primary := settle(t, c)
	client, err := democluster.NewClient(democluster.ClientConfig{Nodes: c.Nodes(), Timeout: 5 * time.Second, Keys: 100}) // so that the nodes do not grow by what they are to keep
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx := within(t, 5*time.Minute)
	if err := client.WaitAcks(ctx, calm); err != nil {
		t.Fatal(err)
	}
	started := client.Now()
	if err := client.WaitAcks(ctx, calm); err != nil {
		t.Fatal(err)
	}
	failedBefore := client.Tried() - client.Count()
	before := map[int]int64{}
	for _, n := range c.Nodes() {
		before[c.PID(n.ID)] = memory(t, c.PID(n.ID))
	}

	from := client.Now()
	var floods sync.WaitGroup
	slots := make(chan struct{}, floodAtOnce)
	var told atomic.Int64
	conns := floodConns
	if raceDetector {
		conns = floodConnsRace
	}
	for i := range conns {
		n := c.Nodes()[i%3]
		addr := n.Addr
		if i/3%4 == 3 {
			addr = n.WALAddr
		}
		slots <- struct{}{}
		floods.Go(func() {
			defer func() { <-slots }()
			heard, err := scan(ctx, addr, scans[i%len(scans)].act)
			told.Add(heard)
			if err != nil {
				t.Errorf("%s: %v", scans[i%len(scans)].name, err)
			}
		})
		if i == conns/2 {
			for _, n := range c.Nodes() {
				floods.Go(func() { packets(t, n.Addr, floodPackets) })
			}
		}
	}
	floods.Wait()
	to := client.Now()
	if told.Load() != 0 {
		t.Errorf("strangers were told %d bytes", told.Load())
	}
	if err := client.WaitAcks(ctx, 200); err != nil {
		t.Fatal(err)
	}
	failed := client.Tried() - client.Count() - failedBefore
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if now := settle(t, c); now.Epoch != primary.Epoch || now.NodeID != primary.NodeID {
		t.Errorf("a failover: primary %d of epoch %d, then %d of epoch %d", primary.NodeID, primary.Epoch, now.NodeID, now.Epoch)
	}
	const underWay = 4 // writers, when Close came
	if failed > underWay {
		t.Errorf("%d requests failed", failed)
	}
	quiet, flooded := p99(client.Acks(), started, from), p99(client.Acks(), from, to)
	t.Logf("%d hostile connections in %v; write p99 %v before, %v during", conns, to-from, quiet, flooded)
	if measured && flooded > 2*quiet {
		t.Errorf("write p99 went from %v to %v", quiet, flooded)
	}
	for _, n := range c.Nodes() {
		checkQuiet(t, n)
		if raceDetector { // keeps memory of its own
			continue
		}
		pid := c.PID(n.ID)
		var now int64
		if err := c.Wait(within(t, 2*time.Minute), fmt.Sprintf("node %d to give memory back", n.ID), func([]democluster.Status) bool {
			now = memory(t, pid)
			return now <= before[pid]+memorySlack
		}); err != nil {
			t.Errorf("%v: %d MiB before, %d MiB now", err, before[pid]>>20, now>>20)
		}
		t.Logf("node %d: %d MiB before, %d MiB after", n.ID, before[pid]>>20, now>>20)
	}
}

// p99 is the time that 99 of 100 of the writes acknowledged in a stretch took at most.
func p99(acks []democluster.Ack, from, to time.Duration) time.Duration {
	var took []time.Duration
	for _, a := range acks {
		if a.Acked >= from && a.Acked < to {
			took = append(took, a.Acked-a.Sent)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}
