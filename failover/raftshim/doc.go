// Package raftshim stands between hashicorp/raft and the rest: a Transport
// that every Raft message passes through, and a Consensus that gives the
// failover driver, and whoever proposes commands, Raft's answers in the
// project's own words.
//
//	trans := raftshim.NewTransport(inner, opts)  // inner: *raft.NetworkTransport
//	cons := raftshim.NewConsensus()
//	conf.NotifyCh = cons.NotifyCh()
//	r, _ := raft.NewRaft(conf, fsm, logs, stable, snaps, trans)
//	cons.Attach(r, trans)                        // from here on its methods work
//	...
//	r.Shutdown().Error()                         // closes trans
//	cons.Close()
package raftshim
