//go:build !linux

package clock

import "time"

// Boot returns a monotonic time. On this system it may stand still while the
// machine is suspended.
func Boot() time.Duration { return monotonic() }
