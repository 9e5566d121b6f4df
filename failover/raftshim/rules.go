package raftshim

import (
	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
)

// Rules returns the rules of failover that a state holds.
func Rules(s *fsm.State) failover.Rules {
	rules := s.Rules()
	out := failover.Rules{Paused: rules.Pause != nil}
	for _, m := range rules.Maintenance {
		out.Maintenance = append(out.Maintenance, m.NodeID)
	}
	for _, m := range rules.Witnesses {
		out.Witnesses = append(out.Witnesses, m.NodeID)
	}
	if p := rules.Permit; p != nil {
		out.Permit = failover.Permit{Node: p.NodeID, After: p.After}
	}
	return out
}
