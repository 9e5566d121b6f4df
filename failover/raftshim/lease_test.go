package raftshim

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

// valve is a transport whose AppendEntries can be kept back: closed, nothing
// goes out; held, answers wait until released.
type valve struct {
	*raft.InmemTransport
	closed    atomic.Bool
	held      atomic.Pointer[chan struct{}]
	answers   atomic.Int64 // let through
	unpiped   bool
	fastPaths atomic.Int64
	cut       atomic.Value // the raft.ServerID that gets no entries any more
	handing   func()       // called before leadership is offered; set before it is
}

func (v *valve) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if v.closed.Load() || v.cut.Load() == id {
		return errors.New("closed")
	}
	if err := v.InmemTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	if held := v.held.Load(); held != nil {
		<-*held
	}
	v.answers.Add(1)
	return nil
}

func (v *valve) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if v.unpiped {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	return v.InmemTransport.AppendEntriesPipeline(id, target)
}

func (v *valve) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if v.handing != nil {
		v.handing()
	}
	return v.InmemTransport.TimeoutNow(id, target, args, resp)
}

func (v *valve) SetHeartbeatHandler(func(raft.RPC)) { v.fastPaths.Add(1) }

func (m *machine) writeInFlight() time.Time {
	if since := m.stuck.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// lead commits an entry on the leader and opens its guard.
func lead(t *testing.T, m *machine) protocol.Epoch {
	t.Helper()
	epoch, err := m.cons.CommitNoop(bounded(t, time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.guard.Open(epoch); err != nil {
		t.Fatal(err)
	}
	m.trans.Renew(epoch)
	return epoch
}

// An idle leader keeps its lease by heartbeats and pipelined messages alone; a
// leader without others needs neither. Cut off, the lease ends in time.
func TestLeaseOfALeader(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		inCluster(t, n, func(t *testing.T, all []*machine) {
			leader := all[0]
			epoch := lead(t, leader)
			for range 1000 {
				if err := leader.guard.Check(epoch); err != nil {
					t.Fatalf("%d nodes: %v", n, err)
				}
				time.Sleep(time.Millisecond)
			}
			if n == 1 {
				return
			}
			leader.inner.DisconnectAll()
			time.Sleep(fencing.HeldFor(leader.trans.Duration()))
			if err := leader.guard.Check(epoch); !errors.Is(err, fencing.ErrLeaseExpired) {
				t.Errorf("%d nodes, cut off: %v", n, err)
			}
		})
	}
}

// Pipelined messages count as much as heartbeats: here no heartbeat gets out.
func TestLeaseByPipelinesAlone(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader := all[0]
		epoch := lead(t, leader)
		time.Sleep(100 * time.Millisecond) // pipelines are open
		leader.valve.closed.Store(true)
		for range 1000 {
			if err := leader.guard.Check(epoch); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// Answers come all the time, but all of them late: it counts when they were
// asked for (I4).
func TestStampIsTheTimeOfSending(t *testing.T) {
	inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
		leader := all[0]
		time.Sleep(50 * time.Millisecond)
		epoch := lead(t, leader)
		held := make(chan struct{})
		leader.valve.held.Store(&held)
		time.Sleep(2 * leader.trans.Duration())
		before := leader.valve.answers.Load()
		close(held)
		synctest.Wait()
		if leader.valve.answers.Load() == before {
			t.Fatal("no answer was held")
		}
		if err := leader.guard.Check(epoch); err == nil {
			t.Error("answers to what was sent long ago have renewed the lease")
		}
	})
}

// A leader that was stopped in the middle of a round of heartbeats finds the
// answers in its sockets when it wakes. Raft's VerifyLeader takes them for
// proof; a read must not.
func TestReadIndexOfALeaderThatWasPaused(t *testing.T) {
	inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
		leader := all[0]
		lead(t, leader)
		if _, err := leader.cons.ReadIndex(bounded(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		held := make(chan struct{})
		leader.valve.held.Store(&held)
		time.Sleep(60 * time.Millisecond) // heartbeats have been answered, and Raft has not been told
		leader.valve.closed.Store(true)   // others take over from here on
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		verified := leader.raft.VerifyLeader()
		read := make(chan error)
		go func() {
			_, err := leader.cons.ReadIndex(ctx)
			read <- err
		}()
		synctest.Wait()
		close(held)
		if err := verified.Error(); err != nil {
			t.Fatalf("Raft has become better than this test thinks: %v", err)
		}
		if err := <-read; !errors.Is(err, failover.ErrNoQuorum) {
			t.Errorf("the read got %v", err)
		}
	})
}

// received is a transport that nobody but the test takes messages from.
func received(t *testing.T, floor protocol.Epoch) (*Transport, *raft.InmemTransport, raft.ServerAddress) {
	addr, inner := raft.NewInmemTransport("")
	_, peer := raft.NewInmemTransport("")
	peer.Connect(addr, inner)
	trans := NewTransport(inner, Options{Local: 1, Floor: floor})
	t.Cleanup(func() {
		if err := trans.Close(); err != nil {
			t.Error(err)
		}
	})
	return trans, peer, addr
}

// However a ballot's promise and an AppendEntries of an older epoch meet: the
// ballot's age knows of it, or it does not succeed (I5).
func TestNoHelpAfterThePromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trans, peer, addr := received(t, 3)
		send := func(term uint64) chan error {
			answer := make(chan error, 1)
			go func() {
				var resp raft.AppendEntriesResponse
				err := peer.AppendEntries("1", addr, &raft.AppendEntriesRequest{Term: term}, &resp)
				if err == nil && !resp.Success {
					err = errors.New("no success")
				}
				answer <- err
			}()
			return answer
		}
		succeed := func(rpc raft.RPC, success bool) {
			rpc.Respond(&raft.AppendEntriesResponse{Term: rpc.Command.(*raft.AppendEntriesRequest).Term, Success: success}, nil)
		}
		if err := <-send(2); err == nil {
			t.Error("helped an epoch below the floor of the start")
		}
		time.Sleep(time.Second)
		answer := send(5)
		succeed(<-trans.Consumer(), true)
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if age, of := trans.Age(6); age != time.Second || of != 5 {
			t.Errorf("age %v of epoch %d", age, of)
		}
		answer = send(5)
		succeed(<-trans.Consumer(), false)
		if err := <-answer; err == nil {
			t.Fatal("made a success of a failure")
		}
		if age, _ := trans.Age(6); age != time.Second {
			t.Errorf("age %v: a failure is no help", age)
		}
		answer = send(5)
		inRaft := <-trans.Consumer()
		trans.Bar(6) // Raft has it in its hands
		if age, _ := trans.Age(6); age != time.Second {
			t.Errorf("age %v", age)
		}
		succeed(inRaft, true)
		if err := <-answer; err == nil {
			t.Error("helped epoch 5 after the promise to 6")
		}
		if err := <-send(5); err == nil {
			t.Error("helped epoch 5 after the promise to 6")
		}
		var snapshot raft.InstallSnapshotResponse
		if err := peer.InstallSnapshot("1", addr, &raft.InstallSnapshotRequest{Term: 5}, &snapshot, nil); err == nil {
			t.Error("took a snapshot of epoch 5 after the promise to 6")
		}
		answer = send(6)
		succeed(<-trans.Consumer(), true)
		if err := <-answer; err != nil {
			t.Errorf("does not help the epoch it is promised to: %v", err)
		}
		if age, of := trans.Age(6); age != time.Second || of != 5 {
			t.Errorf("age %v of epoch %d: the candidate's own messages do not count", age, of)
		}
		trans.Bar(4)
		if err := trans.barredFor(5); err == nil {
			t.Error("a late promise to an older epoch has lifted the newer")
		}
	})
}

// TimeoutNow makes its receiver stand at once, and depose a healthy leader.
func TestTimeoutNowFromAnyPeer(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, follower, other := all[0], all[1], all[2]
		lead(t, leader)
		time.Sleep(50 * time.Millisecond)
		term := leader.raft.CurrentTerm()
		timeoutNow := func(from *machine) error {
			id := raft.ServerID(ServerID(from.trans.local))
			return from.inner.TimeoutNow("", follower.inner.LocalAddr(), &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
				ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id)}}, &raft.TimeoutNowResponse{})
		}
		if err := timeoutNow(other); err == nil {
			t.Error("a follower took TimeoutNow from a follower")
		}
		time.Sleep(time.Second)
		if leader.raft.State() != raft.Leader || leader.raft.CurrentTerm() != term {
			t.Error("a healthy leader was deposed")
		}
		if err := timeoutNow(leader); err != nil {
			t.Errorf("from the leader: %v", err)
		}
	})
}

// hashicorp/raft issue 695: heartbeats handled beside the main loop can
// acknowledge a term around a vote for the next.
func TestIssue695NoHeartbeatFastPath(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		for _, m := range all {
			if m.valve.fastPaths.Load() > 0 {
				t.Error("Raft has given its heartbeat handler to the transport")
			}
		}
	})
}

// hashicorp/raft issues 503, 612, 614: a leader whose disk hangs keeps
// heartbeating, and nobody else is elected, for ever.
func TestIssue503LeaderWithHungDisk(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader := all[0]
		lead(t, leader)
		since := time.Now()
		leader.stuck.Store(&since)
		time.Sleep(MinStallLimit)
		if leader.raft.State() != raft.Leader {
			t.Fatal("gave up before the limit")
		}
		time.Sleep(time.Second)
		if all[1].raft.State() != raft.Leader && all[2].raft.State() != raft.Leader {
			t.Error("nobody else was elected")
		}
		if err := leader.trans.Stalled(); !errors.Is(err, failover.ErrStalled) {
			t.Error(err)
		}
		for _, send := range []func() error{
			func() error { return leader.trans.RequestVote("", "", nil, nil) },
			func() error { return leader.trans.RequestPreVote("", "", nil, nil) },
			func() error { return leader.trans.AppendEntries("", "", nil, nil) },
		} {
			if err := send(); !errors.Is(err, failover.ErrStalled) {
				t.Errorf("sent while the disk hangs: %v", err)
			}
		}
		leader.stuck.Store(nil)
		if err := leader.trans.Stalled(); err != nil {
			t.Error(err)
		}
	})
}

// While a change of the configuration is under way, both count.
func TestLeaseDuringAConfigurationChange(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader := all[0]
		lead(t, leader)
		voters := func() [][]protocol.NodeID {
			leader.trans.mu.Lock()
			defer leader.trans.mu.Unlock()
			return leader.trans.voters()
		}
		if got := voters(); len(got) != 1 || len(got[0]) != 3 {
			t.Errorf("configurations %v", got)
		}
		leader.raft.AddNonvoter("5", "raft-5", 0, 0)
		time.Sleep(20 * time.Millisecond)
		if got := voters(); len(got) != 1 || len(got[0]) != 3 {
			t.Errorf("with a non-voter: %v", got)
		}
		leader.valve.closed.Store(true)
		leader.inner.DisconnectAll()
		leader.raft.AddVoter("4", "raft-4", 0, 0)
		time.Sleep(20 * time.Millisecond)
		if got := voters(); len(got) != 2 || len(got[0]) != 3 || len(got[1]) != 4 {
			t.Errorf("with a voter on its way: %v", got)
		}
	})
}

// A leader's death is noticed after little more than the heartbeat timeout,
// not after up to three.
func TestLeaderLossIsNoticedInTime(t *testing.T) {
	const runs = 15
	var took []time.Duration
	for range runs {
		inCluster(t, 3, func(t *testing.T, all []*machine) {
			time.Sleep(500 * time.Millisecond)
			all[0].inner.DisconnectAll()
			for _, m := range all[1:] {
				m.inner.Disconnect(all[0].inner.LocalAddr())
			}
			died := time.Now()
			for all[1].raft.State() != raft.Leader && all[2].raft.State() != raft.Leader {
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(died))
		})
	}
	slices.Sort(took)
	t.Logf("with a heartbeat timeout of 200 ms: %v", took)
	if median := took[runs/2]; median > 250*time.Millisecond {
		t.Errorf("median %v", median)
	}
}
