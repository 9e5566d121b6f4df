package walplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

const patience = 20 * time.Second // of every wait in the tests

// eventually waits until what says nothing, looking every millisecond.
func eventually(t testing.TB, what func() string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		missing := what()
		if missing == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("still not: " + missing)
		}
	}
}

// network is the loopback with cuts. Addresses are "node:ID", so that a node
// that restarts keeps its own.
type network struct {
	mu    sync.Mutex
	addr  map[string]string
	cut   map[[2]protocol.NodeID]bool
	conns map[[2]protocol.NodeID][]net.Conn
}

func newNetwork() *network {
	return &network{addr: map[string]string{}, cut: map[[2]protocol.NodeID]bool{}, conns: map[[2]protocol.NodeID][]net.Conn{}}
}

func address(id protocol.NodeID) string { return "node:" + id.String() }

func (n *network) listen(t testing.TB, id protocol.NodeID) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addr[address(id)] = l.Addr().String()
	return l
}

func (n *network) dial(from protocol.NodeID) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		real, ok := n.addr[addr]
		n.mu.Unlock()
		if !ok {
			real = addr
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", real)
		if err != nil {
			return nil, err
		}
		var to uint64
		if ok {
			to, _ = strconv.ParseUint(addr[len("node:"):], 10, 64)
		}
		pair := [2]protocol.NodeID{from, protocol.NodeID(to)}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut[pair] {
			conn.Close()
			return nil, errors.New("cut")
		}
		n.conns[pair] = append(n.conns[pair], conn)
		return conn, nil
	}
}

func (n *network) setCut(a, b protocol.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, pair := range [][2]protocol.NodeID{{a, b}, {b, a}} {
		n.cut[pair] = cut
		if cut {
			for _, c := range n.conns[pair] {
				c.Close()
			}
			n.conns[pair] = nil
		}
	}
}

// group is some DBs and the timeline history that Raft would hold for them.
type group struct {
	t       testing.TB
	dir     string
	net     *network
	voters  int
	dbs     map[protocol.NodeID]*DB
	guards  map[protocol.NodeID]*fencing.Guard
	floors  map[protocol.NodeID]protocol.Epoch // what fencing.json would hold
	history protocol.History
	clock   func() time.Duration
	tune    func(*Config)
}

func newGroup(t testing.TB, voters int) *group {
	start := time.Now()
	g := &group{
		t: t, dir: t.TempDir(), net: newNetwork(), voters: voters,
		dbs: map[protocol.NodeID]*DB{}, guards: map[protocol.NodeID]*fencing.Guard{}, floors: map[protocol.NodeID]protocol.Epoch{},
		clock: func() time.Duration { return time.Since(start) + 1 },
	}
	t.Cleanup(func() {
		for _, db := range g.dbs {
			db.Close()
		}
	})
	return g
}

// start opens the nodes, as after a start of their processes: fenced to their
// floors, following nobody.
func (g *group) start(ids ...protocol.NodeID) {
	g.t.Helper()
	for _, id := range ids {
		cfg := Config{
			Dir: filepath.Join(g.dir, id.String()), NodeID: id, Voters: g.voters,
			Listener: g.net.listen(g.t, id), Dial: g.net.dial(id), Clock: g.clock, KeepAlive: 5 * time.Millisecond,
		}
		if g.tune != nil {
			g.tune(&cfg)
		}
		db, err := Open(cfg)
		if err != nil {
			g.t.Fatal(err)
		}
		g.dbs[id] = db
		g.guards[id] = fencing.NewGuard(g.clock)
		g.must(db.Fence(g.ctx(), g.floors[id]))
	}
}

func (g *group) stop(ids ...protocol.NodeID) {
	g.t.Helper()
	for _, id := range ids {
		g.must(g.dbs[id].Close())
		delete(g.dbs, id)
	}
}

func (g *group) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	g.t.Cleanup(cancel)
	return ctx
}

func (g *group) position(id protocol.NodeID) protocol.Position {
	g.t.Helper()
	p, err := g.dbs[id].Position(g.ctx())
	g.must(err)
	return p
}

// fence is the ballot of an epoch as a voter sees it.
func (g *group) fence(epoch protocol.Epoch, ids ...protocol.NodeID) {
	g.t.Helper()
	for _, id := range ids {
		g.guards[id].CloseBelow(epoch, errors.New("ballot"))
		g.floors[id] = max(g.floors[id], epoch)
		g.must(g.dbs[id].Fence(g.ctx(), epoch))
	}
}

// fork records the promotion of id in the history.
func (g *group) fork(epoch protocol.Epoch, id protocol.NodeID) protocol.Lineage {
	g.t.Helper()
	p := g.position(id)
	g.history = append(g.history, protocol.Fork{Epoch: epoch, NodeID: id, Parent: p.Timeline, LSN: p.LSN})
	return g.lineage(epoch)
}

func (g *group) lineage(epoch protocol.Epoch) protocol.Lineage {
	g.t.Helper()
	l, err := g.history.Lineage(epoch)
	g.must(err)
	return l
}

// promote makes id primary of epoch without asking anybody.
func (g *group) promote(epoch protocol.Epoch, id protocol.NodeID) {
	g.t.Helper()
	lineage := g.fork(epoch, id)
	g.must(g.guards[id].Open(epoch))
	g.guards[id].Extend(epoch, fencing.NoDeadline)
	g.must(g.dbs[id].Promote(g.ctx(), failover.Promotion{Epoch: epoch, Guard: g.guards[id], Lineage: lineage}))
}

func (g *group) demotion(epoch protocol.Epoch, primary protocol.NodeID) failover.Demotion {
	return failover.Demotion{Epoch: epoch, Primary: primary, Address: address(primary), Lineage: g.lineage(epoch)}
}

// follow makes ids replicas of the primary of epoch.
func (g *group) follow(epoch protocol.Epoch, primary protocol.NodeID, ids ...protocol.NodeID) {
	g.t.Helper()
	for _, id := range ids {
		g.must(g.dbs[id].Demote(g.ctx(), g.demotion(epoch, primary)))
	}
}

// cluster starts voters 1 to n with 1 as primary of epoch 1.
func cluster(t testing.TB, n int) *group {
	t.Helper()
	g := newGroup(t, n)
	var others []protocol.NodeID
	for id := protocol.NodeID(1); id <= protocol.NodeID(n); id++ {
		g.start(id)
		if id > 1 {
			others = append(others, id)
		}
	}
	g.fence(1, append(others, 1)...)
	g.promote(1, 1)
	g.follow(1, 1, others...)
	return g
}

func (g *group) put(id protocol.NodeID, key, value string) Ack {
	g.t.Helper()
	a, err := g.dbs[id].Put(g.ctx(), key, []byte(value))
	g.must(err)
	return a
}

// putUnheard puts without waiting for an acknowledgement that cannot come, and
// returns when the record is flushed.
func (g *group) putUnheard(id protocol.NodeID, keys ...string) {
	g.t.Helper()
	before := g.position(id).LSN
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, key := range keys {
		wg.Go(func() {
			if a, err := g.dbs[id].Put(ctx, key, []byte("unheard")); !errors.Is(err, ErrUnknownOutcome) {
				g.t.Errorf("put of %s: %v, %v", key, a, err)
			}
		})
	}
	eventually(g.t, func() string {
		if p := g.position(id); p.LSN < before+protocol.LSN(len(keys)) {
			return fmt.Sprintf("%d writes behind %d: at %v", len(keys), before, p)
		}
		return ""
	})
}

// level waits until all nodes named are at the same position and have applied it.
func (g *group) level(ids ...protocol.NodeID) {
	g.t.Helper()
	eventually(g.t, func() string {
		want := g.position(ids[0])
		for _, id := range ids {
			if s := g.dbs[id].Status(); s.Position != want || s.AppliedLSN != want.LSN {
				return fmt.Sprintf("node %d level with node %d at %v: %+v", id, ids[0], want, s)
			}
		}
		return ""
	})
}
