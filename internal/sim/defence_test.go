package sim

import (
	"testing"
	"time"
)

// The two lines of defence, each broken alone. Without the lease two may speak
// at once, and reads may be stale; without the floor's refusing, writes may be
// lost. What the other one holds must hold.
func TestDefences(t *testing.T) {
	for _, d := range []struct {
		name     string
		broken   breakage
		tolerate []string
		shown    string // by its violations, that the line is broken
		mix      Mix
	}{
		{"without the lease no acknowledged write is lost", breakage{leaseTooLong: true, ageIgnored: true},
			[]string{"I1", "I4", "stale"}, "I1", Mix{Nodes: 3, Faults: 60, Pace: 400 * time.Millisecond}},
		{"without the lease no acknowledged write is lost, five nodes", breakage{leaseTooLong: true, ageIgnored: true},
			[]string{"I1", "I4", "stale"}, "I1", Mix{Nodes: 5, Faults: 60, Pace: 400 * time.Millisecond}},
		{"without the floor's refusing nobody speaks beside another", breakage{fenceIgnored: true, barIgnored: true},
			[]string{"I3", "I5", "I6", "history", "stale"}, "I5", Mix{Nodes: 3, Faults: 60, Pace: 400 * time.Millisecond, Drift: DriftAllowed,
				Only: []string{"fade", "ambush", "pause"}}},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			shown, runs := 0, uint64(10)
			if raced {
				runs = 3
			}
			for seed := range runs {
				r := Run(t, Generate(seed, d.mix), Options{broken: d.broken, tolerate: d.tolerate})
				if shown += r.tolerated[d.shown]; len(r.Violations) > 0 {
					t.Errorf("%v", r)
				}
			}
			// What shows the break may be rare: until it is seen.
			for try := uint64(0); shown == 0 && try < scriptTries; try++ {
				s, err := ParseScript("nodes=3 seed=1; 1s rough 0 0 700ms 1s" + isolations)
				if err != nil {
					t.Fatal(err)
				}
				s.Seed += try
				r := Run(t, s, Options{broken: d.broken, tolerate: d.tolerate})
				if shown += r.tolerated[d.shown]; len(r.Violations) > 0 {
					t.Errorf("%v", r)
				}
			}
			if shown == 0 {
				t.Errorf("%s is never violated: the line of defence is not broken, and the test shows nothing", d.shown)
			}
			t.Logf("%s is violated %d times", d.shown, shown)
		})
	}
}

// A clock that runs far beyond what is allowed for breaks the lease in the same
// way.
func TestWildClock(t *testing.T) {
	s, err := ParseScript("nodes=3 seed=1; 1s drift p 200 2s; 1.5s isolate p 1s; 4s drift p 100 2s; 4.5s isolate p 1s; 8s drift p 1 1s; 8.2s pause p 700ms")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for range 10 {
		s.Seed++
		r := Run(t, s, Options{tolerate: []string{"I1", "I4", "stale"}})
		if shown += r.tolerated["I1"]; len(r.Violations) > 0 {
			t.Errorf("%v", r)
		}
	}
	if shown == 0 {
		t.Error("the lease holds with a clock that hardly runs: the test shows nothing")
	}
}
