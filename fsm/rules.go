package fsm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Where the rules of failover stand in the key-value space. That a key is there
// is the rule; its value says who laid it down, when and why, as a Mark in JSON.
const (
	rulesPrefix       = ReservedPrefix + "rules/"
	pauseKey          = rulesPrefix + "pause"
	permitKey         = rulesPrefix + "permit"
	maintenancePrefix = rulesPrefix + "maintenance/" // and the node's ID in 20 digits
	witnessPrefix     = rulesPrefix + "witness/"     // likewise
)

// MaxReasonLen bounds the reason of a rule, in bytes.
const MaxReasonLen = 1 << 10

// Mark says who laid down a rule, when and why. It is for people: no decision
// rests on it.
type Mark struct {
	At     time.Time       `json:"at"`               // by the clock of the node that was asked
	Node   protocol.NodeID `json:"node"`             // that was asked
	Reason string          `json:"reason,omitempty"` // at most MaxReasonLen bytes
}

// NodeMark is a rule about one node.
type NodeMark struct {
	NodeID protocol.NodeID `json:"node_id"`
	Mark
}

// Permit is an exception for one node: see failover.Permit.
type Permit struct {
	NodeID protocol.NodeID `json:"node_id"`
	After  protocol.Epoch  `json:"after"`
	Mark
}

// Rules are what the operators have laid down about failovers.
type Rules struct {
	Pause       *Mark      `json:"pause"`       // nil: failover is not paused
	Maintenance []NodeMark `json:"maintenance"` // ascending by node
	Witnesses   []NodeMark `json:"witnesses"`   // ascending by node
	Permit      *Permit    `json:"permit"`      // the latest, used up or not; nil: never one
}

// Rules returns the rules as they are.
func (s *State) Rules() Rules {
	r := Rules{Maintenance: []NodeMark{}, Witnesses: []NodeMark{}} // JSON: lists, not null
	for _, e := range s.KVList([]byte(rulesPrefix), MaxKVList) {
		var mark Mark
		_ = json.Unmarshal(e.Value, &mark) // for people: a value that cannot be read is a rule all the same
		key := string(e.Key)
		switch {
		case key == pauseKey:
			r.Pause = &mark
		case key == permitKey:
			var permit Permit
			if json.Unmarshal(e.Value, &permit) == nil {
				r.Permit = &permit
			}
		case strings.HasPrefix(key, maintenancePrefix):
			r.Maintenance = appendMark(r.Maintenance, key[len(maintenancePrefix):], mark)
		case strings.HasPrefix(key, witnessPrefix):
			r.Witnesses = appendMark(r.Witnesses, key[len(witnessPrefix):], mark)
		}
	}
	return r
}

func appendMark(marks []NodeMark, digits string, mark Mark) []NodeMark {
	id, err := protocol.ParseNodeID(strings.TrimLeft(digits, "0"))
	if err != nil {
		return marks
	}
	return append(marks, NodeMark{NodeID: id, Mark: mark})
}

// PauseCommand returns the command that pauses failover.
func PauseCommand(m Mark) (command.KvWrite, error) { return ruleCommand(pauseKey, m, m.Reason) }

// ResumeCommand returns the command that takes the pause back.
func ResumeCommand() command.KvWrite { return command.KvWrite{Key: []byte(pauseKey), Delete: true} }

// MaintenanceCommand returns the command that takes a node out of the choice of
// primaries.
func MaintenanceCommand(m NodeMark) (command.KvWrite, error) {
	return ruleCommand(nodeKey(maintenancePrefix, m.NodeID), m.Mark, m.Reason)
}

// EndMaintenanceCommand returns the command that lets it in again.
func EndMaintenanceCommand(id protocol.NodeID) command.KvWrite {
	return command.KvWrite{Key: []byte(nodeKey(maintenancePrefix, id)), Delete: true}
}

// WitnessCommand returns the command that says that a voter has no data.
func WitnessCommand(m NodeMark) (command.KvWrite, error) {
	return ruleCommand(nodeKey(witnessPrefix, m.NodeID), m.Mark, m.Reason)
}

// NoWitnessCommand returns the command that says that it has.
func NoWitnessCommand(id protocol.NodeID) command.KvWrite {
	return command.KvWrite{Key: []byte(nodeKey(witnessPrefix, id)), Delete: true}
}

// PermitCommand returns the command that permits one node to become primary
// next.
func PermitCommand(p Permit) (command.KvWrite, error) { return ruleCommand(permitKey, p, p.Reason) }

func nodeKey(prefix string, id protocol.NodeID) string { return fmt.Sprintf("%s%020d", prefix, id) }

func ruleCommand(key string, value any, reason string) (command.KvWrite, error) {
	if len(reason) > MaxReasonLen {
		return command.KvWrite{}, fmt.Errorf("the reason has %d bytes: at most %d", len(reason), MaxReasonLen)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return command.KvWrite{}, fmt.Errorf("encode %s: %w", key, err)
	}
	return command.KvWrite{Key: []byte(key), Value: raw}, nil
}
