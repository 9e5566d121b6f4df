package election

import "github.com/aiondb/aiondb-ha/protocol"

// Quorum returns how many of n voters make a quorum: the fewest of which any
// two sets share a voter.
func Quorum(n int) int { return n/2 + 1 }

// IsQuorum reports whether the nodes of yes that are voters make a quorum of
// voters. A node named twice, in either list, counts once. No voters have no
// quorum.
func IsQuorum(voters, yes []protocol.NodeID) bool {
	said := make(map[protocol.NodeID]bool, len(yes))
	for _, id := range yes {
		said[id] = true
	}
	count := make(map[protocol.NodeID]bool, len(voters))
	agreed := 0
	for _, id := range voters {
		if !count[id] {
			count[id] = true
			if said[id] {
				agreed++
			}
		}
	}
	return agreed >= Quorum(len(count))
}
