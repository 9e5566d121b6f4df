package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/go-hclog"
)

// Leadership is one change of who leads: this node, or not this node.
type Leadership struct {
	Leading bool
	// Term is Raft's at about the time of the change, for people. The epoch
	// comes from CommitNoop alone.
	Term uint64
	// Campaign tells, of a leadership gained, how it came about: for the journal.
	Campaign Campaign
}

// Campaign are the moments of an election, as its winner saw them, by its
// process's clock. Zero: unknown, or it did not come to that.
type Campaign struct {
	Heard time.Time // of the leader before, last; the driver asks its Lease
	Asked time.Time // for pre-votes: its silence had lasted too long
	Stood time.Time // and asked for votes: a quorum would give theirs
}

// Consensus is what the driver asks of Raft. Package raftshim has the
// implementation over hashicorp/raft. Every method is safe for concurrent use
// and respects ctx; an error that wraps ErrOutcomeUnknown leaves open whether
// it was done.
type Consensus interface {
	// Leadership returns the one channel of changes. Every change comes, in
	// order: leadership lost and gained again is two. The sender never waits.
	Leadership() <-chan Leadership
	// CommitNoop commits an entry of this node's own and returns its term. The
	// node was leader of that term, and its state machine has applied
	// everything committed before.
	CommitNoop(ctx context.Context) (protocol.Epoch, error)
	// CommitFork commits a line of the timeline history, which the state
	// machine refuses unless the entry's term is the fork's epoch.
	CommitFork(ctx context.Context, f protocol.Fork) error
	// CommitPermit commits an exception to the rules for one node.
	CommitPermit(ctx context.Context, p Permit) error
	// Transfer asks Raft to move leadership to a voter; NoNode lets Raft
	// choose. nil means that this node leads no more.
	Transfer(ctx context.Context, to protocol.NodeID) error
	// NewTerm lets this node, the leader, step down and stand for the next
	// term at once. nil means that it leads no more in this term.
	NewTerm(ctx context.Context) error
	// Voters returns the voters of the latest configuration, ascending.
	Voters() []protocol.NodeID
	// Leader returns whom Raft holds for the leader, NoNode if unknown, and
	// its current term.
	Leader() (protocol.NodeID, uint64)
}

// Lease is what the driver asks of those who watch the messages between Raft's
// leaders and their voters. Package raftshim's Transport is the implementation.
// Every method is safe for concurrent use and waits for nothing but a lock.
type Lease interface {
	// Duration returns D, the same on all nodes. 0: there is no lease, and
	// Renew has let the guard run without a deadline.
	Duration() time.Duration
	// Renew extends the guard, open in epoch, as far as is known of the voters'
	// help. New help extends it by itself.
	Renew(epoch protocol.Epoch)
	// Bar makes this node help no leader of an epoch below epoch from its
	// return on.
	Bar(epoch protocol.Epoch)
	// Age returns how long ago this node last helped a leader of an epoch below
	// epoch, or started, and the epoch of the newest of them, 0 if unknown. It
	// is asked after Bar.
	Age(epoch protocol.Epoch) (time.Duration, protocol.Epoch)
	// Stalled returns an error wrapping ErrStalled while the disk hangs.
	Stalled() error
}

// Peers carries a message to another node and its answer back. The context
// bounds the wait.
type Peers interface {
	Call(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error)
}

// Cluster is what the driver reads from the replicated state. It is called
// from the driver's goroutine and must not wait for anything but the state's
// lock.
type Cluster interface {
	// History returns the committed timeline history.
	History() protocol.History
	// Address returns where a node's database listens, empty if unknown.
	Address(id protocol.NodeID) string
	// Rules returns what the operators have laid down.
	Rules() Rules
}

// Health is the view of who is alive. It is evidence: it chooses for whom a
// ballot waits a moment longer and to whom leadership is offered first, never
// who may be primary. It must be safe for concurrent use and quick.
type Health interface {
	// Primary returns the verdict about the primary. Epoch and LSN may be known
	// from elsewhere when the verdict is Unknown.
	Primary() health.PrimaryHealthStatus
	Reachable() []protocol.NodeID
	BestReplica() (protocol.NodeID, bool)
}

// The default times.
const (
	DefaultBallotTimeout   = 500 * time.Millisecond
	DefaultGrace           = 25 * time.Millisecond
	DefaultDatabaseTimeout = 5 * time.Second
	DefaultRaftTimeout     = 2 * time.Second
	DefaultStepDownTimeout = 2 * time.Second
	DefaultBackoffMin      = 50 * time.Millisecond
	DefaultBackoffMax      = 2 * time.Second
	DefaultCoolDown        = 10 * time.Second
	DefaultDeferMemory     = 10 * time.Second
	DefaultHandoverTimeout = 5 * time.Second
	DefaultPollInterval    = 20 * time.Millisecond
)

// Timing are the times of a failover. Zero values mean the defaults.
type Timing struct {
	BallotTimeout   time.Duration // one round of a ballot
	Grace           time.Duration // wait for the living beyond the first quorum
	DatabaseTimeout time.Duration // one call of the database
	RaftTimeout     time.Duration // one commit
	StepDownTimeout time.Duration // until a leadership offered or overtaken must be gone; twice Raft's election timeout or more
	BackoffMin      time.Duration // before the first retry; doubled each time
	BackoffMax      time.Duration
	CoolDown        time.Duration // not eligible after a failed promotion
	DeferMemory     time.Duration // how long a node is passed over to which leadership was offered in vain
	HandoverTimeout time.Duration // wait of a switchover for its target to catch up, and again for it to take over
	Lease           time.Duration // D; the driver takes it from DriverConfig.Lease
	PollInterval    time.Duration // between looks at health, the database's position and the catching-up of a target
}

// DriverConfig is what a driver is made of. All fields are required but
// Health, Logger, Timing and the clocks.
type DriverConfig struct {
	Local    protocol.NodeID
	Raft     Consensus
	Lease    Lease
	Peers    Peers
	Cluster  Cluster
	Database Database
	Floor    *fencing.Floor // opened, and created for a new node
	Guard    *fencing.Guard
	Health   Health // nil: nobody is known to be alive
	Logger   hclog.Logger
	Timing   Timing
	// MaxFailoverLag is how many LSNs a node may be behind the last known
	// position of a primary, as Health has it, to become primary. 0: any.
	MaxFailoverLag uint64
}

// Validate reports every fault at once.
func (c DriverConfig) Validate() error {
	var faults []error
	require := func(there bool, what string) {
		if !there {
			faults = append(faults, fmt.Errorf("failover: %s is missing", what))
		}
	}
	require(c.Local != protocol.NoNode, "the local node ID")
	require(c.Raft != nil, "Raft")
	require(c.Lease != nil, "Lease")
	require(c.Peers != nil, "Peers")
	require(c.Cluster != nil, "Cluster")
	require(c.Database != nil, "Database")
	require(c.Floor != nil, "Floor")
	require(c.Guard != nil, "Guard")
	if c.Floor != nil && c.Floor.Missing() {
		faults = append(faults, fmt.Errorf("failover: fencing file %s: %w", c.Floor.Path(), fencing.ErrNoFloor))
	}
	t := c.Timing
	for _, one := range []struct {
		name string
		d    time.Duration
	}{{"BallotTimeout", t.BallotTimeout}, {"Grace", t.Grace}, {"DatabaseTimeout", t.DatabaseTimeout},
		{"RaftTimeout", t.RaftTimeout}, {"StepDownTimeout", t.StepDownTimeout}, {"BackoffMin", t.BackoffMin},
		{"BackoffMax", t.BackoffMax}, {"CoolDown", t.CoolDown}, {"DeferMemory", t.DeferMemory},
		{"HandoverTimeout", t.HandoverTimeout}, {"PollInterval", t.PollInterval}} {
		if one.d < 0 {
			faults = append(faults, fmt.Errorf("failover: Timing.%s is negative", one.name))
		}
	}
	return errors.Join(faults...)
}

// withDefaults fills in what is zero.
func (t Timing) withDefaults() Timing {
	fill := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	fill(&t.BallotTimeout, DefaultBallotTimeout)
	fill(&t.Grace, DefaultGrace)
	fill(&t.DatabaseTimeout, DefaultDatabaseTimeout)
	fill(&t.RaftTimeout, DefaultRaftTimeout)
	fill(&t.StepDownTimeout, DefaultStepDownTimeout)
	fill(&t.BackoffMin, DefaultBackoffMin)
	fill(&t.BackoffMax, max(DefaultBackoffMax, t.BackoffMin))
	fill(&t.CoolDown, DefaultCoolDown)
	fill(&t.DeferMemory, DefaultDeferMemory)
	fill(&t.HandoverTimeout, DefaultHandoverTimeout)
	fill(&t.PollInterval, DefaultPollInterval)
	return t
}

// DriverStatus is how a node stands in the matter of who is primary.
type DriverStatus struct {
	State          State             `json:"state"`
	Role           protocol.NodeRole `json:"role"`    // primary while the guard is open and the database promoted; else replica, and standalone for a witness
	Leading        bool              `json:"leading"` // Raft's leader, as last told
	Epoch          protocol.Epoch    `json:"epoch"`   // of the primary named below; while an election runs, the one it is about
	Floor          protocol.Epoch    `json:"floor"`
	Primary        protocol.NodeID   `json:"primary"` // NoNode if nobody is known
	PrimaryAddress string            `json:"primary_address"`
	Position       protocol.Position `json:"position"` // as last read
	Blocked        string            `json:"blocked"`  // why there is no primary; empty when there is one
	CoolDownUntil  time.Time         `json:"cool_down_until,omitzero"`
	Aside          string            `json:"aside"` // why this node does not become primary by the rules; empty: it may
}
