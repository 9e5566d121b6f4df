// Package raftcluster runs clusters of hashicorp/raft itself on any mixture of
// log stores, for tests: real NetworkTransports over loopback TCP, real snapshot
// files, and a network that can be told to fail.
//
//	Cluster  --  Node 1   raft.Raft | FSM | store of any kind | snapshots on disk
//	         |   Node 2      |
//	         |   Node 3   NetworkTransport
//	         |               |
//	         '-- Network: which node's requests, and whose answers, get lost
//
// The FSM remembers every command in order, so that lost, repeated and invented
// entries all show. Nothing here is about failover: it is about stores.
package raftcluster
