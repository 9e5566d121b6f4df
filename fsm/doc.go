// Package fsm holds what the cluster agrees on: who is a member, which node
// owns which shard, the settings, a key-value space, and within that the
// timeline history of the primaries.
//
//	raft.Log ──decode──> command.Command ──State.Apply──> Result
//	              │                          │
//	              └─ cannot: halt            ├─> Wait   (read-your-index)
//	                                         ├─> OnApply (watchers)
//	                                         └─> Snapshot / Restore
//
// [State] is pure: the same commands in the same order give the same state,
// the same results and the same snapshot bytes on every node. [FSM] is the shell
// that hashicorp/raft drives, safe for concurrent use.
//
// State is held in trees that are never changed in place, so that a copy of it costs
// nothing: [FSM.Read] and [FSM.Snapshot] copy under the lock and work outside of it, and
// neither makes Apply wait.
package fsm
