//go:build !linux

package ha

import "time"

// bootClock returns a monotonic time. On this system it may stand still while
// the machine is suspended.
func bootClock() time.Duration { return monotonicClock() }
