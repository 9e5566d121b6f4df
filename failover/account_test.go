package failover_test

import (
	"math"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
)

// The journal accounts for what a client sees of a failover, from the last
// acknowledgement to the first: the steps add up, none of them is without a
// name, and between what the client saw and what they tell are 20 ms at most.
func TestJournalAccountsForAFailover(t *testing.T) {
	const slack = 20 * time.Millisecond
	inCluster(t, 3, func(t *testing.T, net *network, first *node) {
		epoch := first.epoch()
		var last time.Time
		for range 20 {
			if net.write(first, 1) == 1 {
				last = time.Now()
			}
			time.Sleep(time.Millisecond)
		}
		net.crash(first.id)
		var second *node
		net.await("a write on another node", func() bool {
			for _, id := range net.others(first.id) {
				if nd := net.nodes[id]; nd.epoch() > epoch && net.write(nd, 1) == 1 {
					second = nd
					return true
				}
			}
			return false
		})
		seen := time.Since(last)
		time.Sleep(10 * time.Millisecond)
		f, ok := failover.LastFailover(second.driver.Journal(0))
		if !ok {
			t.Fatal("the journal has no failover")
		}
		told := time.Duration(f.TotalMS * float64(time.Millisecond))
		sum := 0.0
		for _, r := range f.Steps {
			sum += r.StepMS
			t.Logf("%8.1f ms  +%.1f  %s: %s", r.SinceMS, r.StepMS, r.Event, r.Detail)
		}
		if math.Abs(sum-f.TotalMS) > 0.1 {
			t.Errorf("the steps add up to %.3f ms, told are %.3f", sum, f.TotalMS)
		}
		if (seen - told).Abs() > slack {
			t.Errorf("the client waited %v, the journal accounts for %v", seen, told)
		}
		want := map[string]bool{"LeaderSilent": true, "PreVoteWon": true, "LeadershipGained": true, "EpochBegun": true, "FloorDurable": true,
			"BallotOpened": true, "BallotAnswered": true, "BallotWon": true, "ForkCommitted": true, "ElectionWon": true, "PromotionComplete": true,
			"Acknowledging": true}
		for _, r := range f.Steps {
			delete(want, r.Event)
		}
		if len(want) > 0 {
			t.Errorf("not told of: %v", want)
		}
		if f.Steps[0].Event != "LeaderSilent" || f.Steps[0].StepMS < float64(raftConfig(1).HeartbeatTimeout.Milliseconds())-1 {
			t.Errorf("it begins with %+v", f.Steps[0])
		}
	})
}

func TestLastFailover(t *testing.T) {
	if _, ok := failover.LastFailover([]failover.Record{{Event: "PrimaryLost", SinceMS: 3}}); ok {
		t.Error("a failover without a promotion")
	}
	journal := []failover.Record{
		{Event: "PromotionComplete", Epoch: 2, SinceMS: 9, StepMS: 9}, {Event: "NewPrimaryDetected"},
		{Event: "PrimaryLost", SinceMS: 0}, {Event: "LeaderSilent", SinceMS: 250, StepMS: 250}, {Event: "LeadershipGained", SinceMS: 260, StepMS: 10},
		{Event: "PromotionComplete", Epoch: 4, SinceMS: 300, StepMS: 40}, {Event: "FailoverPaused"}, {Event: "Acknowledging", Epoch: 4, SinceMS: 310, StepMS: 10},
	}
	f, ok := failover.LastFailover(journal)
	if !ok || f.Epoch != 4 || f.TotalMS != 310 {
		t.Fatalf("%+v %v", f, ok)
	}
}
