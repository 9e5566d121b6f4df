package failover

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// bench is a driver among stand-ins that do as they are told and keep a trace.
type bench struct {
	t      *testing.T
	driver *Driver
	floor  *fencing.Floor
	guard  *fencing.Guard
	raft   *fakeRaft

	mu       sync.Mutex
	trace    []string
	position protocol.Position
	fenceErr error
	promote  func(ctx context.Context) error
	demote   func(ctx context.Context) error
	call     func(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error)
	history  protocol.History
	rules    Rules
}

type fakeRaft struct {
	b       *bench
	changes chan Leadership
	epoch   protocol.Epoch
	age     time.Duration
	barred  atomic.Uint64
	stalled error // under bench.mu
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t}
	path := filepath.Join(t.TempDir(), "fencing.json")
	floor, err := fencing.OpenFloor(path)
	if err == nil {
		err = floor.Create(time.Now())
	}
	if err == nil {
		err = floor.Promise(3, 2, time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.floor, b.guard = floor, fencing.NewGuard(func() time.Duration { return time.Since(began) })
	b.raft = &fakeRaft{b: b, changes: make(chan Leadership), epoch: 7}
	b.driver, err = NewDriver(DriverConfig{Local: 1, Raft: b.raft, Lease: b.raft, Peers: b, Cluster: b, Database: b, Floor: floor, Guard: b.guard,
		Timing: Timing{DatabaseTimeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) start() {
	b.t.Helper()
	if err := b.driver.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trace = append(b.trace, fmt.Sprintf(format, args...))
}

func (b *bench) taken() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.trace
	b.trace = nil
	return out
}

func (b *bench) Position(context.Context) (protocol.Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.position, nil
}

func (b *bench) Fence(_ context.Context, epoch protocol.Epoch) error {
	_, open := b.guard.Epoch()
	b.note("fence %d, floor %d, barred %d, guard open %v", epoch, b.floor.Current().Epoch, b.raft.barred.Load(), open)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fenceErr == nil {
		b.position.LSN++ // what is read from now on differs from what was before
	}
	return b.fenceErr
}

func (b *bench) Promote(ctx context.Context, p Promotion) error {
	epoch, open := b.guard.Epoch()
	b.note("promote %d, lineage %v, guard open %v in %d", p.Epoch, p.Lineage, open, epoch)
	if b.promote != nil {
		return b.promote(ctx)
	}
	return nil
}

func (b *bench) Demote(ctx context.Context, d Demotion) error {
	_, open := b.guard.Epoch()
	b.note("demote %d, primary %d %q, guard open %v", d.Epoch, d.Primary, d.Address, open)
	if b.demote != nil {
		return b.demote(ctx)
	}
	return nil
}

func (b *bench) Call(ctx context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	if b.call != nil {
		return b.call(ctx, to, m)
	}
	if req, is := m.(protocol.BallotRequest); is {
		return protocol.BallotAnswer{Epoch: req.Epoch, VoterID: to}, nil
	}
	return protocol.Ack{}, nil
}

func (b *bench) History() protocol.History {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.history)
}
func (b *bench) Address(id protocol.NodeID) string { return "db-" + id.String() }
func (b *bench) Rules() Rules {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rules
}

func (r *fakeRaft) Leadership() <-chan Leadership { return r.changes }
func (r *fakeRaft) CommitNoop(context.Context) (protocol.Epoch, error) {
	return r.epoch, nil
}
func (r *fakeRaft) CommitPermit(_ context.Context, p Permit) error {
	r.b.note("permit %+v", p)
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.b.rules.Permit = p
	return nil
}
func (r *fakeRaft) CommitFork(_ context.Context, f protocol.Fork) error {
	r.b.note("fork %+v", f)
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.b.history = append(r.b.history, f)
	return nil
}
func (r *fakeRaft) Transfer(_ context.Context, to protocol.NodeID) error {
	r.b.note("transfer to %d", to)
	return nil
}
func (r *fakeRaft) NewTerm(context.Context) error { r.b.note("new term"); return nil }
func (r *fakeRaft) Duration() time.Duration       { return 0 }
func (r *fakeRaft) Renew(epoch protocol.Epoch)    { r.b.guard.Extend(epoch, fencing.NoDeadline) }
func (r *fakeRaft) Bar(epoch protocol.Epoch)      { r.barred.Store(uint64(epoch)) }
func (r *fakeRaft) Age(protocol.Epoch) (time.Duration, protocol.Epoch) {
	return r.age, 0
}
func (r *fakeRaft) Stalled() error {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	return r.stalled
}
func (r *fakeRaft) Voters() []protocol.NodeID         { return []protocol.NodeID{1, 2, 3} }
func (r *fakeRaft) Leader() (protocol.NodeID, uint64) { return 1, uint64(r.epoch) }

func (b *bench) expect(want ...string) {
	b.t.Helper()
	if got := b.taken(); !slices.Equal(got, want) {
		b.t.Errorf("happened:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// lead makes the node primary of epoch 7.
func (b *bench) lead() {
	b.t.Helper()
	b.raft.changes <- Leadership{Leading: true, Term: 7}
	synctest.Wait()
}

func inBubble(t *testing.T, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer func() {
			if err := b.driver.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(b)
	})
}

func TestDriverPath(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.position = protocol.Position{Timeline: 3, LSN: 100}
		b.start()
		b.expect("fence 3, floor 3, barred 3, guard open false", "demote 3, primary 0 \"\", guard open false")
		b.lead()
		b.expect("fence 7, floor 7, barred 7, guard open false", // floor and fence before the position that forks
			"fork {Epoch:7 NodeID:1 Parent:3 LSN:102}",
			"promote 7, lineage [{3 102} {7 18446744073709551615}], guard open true in 7")
		if got := b.floor.Current(); got.Epoch != 7 || got.NodeID != 1 {
			t.Errorf("floor %+v", got)
		}
		status := b.driver.Status()
		if status.State != Promoted || status.Role != protocol.RolePrimary || status.Primary != 1 || status.Epoch != 7 {
			t.Errorf("status %+v", status)
		}
		if hb := b.driver.Heartbeat(); hb.Role != protocol.RolePrimary || hb.Epoch != 7 || hb.NodeID != 1 || hb.WALLSN != 102 {
			t.Errorf("heartbeat %+v", hb)
		}
		b.raft.changes <- Leadership{}
		b.expect("demote 7, primary 0 \"\", guard open false") // the guard first
		if b.guard.Check(7) == nil || b.driver.Heartbeat().Role != protocol.RoleReplica {
			t.Error("primary after leadership was lost")
		}
	})
}

// The voter's side keeps its order: refuse, guard, floor, fence, position, answer.
func TestVoter(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.position = protocol.Position{Timeline: 3, LSN: 100}
		b.start()
		b.lead()
		b.taken()
		vote := func(epoch protocol.Epoch, from protocol.NodeID, lsn protocol.LSN) protocol.BallotAnswer {
			t.Helper()
			reply, err := b.driver.HandleMessage(b.t.Context(), from, protocol.BallotRequest{Epoch: epoch, CandidateID: from,
				Position: protocol.Position{Timeline: 3, LSN: lsn}})
			if err != nil {
				t.Fatal(err)
			}
			return reply.(protocol.BallotAnswer)
		}
		if a := vote(6, 2, 900); a.Refusal != protocol.BallotStaleEpoch || a.Floor != 7 {
			t.Errorf("below the floor: %+v", a)
		}
		if a := vote(7, 2, 900); a.Refusal != protocol.BallotStaleEpoch {
			t.Errorf("promised to another: %+v", a)
		}
		if b.guard.Check(7) != nil {
			t.Error("a stale ballot closed the guard")
		}
		b.expect()
		if a := vote(8, 2, 900); !a.Granted() || a.Floor != 8 || a.Position.LSN != 103 || a.VoterID != 1 || a.Epoch != 8 {
			t.Errorf("granted: %+v", a)
		}
		got := b.taken() // the demotion takes its own way
		slices.Sort(got)
		if want := []string{"demote 8, primary 0 \"\", guard open false", "fence 8, floor 8, barred 8, guard open false"}; !slices.Equal(got, want) {
			t.Errorf("happened %q, want %q", got, want)
		}
		if a := vote(8, 2, 100); a.Refusal != protocol.BallotBetter || a.Position.LSN != 104 {
			t.Errorf("better: %+v", a)
		}
		b.mu.Lock()
		b.fenceErr = errors.New("stuck")
		b.mu.Unlock()
		if a := vote(9, 3, 900); a.Refusal != protocol.BallotUnavailable || a.Position != (protocol.Position{}) {
			t.Errorf("database unable: %+v", a)
		}
		if a := vote(8, 2, 900); a.Refusal != protocol.BallotStaleEpoch || a.Floor != 9 {
			t.Errorf("a promise kept though no grant came of it: %+v", a)
		}
		for _, bad := range []struct {
			from protocol.NodeID
			m    protocol.Message
		}{{3, protocol.BallotRequest{Epoch: 99, CandidateID: 2}}, {1, protocol.BallotRequest{Epoch: 99, CandidateID: 1}},
			{2, protocol.DemoteRequest{Epoch: 99, TargetID: 2}}, {2, protocol.ForwardRequest{}}} {
			if reply, err := b.driver.HandleMessage(b.t.Context(), bad.from, bad.m); err == nil {
				t.Errorf("%+v from %d is answered with %+v", bad.m, bad.from, reply)
			}
		}
		if b.floor.Current().Epoch != 9 {
			t.Errorf("floor %+v", b.floor.Current())
		}
	})
}

// A voter whose database hangs answers in time, and so do those after it.
func TestVoterThatHangs(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.start()
		b.driver.voting <- struct{}{} // a promise that never ends
		began := time.Now()
		ctx, cancel := context.WithTimeout(b.t.Context(), 200*time.Millisecond)
		defer cancel()
		reply, err := b.driver.HandleMessage(ctx, 2, protocol.BallotRequest{Epoch: 8, CandidateID: 2})
		if a, is := reply.(protocol.BallotAnswer); err != nil || !is || a.Refusal != protocol.BallotUnavailable {
			t.Errorf("answered %+v, %v", reply, err)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("took %v", took)
		}
		<-b.driver.voting
	})
}

func TestOtherMessages(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.position = protocol.Position{Timeline: 3, LSN: 100}
		b.start()
		for _, test := range []struct{ m, want protocol.Message }{
			{protocol.Heartbeat{NodeID: 2}, protocol.HeartbeatAck{Epoch: 3, NodeID: 1, WALLSN: 101}},
			{protocol.VoteRequest{Epoch: 9, CandidateID: 2, LastLSN: 900}, protocol.VoteResponse{Epoch: 3, VoterID: 1, VoterLSN: 101}},
			{protocol.PromoteNotify{Epoch: 9, NewPrimaryID: 2}, protocol.Ack{Epoch: 3, NodeID: 1}},
			{protocol.DemoteRequest{Epoch: 9, TargetID: 1}, protocol.Ack{Epoch: 3, NodeID: 1}},
			{protocol.AppendEntries{Payload: []byte("x")}, protocol.Ack{Epoch: 3, NodeID: 1}},
			{protocol.AppendEntriesResponse{Payload: []byte("x")}, protocol.Ack{Epoch: 3, NodeID: 1}},
		} {
			synctest.Wait()
			if got, err := b.driver.HandleMessage(b.t.Context(), 2, test.m); err != nil || got != test.want {
				t.Errorf("%T: %+v, %v, want %+v", test.m, got, err, test.want)
			}
		}
		synctest.Wait()
		var names []string
		for _, r := range b.driver.Journal(0) {
			names = append(names, r.Event)
		}
		if !slices.Equal(names, []string{"AppendEntriesReceived", "AppendEntriesResponseReceived"}) {
			t.Errorf("journal %v", names)
		}
	})
}

// A promotion that does not return is given up in time; the database is
// demoted as soon as it does, never beside it.
func TestPromotionThatHangs(t *testing.T) {
	inBubble(t, func(b *bench) {
		release := make(chan struct{})
		b.promote = func(context.Context) error { <-release; b.note("promote returns"); return nil }
		b.start()
		b.taken()
		b.lead()
		time.Sleep(2 * time.Second)
		if b.guard.Check(7) == nil {
			t.Error("the guard is open after a promotion that failed")
		}
		if status := b.driver.Status(); status.Blocked == "" || status.CoolDownUntil.IsZero() {
			t.Errorf("status %+v", status)
		}
		b.taken()
		close(release)
		b.expect("promote returns", "demote 7, primary 0 \"\", guard open false")
	})
}

// A demotion that fails is tried until it succeeds.
func TestDemotionThatFails(t *testing.T) {
	inBubble(t, func(b *bench) {
		failures := 3
		b.demote = func(context.Context) error {
			if failures--; failures >= 0 {
				return errors.New("busy")
			}
			return nil
		}
		b.start()
		time.Sleep(2 * time.Second)
		if got := len(b.taken()); got != 1+4 {
			t.Errorf("%d calls", got)
		}
	})
}

func TestFollow(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.start()
		b.taken()
		b.mu.Lock()
		b.history = protocol.History{{Epoch: 5, NodeID: 3, Parent: 0, LSN: 0}}
		b.mu.Unlock()
		b.driver.ForkApplied(protocol.Fork{})
		b.expect("fence 5, floor 5, barred 5, guard open false", "demote 5, primary 3 \"db-3\", guard open false")
		if got := b.floor.Current(); got.Epoch != 5 || got.NodeID != 3 {
			t.Errorf("floor %+v", got)
		}
		b.driver.ClusterChanged()
		b.expect()
	})
}
