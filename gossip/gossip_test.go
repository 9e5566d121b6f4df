package gossip_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/protocol"
)

var testKey = bytes.Repeat([]byte{7}, 32)

// station is a running node of a test and what it was told.
type station struct {
	*gossip.Gossip
	self      atomic.Pointer[gossip.Gossip]
	transport *memTransport
	lsn       atomic.Uint64
	log       *logBuffer

	mu       sync.Mutex
	evidence []gossip.Evidence
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func addrOf(id int) string { return fmt.Sprintf("10.0.0.%d:7600", id) }

func peersUpTo(n int) []string {
	var out []string
	for id := 1; id <= n; id++ {
		out = append(out, addrOf(id))
	}
	return out
}

func start(t *testing.T, n *memNet, id protocol.NodeID, addr string, peers []string, change func(*gossip.Config)) *station {
	t.Helper()
	s := &station{transport: n.listen(addr), log: &logBuffer{}}
	config := gossip.Config{
		Local: id, Advertise: addr, Peers: peers,
		Keys: [][]byte{testKey}, Transport: s.transport,
		DatabaseAddr: "db-" + addr, APIAddr: "api-" + addr, Version: "v1.2.3",
		Heartbeat: func() protocol.Heartbeat {
			return protocol.Heartbeat{Epoch: 3, NodeID: id, WALLSN: protocol.LSN(s.lsn.Load()), Role: protocol.RoleReplica}
		},
		Evidence: func(e gossip.Evidence) {
			if g := s.self.Load(); g != nil { // both are allowed here
				g.Members()
				g.Lookup(e.NodeID)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.evidence = append(s.evidence, e)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Output: io.Writer(s.log), Level: hclog.Info}),
	}
	if change != nil {
		change(&config)
	}
	g, err := gossip.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	s.Gossip = g
	s.self.Store(g)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func startMany(t *testing.T, net *memNet, n int) []*station {
	t.Helper()
	var out []*station
	for id := 1; id <= n; id++ {
		out = append(out, start(t, net, protocol.NodeID(id), addrOf(id), peersUpTo(n), nil))
	}
	return out
}

// saw reports whether a kind of evidence of a node came at or after since.
func (s *station) saw(id protocol.NodeID, kind gossip.Kind, since time.Time, match func(gossip.Evidence) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.evidence {
		if e.NodeID == id && e.Kind == kind && !e.At.Before(since) && (match == nil || match(e)) {
			return true
		}
	}
	return false
}

func (s *station) aliveIDs() string {
	var out []string
	for _, m := range s.Members() {
		if m.Alive {
			out = append(out, m.NodeID.String())
		}
	}
	return strings.Join(out, " ")
}

// eventually waits in virtual time.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func whole(stations []*station, want string) func() bool {
	return func() bool {
		for _, s := range stations {
			if s.aliveIDs() != want {
				return false
			}
		}
		return true
	}
}

func TestNodesFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		m := s[0].Members()
		if m[0].Local != true || m[0].Heartbeat.NodeID != 1 {
			t.Errorf("the local member is %+v", m[0])
		}
		want := gossip.Member{NodeID: 2, Alive: true, Addr: addrOf(2), DatabaseAddr: "db-" + addrOf(2), APIAddr: "api-" + addrOf(2), Version: "v1.2.3"}
		got := m[1]
		if got.Seen.IsZero() {
			t.Error("node 2 was never seen")
		}
		got.Heartbeat, got.RTT, got.Seen = protocol.Heartbeat{}, 0, time.Time{}
		if got != want {
			t.Errorf("node 2 is seen as %+v, want %+v", got, want)
		}
		if addr, ok := s[2].Lookup(1); !ok || addr != addrOf(1) {
			t.Errorf("node 1 is looked up as %q, %v", addr, ok)
		}
		if _, ok := s[2].Lookup(9); ok {
			t.Error("node 9 is known")
		}
	})
}

func TestHeartbeatsComeWithProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		for lsn := uint64(100); lsn < 105; lsn++ {
			s[1].lsn.Store(lsn)
			since := time.Now()
			// Two peers, one probe every 200 ms in turn: a round is 400 ms.
			eventually(t, time.Second, "node 1 hears of the new position", func() bool {
				return s[0].saw(2, gossip.Heartbeat, since, func(e gossip.Evidence) bool {
					return uint64(e.Heartbeat.WALLSN) == lsn && e.Heartbeat.Epoch == 3 && e.RTT > 0
				})
			})
		}
		if m := s[0].Members()[1]; m.Heartbeat.WALLSN != 104 || m.RTT == 0 {
			t.Errorf("member: %+v", m)
		}
	})
}

func TestDeathIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		since := time.Now()
		s[2].transport.kill()
		eventually(t, 4*time.Second, "node 3 is dead to 1 and 2", func() bool {
			return s[0].saw(3, gossip.Dead, since, nil) && s[1].saw(3, gossip.Dead, since, nil)
		})
		t.Logf("death noticed after %v", time.Since(since))
		if got := s[0].aliveIDs(); got != "1 2" {
			t.Errorf("alive: %s", got)
		}
		if s[0].saw(2, gossip.Dead, since, nil) {
			t.Error("node 2 was said to be dead as well")
		}
		// It is still known where it was.
		if addr, ok := s[0].Lookup(3); !ok || addr != addrOf(3) {
			t.Errorf("lookup of the dead node: %q %v", addr, ok)
		}
	})
}

func TestReturnAtAnotherAddress(t *testing.T) {
	for name, pause := range map[string]time.Duration{"before its death is noticed": 0, "after": 10 * time.Second, "after it is forgotten": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newTestNet(t)
				s := startMany(t, net, 3)
				eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
				s[2].transport.kill()
				time.Sleep(pause)
				again := start(t, net, 3, "10.0.0.33:7605", peersUpTo(3), nil)
				eventually(t, 6*time.Second, "1 and 2 know the new address", func() bool {
					for _, x := range s[:2] {
						if addr, _ := x.Lookup(3); addr != "10.0.0.33:7605" || x.aliveIDs() != "1 2 3" {
							return false
						}
					}
					return again.aliveIDs() == "1 2 3"
				})
				time.Sleep(30 * time.Second)
				for _, x := range append(s[:2], again) {
					if strings.Contains(x.log.String(), "same node ID") {
						t.Errorf("a move was taken for two nodes: %s", x.log)
					}
				}
			})
		})
	}
}

func TestTwoNodesWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		twin := start(t, net, 3, "10.0.0.44:7600", peersUpTo(3), nil)
		for i, x := range []*station{s[0], s[1], s[2], twin} {
			eventually(t, 30*time.Second, fmt.Sprintf("station %d says so", i), func() bool {
				return strings.Contains(x.log.String(), "[ERROR]") && strings.Contains(x.log.String(), "same node ID")
			})
		}
		if n := strings.Count(s[0].log.String(), "same node ID"); n > 1 {
			t.Errorf("said %d times", n)
		}
		if addr, _ := s[0].Lookup(3); addr != addrOf(3) {
			t.Errorf("the twin took the node's place: %s", addr)
		}
	})
}

func TestLeaveAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		since := time.Now()
		if err := s[2].Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 500*time.Millisecond, "a node that leaves is gone at once", func() bool {
			return s[0].saw(3, gossip.Dead, since, nil) && s[1].saw(3, gossip.Dead, since, nil)
		})
		if err := s[2].Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		since = time.Now()
		again := start(t, net, 3, addrOf(3), peersUpTo(3), nil)
		eventually(t, 3*time.Second, "it comes back at the same address", func() bool {
			return s[0].saw(3, gossip.Alive, since, nil) && s[1].saw(3, gossip.Alive, since, nil) && again.aliveIDs() == "1 2 3"
		})
	})
}

func TestLongPartitionHeals(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newTestNet(t)
				s := startMany(t, net, n)
				all := strings.Join(strings.Fields("1 2 3 4 5")[:n], " ")
				eventually(t, 3*time.Second, "all see all", whole(s, all))
				minority := func(addr string) bool { return addr == addrOf(1) || (n == 5 && addr == addrOf(2)) }
				net.setCut(func(from, to string) bool { return minority(from) != minority(to) })
				// Longer than memberlist remembers the dead.
				time.Sleep(3 * time.Minute)
				if got := s[n-1].aliveIDs(); got == all {
					t.Fatal("the partition was not noticed")
				}
				net.setCut(func(string, string) bool { return false })
				eventually(t, 12*time.Second, "all see all again", whole(s, all))
			})
		})
	}
}

func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		if err := s[1].Announce("new-db:5432", "new-api:80"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Second, "1 and 3 know", func() bool {
			a, c := s[0].Members()[1], s[2].Members()[1]
			return a.DatabaseAddr == "new-db:5432" && a.APIAddr == "new-api:80" && c.DatabaseAddr == "new-db:5432" && a.Addr == addrOf(2)
		})
		if err := s[1].Announce(strings.Repeat("x", 500), ""); err == nil {
			t.Error("an address that does not fit was announced")
		}
	})
}

func TestKeys(t *testing.T) {
	other := bytes.Repeat([]byte{9}, 32)
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		a := start(t, net, 1, addrOf(1), peersUpTo(3), func(c *gossip.Config) { c.Keys = [][]byte{testKey} })
		b := start(t, net, 2, addrOf(2), peersUpTo(3), func(c *gossip.Config) { c.Keys = [][]byte{testKey, other} })
		c := start(t, net, 3, addrOf(3), peersUpTo(3), func(c *gossip.Config) { c.Keys = [][]byte{other} })
		eventually(t, 2*time.Second, "nodes that share a key find each other", func() bool { return a.aliveIDs() == "1 2" })
		time.Sleep(20 * time.Second)
		if got := c.aliveIDs(); got != "3" {
			t.Errorf("a node with another key sees %s", got)
		}
		if got := b.aliveIDs(); got != "1 2" {
			t.Errorf("the node between them sees %s", got)
		}
	})
}

func TestSilentAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		s := startMany(t, net, 3)
		eventually(t, 2*time.Second, "all see all", whole(s, "1 2 3"))
		// A suspicion is under way when node 1 is closed: it ends afterwards.
		s[1].transport.kill()
		time.Sleep(700 * time.Millisecond)
		if err := s[0].Close(); err != nil {
			t.Fatal(err)
		}
		s[0].mu.Lock()
		n := len(s[0].evidence)
		s[0].mu.Unlock()
		time.Sleep(10 * time.Second)
		s[0].mu.Lock()
		defer s[0].mu.Unlock()
		if len(s[0].evidence) != n {
			t.Errorf("%d pieces of evidence after Close", len(s[0].evidence)-n)
		}
	})
}

func TestValidateReportsEverything(t *testing.T) {
	_, err := gossip.Start(gossip.Config{Peers: []string{"nohost"}, Keys: [][]byte{{1}}, Interval: 1, Version: strings.Repeat("v", 600)})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"node ID is 0", "advertise address", "peer", "gossip key 1 of 1", "no gossip transport", "no heartbeat", "interval", "600 bytes"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}
