package sim

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	failovers = flag.Int("sim.failovers", 150, "how many failovers TestFailovers simulates at least")
	firstSeed = flag.Uint64("sim.seed", 1, "first seed of TestFailovers; 0: a random one")
	members   = flag.Bool("sim.members", false, "TestFailovers changes who has a vote, too")
	verbose   = flag.Bool("sim.verbose", false, "TestScript shows every line that Raft and the drivers log")
	day       = flag.Duration("sim.day", 0, "how much virtual time TestDay simulates, 24h say")
)

// mixes are what TestFailovers draws its scripts from, in turn.
var mixes = []Mix{
	{Nodes: 3, Faults: 60, Pace: 600 * time.Millisecond},
	{Nodes: 3, Faults: 60, Pace: 600 * time.Millisecond, Drift: DriftAllowed},
	{Nodes: 5, Faults: 60, Pace: 600 * time.Millisecond},
	{Nodes: 3, Faults: 80, Pace: 350 * time.Millisecond, Drift: DriftAllowed, Only: []string{"cut", "cutone", "crash", "switch"}},
	{Nodes: 5, Faults: 60, Pace: 600 * time.Millisecond, Drift: DriftAllowed},
	{Nodes: 3, Faults: 60, Pace: 500 * time.Millisecond, Drift: DriftAllowed, Only: []string{"pause", "isolate", "rough", "stick", "slow"}},
	{Nodes: 7, Faults: 50, Pace: 600 * time.Millisecond, Drift: DriftAllowed},
}

// TestFailovers simulates failovers by the thousand (make test: ten thousand).
func TestFailovers(t *testing.T) {
	seed := *firstSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 40)
		t.Logf("-sim.seed=%d", seed)
	}
	var mu sync.Mutex
	var sum Result
	scripts, bad := 0, 0
	next := func() (Script, bool) {
		mu.Lock()
		defer mu.Unlock()
		mix := mixes[scripts%len(mixes)]
		mix.Members = *members
		s := Generate(seed+uint64(scripts), mix)
		scripts++
		return s, sum.Failovers < *failovers && bad < 3
	}
	began := time.Now()
	t.Run("side by side", func(t *testing.T) {
		for range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for s, more := next(); more; s, more = next() {
					r := Run(t, s, Options{})
					mu.Lock()
					sum.add(r)
					if len(r.Violations) > 0 {
						bad++
					}
					mu.Unlock()
					if len(r.Violations) > 0 {
						report(t, r, Options{})
					}
				}
			})
		}
	})
	t.Logf("%d failovers in %d scripts: %d writes acknowledged, %d reads, %v of virtual time in %v, longest gap in the calm %v; violations in %d scripts",
		sum.Failovers, scripts, sum.Acks, sum.Reads, sum.Virtual.Round(time.Second), time.Since(began).Round(time.Second), sum.Longest.Round(time.Millisecond), bad)
	if sum.Acks < sum.Failovers {
		t.Error("hardly anything was acknowledged: the test shows nothing")
	}
}

func (r *Result) add(o *Result) {
	r.Acks, r.Reads, r.Failovers, r.Promotions = r.Acks+o.Acks, r.Reads+o.Reads, r.Failovers+o.Failovers, r.Promotions+o.Promotions
	r.Virtual, r.Longest = r.Virtual+o.Virtual, max(r.Longest, o.Longest)
}

// report fails the test with a run that is as short as can be found.
func report(t *testing.T, r *Result, o Options) {
	t.Helper()
	t.Errorf("%v", r)
	invariant, _, _ := strings.Cut(r.Violations[0], " ")
	var smallest *Result
	small := Minimise(r.Script, 120, func(s Script) bool {
		for range 4 {
			if r := Run(t, s, o); slices.ContainsFunc(r.Violations, func(v string) bool { return strings.HasPrefix(v, invariant+" ") }) {
				smallest = r
				return true
			}
		}
		return false
	})
	if smallest == nil {
		t.Log("it does not happen again: run the script some more times")
		return
	}
	t.Logf("shrunk from %d faults to %d:\n%v", len(r.Script.Faults), len(small.Faults), smallest)
}

// TestScript runs one script, by default one with a fault of every kind:
//
//	SIM_SCRIPT='nodes=3 seed=1; 2s crash p 1s' go test ./internal/sim -run TestScript -v
func TestScript(t *testing.T) {
	text := os.Getenv("SIM_SCRIPT")
	if text == "" {
		text = "nodes=5 seed=1 rates=951,1049 snapshots; 2s crash p 1s; 4s pause p 500ms; 6s isolate p 1s; 8s switch 0; 9s stick p 3s; " +
			"13s slow f 20ms 2s; 14s cut p f 1s; 15s cutone f p 1s; 16s split p g 1s; 18s rough 30 30 50ms 2s; 21s stop p 1s; 23s rogue f g; 24s drift g 960 1s; 26s demote p 2s; 30s remove f 2s"
	}
	s, err := ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	var o Options
	if *verbose {
		o.Verbose = func(line string) { t.Log(line) }
	}
	r := Run(t, s, o)
	if t.Log(r); len(r.Violations) > 0 {
		t.Fail()
	}
}

// TestDay simulates mixed faults on five nodes for as long as -sim.day says.
func TestDay(t *testing.T) {
	if *day == 0 {
		t.Skip("-sim.day is not set; make sim-day sets it")
	}
	const pace = 4 * time.Second
	s := Generate(*firstSeed, Mix{Nodes: 5, Faults: int(*day / pace), Pace: pace, Drift: DriftAllowed, Members: true})
	began := time.Now()
	r := Run(t, s, Options{Think: 150 * time.Millisecond, Limit: 3 * time.Hour, Progress: func(at time.Duration, soFar Result) {
		t.Logf("%v of %v: %d failovers, %d writes acknowledged, longest gap in the calm %v", at.Round(time.Minute), *day, soFar.Failovers, soFar.Acks, soFar.Longest.Round(time.Millisecond))
	}})
	r.Script.Faults = nil // there are thousands
	if t.Logf("%v\nin %v of real time", r, time.Since(began).Round(time.Second)); len(r.Violations) > 0 {
		t.Fail()
	}
}

// TestNoFlapping: late and repeated messages, disks that take ten milliseconds
// more, clocks as far off as they may be, snapshots and strangers that ask for
// elections depose nobody.
func TestNoFlapping(t *testing.T) {
	length := 5 * time.Minute
	if raced {
		length = time.Minute
	}
	for _, text := range []string{"nodes=3 seed=1 rates=951,1049,1000 snapshots quiet", "nodes=5 seed=2 rates=1049,951 quiet"} {
		s, err := ParseScript(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Faults = []Fault{
			{At: 2 * time.Second, Kind: "rough", M: 50, D: 30 * time.Millisecond, E: length},
			{At: 2 * time.Second, Kind: "slow", A: Primary, D: 10 * time.Millisecond, E: length},
			{At: 2 * time.Second, Kind: "slow", A: Follower, D: 10 * time.Millisecond, E: length},
		}
		for at := 3 * time.Second; at < length; at += 7 * time.Second {
			s.Faults = append(s.Faults, Fault{At: at, Kind: "rogue", A: Follower, B: Other}, Fault{At: at + time.Second, Kind: "rogue", A: Other, B: Primary})
		}
		r := Run(t, s, Options{Think: 50 * time.Millisecond})
		if r.Script.Faults = r.Script.Faults[:3]; r.Failovers > 0 || len(r.Violations) > 0 {
			t.Errorf("%v", r)
		}
		t.Logf("%d nodes, %v: %d writes acknowledged, longest gap %v", s.Nodes, r.Virtual.Round(time.Second), r.Acks, r.Longest)
	}
}
