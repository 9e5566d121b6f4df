package ha

import "time"

// Profile is a set of defaults for the three times a failover is made of. Times
// that are set count; a profile fills in the others.
type Profile string

// The profiles.
const (
	// ProfileDefault is for most clusters: quiet on a busy machine with two
	// cores, and over a few milliseconds of network.
	ProfileDefault Profile = "default"
	// ProfileFast is for nodes in one rack, with disks that sync within a few
	// milliseconds and processors to spare.
	ProfileFast Profile = "fast"
)

// Times returns the check interval, the check timeout and the election timeout
// of a profile; ok is false if there is no such profile.
func (p Profile) Times() (interval, timeout, election time.Duration, ok bool) {
	switch p {
	case ProfileDefault, "":
		return DefaultHealthCheckInterval, DefaultHealthCheckTimeout, DefaultElectionTimeout, true
	case ProfileFast:
		return 10 * time.Millisecond, 40 * time.Millisecond, 120 * time.Millisecond, true
	}
	return 0, 0, 0, false
}
