package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

// seedEnv repeats a run of the tests that choose at random.
const seedEnv = "AIONDB_E2E_SEED"

func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d repeats the choices of this run", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Twenty times in a row a node is killed, any node at any moment under write
// load, and started again from its directory. Every node comes back, and
// nothing that was acknowledged is lost.
func TestKillAnyNodeAtAnyMoment(t *testing.T) {
	const rounds, nodes = 20, 3
	random := newRand(t)
	c, _ := startCluster(t, nodes)
	client := newClient(t, c)
	kills := map[protocol.NodeID]int{}
	primaries := 0
	for round := range rounds {
		if err := client.WaitAcks(within(t, time.Minute), 1+random.IntN(100)); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		victim := protocol.NodeID(1 + random.IntN(nodes))
		if s, err := c.Status(t.Context(), victim); err == nil && s.Role == protocol.RolePrimary {
			primaries++
		}
		kills[victim]++
		client.Mark(democluster.FaultKill, victim)
		if err := c.Kill(victim); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if random.IntN(2) == 0 { // sometimes it stays away for a while: the others go on without it
			if err := client.WaitAcks(within(t, time.Minute), 1+random.IntN(50)); err != nil {
				t.Fatalf("round %d, node %d down: %v", round, victim, err)
			}
		}
		if err := c.Start(victim); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if exited := c.Exited(); exited != nil {
			t.Fatalf("round %d: %v", round, exited)
		}
	}
	if err := client.WaitAcks(within(t, time.Minute), 50); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	primary := settle(t, c) // all three: each came back
	data, err := c.Dump(within(t, time.Minute), primary.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	acks := client.Acks()
	t.Logf("kills by node %v, %d of them of the primary; %d writes acknowledged, last epoch %d", kills, primaries, len(acks), client.Epoch())
	checkRecord(t, acks, data)

	c.Shutdown(true)
	for _, n := range c.Nodes() { // and twenty kills have damaged no log
		if r := run(t, os.Environ(), "log", "verify", n.StateDir()); r.code != 0 {
			t.Errorf("log verify of node %d: status %d\n%s%s", n.ID, r.code, r.stdout, r.stderr)
		}
	}
}

// checkRecord holds a client's record against the data of the final primary.
func checkRecord(t *testing.T, acks []democluster.Ack, data map[string]string) {
	t.Helper()
	if lost := democluster.LostWrites(acks, data); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged writes are lost, the first: %+v", len(lost), len(acks), lost[0])
	}
	if dual := democluster.DualPrimaryAcks(acks); len(dual) > 0 {
		t.Errorf("%d acknowledgements by an older epoch after a newer one, the first: %+v", len(dual), dual[0])
	}
}

// A primary that is stopped is replaced; when it wakes up its lease is over, so
// it acknowledges nothing more, and an answer for which the guard had been asked
// already when the process was stopped tells that it comes too late. Nothing is
// lost, and the node follows.
func TestPausedPrimaryIsReplaced(t *testing.T) {
	const pauses = 5
	c, primary := startCluster(t, 3)
	client := newClient(t, c)
	ctx := within(t, 4*time.Minute)
	for range pauses {
		if err := client.WaitAcks(ctx, 50); err != nil {
			t.Fatal(err)
		}
		old := client.Epoch()
		if err := c.Pause(primary.NodeID); err != nil {
			t.Fatal(err)
		}
		first, err := client.WaitEpoch(ctx, old)
		if err != nil {
			t.Fatal(err)
		}
		if first.Node == primary.NodeID {
			t.Fatalf("the paused node acknowledged %+v", first)
		}
		if err := client.WaitAcks(ctx, 50); err != nil {
			t.Fatal(err)
		}
		if err := c.Resume(primary.NodeID); err != nil {
			t.Fatal(err)
		}
		if err := client.WaitAcks(ctx, 50); err != nil {
			t.Fatal(err)
		}
		primary = settle(t, c)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := c.Dump(ctx, primary.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	checkRecord(t, client.Acks(), data)
}
