package sim

import (
	"slices"
	"testing"
	"time"
)

func TestScriptsReadAsTheyAreWritten(t *testing.T) {
	for seed := range uint64(200) {
		s := Generate(seed, Mix{Nodes: 3 + 2*int(seed%3), Faults: 40, Pace: time.Second, Drift: DriftAllowed})
		again, err := ParseScript(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%s\nis read as\n%s\n%v", s, again, err)
		}
	}
	for _, text := range []string{"", "nodes=0", "nodes=10", "nodes=3 seed=x", "nodes=3 rates=0", "nodes=3 speed=1", "nodes=3; 1s", "nodes=3; x crash p 1s",
		"nodes=3; 1s fall p 1s", "nodes=3; 1s crash", "nodes=3; 1s crash 4 1s", "nodes=3; 1s crash q 1s", "nodes=3; 1s crash p -1s", "nodes=3; 1s rough a 1 1s 1s"} {
		if s, err := ParseScript(text); err == nil {
			t.Errorf("%q is read as %q", text, s)
		}
	}
}

func TestMinimise(t *testing.T) {
	s := Generate(3, Mix{Nodes: 3, Faults: 60, Pace: time.Second, Drift: DriftAllowed})
	needed := []string{s.Faults[7].Kind, s.Faults[31].Kind, s.Faults[58].Kind}
	calls := 0
	small := Minimise(s, 500, func(c Script) bool {
		calls++
		at := 0
		for _, f := range c.Faults {
			if at < len(needed) && f.Kind == needed[at] {
				at++
			}
		}
		return at == len(needed)
	})
	var kinds []string
	for _, f := range small.Faults {
		kinds = append(kinds, f.Kind)
	}
	if !slices.Equal(kinds, needed) || small.Rates != nil {
		t.Errorf("%d calls shrink it to %s; %v are needed", calls, small, needed)
	}
	calls = 0
	Minimise(s, 10, func(Script) bool { calls++; return false })
	if calls > 10 {
		t.Errorf("%d calls, 10 were allowed", calls)
	}
}

// A real failure shrinks to what makes it.
func TestMinimiseRun(t *testing.T) {
	s := Generate(1, Mix{Nodes: 3, Faults: 30, Pace: 300 * time.Millisecond, Only: []string{"isolate", "cut", "switch"}})
	o := Options{broken: breakage{ackTooSmall: true}}
	fails := func(s Script) bool {
		for range 4 {
			if len(Run(t, s, o).Violations) > 0 {
				return true
			}
		}
		return false
	}
	if !fails(s) {
		t.Fatal("the script shows nothing")
	}
	// Goroutines do not run in the same order every time, so now and then a
	// fault stays that is not needed.
	if small := Minimise(s, 100, fails); len(small.Faults) > len(s.Faults)/4 {
		t.Errorf("%d faults shrunk to %s", len(s.Faults), small)
	}
}
