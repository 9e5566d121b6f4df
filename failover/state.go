package failover

import (
	"fmt"
	"strconv"
)

// State is where a node stands in a failover.
type State uint8

// The states.
const (
	Idle               State = iota // follows nobody and does not lead
	MonitoringPrimary               // follows a primary
	ElectionInProgress              // leads in Raft, and asks for the primacy or hands leadership on
	PromotionPending                // has won the ballot; history, token and database are on their way
	Promoted                        // is primary
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Idle:
		return "Idle"
	case MonitoringPrimary:
		return "MonitoringPrimary"
	case ElectionInProgress:
		return "ElectionInProgress"
	case PromotionPending:
		return "PromotionPending"
	case Promoted:
		return "Promoted"
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it.
func (s *State) UnmarshalText(text []byte) error {
	for state := Idle; state <= Promoted; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("unknown state %q", text)
}
