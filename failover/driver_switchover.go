package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Switchover hands the primacy of this node to another, NoNode for the replica
// whose log reaches furthest, and returns nil when that one is primary.
//
// It holds back new writes (if the database can), waits, bounded, until the
// target's log is as long as its own, closes the guard for good in its epoch
// and lets Raft move. Up to the closing of the guard an error means that
// nothing has changed and writes go on. After it, an error means that somebody
// else, perhaps this node in a new epoch, becomes primary instead.
//
// Errors: *NotPrimaryError, ErrBusy, ErrClosed, or what kept the target from
// it.
func (d *Driver) Switchover(ctx context.Context, to protocol.NodeID) error {
	select {
	case d.handing <- struct{}{}:
		defer func() { <-d.handing }()
	default:
		return ErrBusy
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.ctx, func() { cancel(ErrClosed) })()

	status := d.Status()
	if status.Role != protocol.RolePrimary {
		return &NotPrimaryError{Primary: status.Primary, Address: status.PrimaryAddress}
	}
	to, err := d.target(ctx, to)
	if err != nil {
		return err
	}
	d.tell(SwitchoverStarted{Epoch: status.Epoch, To: to}, "")
	if err := d.handOver(ctx, status.Epoch, to); err != nil {
		d.tell(SwitchoverFailed{Epoch: status.Epoch, To: to}, err.Error())
		return err
	}
	return nil
}

func (d *Driver) tell(ev Event, detail string) {
	d.record(Emit{Event: ev, Detail: detail, At: time.Now()})
}

// target settles who takes over: a voter that answers.
func (d *Driver) target(ctx context.Context, to protocol.NodeID) (protocol.NodeID, error) {
	voters := d.cfg.Raft.Voters()
	if to == d.cfg.Local {
		return 0, fmt.Errorf("node %d is primary already", to)
	}
	if to != protocol.NoNode {
		if !slices.Contains(voters, to) {
			return 0, fmt.Errorf("node %d is not a voter of this cluster", to)
		}
		if slices.Contains(d.rules().neverPrimary(), to) {
			return 0, fmt.Errorf("node %d does not become primary: it is a witness, or in maintenance", to)
		}
		voters = []protocol.NodeID{to}
	} else if voters = d.candidates(); len(voters) == 0 {
		return 0, errors.New("nobody to hand over to: no other voter may be primary")
	}
	var mu sync.Mutex
	var best protocol.Position
	var chosen protocol.NodeID
	faults := ""
	var asked sync.WaitGroup
	for _, id := range voters {
		if id == d.cfg.Local {
			continue
		}
		asked.Go(func() {
			position, err := d.positionOf(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				faults += fmt.Sprintf("; node %d does not answer: %v", id, err)
				return
			}
			if c := position.Compare(best); chosen == protocol.NoNode || c > 0 || c == 0 && id < chosen {
				chosen, best = id, position
			}
		})
	}
	asked.Wait()
	if chosen == protocol.NoNode {
		return 0, fmt.Errorf("nobody to hand over to: %w%s", ErrNoQuorum, faults)
	}
	return chosen, nil
}

// positionOf asks a node how far its log reaches.
func (d *Driver) positionOf(ctx context.Context, id protocol.NodeID) (protocol.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.BallotTimeout)
	defer cancel()
	reply, err := d.cfg.Peers.Call(ctx, id, d.Heartbeat())
	if err != nil {
		return protocol.Position{}, err
	}
	ack, is := reply.(protocol.HeartbeatAck)
	if !is || ack.NodeID != id {
		return protocol.Position{}, fmt.Errorf("it answered a heartbeat with %T", reply)
	}
	return protocol.Position{Timeline: ack.Epoch, LSN: ack.WALLSN}, nil
}

func (d *Driver) handOver(ctx context.Context, epoch protocol.Epoch, to protocol.NodeID) error {
	if d.cfg.Cluster.Rules().Paused { // asked for by a person: that is what the pause leaves to people
		if err := d.cfg.Raft.CommitPermit(ctx, Permit{Node: to, After: epoch}); err != nil {
			return fmt.Errorf("permit the switchover while failover is paused: %w", err)
		}
	}
	if err := d.drainTo(ctx, epoch, to); err != nil {
		return err
	}
	d.cfg.Guard.CloseBelow(epoch+1, fmt.Errorf("handing over to node %d", to)) // from here on there is no way back
	d.post(HandOver{Epoch: epoch, To: to})
	return d.awaitSuccessor(ctx, epoch, to)
}

// drainTo holds back writes and waits until the target has them all. When it
// fails, writes go on.
func (d *Driver) drainTo(ctx context.Context, epoch protocol.Epoch, to protocol.NodeID) (err error) {
	ctx, cancel := context.WithTimeout(ctx, d.timing.HandoverTimeout)
	defer cancel()
	if stopper, can := d.cfg.Database.(WriteStopper); can {
		defer func() {
			if err != nil {
				stopper.ResumeWrites()
			}
		}()
		if err := stopper.StopWrites(ctx); err != nil {
			return fmt.Errorf("hold back writes: %w", err)
		}
	}
	own, err := d.readOwnPosition(ctx)
	if err != nil {
		return err
	}
	behind := protocol.Position{}
	for {
		position, err := d.positionOf(ctx, to)
		if err == nil && position.Compare(own) >= 0 {
			return d.cfg.Guard.Wait(ctx, epoch) // nil at once, unless somebody was faster or the lease has lapsed for a moment
		}
		if err == nil {
			behind = position
		}
		select {
		case <-time.After(min(d.timing.PollInterval, catchUpPoll)):
		case <-ctx.Done():
			return fmt.Errorf("node %d is at %v and has not reached %v in time: %w", to, behind, own, context.Cause(ctx))
		}
	}
}

// catchUpPoll bounds the time between two looks at the target's position:
// clients are waiting.
const catchUpPoll = 2 * time.Millisecond

// awaitSuccessor waits until a node has completed its promotion in a later
// epoch: that it stands in the timeline history is not enough, its database
// may still refuse.
func (d *Driver) awaitSuccessor(ctx context.Context, epoch protocol.Epoch, to protocol.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.HandoverTimeout)
	defer cancel()
	for {
		status, changed := d.watch()
		d.mu.Lock()
		promoted := d.said
		d.mu.Unlock()
		if status.Role == protocol.RolePrimary && status.Epoch > max(epoch, promoted.Epoch) {
			promoted = EpochSeen{Epoch: status.Epoch, Node: d.cfg.Local}
		}
		if promoted.Epoch > epoch {
			if promoted.Node == to {
				return nil
			}
			return fmt.Errorf("node %d became primary in epoch %d instead of node %d", promoted.Node, promoted.Epoch, to)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("handed over to node %d, which has not become primary yet: %w", to, context.Cause(ctx))
		}
	}
}

// Resign prepares a clean shutdown: the primacy goes to the best replica, by
// a switchover if ctx leaves time for one, leadership goes to another voter,
// and this node takes neither again. It does what it can within ctx and never
// fails: what is left undone, the others find out by themselves.
//
// Nobody is waited for that cannot take over: when the whole cluster is shut
// down, the last ones have nobody. While failover is paused the primacy is kept
// for this node's return.
func (d *Driver) Resign(ctx context.Context) {
	d.leaving.Store(true)
	switch {
	case d.Status().Role != protocol.RolePrimary:
	case d.cfg.Cluster.Rules().Paused:
		d.log.Info("failover is paused: the primacy is not handed over")
	default:
		handing, cancel := context.WithCancelCause(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			d.watchOthers(handing, cancel)
		}()
		err := d.Switchover(handing, protocol.NoNode)
		cancel(nil)
		<-watched
		if err != nil && !errors.Is(err, ErrNotPrimary) {
			d.log.Warn("hand over before shutting down", "error", err)
		}
	}
	d.cfg.Guard.CloseBelow(lastEpoch, errors.New("this node is shutting down"))
	d.post(Retire{})
	ask := time.NewTicker(resignPoll)
	defer ask.Stop()
	for {
		status, changed := d.watch()
		if !status.Leading || !d.anybodyStays(ctx) {
			return
		}
		select {
		case <-changed:
		case <-ask.C:
		case <-ctx.Done():
			return
		case <-d.ctx.Done():
			return
		}
	}
}

// resignPoll is how often a node that is shutting down looks whether anybody is
// left to lead.
const resignPoll = 100 * time.Millisecond

// watchOthers ends a handing over when nobody is left to take over.
func (d *Driver) watchOthers(ctx context.Context, end context.CancelCauseFunc) {
	ask := time.NewTicker(resignPoll)
	defer ask.Stop()
	for {
		select {
		case <-ask.C:
			if !d.anybodyStays(ctx) {
				end(errors.New("all the others are shutting down too"))
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// anybodyStays reports whether another voter answers that is not shutting down.
func (d *Driver) anybodyStays(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, d.timing.BallotTimeout)
	defer cancel()
	others := slices.DeleteFunc(slices.Clone(d.cfg.Raft.Voters()), func(id protocol.NodeID) bool { return id == d.cfg.Local })
	answers := make(chan error, len(others))
	for _, id := range others {
		d.calls.Go(func() {
			_, err := d.positionOf(ctx, id)
			answers <- err
		})
	}
	for range others {
		if <-answers == nil {
			return true
		}
	}
	return false
}

// lookAtRules hands the primacy over when this node is to be maintained. Until
// somebody takes it, the node stays primary: a healthy database is not demoted
// for nothing.
func (d *Driver) lookAtRules() {
	if !d.machine.Maintained() || d.Status().Role != protocol.RolePrimary ||
		d.leaving.Load() || !d.yielding.CompareAndSwap(false, true) {
		return
	}
	d.calls.Go(func() {
		defer d.yielding.Store(false)
		if err := d.Switchover(d.ctx, protocol.NoNode); err == nil || errors.Is(err, ErrNotPrimary) {
			return
		}
		select { // not at once again
		case <-time.After(d.timing.BackoffMax):
		case <-d.ctx.Done():
		}
	})
}
