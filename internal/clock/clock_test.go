package clock

import "testing"

func TestBootNeverGoesBack(t *testing.T) {
	last := Boot()
	for range 100_000 {
		now := Boot()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
	if monotonic() > Boot() {
		t.Errorf("the process has run for %v, the machine for %v", monotonic(), Boot())
	}
}

// The monotonic part of Quick runs as Boot does: between two readings of Boot
// neither less nor more has passed than by those.
func TestQuickRunsAsBoot(t *testing.T) {
	before := Boot()
	_, start := Quick()
	after := Boot()
	for range 10_000 {
		low := Boot() - after
		_, now := Quick()
		high := Boot() - before
		if passed := now - start; passed < low || passed > high {
			t.Fatalf("%v have passed, by Boot %v to %v", passed, low, high)
		}
	}
}
