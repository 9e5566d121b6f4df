package explore

import (
	"math/rand/v2"
	"testing"
	"time"
)

// mutants are the rules of the protocol, each broken in turn, and where the
// hole shows.
var mutants = []struct {
	name   string
	broken Rules
	config Config
	seed   uint64 // of walks that come upon it soon; 0: it is searched for
}{
	{"positions compared by LSN first", Rules{LSNFirst: true}, Config{Warm: true, Bounds: Bounds{Terms: 3, Writes: 3, Crashes: 1}}, 35},
	{"floor forgotten in a crash", Rules{FloorForgotten: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1, Crashes: 1}}, 35},
	{"answer before the promise", Rules{AnswerBeforePromise: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}}, 35},
	{"position read before the fence", Rules{PositionBeforeFence: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}}, 35},
	{"fork read before the fence", Rules{ForkBeforeFence: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}}, 35},
	{"guard not closed by a ballot", Rules{GuardIgnoresBallot: true}, Config{Warm: true, Lease: true, Bounds: Bounds{Terms: 2, Clock: 1}}, 35},
	{"guard opens again", Rules{GuardReopens: true}, Config{Warm: true, Almost: true, Lease: true, Bounds: Bounds{Terms: 2}}, 39},
	{"ballot quorum too small", Rules{BallotTooSmall: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1, Faults: 1}}, 35},
	{"write quorum too small", Rules{AckTooSmall: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}}, 35},
	{"confirmed before it is flushed", Rules{AckUnflushed: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1, Crashes: 1}}, 35},
	{"acknowledged without the guard", Rules{AckUnguarded: true}, Config{Warm: true, Lease: true, StepPermille: 1060, Bounds: Bounds{Terms: 2, Writes: 1, Clock: 1}}, 23},
	{"divergence not cut", Rules{NoCut: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 2}}, 35},
	{"cut below the fence", Rules{CutBelowFence: true}, Config{Warm: true, Bounds: Bounds{Terms: 3, Writes: 1}}, 35},
	{"stale stream taken", Rules{StaleStream: true}, Config{Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}}, 35},
	{"help after a ballot", Rules{NoBar: true}, Config{Warm: true, Lease: true, Fine: true, Bounds: Bounds{Terms: 2}}, 35},
	{"age ignored", Rules{AgeIgnored: true}, Config{Warm: true, Lease: true, Bounds: Bounds{Terms: 2}}, 35},
	{"stamp at receipt", Rules{StampAtReceipt: true}, Config{Warm: true, Lease: true, StepPermille: 1060, Bounds: Bounds{Terms: 2, Clock: 1}}, 0},
	{"no allowance for drift", Rules{NoDrift: true}, Config{Warm: true, Lease: true, StepPermille: 1000, RatePermille: [nodes]int{960, 1040, 1040}, Bounds: Bounds{Terms: 2, Clock: 1}}, 9},
	{"fork not committed", Rules{ForkUncommitted: true}, Config{Warm: true, Bounds: Bounds{Terms: 4, Writes: 2}}, 35},
}

func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			c := m.config
			c.Name = m.name
			sane := newWorld(c)
			c.Broken = m.broken
			w := newWorld(c)
			s, err := w.begin()
			if err != nil {
				t.Fatal(err)
			}
			var found Report
			if m.seed != 0 {
				found = w.walk(s, rand.New(rand.NewPCG(m.seed, 7)), 100, limit{time: time.Minute, states: 5_000_000})
			}
			if found.Broken == "" {
				found = w.search(s, limit{states: 3_000_000}, nil)
			}
			if found.Broken == "" {
				t.Fatalf("the mutant survives:\n%v", found)
			}
			if s, err = sane.begin(); err != nil {
				t.Fatal(err)
			}
			if _, broken := sane.retell(s, found.Trace); broken != nil {
				t.Errorf("the same happens without the mutation: %v", broken)
			}
			t.Log(found)
		})
	}
}
