// Package ha is the high-availability layer of a database server: it decides
// which node may be primary, tells the database when to promote, to demote and
// to refuse, and keeps the cluster's metadata in a Raft log people can read.
//
//	  your database (WAL, SQL, clients)
//	       ^  Fence  Promote  Demote         | Position
//	       |                                 v
//	+-----------------------------  ha.Node  -------------------------------+
//	| failover: ballot -> fork -> token -> promote -> notify   fencing.Guard |
//	| fsm: members, shards, settings, keys     health: who lives, who lags   |
//	| hashicorp/raft on jsonlstore             gossip on memberlist          |
//	+------------------- one port: TLS 1.3, one secret ----------------------+
//
// An embedder implements Database, calls Open, and asks the Guard it is handed
// with each promotion before it acknowledges a write or answers a read that
// must be current. Everything else a server needs to know comes from Node:
// Propose changes metadata, Read reads it, Status and Events say what happens
// and why.
//
// What is promised: at most one node per epoch is ever promoted, and a write
// that a quorum of the voters had flushed before it was acknowledged under an
// open guard is in the WAL of every later primary. What is not: with fewer than
// a quorum of voters reachable there is no primary, and writes acknowledged by
// less than a quorum can be lost in a failover.
package ha
