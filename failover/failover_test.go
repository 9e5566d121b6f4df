package failover_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// inCluster runs f with a cluster of n nodes that is up and has a primary.
func inCluster(t *testing.T, n int, f func(t *testing.T, net *network, first *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, n)
		defer net.stop()
		for _, id := range net.ids() {
			net.start(id)
		}
		first := net.primary(0, 10*time.Second)
		net.settled(first)
		net.write(first, 5)
		f(t, net, first)
	})
}

func TestFailoverAfterCrash(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.crash(first.id)
		second := net.primary(epoch, 5*time.Second)
		net.await("a write", func() bool { return net.write(second, 1) == 1 })
		net.start(first.id)
		net.settled(second)
		if status := first.driver.Status(); status.State != failover.MonitoringPrimary || status.Primary != second.id ||
			status.PrimaryAddress != "db-"+second.id.String() || status.Blocked != "" {
			t.Errorf("the old primary stands at %+v", status)
		}
		if floor := first.driver.Status().Floor; floor != second.epoch() {
			t.Errorf("the old primary's floor is %d, want that of the epoch it follows, %d", floor, second.epoch())
		}
		expectEvents(t, second, "PrimaryLost", "LeadershipGained", "EpochBegun", "BallotOpened", "BallotWon", "ForkCommitted",
			"ElectionWon", "PromotionComplete")
	})
}

// expectEvents checks that the journal has the events in this order, others
// between them or not.
func expectEvents(t *testing.T, nd *node, want ...string) {
	t.Helper()
	var got []string
	for _, r := range nd.driver.Journal(0) {
		got = append(got, r.Event)
		if len(want) > 0 && r.Event == want[0] {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("node %d: no %q, in this order, in the journal %q", nd.id, want, got)
	}
}

func TestIsolatedPrimary(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		net.isolate(first.id, true)
		for net.write(first, 1) == 0 { // a tail that nobody receives
			if first.driver.Status().Role != protocol.RolePrimary {
				break
			}
		}
		second := net.primary(epoch, 5*time.Second)
		if first.guard.Check(epoch) == nil {
			t.Error("two guards are open")
		}
		net.await("a write", func() bool { return net.write(second, 1) == 1 })
		net.isolate(first.id, false)
		net.settled(second)
		if len(first.db.log) != len(second.db.log) {
			t.Errorf("the isolated tail was not cut: %d records, the primary has %d", len(first.db.log), len(second.db.log))
		}
	})
}

func TestSwitchover(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		to := net.others(first.id)[1]
		epoch, began := first.epoch(), time.Now()
		if err := net.nodes[to].driver.Switchover(t.Context(), first.id); !errors.Is(err, failover.ErrNotPrimary) {
			t.Errorf("switchover asked of a replica: %v", err)
		}
		if err := first.driver.Switchover(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		t.Logf("took %v", time.Since(began))
		second := net.primary(epoch, time.Second)
		if second.id != to {
			t.Errorf("node %d is primary, want %d", second.id, to)
		}
		net.settled(second)
		if first.guard.Check(epoch) == nil {
			t.Error("the old guard is open")
		}
		expectEvents(t, first, "SwitchoverStarted", "PrimaryLost", "LeadershipLost", "NewPrimaryDetected")
	})
}

// A switchover to a node that cannot catch up fails before the guard closes,
// and writes go on.
func TestSwitchoverToDeadTarget(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		to := net.others(first.id)[0]
		net.crash(to)
		epoch := first.epoch()
		if err := first.driver.Switchover(t.Context(), to); err == nil {
			t.Fatal("switchover to a dead node succeeded")
		}
		if err := first.guard.Check(epoch); err != nil {
			t.Error(err)
		}
		if net.write(first, 1) != 1 {
			t.Error("writes did not go on")
		}
		net.start(to)
		net.settled(first)
	})
}

func TestPromotionThatFails(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		bad := net.nodes[net.others(first.id)[0]]
		bad.db.mu.Lock()
		bad.db.promoteErr = errors.New("recovery ran into a bad page")
		bad.db.mu.Unlock()
		if err := first.driver.Switchover(t.Context(), bad.id); err == nil {
			t.Error("a switchover succeeded to a node whose database refuses")
		}
		second := net.primary(epoch, 5*time.Second)
		if second.id == bad.id {
			t.Fatal("the node whose database refuses is primary")
		}
		net.settled(second)
		expectEvents(t, bad, "ElectionWon", "PromotionFailed", "LeadershipLost")
	})
}

// A lone survivor whose database refuses goes on trying, and does not sit out
// its cool-down: there is nobody who could be preferred to it (I6).
func TestPromotionThatFailsWithNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, 1)
		defer net.stop()
		nd := net.nodes[1]
		nd.db.promoteErr = errors.New("not yet")
		net.start(1)
		time.Sleep(2 * time.Second)
		if status := nd.driver.Status(); !strings.Contains(status.Blocked, "not yet") {
			t.Errorf("status does not say what blocks: %+v", status)
		}
		nd.db.mu.Lock()
		nd.db.promoteErr = nil
		nd.db.mu.Unlock()
		began := time.Now()
		net.settled(net.primary(0, 10*time.Second))
		if took := time.Since(began); took >= testTiming.CoolDown {
			t.Errorf("primary %v after the database was well again", took)
		}
	})
}

// The better of two survivors is passed over, because it had been offered
// leadership and its promotion failed. Without it there is no quorum, so it is
// asked again rather than after its cool-down (I6).
func TestPromotionThatFailsOnTheOneThatIsNeeded(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		others := net.others(first.id)
		behind, ahead := net.nodes[others[0]], net.nodes[others[1]]
		net.isolate(behind.id, true) // only one of the two gets the last writes
		if net.write(first, 3) != 3 {
			t.Fatal("no quorum for the last writes")
		}
		ahead.db.mu.Lock()
		ahead.db.promoteErr = errors.New("recovery ran into a bad page")
		ahead.db.mu.Unlock()
		net.crash(first.id)
		net.isolate(behind.id, false)
		net.await("a failed promotion", func() bool {
			for _, r := range ahead.driver.Journal(0) {
				if r.Event == "PromotionFailed" {
					return true
				}
			}
			return false
		})
		ahead.db.mu.Lock()
		ahead.db.promoteErr = nil
		ahead.db.mu.Unlock()
		began := time.Now()
		second := net.primary(epoch, 10*time.Second)
		if took := time.Since(began); took >= testTiming.CoolDown*2/3 {
			t.Errorf("primary %v after the failure", took)
		}
		if second != ahead {
			t.Errorf("node %d is primary, which lacks acknowledged writes", second.id)
		}
		net.await("a write", func() bool { return net.write(second, 1) == 1 })
	})
}

func TestNoQuorumAndBack(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		for _, id := range net.others(first.id) {
			net.crash(id)
		}
		net.await("the guard to close", func() bool { return first.guard.Check(epoch) != nil })
		time.Sleep(time.Second)
		if status := first.driver.Status(); status.Blocked == "" || status.Role != protocol.RoleReplica {
			t.Errorf("without a quorum: %+v", status)
		}
		net.start(net.others(first.id)[0])
		second := net.primary(epoch, 10*time.Second)
		net.start(net.others(first.id)[1])
		net.settled(second)
	})
}

// The longest log wins, whoever Raft elects first.
func TestBestPositionWins(t *testing.T) {
	inCluster(t, 5, func(t *testing.T, net *network, first *node) {
		ahead := net.others(first.id)[2]
		for _, id := range net.others(first.id) {
			if id != ahead {
				net.nodes[id].db.Fence(t.Context(), 1<<40) // takes nothing more
			}
		}
		if net.write(first, 1) != 0 {
			t.Fatal("acknowledged with two copies of five")
		}
		for _, id := range net.ids() {
			db := net.nodes[id].db
			db.mu.Lock()
			db.fence = min(db.fence, first.epoch())
			db.mu.Unlock()
		}
		epoch := first.epoch()
		net.crash(first.id)
		if second := net.primary(epoch, 10*time.Second); second.id != ahead {
			t.Errorf("node %d is primary, and node %d has the longest log", second.id, ahead)
		} else {
			net.settled(second)
		}
	})
}

func TestRestartOfAllKeepsEpochsRising(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		for range 5 {
			for _, id := range net.ids() {
				net.crash(id)
			}
			for _, id := range net.ids() {
				net.start(id)
			}
			nd := net.primary(epoch, 10*time.Second)
			epoch = nd.epoch()
			net.settled(nd)
		}
	})
}

func TestResign(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		first.driver.Resign(ctx)
		t.Logf("resigned in %v", time.Since(began))
		second := net.primary(epoch, time.Second)
		if second.id == first.id {
			t.Error("primary again after resigning")
		}
		net.crash(first.id)
		net.settled(second)
	})
}

func TestDemoteRequest(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		other := net.others(first.id)[0]
		reply, err := first.driver.HandleMessage(t.Context(), other, protocol.DemoteRequest{Epoch: epoch, TargetID: first.id})
		if _, is := reply.(protocol.Ack); err != nil || !is {
			t.Fatal(reply, err)
		}
		if err := first.guard.Check(epoch); err != nil {
			t.Errorf("a demote request of its own epoch closed the guard: %v", err)
		}
		if _, err := first.driver.HandleMessage(t.Context(), other, protocol.DemoteRequest{Epoch: epoch + 5, TargetID: first.id}); err != nil {
			t.Fatal(err)
		}
		if first.guard.Check(epoch) == nil {
			t.Error("the guard is open after a demote request")
		}
		// Raft has no such term, so this node must make one.
		net.settled(net.primary(epoch+4, 30*time.Second))
	})
}
