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
