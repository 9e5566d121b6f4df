package sim

import (
	"slices"
	"time"
)

// Minimise returns a script that fails as s does, with as few faults as it can
// find: delta debugging over the faults, then simpler ones one by one. A run
// does not replay exactly, so fails had better try a script several times. It is
// called at most most times.
func Minimise(s Script, most int, fails func(Script) bool) Script {
	try := func(candidate Script) bool {
		if most--; most < 0 || !fails(candidate) {
			return false
		}
		s = candidate
		return true
	}
	with := func(faults []Fault) Script {
		c := s
		c.Faults = faults
		return c
	}
	for parts := 2; len(s.Faults) > 0 && most > 0; {
		parts = min(parts, len(s.Faults))
		size := (len(s.Faults) + parts - 1) / parts
		shrunk := false
		// From the end: what comes after the failure goes first.
		for from := (len(s.Faults) - 1) / size * size; from >= 0 && !shrunk; from -= size {
			rest := slices.Delete(slices.Clone(s.Faults), from, min(from+size, len(s.Faults)))
			shrunk = try(with(rest))
		}
		switch {
		case shrunk:
			parts = max(parts-1, 2)
		case size == 1:
			return simpler(s, try)
		default:
			parts *= 2
		}
	}
	return simpler(s, try)
}

// simpler tries to do without what else a script says.
func simpler(s Script, try func(Script) bool) Script {
	change := func(simplify func(*Script)) {
		c := s
		c.Faults = slices.Clone(s.Faults)
		if simplify(&c); c.String() != s.String() && try(c) {
			s = c
		}
	}
	change(func(c *Script) { c.Rates = nil })
	change(func(c *Script) { c.Snapshots = false })
	for i := range s.Faults {
		change(func(c *Script) { c.Faults[i].D = c.Faults[i].D.Round(100 * time.Millisecond) })
	}
	if n := len(s.Faults); n > 0 { // nothing happens for a while: begin sooner
		early := s.Faults[0].At - time.Second
		change(func(c *Script) {
			for i := range c.Faults {
				c.Faults[i].At -= max(0, early).Round(10 * time.Millisecond)
			}
		})
	}
	return s
}
