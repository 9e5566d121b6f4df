// Package clock tells elapsed time as a lease must measure it: by rates alone,
// never by the wall clock, and with the time a machine spent suspended counted.
package clock

import "time"

var processStart = time.Now()

// monotonic returns the time since the process started.
func monotonic() time.Duration { return time.Since(processStart) }
