package walplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

func TestConfigFaults(t *testing.T) {
	_, err := Open(Config{Voters: MaxVoters + 1, KeepAlive: 2 * time.Second, MaxLogBytes: -1})
	for _, want := range []string{"Dir", "NodeID", "Voters", "MaxLogBytes", "PeerTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %s: %v", want, err)
		}
	}
}

func TestPromoteRefuses(t *testing.T) {
	g := newGroup(t, 1)
	g.preload(1, 1, 1, 2)
	guard := fencing.NewGuard(g.clock)
	db := g.dbs[1]
	for name, c := range map[string]struct {
		p     failover.Promotion
		stale bool
	}{
		"no guard":                {failover.Promotion{Epoch: 3, Lineage: lineageOf(3, 1, 1, 2)}, false},
		"no lineage":              {failover.Promotion{Epoch: 3, Guard: guard}, false},
		"lineage of another":      {failover.Promotion{Epoch: 3, Guard: guard, Lineage: lineageOf(4, 1, 1, 2)}, false},
		"forks below the end":     {failover.Promotion{Epoch: 3, Guard: guard, Lineage: lineageOf(3, 1, 1)}, false},
		"forks above the end":     {failover.Promotion{Epoch: 3, Guard: guard, Lineage: lineageOf(3, 1, 1, 2, 2)}, false},
		"of another history":      {failover.Promotion{Epoch: 3, Guard: guard, Lineage: lineageOf(3, 1, 1, 1)}, false},
		"epoch of the log's end":  {failover.Promotion{Epoch: 2, Guard: guard, Lineage: lineageOf(2, 1, 1)}, true},
		"epoch before log's end":  {failover.Promotion{Epoch: 1, Guard: guard, Lineage: lineageOf(1)}, true},
		"contradicts itself":      {failover.Promotion{Epoch: 3, Guard: guard, Lineage: protocol.Lineage{{Epoch: 2, End: 3}, {Epoch: 1, End: 3}, {Epoch: 3, End: protocol.MaxLSN}}}, false},
		"a log that has no parts": {failover.Promotion{Epoch: 3, Guard: guard, Lineage: lineageOf(3)}, false},
	} {
		err := db.Promote(g.ctx(), c.p)
		if err == nil || errors.Is(err, ErrStaleEpoch) != c.stale {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.must(db.Fence(g.ctx(), 5))
	g.must(db.Fence(g.ctx(), 4)) // never lowers
	p := failover.Promotion{Epoch: 4, Guard: guard, Lineage: lineageOf(4, 1, 1, 2)}
	stale := (*StaleEpochError)(nil)
	if err := db.Promote(g.ctx(), p); !errors.As(err, &stale) || *stale != (StaleEpochError{Epoch: 4, Floor: 5}) {
		t.Error(err)
	}
	if pos := g.position(1); pos != (protocol.Position{Timeline: 2, LSN: 3}) {
		t.Fatalf("a refused promotion wrote: %v", pos)
	}
	p = failover.Promotion{Epoch: 5, Guard: guard, Lineage: lineageOf(5, 1, 1, 2)}
	g.must(db.Promote(g.ctx(), p))
	g.must(db.Promote(g.ctx(), p)) // again: no change
	if pos := g.position(1); pos != (protocol.Position{Timeline: 5, LSN: 4}) {
		t.Fatal(pos)
	}
	// Once demoted the epoch is over for good.
	g.must(db.Demote(g.ctx(), failover.Demotion{Epoch: 5}))
	if err := db.Promote(g.ctx(), p); !errors.Is(err, ErrStaleEpoch) {
		t.Fatal(err)
	}
}

func TestDemoteTwice(t *testing.T) {
	g := newGroup(t, 3)
	g.preload(2)
	primary := newFakePrimary(t)
	d := failover.Demotion{Epoch: 1, Primary: 1, Address: primary.addr(), Lineage: lineageOf(1)}
	db := g.dbs[2]
	g.must(db.Demote(g.ctx(), d))
	end, _ := primary.accept()
	end.send(appendWelcome(nil, welcome{epoch: 1}))
	end.send(appendBatch(nil, batch{epoch: 1}))
	end.nextAck()
	d.Lineage = append(protocol.Lineage(nil), d.Lineage...)
	d.Epoch = 2 // promised to somebody, promoted is 1 still
	g.must(db.Demote(g.ctx(), d))
	end.send(appendBatch(nil, batch{epoch: 1}))
	end.nextAck() // the same stream
	if err := db.Demote(g.ctx(), failover.Demotion{Epoch: 3, Primary: 1, Address: "x", Lineage: protocol.Lineage{{}}}); !errors.Is(err, protocol.ErrBadHistory) {
		t.Fatal(err)
	}
	// A primary whose lineage is not known yet is not followed, and Status says so.
	g.must(db.Demote(g.ctx(), failover.Demotion{Epoch: 3, Primary: 3, Address: primary.addr()}))
	end.ended()
	if s := db.Status(); s.Blocked == "" || s.Primary != 3 {
		t.Fatalf("%+v", s)
	}
	notPrimary := (*NotPrimaryError)(nil)
	if _, err := db.Put(g.ctx(), "k", nil); !errors.As(err, &notPrimary) || notPrimary.Primary != 3 || notPrimary.Address != primary.addr() {
		t.Fatal(err)
	}
	g.must(db.Demote(g.ctx(), failover.Demotion{Epoch: 3}))
	if s := db.Status(); s.Blocked != "" || s.Primary != 0 {
		t.Fatalf("%+v", s)
	}
}

// Writes in flight when the primacy ends: the outcome is unknown, at once.
func TestWritesInFlightEndWithThePrimacy(t *testing.T) {
	for name, end := range map[string]func(*group){
		"demote":  func(g *group) { g.must(g.dbs[1].Demote(g.ctx(), failover.Demotion{Epoch: 2})) },
		"fence":   func(g *group) { g.must(g.dbs[1].Fence(g.ctx(), 2)) },
		"guard":   func(g *group) { g.guards[1].Close(errors.New("resigned")) },
		"closed":  func(g *group) { g.must(g.dbs[1].Close()) },
		"promote": func(g *group) { g.fence(2, 1); g.promote(2, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 3)
			g.start(1)
			g.promote(1, 1)
			errs := make(chan error)
			for range 3 {
				go func() {
					_, err := g.dbs[1].Put(g.ctx(), "k", nil)
					errs <- err
				}()
			}
			eventually(t, func() string {
				if p := g.position(1); p.LSN < 4 {
					return "three writes flushed"
				}
				return ""
			})
			end(g)
			for range 3 {
				unknown := (*UnknownOutcomeError)(nil)
				if err := <-errs; !errors.As(err, &unknown) || unknown.NoQuorum || unknown.LSN < 2 {
					t.Fatal(err)
				}
			}
			if name == "promote" {
				return
			}
			if _, err := g.dbs[1].Put(g.ctx(), "k", nil); errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrNotPrimary) && !errors.Is(err, ErrClosed) {
				t.Fatal(err)
			}
			if _, err := g.dbs[1].Get(g.ctx(), "k"); !errors.Is(err, ErrNotPrimary) && !errors.Is(err, ErrClosed) {
				t.Fatal(err)
			}
		})
	}
}

// A lease that lapsed is waited for, and what waits is not acknowledged.
func TestLapsedLease(t *testing.T) {
	g := newGroup(t, 1)
	var now atomic.Int64
	now.Store(100)
	g.clock = func() time.Duration { return time.Duration(now.Load()) }
	g.start(1)
	g.must(g.guards[1].Open(1))
	g.must(g.dbs[1].Promote(g.ctx(), failover.Promotion{Epoch: 1, Guard: g.guards[1], Lineage: g.fork(1, 1)}))
	g.guards[1].Extend(1, 200)
	g.put(1, "k", "v")
	now.Store(300)
	if _, err := g.dbs[1].Put(expired(t), "k", nil); !errors.Is(err, ErrNoQuorum) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("a write without a lease: %v", err)
	}
	if _, err := g.dbs[1].Get(expired(t), "k"); !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("a read without a lease: %v", err)
	}
	if p := g.position(1); p.LSN != 2 {
		t.Fatalf("it wrote without a lease: %v", p)
	}
	put := make(chan error)
	go func() {
		_, err := g.dbs[1].Put(g.ctx(), "k", []byte("w"))
		put <- err
	}()
	g.guards[1].Extend(1, 400)
	g.must(<-put)
	// Stale reads are dated from when the lease was last seen to run.
	eventually(t, func() string {
		if s := g.dbs[1].Status(); s.AgeMS != 0 {
			return "a current primary"
		}
		g.dbs[1].mu.Lock()
		defer g.dbs[1].mu.Unlock()
		if g.dbs[1].fresh.at != 300 {
			return "the state dated"
		}
		return ""
	})
	now.Store(int64(5 * time.Second))
	if e, age, err := g.dbs[1].GetStale("k"); err != nil || string(e.Value) != "w" || age != 5*time.Second-300 {
		t.Fatalf("%v %v %v", e, age, err)
	}
}

// A lease that lapses between the quorum and the answer leaves the outcome unknown.
func TestLeaseLapsesBeforeTheAck(t *testing.T) {
	g := newGroup(t, 1)
	var now atomic.Int64
	g.clock = func() time.Duration { return time.Duration(now.Load()) }
	g.tune = func(c *Config) {
		d := realDisk
		d.sync = func(f *os.File) error { now.Add(1); return f.Sync() }
		c.disk = &d
	}
	g.start(1)
	g.must(g.guards[1].Open(1))
	g.must(g.dbs[1].Promote(g.ctx(), failover.Promotion{Epoch: 1, Guard: g.guards[1], Lineage: g.fork(1, 1)}))
	g.guards[1].Extend(1, time.Duration(now.Load()+1)) // runs until the next flush
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if a, err := g.dbs[1].Put(ctx, "k", nil); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, fencing.ErrLeaseExpired) {
		t.Fatalf("%v, %v", a, err)
	}
}

func TestStopWrites(t *testing.T) {
	g := cluster(t, 3)
	g.put(1, "k", "v")
	db := g.dbs[1]
	g.must(g.dbs[2].StopWrites(g.ctx())) // on a replica: nothing
	stop := make(chan struct{})
	var acks atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := db.Put(g.ctx(), "k", nil); err != nil {
					t.Error(err)
					return
				}
				acks.Add(1)
			}
		})
	}
	for range 10 {
		g.must(db.StopWrites(g.ctx()))
		at, n := g.position(1), acks.Load()
		if s := db.Status(); !s.Held {
			t.Fatalf("%+v", s)
		}
		if _, err := db.Put(expired(t), "k", nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Fatal(err)
		}
		g.level(1, 2, 3)
		if now := g.position(1); now != at {
			t.Fatalf("written while stopped: %v, then %v", at, now)
		}
		db.ResumeWrites()
		eventually(t, func() string {
			if acks.Load() <= n {
				return "writes going on"
			}
			return ""
		})
	}
	close(stop)
	wg.Wait()
	// The switchover itself: held writes learn that it is over.
	g.must(db.StopWrites(g.ctx()))
	held := make(chan error)
	go func() {
		_, err := db.Put(g.ctx(), "k", nil)
		held <- err
	}()
	g.level(1, 2, 3)
	g.fence(2, 1, 2, 3)
	g.promote(2, 2)
	g.follow(2, 2, 1, 3)
	if err := <-held; !errors.Is(err, ErrNotPrimary) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	g.put(2, "k", "w")
	g.level(2, 1, 3)
}

func TestFailedFlushStopsTheDatabase(t *testing.T) {
	g := newGroup(t, 1)
	var broken atomic.Bool
	g.tune = func(c *Config) {
		d := realDisk
		d.sync = func(f *os.File) error {
			if broken.Load() {
				return errors.New("I/O error")
			}
			return f.Sync()
		}
		c.disk = &d
	}
	g.start(1)
	g.promote(1, 1)
	g.put(1, "k", "v")
	broken.Store(true)
	if _, err := g.dbs[1].Put(g.ctx(), "k", []byte("w")); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	broken.Store(false)
	db := g.dbs[1]
	for name, f := range map[string]func() error{
		"put":      func() error { _, err := db.Put(g.ctx(), "k", nil); return err },
		"get":      func() error { _, err := db.Get(g.ctx(), "k"); return err },
		"stale":    func() error { _, _, err := db.GetStale("k"); return err },
		"position": func() error { _, err := db.Position(g.ctx()); return err },
		"fence":    func() error { return db.Fence(g.ctx(), 2) },
		"demote":   func() error { return db.Demote(g.ctx(), failover.Demotion{Epoch: 2}) },
		"promote": func() error {
			return db.Promote(g.ctx(), failover.Promotion{Epoch: 2, Guard: g.guards[1], Lineage: lineageOf(2, 1, 1)})
		},
		"stop": func() error { return db.StopWrites(g.ctx()) },
	} {
		if err := f(); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if db.WriteInFlight().IsZero() {
		t.Error("nobody would see that it is of no use as a primary")
	}
	if s := db.Status(); s.Failed == "" || s.Role != protocol.RoleReplica {
		t.Errorf("%+v", s)
	}
	g.stop(1)
	g.start(1)
	g.position(1)
}

// A primary without room on its disk says so until there is room again, also
// when nobody writes, and no longer than it is primary.
func TestFullDiskShows(t *testing.T) {
	g := newGroup(t, 1)
	var full atomic.Bool
	g.tune = func(c *Config) {
		d := realDisk
		d.write = func(f *os.File, b []byte, off int64) (int, error) {
			if full.Load() {
				return 0, syscall.ENOSPC
			}
			return f.WriteAt(b, off)
		}
		c.disk = &d
	}
	g.start(1)
	g.promote(1, 1)
	db := g.dbs[1]
	g.put(1, "k", "v")
	shows := func(want bool) {
		t.Helper()
		for ctx, tick := g.ctx(), time.Tick(time.Millisecond); db.noRoom.Load() != nil != want; {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("without room since %v, want %v", db.WriteInFlight(), want)
			}
		}
	}
	shows(false)
	full.Store(true)
	if _, err := db.Put(g.ctx(), "k", []byte("w")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	shows(true)
	since := db.WriteInFlight()
	if _, err := db.Put(g.ctx(), "k", []byte("w")); !errors.Is(err, syscall.ENOSPC) || !db.WriteInFlight().Equal(since) {
		t.Errorf("%v; without room since %v, before since %v", err, db.WriteInFlight(), since)
	}
	full.Store(false)
	shows(false)
	before := g.position(1)
	g.put(1, "k", "x")
	if after := g.position(1); after.LSN != before.LSN+1 {
		t.Errorf("from %v to %v with one write", before, after)
	}
	full.Store(true)
	if _, err := db.Put(g.ctx(), "k", []byte("y")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	shows(true)
	g.must(db.Demote(g.ctx(), failover.Demotion{Epoch: 2}))
	shows(false)
	full.Store(false)
	g.stop(1)
	g.start(1)
	if pos := g.position(1); pos.LSN != before.LSN+1 {
		t.Errorf("at %v after a restart, want LSN %d", pos, before.LSN+1)
	}
}

func TestLogFull(t *testing.T) {
	g := newGroup(t, 1)
	g.tune = func(c *Config) { c.MaxLogBytes = 300 }
	g.start(1)
	g.promote(1, 1)
	g.put(1, "k", strings.Repeat("v", 300))
	at := g.position(1)
	if _, err := g.dbs[1].Put(g.ctx(), "k", nil); !errors.Is(err, ErrLogFull) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if now := g.position(1); now != at {
		t.Fatal(now)
	}
	g.fence(2, 1)
	g.promote(2, 1) // a primary there must be, full or not
	if e, err := g.dbs[1].Get(g.ctx(), "k"); err != nil || len(e.Value) != 300 {
		t.Fatal(err)
	}
}

// Too much that is not committed holds the next writes back where they can
// still be given up with nothing written.
func TestUncommittedIsBounded(t *testing.T) {
	g := newGroup(t, 3)
	g.start(1)
	g.promote(1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var unknown, nothing atomic.Int64
	for range maxUncommitted + 2*maxBatchRecords {
		wg.Go(func() {
			_, err := g.dbs[1].Put(ctx, "k", nil)
			switch {
			case errors.Is(err, ErrUnknownOutcome):
				unknown.Add(1)
			case errors.Is(err, ErrNoQuorum):
				nothing.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	eventually(t, func() string {
		if p := g.position(1); p.LSN < maxUncommitted {
			return fmt.Sprintf("the bound reached: %v", p)
		}
		return ""
	})
	cancel()
	wg.Wait()
	if p := g.position(1); unknown.Load()+1 != int64(p.LSN) || nothing.Load() == 0 || p.LSN > maxUncommitted+maxBatchRecords {
		t.Fatalf("%d unknown, %d given up, log at %v", unknown.Load(), nothing.Load(), p)
	}
}

func TestBadArguments(t *testing.T) {
	g := newGroup(t, 1)
	g.start(1)
	g.promote(1, 1)
	for key, want := range map[string]error{"": ErrBadKey, strings.Repeat("k", MaxKeyLen+1): ErrBadKey, "\xff": ErrBadKey} {
		if _, err := g.dbs[1].Put(g.ctx(), key, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := g.dbs[1].Put(g.ctx(), "k", make([]byte, MaxValueLen+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	g.put(1, strings.Repeat("k", MaxKeyLen), strings.Repeat("v", MaxValueLen))
}

func TestCloseTwice(t *testing.T) {
	g := cluster(t, 3)
	g.put(1, "k", "v")
	var wg sync.WaitGroup
	for _, db := range g.dbs {
		for range 2 {
			wg.Go(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if _, err := g.dbs[1].Put(g.ctx(), "k", nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if s := g.dbs[1].Status(); s.Failed == "" {
		t.Fatalf("%+v", s)
	}
}

// Age is measured from the stamp a replica sent, not from when the answer
// came: a frame that lay in a buffer makes nothing look fresh.
func TestAgeOfAReplica(t *testing.T) {
	g := newGroup(t, 3)
	var now atomic.Int64
	g.clock = func() time.Duration { return time.Duration(now.Load()) }
	now.Store(1000)
	g.preload(2)
	primary := newFakePrimary(t)
	g.must(g.dbs[2].Demote(g.ctx(), failover.Demotion{Epoch: 1, Primary: 1, Address: primary.addr(), Lineage: lineageOf(1)}))
	end, _ := primary.accept()
	end.send(appendWelcome(nil, welcome{epoch: 1}))
	end.send(appendBatch(nil, batch{epoch: 1, commit: 3, records: logOf(1, 1, 1)}))
	if a := end.nextAck(); a.stamp != 1000 {
		t.Fatalf("%+v", a)
	}
	if age, err := g.dbs[2].Age(); err != nil || age != AgeUnknown {
		t.Fatal(age, err)
	}
	now.Store(5000)
	end.send(appendBatch(nil, batch{epoch: 1, commit: 3, echo: 1000})) // lsn 3 is still missing here
	end.nextAck()
	if age, err := g.dbs[2].Age(); err != nil || age != AgeUnknown {
		t.Fatal(age, err)
	}
	end.send(appendBatch(nil, batch{epoch: 1, commit: 3, records: []record{{epoch: 1, lsn: 3, kind: kindPut, key: []byte("k")}}}))
	end.nextAck()
	eventually(t, func() string {
		if age, err := g.dbs[2].Age(); err != nil || age != 4000 {
			return fmt.Sprintf("an age of 4000 ns: %v, %v", age, err)
		}
		return ""
	})
}

// Freshness only ever states what holds.
func TestFreshness(t *testing.T) {
	var f freshness
	f.promise(10, 100, 5)
	if f.known {
		t.Fatal("kept before lsn 10 was applied")
	}
	f.promise(20, 200, 5) // not yet: the older promise comes first
	f.keep(9)
	if f.known {
		t.Fatal("kept at lsn 9")
	}
	f.keep(12)
	if !f.known || f.at != 100 {
		t.Fatalf("%+v", f)
	}
	f.promise(12, 90, 12) // an older stamp makes nothing older
	if f.at != 100 {
		t.Fatalf("%+v", f)
	}
	f.promise(12, 300, 12)
	if f.at != 300 {
		t.Fatalf("%+v", f)
	}
}
