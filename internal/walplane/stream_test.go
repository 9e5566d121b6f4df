package walplane

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// lineageOf is the lineage of a timeline that goes on behind a log.
func lineageOf(epoch protocol.Epoch, before ...protocol.Epoch) protocol.Lineage {
	var l protocol.Lineage
	for i, e := range before {
		if i == 0 || before[i-1] != e {
			l = append(l, protocol.Segment{Epoch: e})
		}
		l[len(l)-1].End = protocol.LSN(i + 1)
	}
	if n := len(l); n > 0 && l[n-1].Epoch == epoch {
		l = l[:n-1]
	}
	return append(l, protocol.Segment{Epoch: epoch, End: protocol.MaxLSN})
}

func (g *group) preload(id protocol.NodeID, epochs ...protocol.Epoch) {
	g.t.Helper()
	g.start(id)
	if len(epochs) > 0 {
		g.must(g.dbs[id].wal.append(logOf(1, epochs...)))
	}
}

// Hand-made lineages: what is left of a log when the hello goes out, on disk
// too, and where the log goes on.
func TestCutToLineage(t *testing.T) {
	type E = protocol.Epoch
	for name, c := range map[string]struct {
		own     []E // epoch of every record
		lineage protocol.Lineage
		keeps   int
	}{
		"same":                      {[]E{1, 1, 1}, lineageOf(9, 1, 1, 1), 3},
		"behind":                    {[]E{1, 1}, lineageOf(9, 1, 1, 1), 2},
		"empty":                     {nil, lineageOf(9, 1, 1, 1), 0},
		"in the epoch itself":       {[]E{1, 9, 9}, lineageOf(9, 1), 3},
		"longer tail of the parent": {[]E{1, 1, 1, 1, 1}, lineageOf(9, 1, 1, 1), 3},
		"tail of a lost epoch":      {[]E{1, 1, 2, 2, 2}, lineageOf(9, 1, 1, 3), 2},
		"two lost epochs":           {[]E{1, 1, 2, 3, 3}, lineageOf(9, 1, 1, 1, 4), 2},
		"nothing in common":         {[]E{1, 1}, lineageOf(9, 2, 2), 0},
		"lost from the beginning":   {[]E{1, 1}, lineageOf(9), 0},
		"shorter and diverged":      {[]E{1, 2}, lineageOf(9, 1, 1, 1, 3, 3), 1},
		"far behind":                {[]E{1}, lineageOf(9, 1, 2, 3, 4, 5), 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 3)
			g.preload(2, c.own...)
			primary := newFakePrimary(t)
			d := failover.Demotion{Epoch: 9, Primary: 1, Address: primary.addr(), Lineage: c.lineage}
			g.must(g.dbs[2].Demote(g.ctx(), d))
			end, h := primary.accept()
			var want protocol.Position
			if c.keeps > 0 {
				want = protocol.Position{Timeline: c.own[c.keeps-1], LSN: protocol.LSN(c.keeps)}
			}
			if h != (hello{node: 2, epoch: 9, position: want}) || g.position(2) != want {
				t.Fatalf("%+v, want %v", h, want)
			}
			info, err := os.Stat(g.dbs[2].wal.path)
			if err != nil || info.Size() != g.dbs[2].wal.bytes() {
				t.Fatalf("%d bytes on disk, %d should be left, %v", info.Size(), g.dbs[2].wal.bytes(), err)
			}
			if got := readAll(t, g.dbs[2].wal); !sameRecords(got, logOf(1, c.own...)[:c.keeps]) {
				t.Fatalf("%v", got)
			}
			// It goes on from there, and is still so after a restart.
			end.send(appendWelcome(nil, welcome{epoch: 9}))
			next := want.LSN + 1
			r := record{epoch: c.lineage.EpochAt(next), lsn: next, kind: kindPut, key: []byte("k")}
			if r.epoch != want.Timeline {
				r.kind, r.key = kindBegin, nil
			}
			end.send(appendBatch(nil, batch{epoch: 9, commit: next, records: []record{r}}))
			if a := end.nextAck(); a.epoch != 9 || a.flushed != next {
				t.Fatalf("%+v", a)
			}
			g.stop(2)
			g.start(2)
			if p := g.position(2); p != r.position() {
				t.Fatalf("%v after the restart, want %v", p, r.position())
			}
		})
	}
}

// What is known to be committed is not cut, whatever the lineage says.
func TestCommittedIsNeverCut(t *testing.T) {
	g := newGroup(t, 3)
	g.preload(2)
	primary := newFakePrimary(t)
	g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 1, Primary: 1, Address: primary.addr(), Lineage: lineageOf(1)}))
	end, _ := primary.accept()
	end.send(appendWelcome(nil, welcome{epoch: 1}))
	end.send(appendBatch(nil, batch{epoch: 1, commit: 2, records: logOf(1, 1, 1, 1)}))
	end.nextAck()
	g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 2, Primary: 3, Address: primary.addr(), Lineage: lineageOf(2, 1)}))
	eventually(t, func() string {
		if s := g.dbs[2].Status(); !strings.Contains(s.Blocked, "acknowledged writes are missing") || s.Position.LSN != 3 || s.CommitLSN != 2 {
			return "the refusal"
		}
		return ""
	})
	end.ended()
	if err := g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 3, Primary: 3, Address: primary.addr(), Lineage: lineageOf(3, 1, 1)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if p := g.position(2); p.LSN != 2 {
			return "the uncommitted record cut"
		}
		return ""
	})
}

// Every batch is checked, not only the hello.
func TestBatchesThatAreRefused(t *testing.T) {
	good := record{epoch: 5, lsn: 4, kind: kindPut, key: []byte("k")}
	with := func(change func(*record)) []record {
		r := good
		change(&r)
		return []record{r}
	}
	for name, m := range map[string]batch{
		"older epoch":        {epoch: 4, records: []record{good}},
		"newer epoch":        {epoch: 6, records: []record{good}},
		"empty, older epoch": {epoch: 4, commit: 3},
		"gap":                {epoch: 5, records: with(func(r *record) { r.lsn = 5 })},
		"again":              {epoch: 5, records: with(func(r *record) { r.lsn = 3 })},
		"record of another":  {epoch: 5, records: with(func(r *record) { r.epoch = 4 })},
		"newer record":       {epoch: 5, records: with(func(r *record) { r.epoch, r.kind, r.key = 6, kindBegin, nil })},
		"begin again":        {epoch: 5, records: with(func(r *record) { r.kind, r.key = kindBegin, nil })},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 3)
			g.preload(2, 1, 1)
			primary := newFakePrimary(t)
			g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 5, Primary: 1, Address: primary.addr(), Lineage: lineageOf(5, 1, 1)}))
			end, _ := primary.accept()
			end.send(appendWelcome(nil, welcome{epoch: 5}))
			end.send(appendBatch(nil, batch{epoch: 5, commit: 2, records: []record{{epoch: 5, lsn: 3, kind: kindBegin}}}))
			if a := end.nextAck(); a.flushed != 3 {
				t.Fatalf("%+v", a)
			}
			m.commit = 3
			end.send(appendBatch(nil, m))
			end.ended()
			if s := g.dbs[2].Status(); s.Position != (protocol.Position{Timeline: 5, LSN: 3}) || s.CommitLSN != 2 {
				t.Fatalf("%+v", s)
			}
			// The stream comes back and the right batch is taken.
			end, h := primary.accept()
			if h.position.LSN != 3 {
				t.Fatalf("%+v", h)
			}
			end.send(appendWelcome(nil, welcome{epoch: 5}))
			end.send(appendBatch(nil, batch{epoch: 5, commit: 9, records: []record{good}}))
			if a := end.nextAck(); a.flushed != 4 {
				t.Fatalf("%+v", a)
			}
			if s := g.dbs[2].Status(); s.CommitLSN != 4 {
				t.Fatalf("a commit beyond the log: %+v", s)
			}
		})
	}
}

// While a stream runs at full speed the fence falls: when Fence has returned,
// the position moves no more.
func TestFenceAgainstStream(t *testing.T) {
	for range 20 {
		g := newGroup(t, 3)
		g.preload(2)
		primary := newFakePrimary(t)
		g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 1, Primary: 1, Address: primary.addr(), Lineage: lineageOf(1)}))
		end, _ := primary.accept()
		end.send(appendWelcome(nil, welcome{epoch: 1}))
		done := make(chan protocol.LSN) // highest acknowledged
		go func() {
			var acked protocol.LSN
			defer func() { done <- acked }()
			for lsn := protocol.LSN(1); ; lsn++ {
				r := record{epoch: 1, lsn: lsn, kind: kindPut, key: []byte("k")}
				if lsn == 1 {
					r.kind, r.key = kindBegin, nil
				}
				if _, err := end.conn.Write(appendBatch(nil, batch{epoch: 1, commit: lsn - 1, records: []record{r}})); err != nil {
					return
				}
				p, err := readFrame(end.in, frameAck, ackBytes, &end.buf)
				if err != nil {
					return
				}
				a, err := parseAck(p)
				if err != nil {
					return
				}
				acked = a.flushed
			}
		}()
		eventually(t, func() string {
			if g.position(2).LSN < 5 {
				return "some records"
			}
			return ""
		})
		g.must(g.dbs[2].Fence(g.ctx(), 2))
		at := g.position(2)
		acked := <-done
		if now := g.position(2); now != at || acked > at.LSN {
			t.Fatalf("fenced at %v, now at %v, acknowledged %d", at, now, acked)
		}
		// Nor does it come back: the same stream is refused, and Promote below the fence too.
		g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 1, Primary: 3, Address: primary.addr(), Lineage: lineageOf(1)}))
		if s := g.dbs[2].Status(); s.Blocked == "" || s.Connected || s.Fence != 2 {
			t.Fatalf("%+v", s)
		}
		g.stop(2)
	}
}

func TestFenceWaitsForTheDisk(t *testing.T) {
	g := newGroup(t, 1)
	entered, release := make(chan struct{}), make(chan struct{})
	hang := false
	g.tune = func(c *Config) {
		d := realDisk
		d.sync = func(f *os.File) error {
			if hang {
				hang = false
				close(entered)
				<-release
			}
			return f.Sync()
		}
		c.disk = &d
	}
	g.start(1)
	g.promote(1, 1)
	hang = true
	put := make(chan error, 1)
	go func() {
		_, err := g.dbs[1].Put(context.Background(), "k", nil)
		put <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.dbs[1].Fence(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("fenced while a write was under way: %v", err)
	}
	if err := <-put; !errors.Is(err, ErrUnknownOutcome) { // without waiting for the disk
		t.Fatal(err)
	}
	close(release)
	g.must(g.dbs[1].Fence(g.ctx(), 2))
	if p := g.position(1); p.LSN != 2 {
		t.Fatal(p)
	}
}

// What a primary does with hellos and acks it should not get.
func TestPrimaryRefuses(t *testing.T) {
	g := newGroup(t, 3)
	g.preload(1, 1, 1, 2)
	g.promote(3, 1) // log: 1 1 2 3
	pos := func(e protocol.Epoch, lsn protocol.LSN) protocol.Position {
		return protocol.Position{Timeline: e, LSN: lsn}
	}
	for name, h := range map[string]hello{
		"older epoch":       {node: 2, epoch: 2, position: pos(1, 2)},
		"newer epoch":       {node: 2, epoch: 4, position: pos(1, 2)},
		"itself":            {node: 1, epoch: 3, position: pos(1, 2)},
		"nobody":            {node: 0, epoch: 3, position: pos(1, 2)},
		"diverged":          {node: 2, epoch: 3, position: pos(1, 3)},
		"beyond":            {node: 2, epoch: 3, position: pos(3, 5)},
		"empty with epoch":  {node: 2, epoch: 3, position: pos(1, 0)},
		"another's history": {node: 2, epoch: 3, position: pos(2, 2)},
	} {
		if _, w := dialNode(t, g, h, address(1)); w.status == welcomeOK || w.reason == "" || w.epoch != 3 {
			t.Errorf("%s: %+v", name, w)
		}
	}
	for name, bad := range map[string]ack{
		"of another epoch": {epoch: 2, flushed: 4},
		"beyond the log":   {epoch: 3, flushed: 5},
		"going back":       {epoch: 3, flushed: 1},
	} {
		end, w := dialNode(t, g, hello{node: 2, epoch: 3, position: pos(1, 2)}, address(1))
		if w.status != welcomeOK {
			t.Fatalf("%+v", w)
		}
		end.batch()
		end.ack(bad)
		end.ended()
		if s := g.dbs[1].Status(); s.CommitLSN != 0 || s.Replicas[0].FlushedLSN != 2 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// A second connection of the same node takes the place of the first.
	first, _ := dialNode(t, g, hello{node: 2, epoch: 3, position: pos(1, 2)}, address(1))
	second, _ := dialNode(t, g, hello{node: 2, epoch: 3, position: pos(1, 2)}, address(1))
	first.ended()
	second.batch()
	second.ack(ack{epoch: 3, flushed: 4})
	eventually(t, func() string {
		if s := g.dbs[1].Status(); s.CommitLSN != 4 {
			return "the commit"
		}
		return ""
	})
	// A fence ends the stream.
	g.fence(4, 1)
	second.ended()
	if _, w := dialNode(t, g, hello{node: 2, epoch: 3, position: pos(1, 2)}, address(1)); w.status == welcomeOK {
		t.Fatalf("%+v", w)
	}
}

// A silent peer is noticed on both ends.
func TestSilenceEndsTheStream(t *testing.T) {
	g := newGroup(t, 3)
	g.tune = func(c *Config) { c.PeerTimeout = 50 * time.Millisecond }
	g.preload(1)
	g.promote(1, 1)
	end, _ := dialNode(t, g, hello{node: 2, epoch: 1}, address(1))
	end.ended() // it sent batches and got no ack
	g.preload(2)
	primary := newFakePrimary(t)
	g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 1, Primary: 1, Address: primary.addr(), Lineage: lineageOf(1)}))
	for range 3 {
		end, _ := primary.accept()
		end.send(appendWelcome(nil, welcome{epoch: 1}))
		end.ended()
	}
}

// A stamp is given back only when the guard has said yes after it came.
func TestEchoNeedsTheGuard(t *testing.T) {
	g := newGroup(t, 3)
	g.start(1)
	g.must(g.guards[1].Open(1)) // the lease does not run
	g.must(g.dbs[1].Promote(g.ctx(), failover.Promotion{Epoch: 1, Guard: g.guards[1], Lineage: g.fork(1, 1)}))
	end, _ := dialNode(t, g, hello{node: 2, epoch: 1}, address(1))
	next := func() batch {
		m := end.batch()
		end.ack(ack{epoch: 1, flushed: 1, stamp: 77})
		return m
	}
	for range 5 {
		if m := next(); m.echo != 0 {
			t.Fatalf("an echo without a lease: %+v", m)
		}
	}
	g.guards[1].Extend(1, fencing.NoDeadline)
	eventually(t, func() string {
		if next().echo != 77 {
			return "the echo"
		}
		return ""
	})
}

// A log that ends in a newer epoch is not cut to an older timeline: whoever
// says so is behind.
func TestOlderTimelineIsNotFollowed(t *testing.T) {
	g := newGroup(t, 3)
	g.preload(2, 1, 1, 3)
	primary := newFakePrimary(t)
	g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 2, Primary: 1, Address: primary.addr(), Lineage: lineageOf(2, 1, 1)}))
	eventually(t, func() string {
		if s := g.dbs[2].Status(); !strings.Contains(s.Blocked, ErrStaleEpoch.Error()) {
			return "the refusal"
		}
		return ""
	})
	if p := g.position(2); p != (protocol.Position{Timeline: 3, LSN: 3}) {
		t.Fatal(p)
	}
}
