// Package failover decides which node is primary, and sees to it that the
// node's database is, or is not.
//
//	Raft's leadership ─┐   ballots, notices ─┐   timeline history ─┐   health ─┐
//	                   ▼                     ▼                     ▼           ▼
//	       ┌───────────────────────────────────────────────────────────────────────┐
//	       │ Driver: goroutines, deadlines, disk, network                          │
//	       │    │ inputs, each with the time          ▲ actions                    │
//	       │    ▼                                     │                            │
//	       │ Orchestrator: a plain state machine ─────┘                            │
//	       └───────────────────────────────────────────────────────────────────────┘
//	           │              │                 │                  │
//	           ▼              ▼                 ▼                  ▼
//	 fencing.Floor, Guard   Database        Consensus, Peers     journal
//	 (who may speak)        (promote,       (commit, transfer,   (why it
//	                         demote, fence)  ask for ballots)     happened)
//
// The path of a failover, on the node that Raft elects:
//
//  1. leadership gained
//  2. an entry of its own committed: its term is the epoch
//  3. own promise (floor on disk, database fenced, position read), then a
//     ballot to every other voter
//  4. won by a quorum of grants; or lost to a better position, and leadership
//     goes there; or no quorum, and it is asked again after a while
//     Then, if it may still be running: the lease of the primary before, until
//     D·(1+ε) after the youngest help that one of the quorum has given
//  5. the promotion is committed to the timeline history
//  6. the fencing token is acquired, the guard opens, the database is promoted
//  7. leadership lost, a higher epoch seen, a switchover: the guard closes
//     first, for good in its epoch, and the database is demoted after it
//
// While it is primary, the guard runs on a lease that every heartbeat to a
// quorum renews ([Lease]): a primary that was stopped, cut off or suspended
// stops speaking by itself, before another one begins. A node whose log store
// hangs, or that is further behind than max_failover_lag, hands leadership on.
//
// Nodes that are told by the timeline history that another is primary let
// their databases follow it, and never one of an epoch below their floor.
//
// An embedding server implements [Database] (and [WriteStopper], if it can
// hold back writes) and asks the guard it is given before it acknowledges
// anything. The transcripts in testdata/transcripts are the Orchestrator's
// specification by example. Package raftshim is the Consensus over
// hashicorp/raft; the machine itself knows nothing of Raft.
package failover
