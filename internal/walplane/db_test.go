package walplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

func TestQuorumAck(t *testing.T) {
	g := cluster(t, 3)
	var wg sync.WaitGroup
	acks := make([]Ack, 200)
	for i := range acks {
		wg.Go(func() { acks[i] = g.put(1, fmt.Sprintf("k%d", i), fmt.Sprintf("v%d", i)) })
	}
	wg.Wait()
	g.level(1, 2, 3)
	for i, a := range acks {
		key := fmt.Sprintf("k%d", i)
		e, err := g.dbs[1].Get(g.ctx(), key)
		if err != nil || string(e.Value) != fmt.Sprintf("v%d", i) || e.Epoch != a.Epoch || e.LSN != a.LSN || a.Epoch != 1 {
			t.Fatalf("%s: %+v, %v; ack %+v", key, e, err, a)
		}
		if _, err := g.dbs[2].Get(g.ctx(), key); !errors.Is(err, ErrNotPrimary) {
			t.Fatalf("current read on a replica: %v", err)
		}
	}
	eventually(t, func() string {
		if e, age, err := g.dbs[3].GetStale("k7"); err != nil || string(e.Value) != "v7" || age < 0 || age > patience {
			return fmt.Sprintf("a dated read on the replica: %v %v %v", e, age, err)
		}
		return ""
	})
	if _, err := g.dbs[1].Delete(g.ctx(), "k7"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dbs[1].Get(g.ctx(), "k7"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	g.stop(3) // two of three are a quorum
	g.put(1, "two", "of three")
	s := g.dbs[1].Status()
	if s.Role != protocol.RolePrimary || s.Primary != 1 || s.Epoch != 1 || len(s.Replicas) != 2 || s.AgeMS != 0 {
		t.Fatalf("%+v", s)
	}
	if s := g.dbs[2].Status(); s.Role != protocol.RoleReplica || s.Primary != 1 || !s.Connected || s.Epoch != 1 || s.PrimaryAddress != address(1) {
		t.Fatalf("%+v", s)
	}
}

func TestNoQuorum(t *testing.T) {
	g := cluster(t, 3)
	g.put(1, "k", "v")
	g.stop(2, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := g.dbs[1].Put(ctx, "k", []byte("w"))
	unknown := (*UnknownOutcomeError)(nil)
	if !errors.As(err, &unknown) || !errors.Is(err, ErrNoQuorum) || !errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "no quorum: 1 of 3") {
		t.Fatal(err)
	}
	if p := g.position(1); unknown.LSN != p.LSN || unknown.Epoch != 1 || unknown.Confirmed != 1 || unknown.Voters != 3 {
		t.Fatalf("%+v, log at %v", unknown, p)
	}
	if e, err := g.dbs[1].Get(g.ctx(), "k"); err != nil || string(e.Value) != "v" {
		t.Fatalf("a read sees what is not committed: %v, %v", e, err)
	}
	// A node returns, and all goes on: the unacknowledged write too.
	g.start(2)
	g.follow(1, 1, 2)
	g.put(1, "l", "x")
	if e, err := g.dbs[1].Get(g.ctx(), "k"); err != nil || string(e.Value) != "w" {
		t.Fatalf("%v, %v", e, err)
	}
}

// Only what a quorum of voters has counts: a replica that is no voter, or one
// that connects twice, does not help.
func TestOnlyVotersCount(t *testing.T) {
	g := newGroup(t, 3)
	g.start(1, 4, 5)
	g.promote(1, 1)
	g.follow(1, 1, 4, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := g.dbs[1].Put(ctx, "k", nil); !errors.Is(err, ErrNoQuorum) {
		t.Fatal(err)
	}
	g.start(2)
	g.follow(1, 1, 2)
	g.put(1, "k", "v")
}

// Uncommitted records of an older epoch are not committed by counting their
// copies, only by a begin record of the current one on top of them.
func TestOldEpochsAreNotCommittedByCounting(t *testing.T) {
	g := newGroup(t, 3)
	g.start(1, 2)
	g.promote(1, 1)
	g.putUnheard(1, "a", "b") // lsn 1..3 on node 1 only
	g.stop(1)
	g.start(1)
	g.fence(2, 1)
	// Node 2 gets lsn 1..3 from the primary of epoch 2, but not its begin record.
	g.promote(2, 1)
	replica, _ := dialNode(t, g, hello{node: 2, epoch: 2, position: protocol.Position{Timeline: 1, LSN: 3}}, address(1))
	m := replica.batch()
	if len(m.records) != 1 || m.records[0].kind != kindBegin || m.commit != 0 {
		t.Fatalf("%+v", m)
	}
	if s := g.dbs[1].Status(); s.CommitLSN != 0 || s.Replicas[0].FlushedLSN != 3 {
		t.Fatalf("%+v", s)
	}
	if _, err := g.dbs[1].Get(expired(t), "a"); !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("a read before the epoch's first commit: %v", err)
	}
	replica.ack(ack{epoch: 2, flushed: 4})
	if e, err := g.dbs[1].Get(g.ctx(), "a"); err != nil || string(e.Value) != "unheard" {
		t.Fatalf("%v, %v", e, err)
	}
	if s := g.dbs[1].Status(); s.CommitLSN != 4 {
		t.Fatalf("%+v", s)
	}
}

func expired(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// The scenario of the design: A writes a tail nobody received and dies; B is
// promoted and acknowledges more with C; B dies as A returns.
func TestTimelineBeatsLength(t *testing.T) {
	g := cluster(t, 3)
	for i := range 20 {
		g.put(1, fmt.Sprintf("k%d", i), "old")
	}
	g.level(1, 2, 3)
	g.net.setCut(1, 2, true)
	g.net.setCut(1, 3, true)
	keys := make([]string, 50)
	for i := range keys {
		keys[i] = fmt.Sprintf("lost%d", i)
	}
	g.putUnheard(1, keys...)
	long := g.position(1)
	g.stop(1)

	g.fence(2, 2, 3)
	g.promote(2, 2)
	g.follow(2, 2, 3)
	a := g.put(2, "k0", "new")
	if a.Epoch != 2 || a.LSN >= long.LSN {
		t.Fatalf("%+v", a)
	}
	g.stop(2)
	g.net.setCut(1, 2, false)
	g.net.setCut(1, 3, false)

	g.start(1)
	g.fence(3, 1, 3)
	if g.position(3).Compare(g.position(1)) <= 0 {
		t.Fatalf("%v is not above %v", g.position(3), g.position(1))
	}
	g.promote(3, 3)
	g.follow(3, 3, 1)
	if e, err := g.dbs[3].Get(g.ctx(), "k0"); err != nil || string(e.Value) != "new" || e.LSN != a.LSN {
		t.Fatalf("%v, %v", e, err)
	}
	g.level(3, 1)
	for _, key := range keys {
		if e, _, err := g.dbs[1].GetStale(key); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%s survived: %v, %v", key, e, err)
		}
	}
	// B rejoins: nothing to cut. Everything is as on the primary, also after a restart.
	g.start(2)
	g.follow(3, 3, 2)
	g.level(3, 2, 1)
	want := readAll(t, g.dbs[3].wal)
	for _, id := range []protocol.NodeID{1, 2} {
		if got := readAll(t, g.dbs[id].wal); !sameRecords(got, want) {
			t.Fatalf("node %d: the logs differ", id)
		}
		if got := g.dbs[id].wal.ownLineage(); len(got) != 3 || g.lineage(3).CommonPrefix(got) != g.position(3).LSN {
			t.Fatalf("node %d: %v", id, got)
		}
	}
}
