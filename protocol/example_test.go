package protocol_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/aiondb/aiondb-ha/protocol"
)

// One node sends a heartbeat, another reads it off the wire.
func Example() {
	secret := []byte("a secret of thirty-two bytes or more")

	frame, err := protocol.EncodeAuthenticated(protocol.Heartbeat{
		Epoch: 7, NodeID: 3, WALLSN: 4096, Role: protocol.RolePrimary,
	}, secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(frame), "bytes")

	message, err := protocol.ReadFrame(bytes.NewReader(frame), secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	if beat, ok := message.(protocol.Heartbeat); ok {
		fmt.Printf("node %s is %s of epoch %d at %d\n", beat.NodeID, beat.Role, beat.Epoch, beat.WALLSN)
	}

	frame[len(frame)-1] ^= 1
	_, err = protocol.DecodeAuthenticated(frame, secret)
	fmt.Println(errors.Is(err, protocol.ErrBadHMAC))
	// Output:
	// 70 bytes
	// node 3 is primary of epoch 7 at 4096
	// true
}

// A primary that was cut off returns and learns up to where its log is good.
func ExampleLineage_CommonPrefix() {
	history := protocol.History{
		{Epoch: 1, NodeID: 1},                      // node 1 begins with an empty log
		{Epoch: 2, NodeID: 2, Parent: 1, LSN: 100}, // node 2 takes over at 100
	}
	now, err := history.Lineage(2)
	if err != nil {
		fmt.Println(err)
		return
	}
	own := protocol.Lineage{{Epoch: 1, End: 150}} // node 1 wrote 50 more that nobody received
	fmt.Println("keep up to", now.CommonPrefix(own))
	// Output: keep up to 100
}
