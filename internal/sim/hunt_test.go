package sim

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestHunt looks for a script that shows a mutant, and shrinks it:
//
//	SIM_HUNT='lease runs from' go test ./internal/sim -run Hunt -v
func TestHunt(t *testing.T) {
	name := os.Getenv("SIM_HUNT")
	if name == "" {
		t.Skip("SIM_HUNT names no mutant")
	}
	for _, m := range mutants {
		if m.invariant == "" || !strings.Contains(m.rule, name) {
			continue
		}
		fails := func(s Script, times int) *Result {
			for range times {
				if r := Run(t, s, m.options()); m.seen(r) != "" {
					return r
				}
			}
			return nil
		}
		began, found := time.Now(), false
		for seed := uint64(1); time.Since(began) < time.Minute && !found; seed++ {
			mix := m.mix
			if mix.Nodes == 0 {
				mix = mixes[int(seed)%2]
			}
			s := Generate(seed, mix)
			s.Quiet = m.invariant == "I7"
			r := fails(s, 1)
			if r == nil {
				continue
			}
			found = true
			t.Logf("%s: seed %d after %v: %v", m.rule, seed, time.Since(began), m.seen(r))
			small := Minimise(r.Script, 200, func(s Script) bool { return fails(s, 5) != nil })
			times := 0
			for range 20 {
				if fails(small, 1) != nil {
					times++
				}
			}
			t.Logf("seen %d times of 20: %s", times, small)
		}
		if !found {
			t.Errorf("%s: nothing found", m.rule)
		}
	}
}
