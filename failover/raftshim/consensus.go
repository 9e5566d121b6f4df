package raftshim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// defaultTimeout bounds the enqueueing of an entry whose context has no
// deadline.
const defaultTimeout = 10 * time.Second

// quiesceTimeout bounds how long Close waits for what Raft has been asked for.
// Only a Raft whose disk hangs takes so long.
const quiesceTimeout = 2 * time.Second

// Consensus is Raft as the project sees it. It implements failover.Consensus.
// Its methods are safe for concurrent use; before Attach they fail with
// ErrClosed.
//
// Errors are the sentinels of package failover: ErrNotLeader (nothing was
// done), ErrNoQuorum (nothing is known to have been done), ErrOutcomeUnknown
// (it may have been, or may be yet), ErrClosed.
type Consensus struct {
	notify     chan bool
	leadership chan failover.Leadership
	done       chan struct{}
	relayed    chan struct{}
	once       sync.Once
	closeErr   error          // of once
	tasks      sync.WaitGroup // what Attach has started

	mu      sync.Mutex
	closing bool
	asked   sync.WaitGroup // waits for answers of Raft; added to under mu while not closing

	raft      atomic.Pointer[raft.Raft]
	transport *Transport // set before raft
	proven    atomic.Uint64
	proposals proposals
	keys      keyLocks
}

var _ failover.Consensus = (*Consensus)(nil)

// NewConsensus returns a Consensus without Raft. It takes leadership changes
// from NotifyCh at once.
func NewConsensus() *Consensus {
	c := &Consensus{notify: make(chan bool, notifyBuffer), leadership: make(chan failover.Leadership),
		done: make(chan struct{}), relayed: make(chan struct{})}
	go c.relay()
	return c
}

// NotifyCh is what raft.Config.NotifyCh must be.
func (c *Consensus) NotifyCh() chan<- bool { return c.notify }

// Attach gives c the Raft it stands for. It is called once.
func (c *Consensus) Attach(r *raft.Raft, t *Transport) {
	c.transport = t
	t.raft.Store(r)
	c.raft.Store(r)
	c.tasks.Go(func() { c.hasten(r) })
}

// Close shuts Raft down, which closes its transport, then ends the telling of
// leadership changes and closes their channel. It may be called again, and
// gives the same answer.
//
// What Raft has been asked for is waited for first, up to quiesceTimeout: Raft
// answers it, or loses leadership, as long as it runs, but leaves what it has
// not begun with unanswered for ever when it ends.
func (c *Consensus) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.closing = true
		c.mu.Unlock()
		answered := make(chan struct{})
		go func() { c.asked.Wait(); close(answered) }()
		limit := time.NewTimer(quiesceTimeout)
		defer limit.Stop()
		select {
		case <-answered:
		case <-limit.C:
		}
		if r := c.raft.Load(); r != nil {
			c.closeErr = r.Shutdown().Error()
		}
		close(c.done)
	})
	<-c.relayed
	c.tasks.Wait()
	return c.closeErr
}

// ask runs f, which waits for an answer of Raft, and sends what it returns. Once
// the Consensus is closing, it answers with ErrClosed instead.
func (c *Consensus) ask(f func() error) <-chan error {
	answer := make(chan error, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		answer <- failover.ErrClosed
		return answer
	}
	c.asked.Go(func() { answer <- f() })
	return answer
}

// Leadership returns the channel of changes.
func (c *Consensus) Leadership() <-chan failover.Leadership { return c.leadership }

func (c *Consensus) term() uint64 {
	if r := c.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// CommitNoop commits an entry that changes nothing and returns its term.
//
// That the term is right: an entry is given the term Raft is in when its
// leader appends it, which happens between the two readings below. Raft's term
// never goes down, so if both readings agree it is the entry's. A successful
// answer says that the entry is committed and applied here, so this node was
// the leader of that term, and its state machine has all that came before.
func (c *Consensus) CommitNoop(ctx context.Context) (protocol.Epoch, error) {
	noop, err := command.Encode(command.Noop{})
	if err != nil {
		return 0, err
	}
	before := c.term()
	if _, _, err := c.Propose(ctx, noop); err != nil {
		return 0, fmt.Errorf("commit the leader's first entry: %w", err)
	}
	if after := c.term(); after != before {
		return 0, fmt.Errorf("commit the leader's first entry: %w: the term went from %d to %d meanwhile",
			failover.ErrNotLeader, before, after)
	}
	c.prove(before)
	return protocol.Epoch(before), nil
}

// prove notes that this node has committed an entry of its own in term.
func (c *Consensus) prove(term uint64) {
	for old := c.proven.Load(); old < term && !c.proven.CompareAndSwap(old, term); old = c.proven.Load() {
	}
}

// CommitFork commits a line of the timeline history. An error that wraps
// fsm.ErrRefused says that the state machine refused it.
func (c *Consensus) CommitFork(ctx context.Context, f protocol.Fork) error {
	write, err := fsm.ForkCommand(f)
	if err != nil {
		return fmt.Errorf("commit the fork of epoch %d: %w", f.Epoch, err)
	}
	if err := c.commit(ctx, write); err != nil {
		return fmt.Errorf("commit the fork of epoch %d: %w", f.Epoch, err)
	}
	c.spread(ctx)
	return nil
}

// CommitPermit commits an exception to the rules for one node.
func (c *Consensus) CommitPermit(ctx context.Context, p failover.Permit) error {
	write, err := fsm.PermitCommand(fsm.Permit{NodeID: p.Node, After: p.After,
		Mark: fsm.Mark{At: time.Now().UTC(), Reason: "a planned switchover"}})
	if err == nil {
		err = c.commit(ctx, write)
	}
	if err != nil {
		return fmt.Errorf("commit the permit for node %d: %w", p.Node, err)
	}
	return nil
}

// commit commits a write and returns what the state machine has against it.
func (c *Consensus) commit(ctx context.Context, write command.KvWrite) error {
	data, err := command.Encode(write)
	if err != nil {
		return err
	}
	response, _, err := c.Propose(ctx, data)
	if err != nil {
		return err
	}
	if result, is := response.(fsm.Result); is {
		return result.Err()
	}
	return nil
}

// spread tells the followers at once how far the log is committed, so that
// their databases follow without waiting for Raft's next idle message: Raft
// says it with the next entry, so there is one. Nobody waits for that entry.
func (c *Consensus) spread(ctx context.Context) {
	deadline, bounded := ctx.Deadline()
	noop, err := command.Encode(command.Noop{})
	if r := c.raft.Load(); err == nil && r != nil && bounded {
		r.Apply(noop, max(time.Until(deadline), time.Millisecond))
	}
}

// Propose commits data as a command, on the leader, and returns what the state
// machine answered and the entry's index. A state machine's answer that is an
// error is returned as one: the entry is committed, and this node could not
// apply it. While leadership is handed over it waits, and a write of a key waits
// for those of ProposeIf. Data that is no command is refused.
func (c *Consensus) Propose(ctx context.Context, data []byte) (response any, index uint64, err error) {
	r := c.raft.Load()
	if r == nil {
		return nil, 0, failover.ErrClosed
	}
	unlock := func() {}
	if key, is, err := writtenKey(data); err != nil {
		return nil, 0, err
	} else if is {
		if unlock, err = c.keys.lock(ctx, c.done, key, false); err != nil {
			return nil, 0, err
		}
	}
	return c.apply(ctx, r, raft.Log{Data: data}, unlock)
}

// apply gives an entry to Raft. unlock is called when Raft has told the outcome:
// not before, whatever becomes of ctx.
func (c *Consensus) apply(ctx context.Context, r *raft.Raft, entry raft.Log, unlock func()) (response any, index uint64, err error) {
	if err := c.proposals.enter(ctx, c.done); err != nil {
		unlock()
		return nil, 0, err
	}
	told := func() {
		c.proposals.leave()
		unlock()
	}
	timeout := defaultTimeout
	if deadline, bounded := ctx.Deadline(); bounded {
		timeout = time.Until(deadline)
	}
	if timeout <= 0 || ctx.Err() != nil {
		told()
		return nil, 0, fmt.Errorf("%w: no time left to propose", failover.ErrNoQuorum)
	}
	future := r.ApplyLog(entry, timeout)
	if err := c.await(ctx, outcome{future, told}); err != nil {
		return nil, 0, err
	}
	response = future.Response()
	if failed, is := response.(error); is {
		return nil, future.Index(), fmt.Errorf("committed, and not applied here: %w", failed)
	}
	return response, future.Index(), nil
}

// ReadIndex returns an index with this property: a state that has applied it
// holds every write acknowledged before ReadIndex was called. It is asked on
// the leader.
//
// The commit index of a leader has it once an entry of the leader's own term is
// committed, provided the node still led when the read began. So: commit one if
// there is none yet, read the commit index, and wait until a quorum has let
// something succeed that was sent after the read began. Raft's VerifyLeader
// counts answers to what was sent before, non-voters too, and so would let a
// leader read that has just been woken; here it only makes Raft send
// heartbeats at once, and says when leadership is lost.
func (c *Consensus) ReadIndex(ctx context.Context) (uint64, error) {
	r := c.raft.Load()
	if r == nil {
		return 0, failover.ErrClosed
	}
	began := c.transport.clock()
	term, err := c.ownTerm(ctx, r)
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	index := r.CommitIndex()
	failed := c.ask(func() error { return c.translate(r.VerifyLeader().Error()) }) // ends with Raft's leadership at the latest
	if err := c.transport.awaitQuorum(ctx, protocol.Epoch(term), began, failed); err != nil {
		return 0, fmt.Errorf("read index: %w", ofRead(ctx, err))
	}
	return index, nil
}

// ownTerm returns the term this node leads in, once an entry of its own is
// committed in it and applied here. Errors are those of a read: nothing was done.
func (c *Consensus) ownTerm(ctx context.Context, r *raft.Raft) (uint64, error) {
	term := r.CurrentTerm()
	if r.State() != raft.Leader {
		return 0, c.notLeader()
	}
	if c.proven.Load() == term {
		return term, nil
	}
	epoch, err := c.CommitNoop(ctx)
	return uint64(epoch), ofRead(ctx, err)
}

// ofRead makes an error of what a read has others do one of the read itself: of
// that nothing is unknown, as it does nothing. What it cannot name is the end of
// this leadership, and another leader can be asked, unless the time is up.
func ofRead(ctx context.Context, err error) error {
	switch unknown := errors.Is(err, failover.ErrOutcomeUnknown); {
	case err == nil, !unknown && (errors.Is(err, failover.ErrNotLeader) || errors.Is(err, failover.ErrNoQuorum)):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s", failover.ErrNoQuorum, err.Error())
	case errors.Is(err, failover.ErrClosed):
		return fmt.Errorf("%w: %s", failover.ErrClosed, err.Error())
	}
	return fmt.Errorf("%w: %s", failover.ErrNotLeader, err.Error())
}

// NewTerm makes this node, the leader, give up its term and stand for the next
// one. To Raft it is as if another leader had handed over to it; any node may
// stand at any time, so it can do no harm. nil means that it leads no more in
// this term; whether it wins the next is the voters' business.
func (c *Consensus) NewTerm(ctx context.Context) error {
	r := c.raft.Load()
	if r == nil {
		return failover.ErrClosed
	}
	if r.State() != raft.Leader {
		return c.notLeader()
	}
	if err := c.transport.standNow(ctx); err != nil {
		return fmt.Errorf("ask for a new term: %w", err)
	}
	return nil
}

func (c *Consensus) servers() []raft.Server {
	r := c.raft.Load()
	if r == nil {
		return nil
	}
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// Voters returns the voters of the latest configuration, ascending.
func (c *Consensus) Voters() []protocol.NodeID {
	if r := c.raft.Load(); r != nil {
		return votersOf(r)
	}
	return nil
}

// Leader returns whom Raft holds for the leader, and Raft's term.
func (c *Consensus) Leader() (protocol.NodeID, uint64) {
	r := c.raft.Load()
	if r == nil {
		return protocol.NoNode, 0
	}
	_, id := r.LeaderWithID()
	return ParseServerID(id), r.CurrentTerm()
}

// LastContact returns when this node last heard of a leader: now on the leader
// itself, zero if never.
func (c *Consensus) LastContact() time.Time {
	switch r := c.raft.Load(); {
	case r == nil:
		return time.Time{}
	case r.State() == raft.Leader:
		return time.Now()
	default:
		return r.LastContact()
	}
}

// await waits for a future, and gives its error in the project's words. The
// goroutine behind it ends with the future: Raft answers all of them, when
// leadership ends at the latest.
func (c *Consensus) await(ctx context.Context, future raft.Future) error {
	select {
	case err := <-c.ask(func() error { return c.translate(future.Error()) }):
		if err != nil && errors.Is(err, failover.ErrClosed) && !errors.Is(err, failover.ErrOutcomeUnknown) {
			err = fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, err) // Raft has it already
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, context.Cause(ctx))
	}
}

// outcome is a future that tells when Raft has told its outcome.
type outcome struct {
	raft.Future
	told func()
}

func (o outcome) Error() error {
	defer o.told()
	return o.Future.Error()
}

// translate gives Raft's errors the project's names. What it does not know is
// of unknown outcome.
func (c *Consensus) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, errOtherTerm):
		return c.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: Raft took nothing in within the time", failover.ErrNoQuorum)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, failover.ErrClosed)
	}
	return fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, err)
}

func (c *Consensus) notLeader() error {
	leader, _ := c.Leader()
	return &failover.NotLeaderError{Leader: leader}
}
