package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The times of the simulated nodes are the product's defaults, and are derived
// from each other as the root package does.
const (
	heartbeatTimeout = 250 * time.Millisecond
	electionTimeout  = 600 * time.Millisecond
	pollInterval     = 50 * time.Millisecond
	gossipInterval   = 200 * time.Millisecond
	stepDownRounds   = 4
	resignTimeout    = 3 * time.Second
)

// machine is what a crash leaves: a disk and what is on it, and a clock.
type machine struct {
	id    protocol.NodeID
	disk  *disk
	clock *bootClock

	logs  *logstore.Memory
	snap  *snapshot
	floor *memfs.FS

	mu  sync.Mutex
	wal wal // guarded by mu: others look at it
}

// left returns the log that the last process left.
func (m *machine) left() wal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wal
}

// process is one run of a node, from a start to a crash.
type process struct {
	*gate
	id protocol.NodeID
	c  *cluster
	m  *machine

	permille int64 // of the clock, when it started
	store    *logs
	snaps    *snapshots
	floorFS  *memfs.FS
	db       *database
	fsm      *fsm.FSM
	wire     *wire
	trans    *raftshim.Transport
	cons     *raftshim.Consensus
	raft     *raft.Raft
	guard    *fencing.Guard
	floor    *fencing.Floor
	driver   *failover.Driver
	view     *healthView
	spoke    time.Time // when the guard last said yes; mutants only

	mu      sync.Mutex
	stamped map[protocol.NodeID]time.Duration // mutants only

	probing atomic.Int64  // since when, ns of the virtual clock; 0: not
	ready   chan struct{} // closed when it answers messages
	closing sync.Once
	ending  atomic.Bool // somebody ends it, and starts the next
}

// start runs a node from what is on its machine's disk.
func (c *cluster) start(m *machine) error {
	p := &process{gate: newGate(), id: m.id, c: c, m: m, permille: m.clock.rate(), ready: make(chan struct{}), floorFS: m.floor}
	slower := func(d time.Duration) time.Duration { return lasts(d, p.permille) }
	p.store = &logs{Memory: m.logs, p: p}
	p.snaps = &snapshots{p: p, latest: m.snap}
	p.db = newDatabase(p, m.left())
	p.fsm = fsm.New(nil)
	p.wire = newWire(p)
	p.cons = raftshim.NewConsensus()
	p.guard = fencing.NewGuard(m.clock.now)
	p.view = &healthView{monitor: health.New(p.id, max(heartbeatTimeout, 3*gossipInterval*time.Duration(len(c.machines)-1)))}
	var err error
	if p.floor, err = fencing.OpenFloorOn(floorPath, floorDisk{p, p.floorFS}); err != nil {
		return err
	}
	if p.floor.Missing() {
		if err := p.floor.Create(time.Now()); err != nil {
			return err
		}
	}
	c.ledger.floor(p, p.floor.Current().Epoch)
	lease := fencing.LeaseFor(heartbeatTimeout)
	options := raftshim.Options{Local: p.id, Clock: m.clock.now, Guard: p.guard, Lease: lease, Floor: p.floor.Current().Epoch,
		WriteInFlight: p.writeInFlight, StallLimit: slower(raftshim.StallLimit(heartbeatTimeout))}
	c.broken.options(&options)
	p.trans = raftshim.NewTransport(p.wire, options)
	log := &gatedLog{Logger: hclog.NewNullLogger(), gate: p.gate, tell: c.listener(p.id)}
	conf := raft.DefaultConfig()
	conf.LocalID = raftshim.ServerID(p.id)
	conf.HeartbeatTimeout = slower(heartbeatTimeout)
	conf.LeaderLeaseTimeout = slower(heartbeatTimeout)
	conf.ElectionTimeout = slower(max(electionTimeout/2, heartbeatTimeout))
	conf.CommitTimeout = slower(25 * time.Millisecond)
	conf.ShutdownOnRemove = false
	conf.Logger = log
	conf.NotifyCh = p.cons.NotifyCh()
	if c.snapshots { // often, and with a log that is cut short
		conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = time.Second, 16, 32
	}
	p.driver, err = failover.NewDriver(failover.DriverConfig{Local: p.id, Raft: p.cons, Lease: driftingLease{Lease: brokenLease{p.trans, p, lease}, p: p, permille: p.permille},
		Peers: peers{p}, Cluster: replicated{p}, Database: p.db, Floor: p.floor, Guard: p.guard, Health: p.view, Logger: log,
		Timing: failover.Timing{BallotTimeout: slower(electionTimeout), StepDownTimeout: slower(stepDownRounds * electionTimeout), PollInterval: slower(pollInterval)}})
	if err != nil {
		return err
	}
	p.fsm.OnApply(func(fsm.Change) { p.driver.ClusterChanged() })
	if used, err := raft.HasExistingState(p.store, p.store, p.snaps); err != nil {
		return err
	} else if !used {
		var voters raft.Configuration
		for _, other := range c.machines {
			voters.Servers = append(voters.Servers, raft.Server{Suffrage: raft.Voter, ID: raftshim.ServerID(other.id), Address: address(other.id)})
		}
		if err := raft.BootstrapCluster(conf, p.store, p.store, p.snaps, p.trans, voters); err != nil {
			return err
		}
	}
	if p.raft, err = raft.NewRaft(conf, p.fsm, p.store, p.store, p.snaps, p.trans); err != nil {
		return fmt.Errorf("start Raft on node %d: %w", p.id, err)
	}
	p.cons.Attach(p.raft, p.trans)
	c.enter(p)
	c.tasks.Go(p.db.flush)
	c.tasks.Go(p.db.pull)
	c.tasks.Go(p.gossip)
	c.tasks.Go(func() { p.probe(slower(raftshim.StallLimit(heartbeatTimeout)) / 2) })
	if err := p.driver.Start(context.Background()); err != nil && !p.isDead() {
		return fmt.Errorf("start the driver of node %d: %w", p.id, err)
	}
	close(p.ready)
	return nil
}

// kill ends a process at once: nothing it does from here on is seen by anybody.
// What it had synced stays on the machine.
func (p *process) kill() {
	p.closing.Do(func() {
		p.c.leave(p)
		m := p.m
		seed := uint64(p.c.net.intn(1 << 30))
		m.logs = p.store.Clone()
		m.snap = p.snaps.now()
		m.floor = p.floorFS.CrashClone(memfs.LoseRandomly(seed))
		if p.c.broken.floorForgotten {
			m.floor = memfs.New()
		}
		p.db.mu.Lock()
		keep := p.db.flushed
		if more := p.db.log.end() - keep; more > 0 { // of the rest, any beginning
			keep += rand.New(rand.NewPCG(seed, 3)).IntN(more + 1)
		}
		if p.c.broken.ackUnflushed {
			keep = p.db.flushed
		}
		left := p.db.log.copy(keep)
		p.db.mu.Unlock()
		m.mu.Lock()
		m.wal = left
		m.mu.Unlock()
		close(p.dead)
		p.c.tasks.Go(p.bury)
	})
}

// bury ends the goroutines of a dead process.
func (p *process) bury() {
	_ = p.driver.Close()
	_ = p.cons.Close()
	_ = p.trans.Close()
}

// stop ends a process as ha.Node.Close does.
func (p *process) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	p.driver.Resign(ctx)
	cancel()
	if !p.isDead() {
		_ = p.driver.Close()
		_ = p.cons.Close()
	}
	p.kill()
}

// peers carries the driver's messages.
type peers struct{ p *process }

func (s peers) Call(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	m, err := recode(m)
	if err != nil {
		return nil, err
	}
	reply, err := call(s.p, to, max(until(ctx), time.Nanosecond), func(there *process) (protocol.Message, error) {
		select {
		case <-there.ready:
		case <-there.dead:
			return nil, errDead
		}
		handling, cancel := context.WithTimeout(context.Background(), rpcPatience)
		defer cancel()
		return there.answer(handling, s.p.id, m)
	})
	if err != nil {
		return nil, err
	}
	return agesIn(reply, s.p.permille), nil
}

// answer is what the driver of p answers to a message.
func (p *process) answer(ctx context.Context, from protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	if early, is := p.c.broken.earlyAnswer(p, m); is {
		p.c.ledger.answered(p, early.(protocol.BallotAnswer).Epoch)
		p.c.tasks.Go(func() { _, _ = p.driver.HandleMessage(context.Background(), from, m) })
		return recode(early)
	}
	reply, err := p.driver.HandleMessage(ctx, from, m)
	if err != nil {
		return nil, err
	}
	if a, is := reply.(protocol.BallotAnswer); is && (a.Refusal == protocol.BallotGranted || a.Refusal == protocol.BallotBetter) {
		p.c.ledger.answered(p, a.Epoch)
	}
	if p.isDead() {
		return nil, errDead
	}
	return recode(agesOut(p.c.broken.reply(reply), p.permille))
}

// recode takes a message through its bytes.
func recode(m protocol.Message) (protocol.Message, error) {
	raw, err := protocol.Encode(m)
	if err != nil {
		return nil, err
	}
	return protocol.Decode(raw)
}

// replicated is what the driver reads of the replicated state.
type replicated struct{ p *process }

func (r replicated) History() (h protocol.History) {
	_ = r.p.pass()
	r.p.fsm.Read(func(s *fsm.State) { h = s.History() })
	return h
}

func (r replicated) Address(id protocol.NodeID) string { return "db-" + id.String() }

// healthView is the health monitor, shared as in the root package.
type healthView struct {
	mu      sync.Mutex
	monitor *health.HealthMonitor
}

func (v *healthView) Primary() health.PrimaryHealthStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.monitor.Primary(time.Now())
}

func (v *healthView) Reachable() []protocol.NodeID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.monitor.Reachable(time.Now())
}

func (v *healthView) BestReplica() (protocol.NodeID, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.monitor.BestReplica(time.Now(), 0)
}

// gossip asks the others in turn for their heartbeats, one an interval, as
// memberlist's probes do. One that has not answered three times is dead.
func (p *process) gossip() {
	<-p.ready
	misses := map[protocol.NodeID]int{}
	for {
		for _, m := range p.c.machines {
			if m.id == p.id {
				continue
			}
			if errors.Is(p.sleep(lasts(gossipInterval, p.permille)), errDead) {
				return
			}
			began := time.Now()
			hb, err := call(p, m.id, gossipInterval/2, func(there *process) (protocol.Heartbeat, error) { return there.driver.Heartbeat(), nil })
			p.view.mu.Lock()
			if err == nil {
				if misses[m.id] >= 3 {
					p.view.monitor.ObserveAlive(time.Now(), m.id, true)
				}
				misses[m.id] = 0
				p.view.monitor.ObserveHeartbeat(time.Now(), hb, time.Since(began))
			} else if misses[m.id]++; misses[m.id] == 3 {
				p.view.monitor.ObserveAlive(time.Now(), m.id, false)
			}
			p.view.mu.Unlock()
		}
	}
}

func (r replicated) Rules() (rules failover.Rules) {
	r.p.fsm.Read(func(s *fsm.State) { rules = raftshim.Rules(s) })
	return rules
}
