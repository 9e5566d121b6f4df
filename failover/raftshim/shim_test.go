package raftshim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

func TestPeerNames(t *testing.T) {
	_, inner := raft.NewInmemTransport("10.0.0.3:7600")
	trans := NewTransport(inner, Options{})
	defer trans.Close()
	if got := string(trans.EncodePeer("3", "10.0.0.3:7600")); got != "3@10.0.0.3:7600" {
		t.Errorf("encoded as %q", got)
	}
	for peer, want := range map[string]raft.ServerAddress{"3@10.0.0.3:7600": "10.0.0.3:7600", "3@": "", "10.0.0.3:7600": "10.0.0.3:7600",
		"": "", "x@y": "x@y", "0@y": "0@y", "3@[fe80::1@eth0]:7600": "[fe80::1@eth0]:7600"} {
		if got := trans.DecodePeer([]byte(peer)); got != want {
			t.Errorf("DecodePeer(%q) = %q, want %q", peer, got, want)
		}
	}
	if _, forwarded := raft.Transport(trans).(raft.WithPreVote); !forwarded {
		t.Error("Raft would do without pre-votes")
	}
	if ParseServerID("7") != 7 || ParseServerID("0") != 0 || ParseServerID("a") != 0 || ServerID(7) != "7" {
		t.Error("server IDs")
	}
}

// The two changes kept of any history tell whether there was one, and how it
// ended.
func TestChangesAreNeverLost(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var c changes
		told := []bool{false}
		truth, lostSince := false, false // lostSince: a loss after the last that was told
		for range rnd.IntN(30) {
			if rnd.IntN(3) > 0 {
				next := !truth
				if rnd.IntN(20) == 0 {
					next = truth // told twice the same: the one between was dropped
					lostSince = lostSince || truth
				}
				lostSince = lostSince || truth && !next
				truth = next
				c.add(failover.Leadership{Leading: next})
			} else if len(c.pending) > 0 {
				told = append(told, c.pending[0].Leading)
				c.take()
				lostSince = told[len(told)-1] && !truth
			}
			if len(c.pending) > 2 {
				t.Fatalf("%d changes pending", len(c.pending))
			}
			if lostSince && told[len(told)-1] && !slices.ContainsFunc(c.pending, func(l failover.Leadership) bool { return !l.Leading }) {
				t.Fatalf("leadership was lost after the last telling, and will not be told: %v, pending %v", told, c.pending)
			}
		}
		for len(c.pending) > 0 {
			told = append(told, c.pending[0].Leading)
			c.take()
		}
		if told[len(told)-1] != truth {
			t.Fatalf("told %v, and it is %v", told, truth)
		}
		for i := range told[1:] {
			if told[i] == told[i+1] {
				t.Fatalf("the same was told twice: %v", told)
			}
		}
	}
}

// With nobody listening, Raft's notifications never block.
func TestNotifyNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConsensus()
		for i := range 10 * notifyBuffer {
			c.NotifyCh() <- i%2 == 0
		}
		c.NotifyCh() <- true
		synctest.Wait()
		if got := <-c.Leadership(); !got.Leading {
			t.Error("told of no gain first")
		}
		c.NotifyCh() <- false
		c.NotifyCh() <- true
		synctest.Wait()
		if a, b := <-c.Leadership(), <-c.Leadership(); a.Leading || !b.Leading {
			t.Errorf("lost and regained is told as %v, %v", a, b)
		}
		c.Close()
		c.Close()
		if _, open := <-c.Leadership(); open {
			t.Error("told of something after Close")
		}
	})
}

func TestBeforeAttach(t *testing.T) {
	c := NewConsensus()
	defer c.Close()
	ctx := t.Context()
	_, noop := c.CommitNoop(ctx)
	_, read := c.ReadIndex(ctx)
	_, _, write := c.ProposeIf(ctx, nil, nil)
	for _, err := range []error{write, noop, read, c.Transfer(ctx, 2), c.NewTerm(ctx), c.CommitFork(ctx, protocol.Fork{Epoch: 2, NodeID: 1})} {
		if !errors.Is(err, failover.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if id, term := c.Leader(); id != 0 || term != 0 || c.Voters() != nil || !c.LastContact().IsZero() {
		t.Error("a leader without Raft")
	}
}

// termKeeper is a log store as ProposeIf wants it.
type termKeeper struct{ raft.LogStore }

func (k termKeeper) StoreLog(l *raft.Log) error { return k.StoreLogs([]*raft.Log{l}) }

func (k termKeeper) StoreLogs(logs []*raft.Log) error {
	if err := KeepTerms(logs...); err != nil {
		return err
	}
	return k.LogStore.StoreLogs(logs)
}

// machine is a member of a cluster of bare Rafts.
type machine struct {
	inner *raft.InmemTransport
	valve *valve
	guard *fencing.Guard
	stuck atomic.Pointer[time.Time]
	trans *Transport
	raft  *raft.Raft
	cons  *Consensus
	fsm   *fsm.FSM
}

// inCluster runs f with n Rafts, the first of which leads.
func inCluster(t *testing.T, n int, f func(t *testing.T, all []*machine)) {
	t.Helper()
	inClusterOf(t, n, false, f)
}

// inClusterOf can do without pipelines: then all of a node's AppendEntries go
// through its valve.
func inClusterOf(t *testing.T, n int, unpiped bool, f func(t *testing.T, all []*machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var all []*machine
		var conf raft.Configuration
		for i := range n {
			addr, inner := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprintf("raft-%d", i+1)))
			m := &machine{inner: inner, valve: &valve{InmemTransport: inner, unpiped: unpiped}, cons: NewConsensus(), fsm: fsm.New(nil)}
			began := time.Now()
			clock := func() time.Duration { return time.Since(began) }
			m.guard = fencing.NewGuard(clock)
			m.trans = NewTransport(m.valve, Options{Local: protocol.NodeID(i + 1), Clock: clock, Guard: m.guard,
				Lease: fencing.LeaseFor(200 * time.Millisecond), WriteInFlight: m.writeInFlight})
			all = append(all, m)
			conf.Servers = append(conf.Servers, raft.Server{ID: ServerID(protocol.NodeID(i + 1)), Address: addr})
		}
		for i, m := range all {
			for j, o := range all {
				if i != j {
					m.inner.Connect(conf.Servers[j].Address, o.inner)
				}
			}
			config := raft.DefaultConfig()
			config.LocalID, config.LogLevel = conf.Servers[i].ID, "OFF"
			config.HeartbeatTimeout, config.ElectionTimeout = 200*time.Millisecond, 200*time.Millisecond
			config.LeaderLeaseTimeout, config.CommitTimeout = 100*time.Millisecond, 10*time.Millisecond
			config.NotifyCh = m.cons.NotifyCh()
			store := raft.NewInmemStore()
			if err := raft.BootstrapCluster(config, store, store, raft.NewInmemSnapshotStore(), m.trans, conf); err != nil {
				t.Fatal(err)
			}
			var err error
			if m.raft, err = raft.NewRaft(config, m.fsm, termKeeper{store}, store, raft.NewInmemSnapshotStore(), m.trans); err != nil {
				t.Fatal(err)
			}
			m.cons.Attach(m.raft, m.trans)
		}
		defer func() {
			for _, m := range all {
				m.inner.DisconnectAll()
				if err := m.cons.Close(); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(10 * time.Second)
		}()
		for i := 0; ; i++ {
			if i > 10000 {
				t.Fatal("no leader")
			}
			time.Sleep(time.Millisecond)
			if at := slices.IndexFunc(all, func(m *machine) bool { return m.raft.State() == raft.Leader }); at >= 0 {
				all[0], all[at] = all[at], all[0]
				break
			}
		}
		f(t, all)
	})
}

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestConsensus(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, follower := all[0], all[1]
		if change := <-leader.cons.Leadership(); !change.Leading {
			t.Error("not told of leadership")
		}
		epoch, err := leader.cons.CommitNoop(bounded(t, time.Second))
		if err != nil || uint64(epoch) != leader.raft.CurrentTerm() {
			t.Fatalf("epoch %d, %v", epoch, err)
		}
		if got := leader.cons.Voters(); !slices.Equal(got, []protocol.NodeID{1, 2, 3}) {
			t.Errorf("voters %v", got)
		}
		if err := leader.cons.CommitFork(bounded(t, time.Second), protocol.Fork{Epoch: epoch, NodeID: 1}); err != nil {
			t.Error(err)
		}
		if err := leader.cons.CommitFork(bounded(t, time.Second), protocol.Fork{Epoch: epoch + 1, NodeID: 1}); !errors.Is(err, fsm.ErrRefused) {
			t.Errorf("a fork of another term: %v", err)
		}
		write, err := command.Encode(command.UpdateConfig{Key: "k", Value: "v"})
		if err != nil {
			t.Fatal(err)
		}
		response, index, err := leader.cons.Propose(bounded(t, time.Second), write)
		if result, is := response.(fsm.Result); err != nil || !is || !result.Changed || result.Index != index {
			t.Errorf("proposed: %+v at %d, %v", response, index, err)
		}
		if read, err := leader.cons.ReadIndex(bounded(t, time.Second)); err != nil || read < index {
			t.Errorf("read index %d after a write at %d, %v", read, index, err)
		}
		leaderID := ParseServerID(raft.ServerID(leaderOf(leader)))
		var notLeader *failover.NotLeaderError
		if _, _, err := follower.cons.Propose(bounded(t, time.Second), write); !errors.As(err, &notLeader) || notLeader.Leader != leaderID {
			t.Errorf("proposed on a follower: %v", err)
		}
		if _, err := follower.cons.ReadIndex(bounded(t, time.Second)); !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("read index on a follower: %v", err)
		}
		if err := follower.cons.NewTerm(bounded(t, time.Second)); !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("a new term on a follower: %v", err)
		}
		if follower.cons.LastContact().IsZero() || time.Since(leader.cons.LastContact()) > 0 {
			t.Error("last contact")
		}
	})
}

func leaderOf(m *machine) string { _, id := m.raft.LeaderWithID(); return string(id) }

// A leader without a quorum does not know what becomes of an entry.
func TestProposeWithoutQuorum(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		for _, m := range all {
			m.inner.DisconnectAll()
		}
		began := time.Now()
		noop, _ := command.Encode(command.Noop{})
		if _, _, err := all[0].cons.Propose(bounded(t, 50*time.Millisecond), noop); !errors.Is(err, failover.ErrOutcomeUnknown) ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at the deadline: %v", err)
		}
		if time.Since(began) > 60*time.Millisecond {
			t.Errorf("took %v", time.Since(began))
		}
		if _, err := all[0].cons.ReadIndex(bounded(t, time.Second)); err == nil {
			t.Error("read index without a quorum")
		}
		if _, _, err := all[0].cons.Propose(bounded(t, time.Second), noop); !errors.Is(err, failover.ErrNotLeader) && !errors.Is(err, failover.ErrOutcomeUnknown) {
			t.Errorf("as it steps down: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := all[0].cons.Propose(bounded(t, time.Second), noop); !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("after it stepped down: %v", err)
		}
		expired, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := all[0].cons.Propose(expired, noop); !errors.Is(err, failover.ErrNoQuorum) {
			t.Errorf("without time: %v", err)
		}
	})
}

func TestTransfer(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		to := all[2].cons
		id := ParseServerID(raft.ServerID(all[2].inner.LocalAddr()[len("raft-"):]))
		if err := all[0].cons.Transfer(bounded(t, time.Second), 9); err == nil {
			t.Error("transferred to a stranger")
		}
		if err := all[0].cons.Transfer(bounded(t, time.Second), id); err != nil {
			t.Fatal(err)
		}
		if all[0].raft.State() == raft.Leader {
			t.Error("leads after a transfer")
		}
		if change := <-to.Leadership(); !change.Leading {
			t.Error("the target was not told")
		}
		// The term has an entry of Raft's own before the first of ours.
		if _, err := to.ReadIndex(bounded(t, time.Second)); err != nil {
			t.Errorf("read index of a fresh leader: %v", err)
		}
	})
}

// A new term ends leadership in the old one, as two events if it comes back.
func TestNewTerm(t *testing.T) {
	for _, n := range []int{1, 3} {
		inCluster(t, n, func(t *testing.T, all []*machine) {
			leader := all[0]
			if change := <-leader.cons.Leadership(); !change.Leading {
				t.Fatal("not told of leadership")
			}
			before, err := leader.cons.CommitNoop(bounded(t, time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if err := leader.cons.NewTerm(bounded(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			if change := <-leader.cons.Leadership(); change.Leading {
				t.Error("not told of its end")
			}
			if change := <-leader.cons.Leadership(); !change.Leading {
				t.Error("not elected again")
			}
			after, err := leader.cons.CommitNoop(bounded(t, time.Second))
			if err != nil || after <= before {
				t.Errorf("epoch %d after %d, %v", after, before, err)
			}
		})
	}
}
