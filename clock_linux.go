package ha

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock returns the time since the machine booted, time spent suspended
// included: what a lease must be measured with, because a machine that slept
// has lost its lease.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return monotonicClock()
	}
	return time.Duration(ts.Nano())
}
