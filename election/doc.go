// Package election holds the ballot: which of the voters has the log that
// reaches furthest, and has a quorum promised itself to its epoch?
//
//	candidate (Raft leader of term E)                voter
//	─────────────────────────────────                ─────
//	promises itself to E, reads own position
//	BallotRequest{E, position} ───────────────────►  Voter.Stale? refuse
//	                                                 close guard, make the promise durable,
//	                                                 fence the database, read own position
//	LeaderElection.Answer  ◄───────────────────────  Voter.Decide: granted, or better
//
//	quorum of grants, nobody better        Won
//	somebody better, or a higher floor     Lost
//	no quorum in time                      Timeout
//	too few voters left to make a quorum   InsufficientNodes
//
// Positions are compared timeline first, LSN second. An answer is worth
// something only because of the order in which the voter acts: it reads its
// position after its promise, and after the promise no log of an older epoch
// can grow on it. So the quorum that granted shows every write that any
// quorum has acknowledged (invariant I3).
//
// The package is pure: no goroutines, no clock, no disk, no network.
package election
