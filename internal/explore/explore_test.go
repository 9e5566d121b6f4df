package explore

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// go test ./internal/explore -run 'Explore|Settles' -v -deep 10m
var deep = flag.Duration("deep", 0, "how long to explore each configuration instead of a moment")

var drifting = [nodes]int{960, 1040, 1000}

// configs are explored by every test run, each as far as the time allows.
var configs = []Config{
	{Name: "first primary", Bounds: Bounds{Terms: 1, Writes: 1}},
	{Name: "first two, from nothing", Bounds: Bounds{Terms: 2, Writes: 1, Crashes: 1}},
	{Name: "one failover", Warm: true, Bounds: Bounds{Terms: 2, Writes: 1}},
	{Name: "one failover, a crash, a fault", Warm: true, Bounds: Bounds{Terms: 2, Writes: 2, Crashes: 1, Faults: 1}},
	{Name: "two failovers", Warm: true, Bounds: Bounds{Terms: 3, Writes: 3, Crashes: 1}},
	{Name: "two failovers, begin records", Warm: true, Begin: true, Bounds: Bounds{Terms: 3, Writes: 2, Crashes: 1, Faults: 1}},
	{Name: "three failovers, switchovers, faults", Warm: true, Grace: true, Bounds: Bounds{Terms: 5, Writes: 3, Crashes: 2, Faults: 3, Switchovers: 2}},
	{Name: "fine", Warm: true, Fine: true, Bounds: Bounds{Terms: 2, Writes: 1}},
	{Name: "fine, with everything", Warm: true, Fine: true, Grace: true, Bounds: Bounds{Terms: 4, Writes: 3, Crashes: 2, Faults: 3, Switchovers: 1}},
	{Name: "lease", Warm: true, Lease: true, StepPermille: 1060, Bounds: Bounds{Terms: 2, Clock: 1}},
	{Name: "lease, drifting clocks", Warm: true, Lease: true, StepPermille: 500, RatePermille: drifting, Bounds: Bounds{Terms: 3, Writes: 2, Crashes: 1, Clock: 5, Switchovers: 1}},
	{Name: "lease, a step as long as it", Warm: true, Lease: true, StepPermille: 1000, RatePermille: drifting, Bounds: Bounds{Terms: 3, Writes: 2, Crashes: 1, Clock: 3, Faults: 1}},
	{Name: "lease, fine, with everything", Warm: true, Lease: true, Fine: true, StepPermille: 350, RatePermille: drifting, Bounds: Bounds{Terms: 4, Writes: 3, Crashes: 2, Clock: 6, Faults: 2, Switchovers: 1}},
}

// deeper are explored with -deep; in a minute or two each comes to its end.
var deeper = []Config{
	{Name: "one failover, two records", Warm: true, Bounds: Bounds{Terms: 2, Writes: 2}},
	{Name: "one failover, three records", Warm: true, Bounds: Bounds{Terms: 2, Writes: 3}},
	{Name: "one failover, a crash", Warm: true, Bounds: Bounds{Terms: 2, Writes: 1, Crashes: 1}},
	{Name: "one failover, a fault", Warm: true, Bounds: Bounds{Terms: 2, Writes: 1, Faults: 1}},
	{Name: "two epochs, from nothing", Bounds: Bounds{Terms: 2}},
	{Name: "lease, a record", Warm: true, Lease: true, StepPermille: 1060, Bounds: Bounds{Terms: 2, Writes: 1, Clock: 1}},
	{Name: "two failovers, a record", Warm: true, Bounds: Bounds{Terms: 3, Writes: 1}},
}

// whole are those that are small enough to be explored to their ends.
var whole = map[string]bool{"first primary": true, "one failover": true}

func (w *world) mustBegin(t *testing.T) *state {
	t.Helper()
	s, err := w.begin()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestExplore visits the states next to the beginning, all of them, and takes
// walks to those further away.
func TestExplore(t *testing.T) {
	near, far := limit{states: 6_000}, limit{time: time.Minute, states: 8_000}
	if *deep > 0 {
		near, far = limit{time: *deep, states: 12_000_000}, limit{time: *deep}
	}
	explored := configs
	if *deep > 0 {
		explored = append(slices.Clip(configs), deeper...)
	}
	for _, c := range explored {
		t.Run(c.Name, func(t *testing.T) {
			w := newWorld(c)
			s := w.mustBegin(t)
			seed := rand.Uint64()
			most := near
			if whole[c.Name] {
				most = limit{}
			}
			rep := w.search(s, most, nil)
			if whole[c.Name] != rep.Complete && *deep == 0 {
				t.Errorf("complete: %v", rep.Complete)
			}
			for _, rep := range []Report{rep, w.walk(s, rand.New(rand.NewPCG(seed, 0)), 150, far)} {
				if t.Log(rep); rep.Broken != "" {
					t.Errorf("seed %d", seed)
				}
			}
		})
	}
}

// TestSettles checks, from states met on the way, that a primary comes about
// that everybody follows as soon as nothing goes wrong any more (I6).
func TestSettles(t *testing.T) {
	walks := 12
	if *deep > 0 {
		walks = 10_000
	}
	for _, c := range configs {
		t.Run(c.Name, func(t *testing.T) {
			w := newWorld(c)
			start := w.mustBegin(t)
			tried := 0
			for seed := range walks {
				rng := rand.New(rand.NewPCG(uint64(seed), 1))
				s := start
				var path []step
				for range 80 {
					steps := w.enabled(s, nil)
					if len(steps) == 0 {
						break
					}
					st := steps[rng.IntN(len(steps))]
					path = append(path, st)
					s, _ = w.take(s, st)
					if len(path)%8 != 0 {
						continue
					}
					tried++
					if _, v := w.fair(s); v != nil {
						t.Fatalf("seed %d: %v; after\n%v", seed, v, Report{Trace: w.tell(start, path), Broken: v.what, Invariant: v.invariant})
					}
				}
			}
			t.Logf("%d states settled", tried)
		})
	}
}

// grudges are configurations in which nodes fail, and are passed over for longer
// than the test lasts: only that they are needed can bring them back.
var grudges = []Config{
	{Name: "grudge", Warm: true, Grudge: true, Bounds: Bounds{Terms: 6, Writes: 3, Crashes: 1, Faults: 4}},
	{Name: "grudge, fine", Warm: true, Grudge: true, Fine: true, Grace: true, Bounds: Bounds{Terms: 6, Writes: 3, Crashes: 1, Faults: 4, Switchovers: 1}},
}

// TestSettlesWithTwo checks the same when one of the three has died for good:
// the two that are left are a quorum, whatever has failed before (I6).
func TestSettlesWithTwo(t *testing.T) {
	walks := 60
	if *deep > 0 {
		walks = 20_000
	}
	for _, c := range append(slices.Clip(grudges), configs...) {
		t.Run(c.Name, func(t *testing.T) {
			tried, v := settlesWithTwo(t, c, walks)
			if v != "" {
				t.Error(v)
			}
			t.Logf("%d states settled", tried)
		})
	}
	t.Run("mutant", func(t *testing.T) {
		c := grudges[0]
		c.Broken.BegsInVain = true
		if tried, v := settlesWithTwo(t, c, 20*walks); v == "" {
			t.Errorf("the mutant survives %d states", tried)
		} else {
			t.Log(v)
		}
	})
}

func settlesWithTwo(t *testing.T, c Config, walks int) (tried int, broken string) {
	w := newWorld(c)
	start := w.mustBegin(t)
	for seed := range walks {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		s := start
		var path []step
		for len(path) < 20+rng.IntN(100) {
			steps := w.enabled(s, nil)
			if len(steps) == 0 {
				break
			}
			st := steps[rng.IntN(len(steps))]
			path = append(path, st)
			s, _ = w.take(s, st)
		}
		dead := rng.IntN(nodes)
		tried++
		if _, v := w.fair(w.without(s, dead)); v != nil {
			return tried, fmt.Sprintf("seed %d, node %d dead: %v; after\n%v", seed, dead+1, v,
				Report{Trace: w.tell(start, path), Broken: v.what, Invariant: v.invariant})
		}
	}
	return tried, ""
}

// TestFloorRule holds the model's rule of promises against fencing.Floor.
func TestFloorRule(t *testing.T) {
	floor, err := fencing.OpenFloor(filepath.Join(t.TempDir(), "fencing.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := floor.Create(epochStart); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var p promise
	for range 60 {
		epoch, to := p.epoch+protocol.Epoch(rng.IntN(3)), protocol.NodeID(1+rng.IntN(nodes))
		if epoch = max(epoch, 2) - 1; rng.IntN(2) == 0 {
			epoch = max(p.epoch, 1)
		}
		next, modelled := p.raised(epoch, to)
		if real := floor.Promise(epoch, to, epochStart); (real == nil) != (modelled == nil) {
			t.Fatalf("promise of %d to %d on %v: the floor says %v, the model %v", epoch, to, p, real, modelled)
		}
		p = next
		if got := floor.Current(); got.Epoch != p.epoch || got.NodeID != p.to {
			t.Fatalf("the floor is at %v, the model at %v", got, p)
		}
	}
}
