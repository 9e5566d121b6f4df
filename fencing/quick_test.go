package fencing

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/quick"
	"time"

	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

// machine is a computer's clocks, moved by hand.
type machine struct {
	awake     time.Duration // what the monotonic clock shows
	suspended time.Duration
	stepped   time.Duration // how far the wall clock was set
	exact     int           // readings of the exact clock
	// between is called between the readings of the wall clock and of the
	// monotonic one.
	between func()
}

func (m *machine) true() time.Duration { return m.awake + m.suspended }

func (m *machine) boot() time.Duration { m.exact++; return m.true() }

func (m *machine) now() (wall, monotonic time.Duration) {
	const epoch = 50 * 365 * 24 * time.Hour
	wall = epoch + m.true() + m.stepped
	if m.between != nil {
		m.between()
	}
	return wall, m.awake
}

func leased(t *testing.T, m *machine, d time.Duration) *Guard {
	t.Helper()
	g := NewQuickGuard(m.boot, m.now)
	if err := g.Open(1); err != nil {
		t.Fatal(err)
	}
	g.Extend(1, m.true()+d)
	m.exact = 0
	return g
}

func TestQuickGuard(t *testing.T) {
	const lease = time.Second
	for _, test := range []struct {
		name  string
		do    func(m *machine)
		want  error
		exact int // readings of the exact clock by one Check
	}{
		{"nothing happens", func(*machine) {}, nil, 0},
		{"time passes", func(m *machine) { m.awake += lease / 2 }, nil, 0},
		{"the last moment of the lease", func(m *machine) { m.awake += lease - 1 }, nil, 1},
		{"the lease is over", func(m *machine) { m.awake += lease }, ErrLeaseExpired, 1},
		{"a suspension longer than the lease", func(m *machine) { m.suspended += time.Hour }, ErrLeaseExpired, 1}, // I4
		{"a suspension as long as the lease", func(m *machine) { m.suspended += lease }, ErrLeaseExpired, 1},
		{"a shorter one", func(m *machine) { m.suspended += lease / 2 }, nil, 1},
		{"one nobody notices, at the end", func(m *machine) { m.suspended += QuickLimit; m.awake += lease - QuickLimit }, ErrLeaseExpired, 1},
		{"the wall clock is set forward", func(m *machine) { m.stepped += time.Hour }, nil, 1},
		{"the wall clock is set back", func(m *machine) { m.stepped -= time.Hour }, nil, 1},
		{"the wall clock is set forward, and the lease is over", func(m *machine) { m.stepped += time.Hour; m.awake += lease }, ErrLeaseExpired, 1},
		{"the wall clock is set back, and the lease is over", func(m *machine) { m.stepped -= lease; m.awake += lease }, ErrLeaseExpired, 1},
		{"a suspension and a correction by its error", func(m *machine) { m.suspended += time.Hour; m.stepped -= time.Second }, ErrLeaseExpired, 1},
		// Held up between the two readings, for as long as there was a suspension before.
		{"a delay hides a suspension, but the lease runs at the first reading", func(m *machine) {
			m.suspended += lease / 4
			m.between = func() { m.awake += lease / 4 }
		}, nil, 0},
		{"a delay hides a suspension, and the lease is over at the first reading", func(m *machine) {
			m.suspended += lease
			m.between = func() { m.awake += lease }
		}, ErrLeaseExpired, 1},
		// As documented: this deceives it, and nothing less does.
		{"the wall clock is set back by the length of a suspension", func(m *machine) { m.suspended += lease; m.stepped -= lease }, nil, 0},
	} {
		m := &machine{}
		g := leased(t, m, lease)
		test.do(m)
		if err := g.Check(1); !errors.Is(err, test.want) || m.exact != test.exact {
			t.Errorf("%s: %v and %d readings of the exact clock, want %v and %d", test.name, err, m.exact, test.want, test.exact)
		}
	}
}

// After a renewal the quick clock is good again.
func TestQuickGuardPairsAgain(t *testing.T) {
	m := &machine{}
	g := leased(t, m, time.Second)
	m.stepped, m.suspended = -time.Hour, time.Minute
	g.Extend(1, m.true()+time.Second)
	m.exact = 0
	if err := g.Check(1); err != nil || m.exact != 0 {
		t.Errorf("%v, %d readings of the exact clock", err, m.exact)
	}
	m.suspended += time.Second
	if err := g.Check(1); !errors.Is(err, ErrLeaseExpired) {
		t.Errorf("after another suspension: %v", err)
	}
}

// Clocks that cannot be read close together are not believed.
func TestQuickGuardHeldUpWhilePairing(t *testing.T) {
	m := &machine{}
	g := NewQuickGuard(m.boot, m.now)
	if err := g.Open(1); err != nil {
		t.Fatal(err)
	}
	m.between = func() { m.suspended += 2 * QuickLimit }
	g.Extend(1, time.Hour)
	m.between = nil
	m.exact = 0
	if err := g.Check(1); err != nil || m.exact == 0 {
		t.Errorf("%v, %d readings of the exact clock", err, m.exact)
	}
}

// Whatever happens to the clocks but that one thing, a Check that says yes
// began before the deadline, and one that says no ended after it.
func TestQuickGuardIsNeverWrong(t *testing.T) {
	run := func(seed uint64) bool {
		random := rand.New(rand.NewPCG(seed, 0))
		some := func() time.Duration { return time.Duration(random.ExpFloat64() * float64(3*time.Millisecond)) }
		m := &machine{}
		g := leased(t, m, 0)
		deadline := m.true()
		var slept, set bool // since the clocks were paired: not both, see QuickClock
		for range 200 {
			switch random.IntN(6) {
			case 0:
				m.awake += some()
			case 1:
				if !set {
					m.suspended += some()
					slept = true
				}
			case 2:
				if !slept {
					m.stepped += some() - some()
					set = true
				}
			case 3:
				m.awake += pairEvery // so that they are paired anew
				d := m.true() + 5*some()
				deadline = max(deadline, d)
				g.Extend(1, d)
				slept, set = false, false
			case 4:
				d := some()
				m.between = func() { m.awake += d; m.between = nil }
			}
			began := m.true()
			err := g.Check(1)
			if err == nil && began >= deadline || err != nil && m.true() < deadline {
				t.Logf("seed %d: %v at %v to %v, the deadline is %v", seed, err, began, m.true(), deadline)
				return false
			}
		}
		return true
	}
	if err := quick.Check(run, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestCheckUntil(t *testing.T) {
	clock := &handClock{}
	g := NewGuard(clock.read)
	expect := func(epoch protocol.Epoch, want time.Duration, wantErr error) {
		t.Helper()
		if got, err := g.CheckUntil(epoch); got != want || err != wantErr {
			t.Errorf("CheckUntil(%d) = %v, %v, want %v, %v", epoch, got, err, want, wantErr)
		}
	}
	expect(1, 0, ErrNotPrimary)
	if err := g.Open(1); err != nil {
		t.Fatal(err)
	}
	expect(1, 0, ErrLeaseExpired)
	g.Extend(1, NoDeadline)
	expect(1, NoDeadline, nil)
	g.Extend(1, 100)
	expect(1, 100, nil)
	expect(2, 0, ErrNotPrimary)
	clock.now.Store(100)
	expect(1, 0, ErrLeaseExpired)
	g.Close(nil)
	expect(1, 0, ErrNotPrimary)
}

// An answer taken for in time came before the lease was over, whatever the
// clocks' rates within what is allowed, wherever the process was stopped.
func TestValidFor(t *testing.T) {
	const d = 10 * time.Second
	if got := ValidFor(1, 2, NoDeadline); got != NoDeadline {
		t.Errorf("without a lease: %v", got)
	}
	if got := ValidFor(100, 200, 150); got != 40 { // 100 taken, 10 of it off, 50 past the deadline
		t.Errorf("past the deadline: %v", got)
	}
	rate := func(random *rand.Rand) float64 {
		return 1 + (random.Float64()*2-1)*DriftPercent/100
	}
	useful := 0
	run := func(seed uint64) bool {
		random := rand.New(rand.NewPCG(seed, 0))
		server, client := rate(random), rate(random)
		uniform := func(d time.Duration) time.Duration { return time.Duration(random.Float64() * float64(d)) }
		// True times. The lease was renewed by what was sent at 0, so that nobody
		// else is promoted before d.
		arrived := uniform(4*d) - 3*d
		sent := arrived - uniform(d/10)
		answered := max(arrived, 0) + uniform(d)
		received := answered + uniform(2*d)
		on := func(rate float64, at time.Duration) time.Duration { return time.Duration(float64(at) * rate) }
		until := on(server, 0) + HeldFor(d)
		if on(server, answered) >= until {
			return true // refused anyway
		}
		valid := ValidFor(on(server, arrived), on(server, answered), until)
		taken := on(client, received)-on(client, sent) <= valid
		if taken {
			useful++
		}
		return !taken || received <= d
	}
	if err := quick.Check(run, &quick.Config{MaxCount: 20_000}); err != nil {
		t.Error(err)
	}
	if useful < 1000 {
		t.Errorf("only %d answers were in time", useful)
	}
}

// BenchmarkGuardCheck is Check as the node has it: leased, renewed meanwhile,
// with 16 goroutines asking; alone, and beside as many busy loops as there are
// cores.
func BenchmarkGuardCheck(b *testing.B) {
	for _, load := range []string{"alone", "busy"} {
		b.Run(load, func(b *testing.B) {
			var others sync.WaitGroup
			stop := make(chan struct{})
			defer others.Wait()
			defer close(stop)
			if load == "busy" {
				for range runtime.GOMAXPROCS(0) {
					others.Go(func() {
						for n := 0; ; n++ {
							select {
							case <-stop:
								return
							default:
							}
						}
					})
				}
			}
			g := NewQuickGuard(clock.Boot, clock.Quick)
			if err := g.Open(1); err != nil {
				b.Fatal(err)
			}
			g.Extend(1, clock.Boot()+time.Minute)
			others.Go(func() {
				renew := time.NewTicker(10 * time.Millisecond)
				defer renew.Stop()
				for {
					select {
					case <-renew.C:
						g.Extend(1, clock.Boot()+time.Minute)
					case <-stop:
						return
					}
				}
			})
			b.ReportAllocs()
			b.SetParallelism(max(1, 16/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := g.Check(1); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
