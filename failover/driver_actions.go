package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
)

// perform begins an action. It waits for none but CloseGuard, which takes no
// time.
func (d *Driver) perform(action Action) {
	switch a := action.(type) {
	case CloseGuard:
		d.cfg.Guard.CloseBelow(a.Below, errors.New(a.Cause))
	case Emit:
		d.record(a)
	case Demote:
		d.database.demote(a)
	case Promote:
		d.database.promote(a)
	case Send:
		for _, m := range a.Messages {
			d.call(notifyTries*d.timing.BallotTimeout, func(ctx context.Context) { d.notify(ctx, m) })
		}
	case SendBallots:
		for _, m := range a.Messages {
			d.call(d.timing.BallotTimeout, func(ctx context.Context) { d.post(d.askVoter(ctx, a.Round, m)) })
		}
	case CommitNoop:
		d.attempt(d.timing.RaftTimeout, a.Attempt, func(ctx context.Context) (Input, error) {
			epoch, err := d.cfg.Raft.CommitNoop(ctx)
			return EpochBegun{Attempt: a.Attempt, Epoch: epoch, Rules: d.rules(), Last: d.earlier(epoch), Alive: d.reachable()}, err
		})
	case Prepare:
		// Bounded like a ballot, not like a promotion: a node whose disk or
		// database hangs must hand on soon.
		d.attempt(2*d.timing.BallotTimeout, a.Attempt, func(ctx context.Context) (Input, error) {
			position, durable, err := d.promise(ctx, a.Epoch, d.cfg.Local)
			in := Prepared{Attempt: a.Attempt, Durable: durable, Position: position, Voters: sorted(d.cfg.Raft.Voters()),
				Alive: d.reachable(), Address: d.cfg.Cluster.Address(d.cfg.Local),
				Age: d.age(a.Epoch), Earlier: d.earlier(a.Epoch).Node, MaxBehind: d.cfg.MaxFailoverLag}
			in.Behind, in.Successor = d.behind(position)
			return in, err
		})
	case CommitFork:
		d.attempt(d.timing.RaftTimeout, a.Attempt, func(ctx context.Context) (Input, error) {
			return ForkCommitted{Attempt: a.Attempt}, d.cfg.Raft.CommitFork(ctx, a.Fork)
		})
	case AcquireToken:
		d.attempt(d.timing.DatabaseTimeout, a.Attempt, func(context.Context) (Input, error) {
			return TokenAcquired{Attempt: a.Attempt}, d.acquire(a.Epoch)
		})
	case OfferLeadership:
		d.attempt(d.timing.StepDownTimeout, a.Attempt, func(ctx context.Context) (Input, error) {
			to := a.To
			if to == protocol.NoNode {
				var err error
				if to, err = d.successor(); err != nil {
					return nil, err
				}
			}
			return LeadershipOffered{Attempt: a.Attempt}, d.cfg.Raft.Transfer(ctx, to)
		})
	case NewTerm:
		d.attempt(d.timing.StepDownTimeout, a.Attempt, func(ctx context.Context) (Input, error) {
			return LeadershipOffered(a), d.cfg.Raft.NewTerm(ctx)
		})
	default:
		panic(fmt.Sprintf("failover: unknown action %T", action))
	}
}

// notifyTries is how often a message is sent whose answer does not matter.
const notifyTries = 3

func (d *Driver) notify(ctx context.Context, m protocol.DirectedMessage) {
	for try := 1; ; try++ {
		once, cancel := context.WithTimeout(ctx, d.timing.BallotTimeout)
		_, err := d.cfg.Peers.Call(once, m.To, m.Message)
		cancel()
		if err == nil {
			return
		}
		d.log.Debug("notify", "node", m.To, "try", try, "error", err)
		if try == notifyTries {
			return
		}
		select {
		case <-time.After(d.timing.BackoffMin):
		case <-ctx.Done():
			return
		}
	}
}

// call runs f in a goroutine of its own, with a deadline.
func (d *Driver) call(timeout time.Duration, f func(context.Context)) {
	d.calls.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, timeout)
		defer cancel()
		f(ctx)
	})
}

// attempt runs f and posts its input, or Failed, exactly once: when f returns
// or, if f does not heed its deadline, at the deadline.
func (d *Driver) attempt(timeout time.Duration, number uint64, f func(context.Context) (Input, error)) {
	d.call(timeout, func(ctx context.Context) {
		answer := make(chan Input, 1)
		d.calls.Go(func() {
			in, err := f(ctx)
			if err != nil {
				in = failure(number, err)
			}
			answer <- in
		})
		select {
		case in := <-answer:
			d.post(in)
		case <-ctx.Done():
			d.post(Failed{Attempt: number, Reason: fmt.Sprintf("no answer within %v", timeout)})
		}
	})
}

func failure(number uint64, err error) Failed {
	failed := Failed{Attempt: number, Reason: err.Error()}
	if stale, is := errors.AsType[*fencing.StaleEpochError](err); is {
		failed.Floor = stale.Floor.Epoch
	}
	return failed
}

// earlier returns who became primary last before epoch, NoNode if nobody did.
// The entry whose term epoch is has been committed, so the history is complete.
func (d *Driver) earlier(epoch protocol.Epoch) PrimaryKnown {
	history := d.cfg.Cluster.History()
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Epoch < epoch {
			return PrimaryKnown{Node: history[i].NodeID, Epoch: history[i].Epoch}
		}
	}
	return PrimaryKnown{}
}

// behind returns by how many LSNs own is behind the last known position of a
// primary, and who is known to be less behind than is allowed.
func (d *Driver) behind(own protocol.Position) (uint64, protocol.NodeID) {
	if d.cfg.Health == nil || d.cfg.MaxFailoverLag == 0 {
		return 0, protocol.NoNode
	}
	last := d.cfg.Health.Primary()
	if last.Epoch == 0 || own.Timeline > last.Epoch || own.LSN >= last.LSN {
		return 0, protocol.NoNode
	}
	successor := protocol.NoNode
	voters := d.cfg.Raft.Voters()
	if best, there := d.cfg.Health.BestReplica(); there && best != d.cfg.Local && slices.Contains(voters, best) {
		successor = best
	}
	if last.Kind == health.Healthy && last.Node != d.cfg.Local && slices.Contains(voters, last.Node) {
		successor = last.Node
	}
	return uint64(last.LSN - own.LSN), successor
}

// acquire makes sure of the durable token of epoch, and opens the guard. From
// here on the lease's renewals extend it.
func (d *Driver) acquire(epoch protocol.Epoch) error {
	if err := d.cfg.Lease.Stalled(); err != nil {
		return err
	}
	if err := d.cfg.Floor.Promise(epoch, d.cfg.Local, time.Now()); err != nil { // I1: the epoch is this node's on disk
		return err
	}
	if err := d.cfg.Guard.Open(epoch); err != nil {
		return err
	}
	d.led.Store(uint64(epoch))
	d.cfg.Lease.Renew(epoch)
	return nil
}

// askVoter puts a ballot to one voter.
func (d *Driver) askVoter(ctx context.Context, round uint64, m protocol.DirectedMessage) Input {
	reply, err := d.cfg.Peers.Call(ctx, m.To, m.Message)
	if err != nil {
		return BallotUnanswered{Round: round, Node: m.To, Reason: err.Error()}
	}
	answer, is := reply.(protocol.BallotAnswer)
	if !is || answer.VoterID != m.To {
		return BallotUnanswered{Round: round, Node: m.To, Reason: fmt.Sprintf("answered with %T instead of a ballot of its own", reply)}
	}
	if err := d.credible(m.To, answer.Floor); err != nil { // the refusal of a voter that is of no use until it is mended
		d.log.Error("a voter's floor cannot be right", "node", m.To, "error", err)
		return BallotUnanswered{Round: round, Node: m.To, Reason: err.Error()}
	}
	return BallotAnswered{Round: round, Answer: answer}
}

// record writes an event to the journal and the log.
func (d *Driver) record(e Emit) {
	epoch, node := about(e.Event)
	r := d.journal.add(Record{At: e.At, Event: e.Event.Name(), Epoch: epoch, Node: node, Detail: e.Detail,
		SinceMS: milliseconds(e.Since), StepMS: milliseconds(e.Step)})
	level := d.log.Info
	if _, minor := e.Event.(Step); minor {
		level = d.log.Debug
	}
	level(r.Event, "epoch", epoch, "node", node, "detail", e.Detail, "since_ms", r.SinceMS)
}

// milliseconds gives d in ms, to the microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
