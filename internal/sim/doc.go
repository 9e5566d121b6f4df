// Package sim simulates clusters: real hashicorp/raft and the real failover,
// raftshim, fencing, election, fsm and health, on a network, disks and clocks
// made here, in virtual time, with everything going wrong that a seeded script
// says, and a witness that sees all. It is run by its tests and imported by
// nobody.
//
//	clients ──► database ──────────────── records ───────────────► database      ◄── model: WAL, flush, quorum,
//	               ▲ Promote, Demote, Fence, Position                  ▲              fence, guard asked last
//	               │                                                   │
//	         failover.Driver ────────── ballots, notices ──────► failover.Driver
//	         fencing.Floor, Guard                               fencing.Floor, Guard
//	               │                                                   │
//	         raftshim.Consensus, Transport                      raftshim ...      ◄── real
//	         hashicorp/raft ── fsm                              hashicorp/raft
//	               │                                                   │
//	   ────────────┴───────────────────────────────────────────────────┴────────────
//	   gate      wire        network         disk: log, floor, snapshots     clock   ◄── made here
//	   (pause)               (cut, lose,     (slow, stuck; what is not      (rate of
//	                         repeat, delay)  synced is lost in a crash)     its own)
//	                                   ▲
//	                     Script ───────┘            ledger: the witness
//
// It wires the parts as the root package does, rather than run ha.Node itself:
// a Node listens on sockets and speaks TLS, and virtual time stands still while
// a goroutine waits for a real socket. Gossip is a plain question in turn, at
// memberlist's pace. Who has a vote is changed by asking Raft, as a program that
// embeds it may: the product has no command for that yet. At most one node is
// without a vote at a time, because the model counts a quorum of all nodes.
//
// # What is checked
//
// At every acknowledgement, every read, every promotion, every answer to a
// ballot, every AppendEntries let succeed, every record taken, and every few
// milliseconds besides:
//
//	I1       at most one guard says yes at this instant; one primary an epoch; nothing is acknowledged in an
//	         epoch when a later one has its primary
//	I2       no floor goes down, across crashes either, nor below what a ballot's answer promised
//	I3       the log of a primary holds every write acknowledged in an earlier epoch (logs are compared by
//	         sums over everything up to an LSN)
//	I4       a process that wakes finds its guard lapsed if another was promoted meanwhile
//	I5       nothing below what was promised is helped, or taken
//	I6       a quorum that is well acknowledges again in bounded time (DefaultBound); who is promoted has a log
//	         that reaches as far as those of a quorum; in the end all follow one primary
//	I7       holds if all of this does, whatever the network makes of messages; what is said by those who have
//	         no say deposes nobody
//	stale    a read shows what was acknowledged before it was asked
//	history  a replica's log is the beginning of its primary's
//
// # Faults
//
// See kinds for the list. Every fault ends by itself, so that any can be left
// out of a script; when a run fails, Minimise leaves out what it can. A run does
// not replay exactly: Raft has random sources of its own, and the scheduler. So
// a script is run several times to see whether it fails.
//
// How faithful they are: a pause stops every goroutine of a process at its next
// message, write to disk, log line or call between the parts, and lets timers
// run on, as SIGSTOP does (see gate); a crash leaves what was synced, of the
// rest any part, and its connections are gone; a clock that is off is off for
// everything the node reckons with, its timers being stretched (see bootClock);
// a way that is cut swallows messages, a connection that breaks says so.
//
// # What it shows of itself
//
// mutants (in the tests) breaks each rule in turn, by what stands around the
// real parts, and demands that it is seen, here or by internal/explore; and the
// lease and the floor's refusing are broken alone, to see what the other holds.
package sim
