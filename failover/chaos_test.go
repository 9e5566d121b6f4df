package failover_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	chaosSeed = flag.Uint64("chaos.seed", 1, "first seed of TestChaos")
	chaosRuns = flag.Int("chaos.runs", 6, "seeds TestChaos tries")
)

// TestChaos lets a seeded script of crashes, restarts, partitions and
// switchovers loose on a cluster that is being written to, and then heals it:
// a primary must come, and nothing acknowledged be missing (I1, I3, I6). Raft
// has random sources of its own, so a seed replays the script, not the run.
func TestChaos(t *testing.T) {
	for run := range *chaosRuns {
		seed := *chaosSeed + uint64(run)
		n := 3 + 2*(run%2)
		t.Run(fmt.Sprintf("seed=%d/nodes=%d", seed, n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, seed, n) })
		})
	}
}

func chaos(t *testing.T, seed uint64, n int) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	net := newNetwork(t, n)
	if seed/2%2 == 1 {
		net.rough = rand.New(rand.NewPCG(seed, 1))
	}
	defer net.stop()
	for _, id := range net.ids() {
		net.start(id)
	}
	done := make(chan struct{})
	writing := make(chan struct{})
	go func() { // clients: whoever takes itself for primary is written to
		defer close(writing)
		for {
			select {
			case <-done:
				return
			case <-time.After(3 * time.Millisecond):
			}
			for _, id := range net.ids() {
				net.write(net.nodes[id], 1)
			}
		}
	}()
	var script []string
	for range 40 {
		time.Sleep(time.Duration(rnd.IntN(800)) * time.Millisecond)
		id := protocol.NodeID(rnd.IntN(n) + 1)
		nd := net.nodes[id]
		fault := rnd.IntN(6)
		script = append(script, fmt.Sprintf("%d:%d", fault, id))
		switch fault {
		case 0, 1:
			if nd.isUp() {
				net.crash(id)
			} else {
				net.start(id)
			}
		case 2:
			net.isolate(id, true)
		case 3:
			net.isolate(id, false)
		case 4: // one link
			other := net.others(id)[rnd.IntN(n-1)]
			link := [2]protocol.NodeID{min(id, other), max(id, other)}
			net.mu.Lock()
			net.cut[link] = !net.cut[link]
			net.mu.Unlock()
			net.wire()
		case 5:
			if nd.isUp() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_ = nd.driver.Switchover(ctx, protocol.NoNode)
				cancel()
			}
		}
	}
	close(done)
	<-writing
	net.mu.Lock()
	net.rough = nil
	net.mu.Unlock()
	for _, id := range net.ids() {
		net.isolate(id, false)
		if !net.nodes[id].isUp() {
			net.start(id)
		}
	}
	began := time.Now()
	net.settled(net.stable())
	t.Logf("%d written, %d acknowledged, epoch %d, settled after %v; faults %v",
		net.written, len(net.acked), net.ledger.epoch, time.Since(began), script)
	if len(net.acked) == 0 {
		t.Error("nothing was ever acknowledged: the test shows nothing")
	}
}

// stable waits until a node has been primary for a while.
func (net *network) stable() *node {
	net.t.Helper()
	for range 20 {
		nd := net.primary(0, 20*time.Second)
		epoch := nd.epoch()
		time.Sleep(3 * time.Second)
		if nd.isUp() && nd.guard.Check(epoch) == nil {
			return nd
		}
	}
	net.t.Fatal("no primary lasts")
	return nil
}
