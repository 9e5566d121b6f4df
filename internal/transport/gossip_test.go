package transport

import (
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/protocol"
)

// gossiper is a node that only gossips, over real sockets.
type gossiper struct {
	*gossip.Gossip
	mux *Mux
	log *sink

	mu   sync.Mutex
	dead map[protocol.NodeID]bool
}

func (g *gossiper) isDead(id protocol.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead[id]
}

func (g *gossiper) alive() string {
	var out []string
	for _, m := range g.Members() {
		if m.Alive {
			out = append(out, m.NodeID.String())
		}
	}
	return strings.Join(out, " ")
}

func startGossip(t *testing.T, m *Mux, advertise string, id protocol.NodeID, peers []string) *gossiper {
	t.Helper()
	g := &gossiper{mux: m, log: &sink{}, dead: map[protocol.NodeID]bool{}}
	got, err := gossip.Start(gossip.Config{
		Local: id, Advertise: advertise, Peers: peers,
		Keys: m.Identity().GossipKeys(), Transport: m.GossipTransport(),
		Interval: 50 * time.Millisecond,
		Heartbeat: func() protocol.Heartbeat {
			return protocol.Heartbeat{NodeID: id, WALLSN: protocol.LSN(id * 100), Role: protocol.RoleReplica}
		},
		Evidence: func(e gossip.Evidence) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.dead[e.NodeID] = e.Kind == gossip.Dead
		},
		Logger: g.log.logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Gossip = got
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func TestGossipOverThePort(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	var muxes []*Mux
	var peers []string
	for range 3 {
		m := open(t, id, nil)
		muxes = append(muxes, m)
		// A host name, as in most node lists.
		peers = append(peers, fmt.Sprintf("localhost:%d", m.Port()))
	}
	var nodes []*gossiper
	for i, m := range muxes {
		nodes = append(nodes, startGossip(t, m, peers[i], protocol.NodeID(i+1), peers))
	}
	eventually(t, "all see all, with heartbeats", func() bool {
		for i, n := range nodes {
			for j, m := range n.Members() {
				if n.alive() != "1 2 3" || m.Heartbeat.WALLSN != protocol.LSN(100*(j+1)) || (i != j && m.RTT == 0) {
					return false
				}
			}
		}
		return true
	})
	if addr, ok := nodes[0].Lookup(3); !ok || addr != peers[2] {
		t.Errorf("node 3 is at %q", addr)
	}
	// Gone without a word: the port is closed under it.
	if err := muxes[2].Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node 3 is dead", func() bool { return nodes[0].isDead(3) && nodes[1].isDead(3) })
	_ = nodes[2].Close()

	moved := open(t, id, nil)
	again := startGossip(t, moved, moved.Addr().String(), 3, peers)
	eventually(t, "node 3 is at its new address", func() bool {
		a, _ := nodes[0].Lookup(3)
		b, _ := nodes[1].Lookup(3)
		return a == moved.Addr().String() && b == a && again.alive() == "1 2 3" && nodes[0].alive() == "1 2 3"
	})
}

// TestGarbagePacketsAreDropped floods the UDP port: gossip goes on and the log
// stays short.
func TestGarbagePacketsAreDropped(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	log := &sink{}
	a, b := open(t, id, log.logger()), open(t, id, nil)
	peers := []string{a.Addr().String(), b.Addr().String()}
	ga, gb := startGossip(t, a, peers[0], 1, peers), startGossip(t, b, peers[1], 2, peers)
	stranger, err := net.Dial("udp", peers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	garbage := make([]byte, 1400)
	for i := range 2000 {
		_, _ = rand.Read(garbage)
		if i%2 == 0 {
			garbage[0] &= 1 // looks like a packet at least
		}
		_, _ = stranger.Write(garbage[:1+i%1400])
	}
	eventually(t, "gossip goes on", func() bool { return ga.alive() == "1 2" && gb.alive() == "1 2" })
	// A busy machine may have given up a probe over TCP, which is another matter.
	if n := strings.Count(log.String(), "gossip packet dropped"); n != 1 || strings.Contains(ga.log.String(), "[WARN]") {
		t.Errorf("%d warnings of dropped packets:\n%.2000s%.2000s", n, log, ga.log)
	}
	if n := a.Stats().PacketsForeign; n == 0 || n > 2000 {
		t.Errorf("%d packets were counted", n)
	}
}

// TestFullPacketQueueDoesNotBlock: nobody takes packets, and the reader goes on.
func TestFullPacketQueueDoesNotBlock(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	a, b := open(t, id, nil), open(t, id, nil)
	tran := a.GossipTransport().(memberlist.NodeAwareTransport)
	packet := make([]byte, 100)
	packet[0] = maxPacketVersion
	id.accepted[0].packets.Seal(packet[:13], packet[1:13], packet[13:84], nil)
	eventually(t, "packets are dropped and counted", func() bool {
		if _, err := tran.WriteToAddress(packet, memberlist.Address{Addr: b.Addr().String()}); err != nil {
			t.Fatal(err)
		}
		_ = b.GossipTransport()
		return b.Stats().PacketsDropped >= 10
	})
	p := <-b.GossipTransport().PacketCh()
	if len(p.Buf) != len(packet) || p.From.String() != a.Addr().String() || p.Timestamp.IsZero() {
		t.Errorf("%+v", p)
	}
	if err := tran.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if _, err := tran.WriteTo(packet, b.Addr().String()); err == nil {
		t.Error("written after shutdown")
	}
	if _, err := tran.DialTimeout(b.Addr().String(), time.Second); err == nil {
		t.Error("dialed after shutdown")
	}
}

func TestAdvertisedAddress(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	m := open(t, id, nil)
	all := openAt(t, ":0", id, nil)
	for _, tc := range []struct {
		m    *Mux
		ip   string
		port int
		want string
	}{
		{m, "", 0, m.Addr().String()},
		{m, "10.1.2.3", 7, "10.1.2.3:7"},
		{m, "::1", 7, "[::1]:7"},
		{m, "name", 7, "error"},
		{all, "", 0, "error"},
	} {
		got := "error"
		if ip, port, err := tc.m.GossipTransport().FinalAdvertiseAddr(tc.ip, tc.port); err == nil {
			got = (&net.TCPAddr{IP: ip, Port: port}).String()
		}
		if got != tc.want {
			t.Errorf("%q %d: %s, want %s", tc.ip, tc.port, got, tc.want)
		}
	}
}
