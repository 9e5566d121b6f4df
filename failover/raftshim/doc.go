// Package raftshim stands between hashicorp/raft and the rest: a Transport
// that every Raft message passes through, and a Consensus that gives the
// failover driver, and whoever proposes commands, Raft's answers in the
// project's own words.
//
// # The lease
//
//	leader's Transport                            voter's Transport
//	──────────────────                            ─────────────────
//	notes s = now
//	AppendEntries of term t ────────────────────► pump ─► Raft ─► let: below what was promised? withheld.
//	                                                             else: notes now, passes it on
//	success: stamp of the voter = s  ◄───────────
//	guard extended to the quorum-th stamp + D·(1−ε)
//
// The rules and why they hold: package fencing, and the comment of the type
// lease here. ReadIndex waits for stamps as new as the read.
//
// # Time
//
// A dead leader is noticed one heartbeat timeout after its last message, give
// or take a tenth (Raft by itself: one to three): see hasten. The lease is that
// timeout less a twentieth, so a successor that was elected in the usual way
// has nothing to wait for.
//
//	trans := raftshim.NewTransport(inner, opts)  // inner: *raft.NetworkTransport
//	cons := raftshim.NewConsensus()
//	conf.NotifyCh = cons.NotifyCh()
//	r, _ := raft.NewRaft(conf, fsm, logs, stable, snaps, trans) // logs: calls KeepTerms first
//	cons.Attach(r, trans)                        // from here on its methods work
//	...
//	cons.Close()                                 // shuts Raft down, and closes trans
package raftshim
