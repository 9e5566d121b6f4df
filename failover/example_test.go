package failover_test

import (
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The machine of a single-voter cluster, played by hand: what a driver does
// is to carry out each action and to answer it.
func ExampleOrchestrator() {
	machine := failover.NewOrchestrator(1, 0, failover.Timing{})
	now := time.Now()
	for _, input := range []failover.Input{
		failover.LeadershipChanged{Leading: true, Term: 2},
		failover.EpochBegun{Attempt: 1, Epoch: 2},
		failover.Prepared{Attempt: 2, Voters: []protocol.NodeID{1}},
		failover.ForkCommitted{Attempt: 3},
		failover.TokenAcquired{Attempt: 4},
		failover.DatabasePromoted{Attempt: 5},
		failover.LeadershipChanged{Leading: false},
	} {
		for _, action := range machine.Step(now, input).Actions {
			if _, told := action.(failover.Emit); !told {
				fmt.Printf("%T ", action)
			}
		}
		fmt.Println(machine.State())
	}
	// Output:
	// failover.CommitNoop ElectionInProgress
	// failover.Prepare ElectionInProgress
	// failover.CommitFork PromotionPending
	// failover.AcquireToken PromotionPending
	// failover.Promote PromotionPending
	// Promoted
	// failover.CloseGuard failover.Demote Idle
}
