package raftshim

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm/command"
)

// A node that offered leadership in vain, and lost it, commits again when it
// leads again.
func TestTransferInVain(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, gone := all[0], all[2]
		id := ParseServerID(raft.ServerID(gone.inner.LocalAddr()[len("raft-"):]))
		noop, err := command.Encode(command.Noop{})
		if err != nil {
			t.Fatal(err)
		}
		leader.inner.Disconnect(gone.inner.LocalAddr())
		gone.inner.DisconnectAll()
		time.Sleep(5 * time.Second) // long enough for Raft to try it seldom
		for range 3 {
			if _, _, err := leader.cons.Propose(bounded(t, time.Second), noop); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err := leader.cons.Transfer(bounded(t, 10*time.Second), id)
			if !errors.Is(err, errLag) || errors.Is(err, failover.ErrOutcomeUnknown) {
				t.Errorf("transfer to a node that is gone: %v", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
		}
		for _, m := range all {
			m.inner.DisconnectAll()
		}
		time.Sleep(time.Second)
		if leader.raft.State() == raft.Leader {
			t.Fatal("still leads")
		}
		for _, m := range all {
			for _, o := range all {
				if m != o {
					m.inner.Connect(o.inner.LocalAddr(), o.inner)
				}
			}
		}
		local := ParseServerID(raft.ServerID(leader.inner.LocalAddr()[len("raft-"):]))
		for try := 0; leader.raft.State() != raft.Leader; try++ {
			if try > 1000 {
				t.Fatal("does not lead again")
			}
			time.Sleep(20 * time.Millisecond)
			for _, m := range all[1:] {
				if m.raft.State() == raft.Leader {
					_ = m.cons.Transfer(bounded(t, time.Second), local)
				}
			}
		}
		if _, err := leader.cons.CommitNoop(bounded(t, 2*time.Second)); err != nil {
			t.Errorf("leads again, and cannot commit: %v", err)
		}
	})
}

// What is proposed while leadership is handed over waits: an entry that the
// others have and the successor has not would cost it their votes.
func TestTransferUnderLoad(t *testing.T) {
	inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
		leader, successor := all[0], all[1]
		noop, err := command.Encode(command.Noop{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := leader.cons.Propose(bounded(t, time.Second), noop); err != nil {
			t.Fatal(err)
		}
		proposed := make(chan error, 1)
		leader.valve.handing = func() {
			leader.valve.cut.Store(ServerID(successor.trans.local))
			go func() {
				_, _, err := leader.cons.Propose(bounded(t, 5*time.Second), noop)
				proposed <- err
			}()
			time.Sleep(50 * time.Millisecond)
		}
		term := leader.raft.CurrentTerm()
		if err := leader.cons.Transfer(bounded(t, 5*time.Second), successor.trans.local); err != nil {
			t.Errorf("transfer: %v", err)
		}
		if err := <-proposed; !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("what was proposed meanwhile: %v, want not leader", err)
		}
		time.Sleep(100 * time.Millisecond)
		if successor.raft.State() != raft.Leader || successor.raft.CurrentTerm() != term+1 {
			t.Errorf("the successor is %s in term %d, want leader in term %d", successor.raft.State(), successor.raft.CurrentTerm(), term+1)
		}
		if _, _, err := successor.cons.Propose(bounded(t, time.Second), noop); err != nil {
			t.Errorf("under the successor: %v", err)
		}
	})
}

// A transfer that comes to nothing lets through what it has held back.
func TestTransferInVainHoldsNothingBack(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, gone := all[0], all[2]
		noop, err := command.Encode(command.Noop{})
		if err != nil {
			t.Fatal(err)
		}
		leader.inner.Disconnect(gone.inner.LocalAddr())
		gone.inner.DisconnectAll()
		transferred := make(chan error, 1)
		go func() { transferred <- leader.cons.Transfer(bounded(t, 10*time.Second), gone.trans.local) }()
		for range 100 {
			if _, _, err := leader.cons.Propose(bounded(t, 2*time.Second), noop); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := <-transferred; err == nil {
			t.Error("leadership went to a node that is gone")
		}
	})
}

// What is unknown of what a read has others do is not unknown of the read.
func TestErrorsOfReads(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	unknown := fmt.Errorf("%w: leadership lost", failover.ErrOutcomeUnknown)
	for _, test := range []struct {
		ctx       context.Context
		err, want error
	}{
		{t.Context(), nil, nil},
		{t.Context(), unknown, failover.ErrNotLeader},
		{over, unknown, failover.ErrNoQuorum},
		{t.Context(), fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, failover.ErrClosed), failover.ErrClosed},
		{t.Context(), failover.ErrClosed, failover.ErrClosed},
		{t.Context(), fmt.Errorf("%w: %w", failover.ErrOutcomeUnknown, failover.ErrNotLeader), failover.ErrNotLeader},
		{t.Context(), &failover.NotLeaderError{Leader: 2}, &failover.NotLeaderError{Leader: 2}},
		{over, fmt.Errorf("%w: %w", failover.ErrNoQuorum, context.Canceled), context.Canceled},
		{t.Context(), errors.New("anything"), failover.ErrNotLeader},
	} {
		got := ofRead(test.ctx, test.err)
		var here, there *failover.NotLeaderError
		same := errors.Is(got, test.want) || errors.As(got, &here) && errors.As(test.want, &there) && *here == *there
		if !same || errors.Is(got, failover.ErrOutcomeUnknown) {
			t.Errorf("%v becomes %v, want %v", test.err, got, test.want)
		}
	}
}

// A read that fails was not done: of that nothing is unknown, also when the
// leader could not commit the entry that it must have committed before, or loses
// its leadership afterwards.
func TestReadIndexIsNeverUnknown(t *testing.T) {
	inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
		leader := all[0]
		if _, err := leader.cons.ReadIndex(bounded(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			m.valve.closed.Store(true)
		}
		time.Sleep(time.Millisecond) // what was answered so far was sent before
		if _, err := leader.cons.ReadIndex(bounded(t, 10*time.Second)); !errors.Is(err, failover.ErrNotLeader) || errors.Is(err, failover.ErrOutcomeUnknown) {
			t.Errorf("got %v, want not leader", err)
		}
	})
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader := all[0]
		for _, m := range all {
			m.inner.DisconnectAll()
		}
		if _, err := leader.cons.ReadIndex(bounded(t, 20*time.Millisecond)); !errors.Is(err, failover.ErrNoQuorum) || errors.Is(err, failover.ErrOutcomeUnknown) {
			t.Errorf("out of time: %v, want no quorum", err)
		}
		if leader.raft.State() != raft.Leader {
			t.Fatal("leads no more already")
		}
		if _, err := leader.cons.ReadIndex(bounded(t, 10*time.Second)); !errors.Is(err, failover.ErrNotLeader) || errors.Is(err, failover.ErrOutcomeUnknown) {
			t.Errorf("leadership lost: %v, want not leader", err)
		}
	})
}
