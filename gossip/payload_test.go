package gossip

import (
	"testing"

	"github.com/aiondb/aiondb-ha/protocol"
)

// FuzzHeartbeatPayload: what a member can answer a probe with, or send along
// with its view: a heartbeat, or an error.
func FuzzHeartbeatPayload(f *testing.F) {
	for _, m := range []protocol.Message{
		protocol.Heartbeat{Epoch: 3, NodeID: 2, WALLSN: 9, Role: protocol.RoleReplica, TimestampUS: 1},
		protocol.HeartbeatAck{NodeID: 2}, protocol.PromoteNotify{NewPrimaryAddr: "x:1"},
	} {
		raw, err := protocol.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := decodeHeartbeat(raw)
		if err != nil {
			if h != (protocol.Heartbeat{}) {
				t.Fatalf("%+v with %v", h, err)
			}
			return
		}
		if again, err := protocol.Encode(h); err != nil || string(again) != string(raw) {
			t.Fatalf("%x came from %x, %v", again, raw, err)
		}
	})
}
