// Package health turns heartbeats and gossip into verdicts: is the primary
// healthy, which nodes are reachable, who is the best replica.
//
//	heartbeats (probe acknowledgements, RPC) ──► ┌───────────────┐ ──► Primary      Healthy / Unreachable / Unknown
//	gossip: alive, dead                      ──► │ HealthMonitor │ ──► Reachable    whom a ballot should wait for
//	time (an argument, never read)           ──► └───────────────┘ ──► BestReplica  whom to hand over to
//
// A verdict is evidence, never authority: nobody is promoted or demoted
// because of it. What decides is Raft, the ballot and the guard.
//
// The package is pure: no goroutines, no clock, no lock. The owner of a
// HealthMonitor serialises the calls.
package health
