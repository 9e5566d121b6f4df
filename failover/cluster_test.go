package failover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// network is n nodes of real hashicorp/raft with drivers and model databases,
// for a synctest bubble. stop must be called before the bubble ends.
type network struct {
	t     testing.TB
	nodes map[protocol.NodeID]*node
	ledger
	written int

	mu  sync.Mutex
	cut map[[2]protocol.NodeID]bool

	lastPrimary health.PrimaryHealthStatus // what the oracle knows

	rough *rand.Rand // messages are delayed, lost and repeated by it; nil: they are not
}

// delay is how long something takes on a rough day.
func (net *network) delay() time.Duration {
	net.mu.Lock()
	defer net.mu.Unlock()
	if net.rough == nil {
		return 0
	}
	d := net.rough.IntN(3000)
	if net.rough.IntN(10) == 0 {
		d *= 40
	}
	return time.Duration(d) * time.Microsecond
}

func (net *network) chance(oneIn int) bool {
	net.mu.Lock()
	defer net.mu.Unlock()
	return net.rough != nil && net.rough.IntN(oneIn) == 0
}

type node struct {
	id    protocol.NodeID
	net   *network
	logs  *disk // survives a crash
	snaps raft.SnapshotStore
	floor string
	db    *modelDB

	witness bool // has no data: db is not used

	up     bool // guarded by net.mu
	inner  *raft.InmemTransport
	trans  *raftshim.Transport
	raft   *raft.Raft
	fsm    *fsm.FSM
	cons   *raftshim.Consensus
	driver *failover.Driver
	guard  *fencing.Guard

	asleep atomic.Int64 // what the boot clock has run more
}

// disk is a log store that can hang.
type disk struct {
	*raft.InmemStore
	hung    atomic.Pointer[chan struct{}] // closed when it goes on; nil: it does not hang
	writing atomic.Pointer[time.Time]     // since when; nil: not
}

func (d *disk) StoreLogs(logs []*raft.Log) error {
	now := time.Now()
	d.writing.Store(&now)
	defer d.writing.Store(nil)
	if hung := d.hung.Load(); hung != nil {
		<-*hung
	}
	return d.InmemStore.StoreLogs(logs)
}

func (d *disk) StoreLog(log *raft.Log) error { return d.StoreLogs([]*raft.Log{log}) }

func (d *disk) writeInFlight() time.Time {
	if since := d.writing.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

func newNetwork(t testing.TB, n int) *network {
	net := &network{t: t, nodes: map[protocol.NodeID]*node{}, cut: map[[2]protocol.NodeID]bool{}}
	dir := t.TempDir()
	var servers []raft.Server
	for i := range n {
		id := protocol.NodeID(i + 1)
		net.nodes[id] = &node{id: id, net: net, logs: &disk{InmemStore: raft.NewInmemStore()}, snaps: raft.NewInmemSnapshotStore(),
			floor: filepath.Join(dir, id.String()+".json"), db: &modelDB{id: id, net: net}}
		servers = append(servers, raft.Server{ID: raftshim.ServerID(id), Address: address(id)})
	}
	for _, id := range net.ids() {
		nd := net.nodes[id]
		_, trans := raft.NewInmemTransport(address(id))
		conf := raftConfig(id)
		named := raftshim.NewTransport(trans, raftshim.Options{})
		if err := raft.BootstrapCluster(conf, nd.logs, nd.logs, nd.snaps, named, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		_ = named.Close()
	}
	return net
}

func address(id protocol.NodeID) raft.ServerAddress { return raft.ServerAddress("raft-" + id.String()) }

func raftConfig(id protocol.NodeID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raftshim.ServerID(id)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	c.CommitTimeout = 10 * time.Millisecond
	c.Logger = hclog.New(&hclog.LoggerOptions{Output: io.Discard})
	return c
}

// maxFailoverLag matters only where a test tells of a last primary.
const maxFailoverLag = 10

var testTiming = failover.Timing{BallotTimeout: 200 * time.Millisecond, StepDownTimeout: 500 * time.Millisecond,
	RaftTimeout: 500 * time.Millisecond, CoolDown: 3 * time.Second, DeferMemory: 3 * time.Second,
	DatabaseTimeout: time.Second, HandoverTimeout: 2 * time.Second}

func (net *network) ids() []protocol.NodeID {
	var out []protocol.NodeID
	for i := range len(net.nodes) {
		out = append(out, protocol.NodeID(i+1))
	}
	return out
}

func (net *network) others(id protocol.NodeID) []protocol.NodeID {
	return slices.DeleteFunc(net.ids(), func(x protocol.NodeID) bool { return x == id })
}
func (net *network) quorum() int                   { return len(net.nodes)/2 + 1 }
func (net *network) node(id protocol.NodeID) *node { return net.nodes[id] }
func (net *network) connected(a, b protocol.NodeID) bool {
	net.mu.Lock()
	defer net.mu.Unlock()
	return net.nodes[a].up && net.nodes[b].up && !net.cut[[2]protocol.NodeID{min(a, b), max(a, b)}]
}

// start brings a node up from its disk.
func (net *network) start(id protocol.NodeID) {
	net.t.Helper()
	nd := net.nodes[id]
	nd.db.mu.Lock() // memory is gone, the log is not
	nd.db.fence, nd.db.promotion, nd.db.following, nd.db.held = 0, nil, failover.Demotion{}, false
	nd.db.mu.Unlock()
	_, nd.inner = raft.NewInmemTransport(address(id))
	nd.fsm = fsm.New(nil)
	nd.cons = raftshim.NewConsensus()
	began := time.Now()
	clock := func() time.Duration { return time.Since(began) + time.Duration(nd.asleep.Load()) }
	nd.guard = fencing.NewGuard(clock)
	floor, err := fencing.OpenFloor(nd.floor)
	if err == nil {
		err = floor.Create(time.Now())
	}
	if err != nil {
		net.t.Fatal(err)
	}
	nd.trans = raftshim.NewTransport(nd.inner, raftshim.Options{Local: id, Clock: clock, Guard: nd.guard,
		Lease: fencing.LeaseFor(raftConfig(id).HeartbeatTimeout), Floor: floor.Current().Epoch, WriteInFlight: nd.logs.writeInFlight})
	var database failover.Database = nd.db
	if nd.witness {
		database = failover.Witness{}
	}
	nd.driver, err = failover.NewDriver(failover.DriverConfig{Local: id, Raft: nd.cons, Lease: nd.trans, Peers: (*peers)(nd),
		Cluster: (*cluster)(nd), Database: database, Floor: floor, Guard: nd.guard, Health: (*oracle)(nd), Timing: testTiming, MaxFailoverLag: maxFailoverLag})
	if err != nil {
		net.t.Fatal(err)
	}
	driver := nd.driver
	nd.fsm.OnApply(func(fsm.Change) { driver.ClusterChanged() })
	conf := raftConfig(id)
	conf.NotifyCh = nd.cons.NotifyCh()
	if nd.raft, err = raft.NewRaft(conf, nd.fsm, nd.logs, nd.logs, nd.snaps, nd.trans); err != nil {
		net.t.Fatal(err)
	}
	nd.cons.Attach(nd.raft, nd.trans)
	net.mu.Lock()
	nd.up = true
	net.mu.Unlock()
	net.wire()
	if err := nd.driver.Start(context.Background()); err != nil {
		net.t.Fatal(err)
	}
}

// wire connects what is up and not cut.
func (net *network) wire() {
	for _, a := range net.ids() {
		for _, b := range net.others(a) {
			if net.nodes[a].inner == nil {
				continue
			}
			if net.connected(a, b) {
				net.nodes[a].inner.Connect(address(b), net.nodes[b].inner)
			} else {
				net.nodes[a].inner.Disconnect(address(b))
			}
		}
	}
}

func (net *network) isolate(id protocol.NodeID, cut bool) {
	net.mu.Lock()
	for _, other := range net.others(id) {
		net.cut[[2]protocol.NodeID{min(id, other), max(id, other)}] = cut
	}
	net.mu.Unlock()
	net.wire()
}

// crash takes a node off the net at once; what is left of it is cleared away.
func (net *network) crash(id protocol.NodeID) {
	net.t.Helper()
	nd := net.nodes[id]
	net.mu.Lock()
	up := nd.up
	nd.up = false
	net.mu.Unlock()
	if !up {
		return
	}
	net.wire()
	if err := nd.driver.Close(); err != nil {
		net.t.Error(err)
	}
	if err := nd.cons.Close(); err != nil {
		net.t.Error(err)
	}
	_ = nd.trans.Close()
}

func (net *network) stop() {
	for _, id := range net.ids() {
		net.crash(id)
	}
	time.Sleep(10 * time.Second) // what a crash left waiting for an answer gives up
	for _, nd := range net.nodes {
		if nd.db.overlapped {
			net.t.Errorf("node %d: Promote and Demote overlapped", nd.id)
		}
	}
	for _, fault := range net.faults {
		net.t.Error(fault)
	}
}

// primary waits until exactly one node is primary, of an epoch above above.
func (net *network) primary(above protocol.Epoch, within time.Duration) *node {
	net.t.Helper()
	began := time.Now()
	for time.Since(began) < within {
		for _, id := range net.ids() {
			nd := net.nodes[id]
			if nd.isUp() && nd.driver.Status().Role == protocol.RolePrimary && nd.driver.Status().Epoch > above {
				return nd
			}
		}
		time.Sleep(time.Millisecond)
	}
	for _, id := range net.ids() {
		if nd := net.nodes[id]; nd.isUp() {
			net.t.Logf("node %d: %+v", id, nd.driver.Status())
			for _, r := range nd.driver.Journal(0) {
				net.t.Logf("  %s %s epoch %d node %d: %s", r.At.Format("05.000"), r.Event, r.Epoch, r.Node, r.Detail)
			}
		}
	}
	net.t.Fatalf("no primary above epoch %d within %v", above, within)
	return nil
}

func (nd *node) isUp() bool {
	nd.net.mu.Lock()
	defer nd.net.mu.Unlock()
	return nd.up
}

func (nd *node) epoch() protocol.Epoch { return nd.driver.Status().Epoch }

// write writes n values, each acknowledged or not, and enters what was.
func (net *network) write(nd *node, n int) (acked int) {
	for range n {
		net.ledger.mu.Lock()
		net.written++
		value := fmt.Sprintf("v%d", net.written)
		net.ledger.mu.Unlock()
		if epoch, err := nd.db.write(value); err == nil {
			net.ack(value, epoch)
			acked++
		}
	}
	return acked
}

// settled waits until all nodes that are up follow nd, writes once more and
// checks that nothing acknowledged is missing anywhere (I3).
func (net *network) settled(nd *node) {
	net.t.Helper()
	net.await("all nodes to follow the primary", func() bool {
		for _, id := range net.ids() {
			other := net.nodes[id]
			if other.witness {
				continue
			}
			other.db.mu.Lock()
			follows := other.db.following.Primary == nd.id && other.db.following.Epoch == nd.epoch()
			other.db.mu.Unlock()
			if id != nd.id && other.isUp() && !follows {
				return false
			}
		}
		return true
	})
	if net.write(nd, 1) != 1 {
		net.t.Errorf("node %d cannot write", nd.id)
	}
	for _, id := range net.ids() {
		if other := net.nodes[id]; other.isUp() && !other.witness {
			has := other.db.values()
			for _, value := range net.acked {
				if !has[value] {
					net.t.Errorf("node %d has lost %s", id, value)
				}
			}
		}
	}
}

func (net *network) await(what string, cond func() bool) {
	net.t.Helper()
	for range 20000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	net.t.Fatalf("waited in vain for %s", what)
}

type peers node

const latency = 300 * time.Microsecond

// Call carries a message there and back through its encoding.
func (p *peers) Call(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	time.Sleep(latency + p.net.delay())
	target := p.net.nodes[to]
	if !p.net.connected(p.id, to) || p.net.chance(20) {
		return nil, errors.New("unreachable")
	}
	request, err := recode(m)
	if err != nil {
		return nil, err
	}
	if p.net.chance(20) { // once more, later
		go func() {
			time.Sleep(10 * p.net.delay())
			_, _ = target.driver.HandleMessage(context.Background(), p.id, request)
		}()
	}
	reply, err := target.driver.HandleMessage(ctx, p.id, request)
	if err != nil {
		return nil, err
	}
	time.Sleep(latency + p.net.delay())
	if !p.net.connected(p.id, to) || p.net.chance(20) {
		return nil, errors.New("unreachable")
	}
	return recode(reply)
}

func recode(m protocol.Message) (protocol.Message, error) {
	raw, err := protocol.Encode(m)
	if err != nil {
		return nil, err
	}
	return protocol.Decode(raw)
}

type cluster node

func (c *cluster) History() (h protocol.History) {
	c.fsm.Read(func(s *fsm.State) { h = s.History() })
	return h
}
func (c *cluster) Address(id protocol.NodeID) string { return "db-" + id.String() }
func (c *cluster) Rules() (rules failover.Rules) {
	c.fsm.Read(func(s *fsm.State) { rules = raftshim.Rules(s) })
	return rules
}

// oracle is a health view that is right at once.
type oracle node

func (o *oracle) Primary() health.PrimaryHealthStatus {
	o.net.mu.Lock()
	defer o.net.mu.Unlock()
	return o.net.lastPrimary
}
func (o *oracle) Reachable() []protocol.NodeID {
	out := []protocol.NodeID{o.id}
	for _, id := range o.net.others(o.id) {
		if o.net.connected(o.id, id) {
			out = append(out, id)
		}
	}
	return out
}
func (o *oracle) BestReplica() (protocol.NodeID, bool) { return 0, false }
