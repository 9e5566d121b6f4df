package fencing

import "time"

// ValidFor returns for how long after a request arrived its answer may be taken
// for given in time. arrived, answered and until are on the guard's clock: when
// the request came, when the guard was asked, and what CheckUntil returned. It
// is NoDeadline if until is.
//
//	client   sent ─────────────────────────────► received: in time if received − sent ≤ valid
//	server        arrived ──► work ──► answered ┄┄┄┄┄┄┄┄┄┄┄┄┄┄► until
//	                │                  CheckUntil              │
//	                └──────────────── valid ───────────────────┘
//
// A guard can only be asked before an answer leaves. A process that is stopped
// just after that lets the answer go when it is woken, and by then another
// primary may have answered others. So the answer carries this time, and the
// client, which counts from before it sent the request and so counts too much
// rather than too little, takes an answer that comes later as of unknown
// outcome: neither acknowledged nor failed. No two clocks are compared.
//
// The client's clock may be off by ε as well ([DriftPercent]). What is left of
// the lease allows for that; the time the request took until now does not, so
// 2·ε of it are taken off. A request that took long, 1/(2·ε) of what is left or
// more, is answered too late even if nothing was stopped: this errs towards
// "unknown".
func ValidFor(arrived, answered, until time.Duration) time.Duration {
	if until == NoDeadline {
		return NoDeadline
	}
	took := max(answered-arrived, 0)
	return max(took-2*drift(took)+until-answered, 0)
}
