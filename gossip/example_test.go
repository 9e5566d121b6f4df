package gossip_test

import (
	"bytes"
	"fmt"

	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Two nodes find each other; each learns the other's position from the answers
// to its probes.
func Example() {
	network := newMemNet() // stands for the HA port of each node
	peers := []string{"10.0.0.1:7600", "10.0.0.2:7600"}
	heard := make(chan gossip.Evidence, 64)
	for i, addr := range peers {
		id := protocol.NodeID(i + 1)
		config := gossip.Config{
			Local: id, Advertise: addr, Peers: peers,
			Keys:      [][]byte{bytes.Repeat([]byte("k"), 32)},
			Transport: network.listen(addr),
			Heartbeat: func() protocol.Heartbeat {
				return protocol.Heartbeat{NodeID: id, Epoch: 4, WALLSN: protocol.LSN(1000 + i), Role: protocol.RoleReplica}
			},
		}
		if id == 1 {
			config.Evidence = func(e gossip.Evidence) { heard <- e }
		}
		g, err := gossip.Start(config)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer func() { _ = g.Close() }()
	}
	for e := range heard {
		if e.Kind == gossip.Heartbeat {
			fmt.Printf("node %s is %s at LSN %d\n", e.NodeID, e.Heartbeat.Role, e.Heartbeat.WALLSN)
			break
		}
	}
	// Output: node 2 is replica at LSN 1001
}
