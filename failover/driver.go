package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/go-hclog"
)

// Driver runs an Orchestrator: it feeds it from Raft, the peers and the clock,
// and does what it says. One goroutine owns the machine and never waits for
// anything else; calls of the database, of Raft and of peers have goroutines
// and deadlines of their own and come back as inputs.
//
// Its methods are safe for concurrent use.
type Driver struct {
	cfg     DriverConfig
	timing  Timing
	log     hclog.Logger
	machine *Orchestrator // owned by run, after Start
	journal journal
	base    time.Time // of the heartbeats' stamps

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	calls  sync.WaitGroup // everything the driver has started

	mu      sync.Mutex
	queue   []Input // from calls and handlers; each has few outstanding
	cluster bool    // the replicated state has changed
	status  DriverStatus
	said    EpochSeen     // of the newest PromoteNotify: who completed a promotion
	changed chan struct{} // closed and replaced when status or said changes
	started bool
	closed  chan struct{} // not nil once Close has begun; closed when it has ended
	failure error         // what Close answered

	wake     chan struct{}
	voting   chan struct{} // one token: ballots are answered one at a time
	handing  chan struct{} // one token: one switchover at a time
	position atomic.Pointer[protocol.Position]
	led      atomic.Uint64 // the last epoch in which the guard was opened
	stalled  bool          // the disk hangs, as last seen by run
	leaving  atomic.Bool   // Resign has begun
	yielding atomic.Bool   // a switchover for the sake of maintenance is under way
	database *databaseWorker
}

// NewDriver returns a driver that does nothing before Start.
func NewDriver(cfg DriverConfig) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	d := &Driver{cfg: cfg, timing: cfg.Timing.withDefaults(), log: cfg.Logger, base: time.Now(),
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
		voting: make(chan struct{}, 1), handing: make(chan struct{}, 1)}
	d.timing.Lease = cfg.Lease.Duration()
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.database = newDatabaseWorker(d)
	d.position.Store(&protocol.Position{})
	return d, nil
}

// Start gives the database the durable floor, before anything else, and makes
// it a replica: a node that starts is primary of nothing until it has won a
// new epoch. Then it begins to follow Raft. An error means that nothing was
// started.
func (d *Driver) Start(ctx context.Context) error {
	d.mu.Lock()
	begun := d.started || d.closed != nil
	d.started = true
	d.mu.Unlock()
	if begun {
		return fmt.Errorf("start failover: started before, or %w", ErrClosed)
	}
	floor := d.cfg.Floor.Current()
	d.cfg.Guard.CloseBelow(floor.Epoch+1, errors.New("the node has been restarted since")) // I2
	d.cfg.Lease.Bar(floor.Epoch)                                                           // I5
	ctx, cancel := context.WithTimeout(ctx, d.timing.DatabaseTimeout)
	defer cancel()
	if err := d.cfg.Database.Fence(ctx, floor.Epoch); err != nil {
		d.mu.Lock()
		d.started = false
		d.mu.Unlock()
		return fmt.Errorf("start failover: fence the database at epoch %d: %w", floor.Epoch, err)
	}
	d.machine = NewOrchestrator(d.cfg.Local, floor.Epoch, d.timing)
	d.database.demote(Demote{Epoch: floor.Epoch})
	d.ClusterChanged()
	d.publish()
	d.calls.Go(d.run)
	d.calls.Go(d.database.run)
	d.calls.Go(d.readPosition)
	return nil
}

// Close ends the driver: the guard closes for good, the database is demoted if
// it was promoted, and everything started has ended when Close returns. It may
// be called again, and then gives the same answer. The answer is an error if
// the database did not return from a call in time; that call is then still
// under way.
func (d *Driver) Close() error {
	d.cfg.Guard.CloseBelow(lastEpoch, ErrClosed)
	d.mu.Lock()
	if d.closed != nil {
		ended := d.closed
		d.mu.Unlock()
		<-ended
		return d.failure
	}
	d.closed = make(chan struct{})
	started := d.started
	d.mu.Unlock()
	d.cancel(ErrClosed)
	if started {
		all := make(chan struct{})
		go func() { d.calls.Wait(); close(all) }()
		limit := time.NewTimer(2 * d.timing.DatabaseTimeout)
		defer limit.Stop()
		select {
		case <-all:
		case <-limit.C:
			d.failure = errors.New("failover: the database has not returned from a call")
		}
	}
	d.journal.close()
	close(d.closed)
	return d.failure
}

// run is the goroutine that owns the machine.
func (d *Driver) run() {
	poll := time.NewTicker(d.timing.PollInterval)
	defer poll.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	leadership := d.cfg.Raft.Leadership()
	for d.ctx.Err() == nil {
		select {
		case <-d.ctx.Done():
			return
		case change, open := <-leadership:
			if !open {
				leadership, change = nil, Leadership{} // Raft has ended: nobody leads here
			}
			if change.Leading {
				change.Campaign.Heard = d.lastHeard(change.Term)
			}
			d.step(LeadershipChanged(change), due)
		case <-d.wake:
			d.drain(due)
		case <-due.C:
			d.step(Tick{}, due)
		case <-poll.C:
			d.look(due)
		}
	}
}

// lastHeard returns when this node last helped a leader before term; zero if it
// has led since, or never did.
func (d *Driver) lastHeard(term uint64) time.Time {
	age, of := d.cfg.Lease.Age(protocol.Epoch(term))
	if of == 0 || protocol.Epoch(d.led.Load()) > of {
		return time.Time{}
	}
	return time.Now().Add(-age)
}

// drain takes what was posted, in order.
func (d *Driver) drain(due *time.Timer) {
	d.mu.Lock()
	inputs, cluster := d.queue, d.cluster
	d.queue, d.cluster = nil, false
	d.mu.Unlock()
	for _, in := range inputs {
		d.step(in, due)
	}
	if !cluster {
		return
	}
	d.step(RulesChanged{Rules: d.rules()}, due)
	if history := d.cfg.Cluster.History(); len(history) > 0 {
		last := history[len(history)-1]
		d.step(PrimaryKnown{Node: last.NodeID, Epoch: last.Epoch, Address: d.cfg.Cluster.Address(last.NodeID)}, due)
	}
}

// look tells the machine how the primary fares that it follows: well, as long
// as Raft takes it for the leader and health has no evidence against it.
func (d *Driver) look(due *time.Timer) {
	d.lookAtStore(due)
	d.lookAtRules()
	followed := d.machine.Followed()
	if followed.Node == protocol.NoNode {
		return
	}
	verdict := PrimaryHealth{Kind: health.Healthy, Node: followed.Node}
	if leader, _ := d.cfg.Raft.Leader(); leader != followed.Node {
		verdict.Kind = health.Unreachable
	} else if d.cfg.Health != nil {
		if seen := d.cfg.Health.Primary(); seen.Node == followed.Node && seen.Kind == health.Unreachable {
			verdict.Kind = health.Unreachable
		}
	}
	d.step(verdict, due)
}

// lookAtStore closes the guard for good in its epoch while the disk hangs.
func (d *Driver) lookAtStore(due *time.Timer) {
	err := d.cfg.Lease.Stalled()
	if err != nil {
		d.cfg.Guard.Close(err)
		if !d.stalled {
			d.step(StoreHangs{Reason: err.Error()}, due)
		}
	}
	d.stalled = err != nil
}

func (d *Driver) step(in Input, due *time.Timer) {
	out := d.machine.Step(time.Now(), in)
	for _, action := range out.Actions {
		d.perform(action)
	}
	if out.Wake.IsZero() {
		due.Stop()
	} else {
		due.Reset(max(0, time.Until(out.Wake)))
	}
	d.publish()
}

// post hands an input to the machine. It never waits.
func (d *Driver) post(in Input) {
	d.mu.Lock()
	d.queue = append(d.queue, in)
	d.mu.Unlock()
	d.poke()
}

func (d *Driver) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// ForkApplied tells that a line of the timeline history was applied. It never
// waits, so it may be called while the state is locked.
func (d *Driver) ForkApplied(protocol.Fork) { d.ClusterChanged() }

// ClusterChanged tells that the history or an address has changed in the
// replicated state. It never waits.
func (d *Driver) ClusterChanged() {
	d.mu.Lock()
	d.cluster = true
	d.mu.Unlock()
	d.poke()
}

// rules returns what the operators have laid down, and that this node has no
// data, if so: it need not wait until that is committed.
func (d *Driver) rules() Rules {
	rules := d.cfg.Cluster.Rules()
	if d.witness() {
		rules.Witnesses = sorted(append(slices.Clone(rules.Witnesses), d.cfg.Local))
	}
	return rules
}

// witness reports whether this node has no data.
func (d *Driver) witness() bool {
	_, is := d.cfg.Database.(Witness)
	return is
}

// publish makes the machine's standing the status others see.
func (d *Driver) publish() {
	primary := d.machine.Primary()
	status := DriverStatus{State: d.machine.State(), Leading: d.machine.Leading(), Epoch: d.machine.Epoch(),
		Primary: primary.Node, PrimaryAddress: primary.Address, Blocked: d.machine.Blocked(),
		CoolDownUntil: d.machine.CoolDownUntil(), Aside: d.machine.Aside()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if status != d.status {
		d.status = status
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// Status returns how the node stands. It waits for nothing.
func (d *Driver) Status() DriverStatus {
	status, _ := d.watch()
	return status
}

// watch returns the status and a channel that is closed when it is outdated.
func (d *Driver) watch() (DriverStatus, <-chan struct{}) {
	d.mu.Lock()
	status, changed := d.status, d.changed
	d.mu.Unlock()
	status.Floor = d.cfg.Floor.Current().Epoch
	status.Position = *d.position.Load()
	status.Role = protocol.RoleReplica
	if d.witness() {
		status.Role = protocol.RoleStandalone
	}
	if epoch, open := d.cfg.Guard.Epoch(); status.State == Promoted {
		if open && epoch == status.Epoch {
			status.Role = protocol.RolePrimary
		} else { // the guard is ahead of the machine
			status.State, status.Primary, status.PrimaryAddress = ElectionInProgress, protocol.NoNode, ""
			status.Blocked = "the guard has just closed"
		}
	}
	return status, changed
}

// Subscribe returns the records from now on, until ctx ends or the driver is
// closed; then the channel closes. A reader that falls behind loses the oldest
// records and is told how many by a record of its own (RecordsSkipped).
func (d *Driver) Subscribe(ctx context.Context) <-chan Record { return d.journal.subscribe(ctx) }

// Journal returns the records with a Seq above after, oldest first, as far as
// they are remembered (the last JournalSize).
func (d *Driver) Journal(after uint64) []Record { return d.journal.after(after) }

// Heartbeat returns what this node says of itself to the others. It waits for
// nothing. Epoch is the floor; TimestampUS rises with every tick of the
// process, however the wall clock is set.
func (d *Driver) Heartbeat() protocol.Heartbeat {
	status := d.Status()
	return protocol.Heartbeat{Epoch: status.Floor, NodeID: d.cfg.Local, WALLSN: status.Position.LSN, Role: status.Role,
		TimestampUS: uint64(d.base.UnixMicro() + time.Since(d.base).Microseconds())}
}

// readPosition keeps the last known position of the database fresh.
func (d *Driver) readPosition() {
	ticker := time.NewTicker(d.timing.PollInterval)
	defer ticker.Stop()
	for {
		ctx, cancel := context.WithTimeout(d.ctx, d.timing.DatabaseTimeout)
		if _, err := d.readOwnPosition(ctx); err != nil && d.ctx.Err() == nil {
			d.log.Debug("read the database's position", "error", err)
		}
		cancel()
		select {
		case <-ticker.C:
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *Driver) readOwnPosition(ctx context.Context) (protocol.Position, error) {
	position, err := d.cfg.Database.Position(ctx)
	if err != nil {
		return protocol.Position{}, fmt.Errorf("read the database's position: %w", err)
	}
	d.position.Store(&position)
	return position, nil
}

func (d *Driver) reachable() []protocol.NodeID {
	if d.cfg.Health == nil {
		return []protocol.NodeID{d.cfg.Local}
	}
	return d.cfg.Health.Reachable()
}

// successor chooses to whom leadership is offered when nobody is named: the
// best replica, else any voter that is alive, else whom Raft chooses. Those that
// stand aside by the rules are none of them.
func (d *Driver) successor() (protocol.NodeID, error) {
	candidates := d.candidates()
	if len(candidates) == 0 {
		return protocol.NoNode, errors.New("there is no other voter that may be primary")
	}
	if d.cfg.Health != nil {
		if best, ok := d.cfg.Health.BestReplica(); ok && slices.Contains(candidates, best) {
			return best, nil
		}
	}
	for _, id := range d.reachable() {
		if slices.Contains(candidates, id) {
			return id, nil
		}
	}
	if len(candidates) == len(d.cfg.Raft.Voters())-1 {
		return protocol.NoNode, nil // any will do
	}
	return candidates[0], nil
}

// candidates returns the other voters that do not stand aside by the rules.
func (d *Driver) candidates() []protocol.NodeID {
	never := d.rules().neverPrimary()
	return slices.DeleteFunc(sorted(d.cfg.Raft.Voters()), func(id protocol.NodeID) bool {
		return id == d.cfg.Local || slices.Contains(never, id)
	})
}
