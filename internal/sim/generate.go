package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Mix says what Generate makes.
type Mix struct {
	Nodes   int
	Faults  int
	Pace    time.Duration // between two faults, on average
	Drift   int           // most error of the clocks, in ‰
	Members bool          // nodes lose their vote, and get it back
	Only    []string      // kinds of faults; nil: all that a healthy cluster survives
}

// DriftAllowed is the error of a clock, in ‰, that a lease allows for, less
// what is lost by rounding.
const DriftAllowed = 49

// weights is how often a kind of fault is drawn.
var weights = []struct {
	kind string
	n    int
}{
	{"crash", 24}, {"stop", 6}, {"pause", 16}, {"isolate", 12}, {"cut", 10}, {"cutone", 8}, {"split", 4},
	{"slow", 4}, {"stick", 5}, {"rough", 4}, {"switch", 12}, {"rogue", 3}, {"ambush", 5}, {"fade", 4},
}

// memberWeights is the same for changes of who has a vote, if Mix.Members asks for them.
var memberWeights = []struct {
	kind string
	n    int
}{{"demote", 4}, {"remove", 4}}

// Generate makes a script out of a seed.
func Generate(seed uint64, mix Mix) Script {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := Script{Nodes: mix.Nodes, Seed: seed, Snapshots: rng.IntN(3) == 0}
	if mix.Drift > 0 {
		for range mix.Nodes {
			rate := trueRate
			switch rng.IntN(3) {
			case 0:
				rate += mix.Drift
			case 1:
				rate -= mix.Drift
			}
			s.Rates = append(s.Rates, rate)
		}
	}
	allowed, all := weights[:0:0], weights
	if mix.Members {
		all = slices.Concat(weights, memberWeights)
	}
	sum := 0
	for _, w := range all {
		for _, kind := range mix.Only {
			if kind == w.kind {
				allowed = append(allowed, w)
			}
		}
		if mix.Only == nil {
			allowed = append(allowed, w)
		}
	}
	for _, w := range allowed {
		sum += w.n
	}
	at := 500 * time.Millisecond
	for range mix.Faults {
		at += time.Duration(rng.Int64N(int64(2 * mix.Pace))).Round(time.Millisecond)
		n := rng.IntN(sum)
		for _, w := range allowed {
			if n -= w.n; n < 0 {
				s.Faults = append(s.Faults, draw(rng, w.kind, at, mix)...)
				break
			}
		}
	}
	slices.SortStableFunc(s.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return s
}

// draw makes what a kind stands for. Two kinds are several faults, at moments
// that chance would seldom find:
//
//	ambush  one follower has lost the primary and stands; the other one is cut off too and forgets, by a restart,
//	        that there is a leader: somebody is elected while the lease still runs
//	fade    answers take long, and then none come any more
func draw(rng *rand.Rand, kind string, at time.Duration, mix Mix) []Fault {
	ms := func(from, below int) time.Duration {
		return time.Duration(from+rng.IntN(below-from)) * time.Millisecond
	}
	switch kind {
	case "ambush":
		then := at + ms(300, 1200)
		return []Fault{{At: at, Kind: "cut", A: Primary, B: Follower, D: 2 * time.Second}, {At: then, Kind: "cut", A: Primary, B: Other, D: time.Second},
			{At: then, Kind: "crash", A: Other, D: ms(0, 30)}}
	case "fade":
		lasts := ms(300, 900)
		return []Fault{{At: at, Kind: "rough", D: ms(100, 400), E: lasts}, {At: at + lasts, Kind: "isolate", A: Primary, D: ms(300, 1000)}}
	}
	return []Fault{drawOne(rng, kind, at, mix)}
}

// drawOne makes one fault of a kind.
func drawOne(rng *rand.Rand, kind string, at time.Duration, mix Mix) Fault {
	node := func() Who { return Who(strconv.Itoa(1 + rng.IntN(mix.Nodes))) }
	// Half of everything befalls the primary.
	someone := func() Who {
		if rng.IntN(2) == 0 {
			return Primary
		}
		return node()
	}
	// Durations around the lease matter most, and a few that are much shorter or longer.
	lasting := func() time.Duration {
		ms := 1 + rng.IntN(700)
		switch rng.IntN(6) {
		case 0:
			ms = rng.IntN(20)
		case 1:
			ms = 700 + rng.IntN(4000)
		}
		return time.Duration(ms) * time.Millisecond
	}
	f := Fault{At: at, Kind: kind, A: someone(), D: lasting()}
	switch kind {
	case "cut", "cutone", "split":
		for f.B = node(); f.B == f.A; {
			f.B = node()
		}
		if rng.IntN(2) == 0 {
			f.A, f.B = f.B, f.A
		}
		f.D += time.Duration(rng.IntN(1000)) * time.Millisecond
	case "slow":
		f.D, f.E = time.Duration(1+rng.IntN(60))*time.Millisecond, f.D+time.Second
	case "stick":
		f.D += time.Duration(rng.IntN(3000)) * time.Millisecond
	case "rough":
		f.A, f.N, f.M, f.D, f.E = "", rng.IntN(60), rng.IntN(100), time.Duration(1+rng.IntN(120))*time.Millisecond, f.D+time.Second
	case "switch":
		f.A, f.D = [...]Who{Best, node()}[rng.IntN(2)], 0
	case "rogue":
		f.A, f.B, f.D = node(), node(), 0
	}
	return f
}
