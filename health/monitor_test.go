package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var t0 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

func beat(id protocol.NodeID, role protocol.NodeRole, epoch, lsn, stamp uint64) protocol.Heartbeat {
	return protocol.Heartbeat{NodeID: id, Role: role, Epoch: protocol.Epoch(epoch), WALLSN: protocol.LSN(lsn), TimestampUS: stamp}
}

const (
	primary = protocol.RolePrimary
	replica = protocol.RoleReplica
)

func TestPrimary(t *testing.T) {
	m := New(1, 250*time.Millisecond)
	if got := m.Primary(at(0)); got.Kind != Unknown || got.Node != protocol.NoNode {
		t.Errorf("at first: %+v", got)
	}
	m.ObserveHeartbeat(at(0), beat(2, primary, 5, 100, 10), time.Millisecond)
	m.ObserveHeartbeat(at(0), beat(3, replica, 5, 90, 10), time.Millisecond)
	if got := m.Primary(at(250)); got.Kind != Healthy || got.Node != 2 || got.Epoch != 5 || got.LSN != 100 || got.LastSeen != at(0) {
		t.Errorf("in time: %+v", got)
	}
	if got := m.Primary(at(251)); got.Kind != Unreachable || got.Node != 2 || got.LastSeen != at(0) {
		t.Errorf("late: %+v", got)
	}
	// Another is primary in a higher epoch; the old one comes back and does not know.
	m.ObserveHeartbeat(at(300), beat(3, primary, 6, 100, 20), 0)
	m.ObserveHeartbeat(at(310), beat(2, primary, 5, 120, 30), 0)
	if got := m.Primary(at(320)); got.Node != 3 || got.Kind != Healthy {
		t.Errorf("two claim it: %+v", got)
	}
	m.ObserveAlive(at(330), 3, false)
	if got := m.Primary(at(330)); got.Node != 3 || got.Kind != Unreachable {
		t.Errorf("gossip says dead: %+v", got)
	}
}

func TestOldHeartbeatsAreRefused(t *testing.T) {
	m := New(1, 250*time.Millisecond)
	for i, test := range []struct {
		hb   protocol.Heartbeat
		want bool
	}{
		{beat(2, primary, 5, 100, 10), true},
		{beat(2, primary, 5, 100, 10), false}, // repeated
		{beat(2, primary, 5, 90, 9), false},   // delayed
		{beat(2, primary, 4, 90, 99), false},  // of an older epoch
		{beat(2, primary, 5, 100, 11), true},
		{beat(2, replica, 6, 100, 1), true}, // a higher epoch is news, whatever its stamp
		{beat(0, replica, 6, 100, 1), false},
		{beat(3, 9, 6, 100, 1), false},
	} {
		if got := m.ObserveHeartbeat(at(i), test.hb, 0); got != test.want {
			t.Errorf("%d: news %v, want %v", i, got, test.want)
		}
	}
	// A dead primary's heartbeats, replayed, do not bring it back.
	m = New(1, 250*time.Millisecond)
	m.ObserveHeartbeat(at(0), beat(2, primary, 5, 100, 10), 0)
	for i := range 10 {
		m.ObserveHeartbeat(at(300+i), beat(2, primary, 5, 100, uint64(i+1)), 0)
	}
	if got := m.Primary(at(310)); got.Kind != Unreachable || got.LastSeen != at(0) {
		t.Errorf("replay made it %+v", got)
	}
	// A restart with the clock set back is believed after gossip saw it go and come.
	m.ObserveAlive(at(320), 2, true)
	if m.ObserveHeartbeat(at(321), beat(2, replica, 5, 100, 3), 0) {
		t.Error("alive without having been dead let an old heartbeat in")
	}
	m.ObserveAlive(at(330), 2, false)
	m.ObserveAlive(at(340), 2, true)
	if slices.Contains(m.Reachable(at(341)), 2) {
		t.Error("reachable by gossip alone")
	}
	if !m.ObserveHeartbeat(at(350), beat(2, replica, 5, 100, 3), 0) || !slices.Contains(m.Reachable(at(351)), 2) {
		t.Error("a restarted node is not let in")
	}
}

func TestReachableAndBestReplica(t *testing.T) {
	m := New(1, 250*time.Millisecond)
	if got := m.Reachable(at(0)); !slices.Equal(got, []protocol.NodeID{1}) {
		t.Errorf("alone: %v", got)
	}
	if best, ok := m.BestReplica(at(0), 0); ok {
		t.Errorf("a best replica of none: %d", best)
	}
	m.ObserveHeartbeat(at(0), beat(1, primary, 5, 1000, 1), 0)
	m.ObserveHeartbeat(at(0), beat(2, replica, 5, 950, 1), 0)
	m.ObserveHeartbeat(at(0), beat(3, replica, 5, 990, 1), 3*time.Millisecond)
	m.ObserveHeartbeat(at(0), beat(4, replica, 5, 990, 1), 0)
	m.ObserveHeartbeat(at(0), beat(5, protocol.RoleStandalone, 5, 999, 1), 0)
	m.ObserveHeartbeat(at(100), beat(2, replica, 5, 950, 2), 0)
	if got := m.Reachable(at(250)); !slices.Equal(got, []protocol.NodeID{1, 2, 3, 4, 5}) {
		t.Errorf("reachable %v", got)
	}
	for _, test := range []struct {
		ms   int
		lag  uint64
		want protocol.NodeID
	}{{250, 0, 3}, {250, 10, 3}, {250, 9, 0}, {251, 0, 2}, {251, 50, 2}, {251, 49, 0}, {400, 0, 0}} {
		if best, ok := m.BestReplica(at(test.ms), test.lag); best != test.want || ok != (test.want != 0) {
			t.Errorf("at %d ms within %d: %d, want %d", test.ms, test.lag, best, test.want)
		}
	}
	nodes := m.Nodes(at(300))
	if len(nodes) != 5 || nodes[2].Node != 3 || nodes[2].RTT != 3*time.Millisecond || nodes[2].Reachable || !nodes[1].Reachable || !nodes[0].Reachable {
		t.Errorf("nodes %+v", nodes)
	}
	m.Forget(2)
	if slices.Contains(m.Reachable(at(200)), 2) {
		t.Error("forgotten and reachable")
	}
}

func TestMonitorIsBounded(t *testing.T) {
	m := New(1, time.Second)
	for id := range protocol.NodeID(3 * MaxNodes) {
		m.ObserveHeartbeat(at(0), beat(id, replica, 1, 1, 1), 0)
		m.ObserveAlive(at(0), id, true)
	}
	if n := len(m.Nodes(at(0))); n > MaxNodes {
		t.Errorf("%d nodes", n)
	}
}

// Whatever arrives, the record of a node never goes back in epoch, and its
// last sight never forward without news.
func TestMonitorProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 5))
	m := New(1, 100*time.Millisecond)
	last := map[protocol.NodeID]NodeHealth{}
	for step := range 20000 {
		now := at(step)
		id := protocol.NodeID(rnd.IntN(4) + 1)
		news := false
		if rnd.IntN(20) == 0 {
			m.ObserveAlive(now, id, rnd.IntN(2) == 0)
		} else {
			news = m.ObserveHeartbeat(now, beat(id, protocol.NodeRole(rnd.IntN(3)), uint64(step/500+rnd.IntN(3)), 1, uint64(step+rnd.IntN(50))), 0)
		}
		for _, n := range m.Nodes(now) {
			was := last[n.Node]
			if n.Heartbeat.Epoch < was.Heartbeat.Epoch {
				t.Fatalf("step %d: node %d went from epoch %d to %d", step, n.Node, was.Heartbeat.Epoch, n.Heartbeat.Epoch)
			}
			if n.LastSeen.After(was.LastSeen) && !(news && n.Node == id) {
				t.Fatalf("step %d: node %d was seen without news", step, n.Node)
			}
			last[n.Node] = n
		}
	}
}

func ExampleHealthMonitor() {
	monitor := New(1, 250*time.Millisecond)
	now := time.Now()
	fmt.Println(monitor.Primary(now).Kind)

	monitor.ObserveHeartbeat(now, protocol.Heartbeat{NodeID: 2, Epoch: 7, WALLSN: 150, Role: protocol.RolePrimary, TimestampUS: 1}, 0)
	fmt.Println(monitor.Primary(now).Kind, "node", monitor.Primary(now).Node)

	now = now.Add(time.Second)
	fmt.Println(monitor.Primary(now).Kind, "since", now.Sub(monitor.Primary(now).LastSeen))
	// Output:
	// unknown
	// healthy node 2
	// unreachable since 1s
}
