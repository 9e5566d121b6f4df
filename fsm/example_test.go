package fsm_test

import (
	"fmt"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
)

// The state is plain: commands in, results out.
func Example() {
	state := fsm.NewState()
	for i, c := range []command.Command{
		command.AddNode{NodeID: 1, Address: "10.0.0.1:7600"},
		command.AddNode{NodeID: 2, Address: "10.0.0.2:7600"},
		command.AssignShard{TableID: 7, ShardID: 0, NodeID: 1},
		command.TransferShard{TableID: 7, ShardID: 0, FromNode: 2, ToNode: 1},
		command.RemoveNode{NodeID: 1},
	} {
		result := state.Apply(uint64(i+1), 1, c)
		if err := result.Err(); err != nil {
			fmt.Println(c.Name(), err)
			continue
		}
		fmt.Println(c.Name(), "changed:", result.Changed, "removed:", result.Removed)
	}
	fmt.Println(state.Members())
	// Output:
	// AddNode changed: true removed: []
	// AddNode changed: true removed: []
	// AssignShard changed: true removed: []
	// TransferShard refused: shard 0 of table 7 belongs to node 1, not to node 2
	// RemoveNode changed: true removed: [{7 0 1}]
	// [{2 10.0.0.2:7600}]
}
