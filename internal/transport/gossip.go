package transport

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetQueue is how many gossip packets wait for memberlist.
	packetQueue = 256
	// maxPacket is the largest UDP datagram there is, bytes.
	maxPacket = 65535
	// minPacket is the smallest that memberlist's encryption can make: version,
	// nonce and tag. Shorter ones are not worth a look.
	minPacket = 1 + 12 + 16
	// maxPacketVersion is the highest version of memberlist's encryption, the
	// first byte of every packet.
	maxPacketVersion = 1
)

// gossipTransport is the HA port as memberlist wants it: packets over UDP,
// which memberlist encrypts itself, and streams over TLS.
type gossipTransport struct {
	mux     *Mux
	streams net.Listener
	packets chan *memberlist.Packet
	conns   chan net.Conn
	closed  atomic.Bool
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*gossipTransport)(nil)

func newGossipTransport(m *Mux) *gossipTransport {
	t := &gossipTransport{
		mux:     m,
		streams: m.Stream(ALPNGossip),
		packets: make(chan *memberlist.Packet, packetQueue),
		conns:   make(chan net.Conn),
		done:    make(chan struct{}),
	}
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
	return t
}

// FinalAdvertiseAddr returns what the configuration says, as an IP. Without an
// IP, the bound one is taken unless it stands for all.
func (t *gossipTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	bound := t.mux.tcp.Addr().(*net.TCPAddr)
	if port == 0 {
		port = bound.Port
	}
	if ip == "" {
		if bound.IP.IsUnspecified() {
			return nil, 0, fmt.Errorf("no advertise address: the HA port is bound to all addresses, say which one the other nodes shall use")
		}
		return shorten(bound.IP), port, nil
	}
	parsed := net.ParseIP(ip)
	if parsed == nil {
		return nil, 0, fmt.Errorf("advertise address %q is not an IP address", ip)
	}
	return shorten(parsed), port, nil
}

// shorten turns an IPv4 address into its four bytes, the form memberlist compares.
func shorten(ip net.IP) net.IP {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return ip
}

// WriteTo sends a packet.
func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet and returns when.
func (t *gossipTransport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	if t.closed.Load() {
		return time.Time{}, ErrClosed
	}
	to, err := net.ResolveUDPAddr("udp", addr.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.mux.udp.WriteTo(b, to)
	return time.Now(), err
}

// PacketCh returns the channel of received packets. It is never closed.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout opens a stream.
func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream.
func (t *gossipTransport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.mux.Dial(ctx, addr.Addr, ALPNGossip)
}

// StreamCh returns the channel of accepted streams. It is never closed.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.conns }

// Shutdown stops packets and streams, closes the open streams and waits for
// the goroutines. The UDP socket stays the Mux's. It may be called again.
func (t *gossipTransport) Shutdown() error {
	t.once.Do(func() {
		t.closed.Store(true)
		close(t.done)
		_ = t.streams.Close()
		// Wakes the reader; the socket may be closed already.
		_ = t.mux.udp.SetReadDeadline(time.Unix(1, 0))
		t.mux.closeConns(ALPNGossip)
	})
	t.wg.Wait()
	return nil
}

// readPackets hands packets to memberlist. When memberlist does not keep up
// they are dropped and counted: gossip bears losses, and the reader must never
// stand still.
func (t *gossipTransport) readPackets() {
	buf, scratch := make([]byte, maxPacket), make([]byte, maxPacket)
	for {
		n, from, err := t.mux.udp.ReadFrom(buf)
		at := time.Now()
		if t.closed.Load() || t.mux.ctx.Err() != nil {
			return
		}
		if err != nil {
			if os.IsTimeout(err) {
				continue
			}
			if t.mux.quiet.Say("udp") {
				t.mux.logger.Error("cannot read gossip packets", "error", err)
			}
			select {
			case <-t.done:
				return
			case <-t.mux.ctx.Done():
				return
			case <-time.After(acceptPauseMin):
			}
			continue
		}
		// memberlist would find out too, at a higher price, and say so each time.
		if !t.mux.Identity().opens(buf[:n], scratch) {
			t.mux.stats.packetsForeign.Add(1)
			if source := sourceOf(from).String(); t.mux.quiet.Say("packet " + source) {
				t.mux.logger.Warn("gossip packet dropped: no key of ours opens it; of this source no more is said for a minute", "from", source)
			}
			continue
		}
		packet := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: at}
		select {
		case t.packets <- packet:
		default:
			t.mux.stats.packetsDropped.Add(1)
		}
	}
}

func (t *gossipTransport) acceptStreams() {
	for {
		c, err := t.streams.Accept()
		if err != nil {
			return
		}
		select {
		case t.conns <- c:
		case <-t.done:
			_ = c.Close()
			return
		}
	}
}
