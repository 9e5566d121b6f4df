package fsm

import (
	"encoding/json"
	"fmt"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// progressKey holds how far a primary had written when it last said so: a
// protocol.Position as JSON, its timeline the primary's epoch.
const progressKey = ReservedPrefix + "progress"

// ProgressCommand returns the command with which a primary says how far it has
// written.
func ProgressCommand(p protocol.Position) (command.KvWrite, error) {
	value, err := json.Marshal(p)
	if err != nil {
		return command.KvWrite{}, fmt.Errorf("encode progress: %w", err)
	}
	return command.KvWrite{Key: []byte(progressKey), Value: value}, nil
}

// Progress returns how far a primary had written at least; the zero position if
// none ever said so.
func (s *State) Progress() (p protocol.Position) {
	if v, there := s.kv.get(progressKey); there {
		if json.Unmarshal(v.data, &p) != nil {
			return protocol.Position{}
		}
	}
	return p
}
