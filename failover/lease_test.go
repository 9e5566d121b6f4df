package failover_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
	"github.com/hashicorp/raft"
)

func lease() time.Duration { return fencing.LeaseFor(raftConfig(1).HeartbeatTimeout) }

// record returns the journal's last record of an event.
func (nd *node) record(event string) (failover.Record, bool) {
	all := nd.driver.Journal(0)
	at := slices.IndexFunc(all, func(r failover.Record) bool { return r.Event == event })
	if at < 0 {
		return failover.Record{}, false
	}
	return all[at], true
}

// A successor that was elected before the old primary's lease had run out
// waits for it. Here it is told to stand by a message of the leader's that
// outlives the connection (a TimeoutNow that was under way).
func TestSuccessorWaitsForTheOldLease(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		second := net.node(net.others(first.id)[0])
		lastHelp := time.Now()
		if err := first.inner.TimeoutNow("", address(second.id), &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(raftshim.ServerID(first.id))}}, &raft.TimeoutNowResponse{}); err != nil {
			t.Fatal(err)
		}
		net.isolate(first.id, true)
		lastSpoken := time.Now()
		for second.driver.Status().State != failover.Promoted {
			if first.guard.Check(epoch) == nil {
				lastSpoken = time.Now()
			}
			time.Sleep(100 * time.Microsecond)
			if time.Since(lastHelp) > 5*time.Second {
				t.Fatal("no successor")
			}
		}
		promoted := time.Now()
		if !lastSpoken.Before(promoted) {
			t.Error("both spoke at once")
		}
		expectEvents(t, second, "BallotWon", "LeaseAwaited", "LeaseOver", "ForkCommitted", "PromotionComplete")
		over, _ := second.record("LeaseOver")
		if waited := over.At.Sub(lastHelp); waited < fencing.OverAfter(lease())-60*time.Millisecond || over.StepMS < 50 {
			t.Errorf("waited %v, %v ms of it for the lease", waited, over.StepMS)
		}
	})
}

// A clean failover and a switchover wait for nothing.
func TestNobodyWaitsForALeaseThatIsOver(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		to := net.others(first.id)[0]
		if err := first.driver.Switchover(ctx, to); err != nil {
			t.Fatal(err)
		}
		second := net.node(to)
		net.settled(second)
		epoch := second.epoch()
		net.crash(second.id)
		third := net.primary(epoch, 5*time.Second)
		for _, nd := range []*node{second, third} {
			if r, waited := nd.record("LeaseAwaited"); waited {
				t.Errorf("node %d: %s", nd.id, r.Detail)
			}
		}
	})
}

// The only line of defence of a node that cannot be told: its clock says that
// the machine was suspended (I4). The lease comes back by itself.
func TestPrimaryWakesUp(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		if err := first.guard.Check(epoch); err != nil {
			t.Fatal(err)
		}
		first.asleep.Add(int64(time.Minute))
		if err := first.guard.Check(epoch); !errors.Is(err, fencing.ErrLeaseExpired) {
			t.Errorf("right after a minute of sleep: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := first.guard.Wait(ctx, epoch); err != nil {
			t.Errorf("a lapsed lease does not come back: %v", err)
		}
		if first.epoch() != epoch || net.write(first, 1) != 1 {
			t.Error("the primacy has not survived a moment's lapse")
		}
	})
}

// A primary whose log store hangs in a write (hashicorp/raft issues 503, 612,
// 614): the guard closes, and another is primary within three seconds.
func TestPrimaryWithHungDisk(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		hung := make(chan struct{})
		first.logs.hung.Store(&hung)
		// A write that does not return.
		go func() { _, _, _ = first.cons.Propose(context.Background(), []byte(`"Noop"`)) }()
		second := net.primary(epoch, 3*time.Second)
		if second == first {
			t.Fatal("the node with the hung disk is primary again")
		}
		if err := first.guard.Check(epoch); !errors.Is(err, failover.ErrNotPrimary) {
			t.Errorf("the guard of the node with the hung disk: %v", err)
		}
		if status := first.driver.Status(); status.CoolDownUntil.IsZero() {
			t.Errorf("the node with the hung disk stands ready again: %+v", status)
		}
		first.logs.hung.Store(nil)
		close(hung)
		net.settled(second)
	})
}

// Nobody who has lost more than is allowed becomes primary, and the cluster
// says so; whoever has caught up does.
func TestMaxFailoverLag(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		net.write(first, 5)
		know := func(behind protocol.LSN) {
			position, err := first.db.Position(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			net.mu.Lock()
			defer net.mu.Unlock()
			net.lastPrimary = health.PrimaryHealthStatus{Kind: health.Unreachable, Node: first.id, Epoch: first.epoch(), LSN: position.LSN + behind}
		}
		know(maxFailoverLag + 1)
		epoch := first.epoch()
		net.crash(first.id)
		time.Sleep(3 * time.Second)
		told := false
		for _, id := range net.others(first.id) {
			nd := net.node(id)
			if status := nd.driver.Status(); status.Role == protocol.RolePrimary {
				t.Errorf("node %d is primary, %d LSNs behind", id, maxFailoverLag+1)
			}
			_, said := nd.record("NoEligiblePrimary")
			told = told || said
		}
		if !told {
			t.Error("nobody says that nobody is eligible")
		}
		know(maxFailoverLag)
		net.primary(epoch, 5*time.Second)
	})
}
