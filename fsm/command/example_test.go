package command_test

import (
	"fmt"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

func Example() {
	data, err := command.Encode(command.KvWrite{Key: []byte("k"), Value: []byte("v")})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", data)

	c, err := command.Decode([]byte(`{ "AddNode": { "address": "10.0.0.1:7600", "node_id": 1 } }`))
	if err != nil {
		fmt.Println(err)
		return
	}
	if add, ok := c.(command.AddNode); ok {
		fmt.Println(add.Name(), add.NodeID, add.Address)
	}
	// Output:
	// {"KvWrite":{"key":[107],"value":[118]}}
	// AddNode 1 10.0.0.1:7600
}
