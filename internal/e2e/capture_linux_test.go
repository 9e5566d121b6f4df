package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	endian "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/leak"
	"github.com/aiondb/aiondb-ha/internal/transport"
)

const (
	captureBuffer = 64 << 20 // bytes of kernel memory
	maxCaptured   = 1 << 17  // of one packet: loopback's are not cut to size
)

// flow is one direction of one TCP connection.
type flow struct {
	begin  bool   // its SYN was seen
	next   uint32 // sequence number after data
	data   []byte
	behind map[uint32][]byte // came early
}

// capture records what passes over the loopback interface.
type capture struct {
	fd    int
	ports map[int]bool
	flows map[string]*flow
	udp   [][]byte
	plain []byte // what passed over the ports beside: the API's
	done  chan struct{}
	end   chan struct{}
}

// startCapture begins to record TCP and UDP of the given ports. It needs a raw
// socket; without the right to one the test is skipped.
func startCapture(t *testing.T, ports map[int]bool) *capture {
	t.Helper()
	const everything = syscall.ETH_P_ALL<<8&0xff00 | syscall.ETH_P_ALL>>8 // in network order
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, everything)
	if err != nil {
		t.Skipf("no raw socket to record loopback with (%v): run as root", err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skipf("no loopback interface of that name: %v", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, captureBuffer); err != nil {
		t.Skipf("no room to record in: %v", err)
	}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: everything, Ifindex: lo.Index}); err != nil {
		t.Skipf("loopback cannot be recorded: %v", err)
	}
	t.Log("recording with a raw socket on lo")
	c := &capture{fd: fd, ports: ports, flows: map[string]*flow{}, done: make(chan struct{}), end: make(chan struct{})}
	go c.run()
	return c
}

func (c *capture) run() {
	defer close(c.done)
	buf := make([]byte, maxCaptured)
	for {
		n, from, err := syscall.Recvfrom(c.fd, buf, 0)
		if err != nil {
			select {
			case <-c.end:
				return
			default:
				continue
			}
		}
		// On loopback each packet passes twice.
		if ll, ok := from.(*syscall.SockaddrLinklayer); ok && ll.Pkttype == syscall.PACKET_OUTGOING {
			continue
		}
		c.packet(buf[:n])
	}
}

// stop ends the recording; the kernel must not have dropped anything.
func (c *capture) stop(t *testing.T) {
	t.Helper()
	close(c.end)
	<-c.done
	const packetStatistics = 6 // PACKET_STATISTICS
	var stats struct{ packets, drops uint32 }
	size := uint32(unsafe.Sizeof(stats))
	if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(c.fd), syscall.SOL_PACKET, packetStatistics,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		t.Fatal(errno)
	}
	if stats.drops > 0 {
		t.Fatalf("the kernel dropped %d of %d packets: nothing can be said of the rest", stats.drops, stats.packets)
	}
}

// packet takes one Ethernet frame.
func (c *capture) packet(p []byte) {
	const ethernet, ipv4 = 14, 20
	if len(p) < ethernet+ipv4 || endian.BigEndian.Uint16(p[12:]) != syscall.ETH_P_IP {
		return
	}
	ip := p[ethernet:]
	header, total := int(ip[0]&0xf)*4, int(endian.BigEndian.Uint16(ip[2:]))
	if total == 0 || total > len(ip) { // larger than an IP header can say
		total = len(ip)
	}
	body := ip[header:total]
	if len(body) < 8 {
		return
	}
	from, to := int(endian.BigEndian.Uint16(body)), int(endian.BigEndian.Uint16(body[2:]))
	secret, known := c.ports[from]
	if !known {
		secret, known = c.ports[to]
	}
	switch {
	case !known:
	case ip[9] == syscall.IPPROTO_UDP:
		c.udp = append(c.udp, bytes.Clone(body[8:]))
	case ip[9] == syscall.IPPROTO_TCP && !secret:
		c.plain = append(c.plain, body[int(body[12]>>4)*4:]...)
	case ip[9] == syscall.IPPROTO_TCP:
		c.tcp(fmt.Sprint(from, ">", to), body)
	}
}

func (c *capture) tcp(key string, segment []byte) {
	const syn = 2
	seq, data := endian.BigEndian.Uint32(segment[4:]), segment[int(segment[12]>>4)*4:]
	f := c.flows[key]
	if segment[13]&syn != 0 {
		for n := 0; f != nil; n++ { // the ports were used before
			if old := key + "#" + strconv.Itoa(n); c.flows[old] == nil {
				c.flows[old], f = f, nil
			}
		}
		c.flows[key] = &flow{begin: true, next: seq + 1, behind: map[uint32][]byte{}}
		return
	}
	if f == nil && len(data) > 0 {
		f = &flow{}
		c.flows[key] = f
	}
	if f == nil || !f.begin || len(data) == 0 { // what refuses a connection has no beginning
		return
	}
	f.behind[seq] = bytes.Clone(data)
	for more := true; more; {
		more = false
		for seq, d := range f.behind {
			if at := int32(f.next - seq); at >= 0 { // what is there already is skipped
				delete(f.behind, seq)
				if int(at) < len(d) {
					f.data = append(f.data, d[at:]...)
					f.next += uint32(len(d)) - uint32(at)
					more = true
				}
			}
		}
	}
}

// tls13 checks that a flow is TLS 1.3 from its first byte to its last.
func (f *flow) tls13() error {
	const (
		alert, handshake, application, change = 21, 22, 23, 20
		clientHello, serverHello              = 1, 2
		maxRecord                             = 1<<14 + 256
		version13                             = 0x0304
	)
	if len(f.behind) > 0 {
		return fmt.Errorf("%d segments came too early and never fit", len(f.behind))
	}
	hello := false
	for at := 0; at < len(f.data); {
		rest := f.data[at:]
		if len(rest) < 5 {
			return nil // cut by the end of the recording
		}
		kind, legacy, size := rest[0], endian.BigEndian.Uint16(rest[1:]), int(endian.BigEndian.Uint16(rest[3:]))
		switch {
		case size == 0 || size > maxRecord:
			return fmt.Errorf("at byte %d: a record of %d bytes", at, size)
		case legacy != 0x0303 && (hello || legacy != 0x0301):
			return fmt.Errorf("at byte %d: record version %#x", at, legacy)
		case len(rest) < 5+size:
			return nil
		case kind == handshake && !hello:
			body := rest[5 : 5+size]
			if body[0] != clientHello && body[0] != serverHello {
				return fmt.Errorf("at byte %d: handshake message %d in clear", at, body[0])
			}
			if err := onlyVersion(body, version13); err != nil {
				return fmt.Errorf("at byte %d: %w", at, err)
			}
			hello = true
		case kind == alert && size == 2: // before there are keys
		case !hello, kind != application && kind != change:
			return fmt.Errorf("at byte %d: a record of type %d", at, kind)
		}
		at += 5 + size
	}
	return nil
}

// onlyVersion checks that a hello offers, or chooses, exactly one version.
func onlyVersion(hello []byte, version uint16) error {
	const supportedVersions = 43
	at := 4 + 2 + 32         // header, legacy version, random
	at += 1 + int(hello[at]) // session ID
	if hello[0] == 1 {       // of a client:
		at += 2 + int(endian.BigEndian.Uint16(hello[at:])) // cipher suites
		at += 1 + int(hello[at])                           // compression methods
	} else {
		at += 2 + 1
	}
	for at += 2; at+4 <= len(hello); {
		kind, size := endian.BigEndian.Uint16(hello[at:]), int(endian.BigEndian.Uint16(hello[at+2:]))
		value := hello[at+4 : at+4+size]
		if kind == supportedVersions {
			if hello[0] == 1 {
				value = value[1:]
			}
			if len(value) != 2 || endian.BigEndian.Uint16(value) != version {
				return fmt.Errorf("versions %x", value)
			}
			return nil
		}
		at += 4 + size
	}
	return errors.New("no TLS 1.3 hello")
}

// What passes between nodes tells nobody anything: every byte on TCP is TLS 1.3,
// every packet is encrypted with the gossip key, and nowhere are keys, values, the
// addresses of the APIs, or the secret.
func TestCapturedTraffic(t *testing.T) {
	c := newCluster(t, 3)
	ports := map[int]bool{} // true: what passes there must be secret
	port := func(addr string) int {
		_, p, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, n := range c.Nodes() {
		ports[port(n.Addr)], ports[port(n.WALAddr)], ports[port(n.APIAddr)] = true, true, false
	}
	rec := startCapture(t, ports)
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	primary := settle(t, c)
	const key, value = "marker-of-a-key", "marker-of-a-value-4711"
	put := func(path, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodPut, path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	follower := c.Node(primary.NodeID%3 + 1)
	kv, err := json.Marshal(map[string]string{"value": value})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		put(fmt.Sprintf("http://%s/v1/data/%s-%d", c.Node(primary.NodeID).APIAddr, key, i), value)
		put(fmt.Sprintf("http://%s/v1/kv/%s-%d", follower.APIAddr, key, i), string(kv)) // forwarded, replicated
	}
	client, err := democluster.NewClient(democluster.ClientConfig{Nodes: c.Nodes(), Pace: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx := within(t, time.Minute)
	for _, to := range c.Nodes() { // ballots, promotions, notices
		if to.ID != primary.NodeID {
			if err := c.Switchover(ctx, primary.NodeID, to.ID); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := errors.Join(client.WaitAcks(ctx, 100), client.Close()); err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	rec.stop(t)

	token, err := os.ReadFile(c.SecretPath())
	if err != nil {
		t.Fatal(err)
	}
	token = bytes.TrimSpace(token)
	secrets := []string{key, value}
	for _, n := range c.Nodes() {
		secrets = append(secrets, n.APIAddr, n.WALAddr)
	}
	look := func(where string, data []byte) {
		t.Helper()
		for _, s := range secrets {
			if bytes.Contains(data, []byte(s)) {
				t.Errorf("%s: %q is there to be read", where, s)
			}
		}
		if found := leak.Find(data, token); found != "" {
			t.Errorf("%s: the secret is there to be read: %s", where, found)
		}
	}
	if !bytes.Contains(rec.plain, []byte(key)) || !bytes.Contains(rec.plain, []byte(value)) {
		t.Fatal("the recording does not even have what passed in clear over the API")
	}
	flows, total := 0, 0
	for name, f := range rec.flows {
		look("TCP "+name, f.data)
		if !f.begin {
			t.Errorf("TCP %s: its beginning is missing", name)
		}
		if err := f.tls13(); err != nil {
			t.Errorf("TCP %s: %v", name, err)
		}
		if len(f.data) > 0 {
			flows, total = flows+1, total+len(f.data)
		}
	}
	id, err := transport.NewIdentity(token)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(id.GossipKeys()[0])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range rec.udp {
		look(fmt.Sprintf("packet %d", i), p)
		if len(p) < 29 {
			t.Errorf("packet %d has %d bytes", i, len(p))
		} else if _, err := gcm.Open(nil, p[1:13], p[13:], nil); err != nil {
			t.Errorf("packet %d is not of the gossip key: %v", i, err)
		}
	}
	t.Logf("%d flows with %d bytes, %d packets", flows, total, len(rec.udp))
	if flows < 12 || total < 20_000 || len(rec.udp) < 20 {
		t.Error("that is too little for a running cluster")
	}
}
