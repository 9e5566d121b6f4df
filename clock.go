package ha

import "time"

var processStart = time.Now()

// monotonicClock returns the time since the process started.
func monotonicClock() time.Duration { return time.Since(processStart) }
