// Package explore looks for a way to break the failover protocol by trying
// every one: a small explicit-state model checker around the real machines. It
// is run by its tests and imported by nobody.
//
//	            what is real                          what is modelled
//	            ────────────                          ────────────────
//	failover.Orchestrator (by replay)        Driver: the same steps in the same order, anything in between
//	election.LeaderElection, Voter.Decide    Raft: terms, one vote at once, logs, commit by quorum
//	fencing.Guard, Stamps, Help, Outwait     the database: records, fence, cut, stream, quorum
//	protocol.History.Lineage, CommonPrefix   the floor (held against fencing.Floor), time, crashes, messages
//
// From a beginning, cold or with node 1 primary of epoch 1, three nodes take
// every step that Bounds allow, in every order: elections, AppendEntries,
// ballots and their answers, answers that do not come, come late or come twice,
// calls that fail, writes, single records on their way to replicas, crashes
// (each followed by a start: a node that is down is one that takes no step),
// leaderships lost for nothing, timers, steps of the clock. A paused node is one
// that takes no step while the clock does.
//
// In every state this must hold:
//
//	I1       one node a guard in an epoch, ever; with the lease, one guard that speaks at any instant, and no
//	         acknowledgement of an epoch when a later one has its primary
//	I2       no floor goes down
//	I3       every acknowledged record is in the log of every later primary
//	I5       after a ballot for E is answered, no AppendEntries succeeds and no record is taken of a lower epoch
//	history  one fork an epoch; a promoted log is what the history says of it; a replica's log is the beginning of its primary's
//
// and from states met on walks a primary must come about that all follow, once
// nothing goes wrong any more (I6).
//
// # How
//
// A state is a plain value; two that encode to the same 128 bits of hash are
// one. An Orchestrator cannot be copied, since it holds closures. So a machine
// stands for all histories of inputs after which an Orchestrator is the same in
// everything that can make a difference (fingerprint), keeps one of them, and
// learns its transitions from the real code by replaying it. New fields are
// part of the fingerprint by themselves.
//
// Config.Fine tells two grains apart. The coarse one answers a ballot, and
// brings the answer, in one step, and proposes as soon as a machine wants to;
// the fine one cuts that in pieces and lets machines hear late of what came in.
//
// Search visits all states, nearest first, so its traces are shortest; walks
// take chances far away, and what they find is shrunk.
//
// # What it cannot see
//
// Goroutines and locks of Driver and Raft, the bytes on disk, membership
// changes, more than three nodes. An AppendEntries is sent and let succeed at
// the same instant (only its answer takes time): sent earlier, it would only
// make the lease shorter. Timers other than the lease's are due at any time,
// so times of the settings play no part. The successes of a hung store,
// witnesses and max_failover_lag are left out.
package explore
