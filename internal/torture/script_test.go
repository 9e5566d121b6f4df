package torture

import (
	"slices"
	"testing"
	"time"
)

func scriptOf(t *testing.T, seed uint64, nodes, steps int, faults []Fault) []Step {
	t.Helper()
	s, err := NewScheduler(seed, nodes, faults)
	if err != nil {
		t.Fatal(err)
	}
	var out []Step
	for range steps {
		out = append(out, s.Next())
	}
	return out
}

func allFaults() []Fault {
	var all []Fault
	for _, k := range kinds() {
		if k.weight > 0 {
			all = append(all, k.fault)
		}
	}
	return all
}

func TestScriptFollowsFromItsSeed(t *testing.T) {
	a, b := scriptOf(t, 42, 3, 500, allFaults()), scriptOf(t, 42, 3, 500, allFaults())
	if !slices.Equal(a, b) {
		t.Error("the same seed gave two scripts")
	}
	if slices.Equal(a, scriptOf(t, 43, 3, 500, allFaults())) {
		t.Error("two seeds gave the same script")
	}
}

func TestScriptKeepsItsBounds(t *testing.T) {
	const nodes = 5
	steps := scriptOf(t, 7, nodes, 3000, allFaults())
	first := map[Fault]bool{}
	count := map[Fault]int{}
	var shortPauses, longPauses int
	dealt, total := len(kinds())-1, 0 // all but calm
	for _, k := range kinds() {
		total += k.weight
	}
	for i, s := range steps {
		if i < dealt {
			first[s.Fault] = true
		}
		count[s.Fault]++
		k := kinds()[slices.IndexFunc(kinds(), func(k kind) bool { return k.fault == s.Fault })]
		if s.N != i+1 || s.For < k.min || s.For > k.max || s.Turns > k.turns || (k.turns > 0 && s.Turns < 2) ||
			s.Lead < minLead || s.Lead > maxLead || s.Pick < 0 || s.Pick >= nodes-1 || s.Target == "" {
			t.Fatalf("step %+v is out of the bounds of %+v", s, k)
		}
		if s.Fault == FaultPause {
			if s.For < 250*time.Millisecond { // about the lease
				shortPauses++
			} else if s.For > 2*time.Second {
				longPauses++
			}
		}
	}
	if len(first) != dealt {
		t.Errorf("of %d faults %d came in the first %d steps", dealt, len(first), dealt)
	}
	for _, k := range kinds() {
		if k.fault == FaultCalm {
			continue
		}
		if share := float64(count[k.fault]) * float64(total) / 3000 / float64(k.weight); share < 0.5 || share > 1.7 {
			t.Errorf("%s came %d times of %d, its weight is %d", k.fault, count[k.fault], len(steps), k.weight)
		}
	}
	if shortPauses < 20 || longPauses < 20 {
		t.Errorf("%d pauses shorter than a lease, %d of seconds: want many of both", shortPauses, longPauses)
	}
}

func TestSchedulerKeepsToItsFaults(t *testing.T) {
	for _, s := range scriptOf(t, 1, 3, 50, []Fault{FaultPause}) {
		if s.Fault != FaultPause {
			t.Fatalf("%s was not asked for", s)
		}
	}
	if _, err := NewScheduler(1, 3, nil); err == nil {
		t.Error("a scheduler of nothing")
	}
	s, err := NewScheduler(1, 3, []Fault{FaultPause})
	if err != nil {
		t.Fatal(err)
	}
	s.Longest, s.Target = time.Second, OnReplica
	for range 200 {
		if step := s.Next(); step.For > time.Second || step.Target != OnReplica {
			t.Fatalf("%s lasts longer than allowed, or hits another", step)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, bad := range []Config{{Nodes: 2}, {Nodes: MaxNodes + 1}, {Duration: -1}, {Duration: MaxDuration + 1}, {Faults: []Fault{"earthquake"}},
		{Steps: -1}, {Busy: maxBusy + 1}, {Target: "somebody"}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if err := (Config{Nodes: 5, Faults: []Fault{FaultKill}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestSpreads(t *testing.T) {
	var changes []Change
	for i := 20; i > 0; i-- {
		changes = append(changes, Change{Fault: FaultKill, FailoverMS: float64(i)})
	}
	changes = append(changes, Change{Fault: FaultPause, FailoverMS: 7})
	got := Spreads(changes)
	if got[FaultKill] != (Spread{20, 10.5, 19, 20}) || got[FaultPause] != (Spread{1, 7, 7, 7}) || len(got) != 2 {
		t.Errorf("%+v", got)
	}
}
