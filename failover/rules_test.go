package failover_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// rule commits a rule on whoever leads, and waits until all have heard of it.
func (net *network) rule(write command.KvWrite, err error) {
	net.t.Helper()
	if err != nil {
		net.t.Fatal(err)
	}
	data, err := command.Encode(write)
	if err != nil {
		net.t.Fatal(err)
	}
	net.await("a leader that commits the rule", func() bool {
		for _, id := range net.ids() {
			if nd := net.nodes[id]; nd.isUp() && nd.driver.Status().Leading {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, _, err := nd.cons.Propose(ctx, data)
				cancel()
				return err == nil
			}
		}
		return false
	})
	time.Sleep(100 * time.Millisecond)
}

// While failover is paused a dead primary is not replaced; it takes up the
// primacy itself when it is back.
func TestPauseKeepsThePrimacy(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.rule(fsm.PauseCommand(fsm.Mark{Reason: "new switch"}))
		net.crash(first.id)
		time.Sleep(5 * time.Second)
		blocked := 0
		for _, id := range net.others(first.id) {
			status := net.nodes[id].driver.Status()
			if status.Role == protocol.RolePrimary {
				t.Fatalf("node %d has taken over while failover is paused", id)
			}
			if strings.Contains(status.Blocked, "paused") {
				blocked++
			}
		}
		if blocked == 0 {
			t.Error("no status says what is in the way")
		}
		net.start(first.id)
		again := net.primary(epoch, 10*time.Second)
		if again.id != first.id {
			t.Errorf("node %d has taken over while failover is paused", again.id)
		}
		net.settled(again)
	})
}

// A resumed cluster without a primary gets one, and so does a paused one in
// which a failover is permitted, by the node that is permitted.
func TestResumeAndPermit(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.rule(fsm.PauseCommand(fsm.Mark{}))
		net.crash(first.id)
		to := net.others(first.id)[1]
		time.Sleep(2 * time.Second)
		net.rule(fsm.PermitCommand(fsm.Permit{NodeID: to, After: epoch, Mark: fsm.Mark{Reason: "it burnt down"}}))
		second := net.primary(epoch, 10*time.Second)
		if second.id != to {
			t.Errorf("node %d is primary, and node %d was permitted", second.id, to)
		}
		net.start(first.id)
		net.settled(second)
		expectEvents(t, second, "FailoverPaused", "FailoverPermitted", "PromotionComplete")

		// The permit is used up: nobody follows this primary either.
		epoch = second.epoch()
		net.crash(second.id)
		time.Sleep(3 * time.Second)
		for _, id := range net.others(second.id) {
			if net.nodes[id].driver.Status().Role == protocol.RolePrimary {
				t.Errorf("node %d has taken over with a permit that was used", id)
			}
		}
		net.rule(fsm.ResumeCommand(), nil)
		net.settled(net.primary(epoch, 10*time.Second))
	})
}

// A pause weakens nothing: a primary without its quorum stops acknowledging
// when its lease is over. Its database is left as it is.
func TestPausedPrimaryWithoutQuorumIsSilentAndNotDemoted(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.rule(fsm.PauseCommand(fsm.Mark{}))
		for _, id := range net.others(first.id) {
			net.crash(id)
		}
		time.Sleep(lease() + 10*time.Millisecond)
		if first.guard.Check(epoch) == nil {
			t.Error("the paused primary speaks without a lease")
		}
		time.Sleep(5 * time.Second)
		if first.driver.Status().Leading {
			t.Fatal("it still leads")
		}
		first.db.mu.Lock()
		promoted := first.db.promotion != nil
		first.db.mu.Unlock()
		if !promoted {
			t.Error("its database was demoted while failover is paused")
		}
		if net.write(first, 1) != 0 {
			t.Error("it acknowledges")
		}
		expectEvents(t, first, "FailoverPaused", "LeadershipLost", "DemotionHeld")
		for _, id := range net.others(first.id) {
			net.start(id)
		}
		again := net.primary(epoch, 10*time.Second)
		if again.id != first.id {
			t.Errorf("node %d has taken over while failover is paused", again.id)
		}
		net.settled(again)
	})
}

// Resuming demotes what the pause had left promoted.
func TestResumeDemotesWhatWasHeld(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.rule(fsm.PauseCommand(fsm.Mark{}))
		net.isolate(first.id, true)
		time.Sleep(3 * time.Second) // another node leads now, and takes nothing
		net.rule(fsm.ResumeCommand(), nil)
		second := net.primary(epoch, 10*time.Second)
		if second.id == first.id {
			t.Fatal("an isolated node is primary")
		}
		net.write(second, 2)
		net.isolate(first.id, false)
		net.settled(second)
		first.db.mu.Lock()
		defer first.db.mu.Unlock()
		if first.db.promotion != nil {
			t.Error("the old primary's database is still promoted")
		}
	})
}

// A switchover is a person's wish, which a pause does not stand against.
func TestSwitchoverWhilePaused(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch, to := first.epoch(), net.others(first.id)[1]
		net.rule(fsm.PauseCommand(fsm.Mark{}))
		if err := first.driver.Switchover(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		second := net.primary(epoch, time.Second)
		if second.id != to {
			t.Errorf("node %d is primary", second.id)
		}
		net.settled(second)
	})
}

// A primary that is to be maintained hands over; a node in maintenance does not
// take over, and does again afterwards.
func TestMaintenance(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.rule(fsm.MaintenanceCommand(fsm.NodeMark{NodeID: first.id}))
		second := net.primary(epoch, 10*time.Second)
		net.settled(second)
		if err := second.driver.Switchover(t.Context(), first.id); err == nil {
			t.Error("a switchover to a node in maintenance succeeded")
		}
		epoch = second.epoch()
		net.crash(second.id)
		third := net.primary(epoch, 10*time.Second)
		if third.id == first.id {
			t.Fatal("a node in maintenance has taken over")
		}
		net.settled(third)
		epoch = third.epoch()
		net.crash(third.id) // no quorum: node first alone
		net.start(third.id)
		net.start(second.id)
		net.settled(net.primary(epoch, 10*time.Second))
	})
}

// The last node that may be primary keeps the primacy although it is to be
// maintained: nobody could take it.
func TestMaintenanceOfTheOnlyOne(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		for _, id := range append(net.others(first.id), first.id) {
			net.rule(fsm.MaintenanceCommand(fsm.NodeMark{NodeID: id}))
		}
		time.Sleep(5 * time.Second)
		if first.guard.Check(epoch) != nil || net.write(first, 1) != 1 {
			t.Error("the primary was demoted, and nobody can take over")
		}
		expectEvents(t, first, "MaintenanceBegun")
		next := net.others(first.id)[0]
		net.rule(fsm.EndMaintenanceCommand(next), nil)
		second := net.primary(epoch, 10*time.Second)
		if second.id != next {
			t.Errorf("node %d has taken over, in maintenance", second.id)
		}
		net.settled(second)
	})
}

// Two nodes with data and a witness: either of the two may die, and the other
// takes over with every acknowledged write. It acknowledges again, by a quorum,
// when both are back: the witness is no copy.
func TestWitness(t *testing.T) {
	for _, what := range []string{"primary", "replica"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newNetwork(t, 3)
				defer net.stop()
				net.nodes[3].witness = true
				for _, id := range net.ids() {
					net.start(id)
				}
				net.rule(fsm.WitnessCommand(fsm.NodeMark{NodeID: 3}))
				first := net.primary(0, 10*time.Second)
				net.settled(first)
				if net.write(first, 5) != 5 {
					t.Fatal("two nodes with data do not acknowledge")
				}
				other := net.nodes[3-first.id]
				if what == "replica" {
					epoch := first.epoch()
					net.crash(other.id)
					time.Sleep(3 * time.Second)
					if first.guard.Check(epoch) != nil || first.epoch() != epoch {
						t.Error("the death of the replica cost the primacy")
					}
					if net.write(first, 1) != 0 {
						t.Error("acknowledged with one copy: the witness was counted")
					}
					net.start(other.id)
					net.settled(first)
					return
				}
				net.crash(first.id)
				second := net.primary(first.epoch(), 10*time.Second)
				if second != other {
					t.Fatalf("node %d is primary", second.id)
				}
				for _, value := range net.acked {
					if !second.db.values()[value] {
						t.Errorf("%s is lost", value)
					}
				}
				if net.write(second, 1) != 0 {
					t.Error("acknowledged with one copy: the witness was counted")
				}
				net.start(first.id)
				net.settled(second)
				if role := net.nodes[3].driver.Status().Role; role != protocol.RoleStandalone {
					t.Errorf("the witness calls itself %v", role)
				}
				if _, led := net.nodes[3].record("ElectionWon"); led {
					t.Error("the witness has won an election")
				}
			})
		})
	}
}

// When a whole cluster shuts down at once nobody waits for a successor.
func TestWholeClusterResignsAtOnce(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, _ *node) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		took := make(chan time.Duration)
		var ends sync.WaitGroup
		defer ends.Wait()
		for _, id := range net.ids() {
			ends.Go(func() {
				began := time.Now()
				net.nodes[id].driver.Resign(ctx)
				took <- time.Since(began)
				net.crash(id) // its process ends
			})
		}
		for range net.ids() {
			if d := <-took; d > 500*time.Millisecond {
				t.Errorf("a node took %v to find that there is nobody", d)
			}
		}
		if nobody := errors.Is(ctx.Err(), context.DeadlineExceeded); nobody {
			t.Error("waited to the end")
		}
	})
}

var _ failover.Database = failover.Witness{}

// A primary that hands over on its way out does not wait for a successor that
// is on its way out too.
func TestResignWhenTheSuccessorGoesToo(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		others := net.others(first.id)
		net.crash(others[0])
		last := net.nodes[others[1]]
		last.db.mu.Lock()
		last.db.following = failover.Demotion{} // it will not catch up
		last.db.mu.Unlock()
		net.write(first, 1)
		took := make(chan time.Duration)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			began := time.Now()
			first.driver.Resign(ctx)
			took <- time.Since(began)
		}()
		net.await("the handing over", func() bool { _, begun := first.record("SwitchoverStarted"); return begun })
		net.crash(last.id)
		if d := <-took; d >= testTiming.HandoverTimeout/2 {
			t.Errorf("it took %v", d)
		}
	})
}
