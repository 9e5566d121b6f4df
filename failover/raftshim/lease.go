package raftshim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// errWithheld is what the sender of an AppendEntries gets that is not let
// succeed. To Raft it is a lost message.
var errWithheld = errors.New("this node is promised to a later epoch")

// lease is what a Transport knows of help asked for and given.
//
// One lock covers the successes let out and the promise that ends them. A
// success of an epoch below E passes the lock before Bar(E), and then Age(E),
// read after it, knows of it; or behind Bar(E), and then it is withheld. In
// neither case can a ballot be answered for E that hides a help to an older
// epoch (I5), also if Raft had the message in its hands all the while: what
// Raft has stored of it does no harm, only its success would.
type lease struct {
	local    protocol.NodeID
	clock    func() time.Duration
	guard    *fencing.Guard // nil: none
	duration time.Duration
	raft     atomic.Pointer[raft.Raft]

	mu     sync.Mutex
	stamps fencing.Stamps
	reach  reach
	help   *fencing.Help
	barred protocol.Epoch // no AppendEntries of an epoch below it succeeds here
	known  []configuration
	moved  chan struct{} // closed and replaced when a stamp has come
}

// reach is how far the voters' logs are known to agree with this leader's.
type reach struct {
	epoch protocol.Epoch
	index map[protocol.NodeID]uint64
}

// note takes that a voter has the leader's log of epoch up to index.
func (r *reach) note(epoch protocol.Epoch, voter protocol.NodeID, index uint64) {
	if epoch > r.epoch {
		r.epoch, r.index = epoch, map[protocol.NodeID]uint64{}
	}
	if epoch == r.epoch && index > r.index[voter] {
		r.index[voter] = index
	}
}

// of returns what is known of a voter in epoch.
func (r *reach) of(epoch protocol.Epoch, voter protocol.NodeID) uint64 {
	if epoch != r.epoch {
		return 0
	}
	return r.index[voter]
}

// configuration is a Raft configuration this leader has gone by.
type configuration struct {
	voters []protocol.NodeID
	index  uint64 // committed with it, at the latest
}

func newLease(o Options) *lease {
	l := &lease{local: o.Local, clock: o.Clock, guard: o.Guard, duration: o.Lease, barred: o.Floor, moved: make(chan struct{})}
	if l.clock == nil {
		began := time.Now()
		l.clock = func() time.Duration { return time.Since(began) }
	}
	l.stamps.Local = o.Local
	l.help = fencing.NewHelp(l.clock())
	return l
}

// Duration returns D.
func (l *lease) Duration() time.Duration { return l.duration }

// Bar makes this node help no epoch below epoch from its return on.
func (l *lease) Bar(epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.barred = max(l.barred, epoch)
}

// Age returns how long ago this node last let an AppendEntries of an epoch
// below epoch succeed, and of which. To be worth something it is asked after
// Bar(epoch).
func (l *lease) Age(epoch protocol.Epoch) (time.Duration, protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.help.Age(epoch, l.clock())
}

// let decides what becomes of Raft's answer to a message of a leader of epoch.
func (l *lease) let(epoch protocol.Epoch, answer raft.RPCResponse) raft.RPCResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch < l.barred { // I5
		return raft.RPCResponse{Error: fmt.Errorf("%w, %d", errWithheld, l.barred)}
	}
	if reply, is := answer.Response.(*raft.AppendEntriesResponse); is && reply.Success && answer.Error == nil {
		l.help.Note(epoch, l.clock())
	}
	return answer
}

// barredFor says why a message of a leader of epoch need not go to Raft at all.
func (l *lease) barredFor(epoch protocol.Epoch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch < l.barred {
		return fmt.Errorf("%w, %d", errWithheld, l.barred)
	}
	return nil
}

// succeeded notes a voter's success, to what was sent at sent. Its log is the
// leader's up to index.
func (l *lease) succeeded(id raft.ServerID, epoch protocol.Epoch, sent time.Duration, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamps.Note(epoch, ParseServerID(id), sent)
	l.reach.note(epoch, ParseServerID(id), index)
	l.renew(epoch)
	close(l.moved)
	l.moved = make(chan struct{})
}

// Renew extends the guard as far as the stamps reach. Every new stamp does so
// by itself; it is for a guard that has just been opened.
func (l *lease) Renew(epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew(epoch)
}

// renew is called with mu held, so that a deadline reckoned over an older
// configuration never comes after one over a newer.
func (l *lease) renew(epoch protocol.Epoch) {
	if l.guard == nil {
		return
	}
	if l.duration == 0 {
		l.guard.Extend(epoch, fencing.NoDeadline)
		return
	}
	if deadline, runs := l.stamps.Deadline(epoch, l.duration, l.clock(), l.voters()...); runs {
		l.guard.Extend(epoch, deadline)
	}
}

// voters returns the voters of Raft's latest configuration, and of those before
// it that may not be overtaken yet: Raft does not show which one is committed,
// but what was its last entry when a configuration was first seen here, and
// once that is committed the configuration is. The caller holds mu.
func (l *lease) voters() [][]protocol.NodeID {
	r := l.raft.Load()
	if r == nil {
		return nil
	}
	latest := votersOf(r)
	if n := len(l.known); n == 0 || !slices.Equal(l.known[n-1].voters, latest) {
		l.known = append(l.known, configuration{latest, r.LastIndex()})
	}
	if newest := l.known[len(l.known)-1]; r.CommitIndex() >= newest.index {
		l.known = append(l.known[:0], newest)
	}
	out := make([][]protocol.NodeID, 0, len(l.known))
	for _, c := range l.known {
		out = append(out, c.voters)
	}
	return out
}

// votersOf returns the voters of Raft's latest configuration, ascending.
func votersOf(r *raft.Raft) []protocol.NodeID {
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	var voters []protocol.NodeID
	for _, s := range future.Configuration().Servers {
		if id := ParseServerID(s.ID); s.Suffrage == raft.Voter && id != protocol.NoNode {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	return voters
}

// awaitQuorum returns nil when a quorum has let something succeed that this
// node, as leader of epoch, sent at since or later: then nobody had been
// elected above it by then. failed ends the wait, and so does ctx.
func (l *lease) awaitQuorum(ctx context.Context, epoch protocol.Epoch, since time.Duration, failed <-chan error) error {
	for {
		l.mu.Lock()
		at, known := l.stamps.Since(epoch, l.clock(), l.voters()...)
		moved := l.moved
		l.mu.Unlock()
		if known && at >= since {
			return nil
		}
		select {
		case <-moved:
		case err := <-failed:
			if err != nil {
				return err
			}
			failed = nil // Raft is content; the stamps are still to come
		case <-ctx.Done():
			return fmt.Errorf("%w: no quorum has answered in time: %w", failover.ErrNoQuorum, context.Cause(ctx))
		}
	}
}
