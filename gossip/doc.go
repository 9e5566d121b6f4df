// Package gossip watches who is there. It runs hashicorp/memberlist among the
// nodes and turns what it sees into typed evidence: a node is alive, a node is
// dead, this is its heartbeat and so long did it take.
//
//	              probe (UDP)                 ack + Heartbeat
//	 +--------+ -------------------> +--------+ ----------.
//	 | node 1 |                      | node 2 |           |
//	 +--------+ <------------------- +--------+ <---------'
//	     |
//	     | Evidence{NodeID 2, Heartbeat, RTT, At}
//	     v
//	health monitor            Members, Lookup(id) -> HA address
//
// The acknowledgement of a probe carries the node's current heartbeat, so
// positions are as fresh as the probes are frequent, at no cost in packets. The
// node's meta data carries its addresses and version, so a node that comes back
// under another address is found by its ID.
//
// Gossip is evidence, never authority: nothing is promoted or fenced because of
// it. It may be wrong about a node in both directions, for about a second.
//
// A node is known by its node ID in decimal. The nodes of the configuration are
// joined in the background, again and again until all of them are seen, and
// anew when one was lost: memberlist forgets nodes that have been dead for long
// and would never find them again by itself.
//
// When a node ID appears at a second address, either the node has moved or two
// nodes run with the same ID. Both addresses are asked. If both answer, an error
// is logged; else the new address is taken as soon as the old one is dead.
package gossip
