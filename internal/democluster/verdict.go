package democluster

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The kinds of fault a tour does.
const (
	FaultKill       = "kill"
	FaultSwitchover = "switchover"
)

// FailoverReport is one measured change of the primary.
type FailoverReport struct {
	Fault      string          `json:"fault"`
	FailoverMS float64         `json:"failover_ms"` // as Failover has it
	Node       protocol.NodeID `json:"node"`        // what the fault was done to
	OldPrimary protocol.NodeID `json:"old_primary"`
	NewPrimary protocol.NodeID `json:"new_primary"`
	Epoch      protocol.Epoch  `json:"epoch"` // the new one
}

// Verdict is what came of a run: the object that `demo --json` prints.
type Verdict struct {
	OK              bool             `json:"ok"`
	Reason          string           `json:"reason,omitempty"` // why not OK
	Nodes           int              `json:"nodes"`
	Failovers       []FailoverReport `json:"failovers"`
	AckedWrites     int              `json:"acked_writes"`
	LostWrites      int              `json:"lost_writes"`
	DualPrimaryAcks int              `json:"dual_primary_acks"`
	// UnknownWrites were sent and nobody told their outcome: they may be there
	// or not.
	UnknownWrites int     `json:"unknown_writes"`
	WriteP50MS    float64 `json:"write_p50_ms"`
	WriteP99MS    float64 `json:"write_p99_ms"`
	// ReplicaKillGapMS is the longest time without an acknowledged write
	// around the death of a replica; it should be like any other moment.
	ReplicaKillGapMS float64 `json:"replica_kill_gap_ms"`
	DurationMS       float64 `json:"duration_ms"`
	Version          string  `json:"version"`
	Dir              string  `json:"dir,omitempty"` // where data and logs are kept
	// Notes tell what went otherwise than planned and is no fault of the
	// outcome: a switchover that was refused, say.
	Notes []string `json:"notes,omitempty"`
}

// judge fills in what the client's record says against the data of the final
// primary, and returns what is wrong with that as an error.
func (v *Verdict) judge(acks []Ack, data map[string]string) error {
	lost, dual := LostWrites(acks, data), DualPrimaryAcks(acks)
	v.AckedWrites, v.LostWrites, v.DualPrimaryAcks = len(acks), len(lost), len(dual)
	v.WriteP50MS, v.WriteP99MS = inMS(Latency(acks, 0.50)), inMS(Latency(acks, 0.99))
	var faults []error
	if len(lost) > 0 {
		a := lost[0]
		faults = append(faults, fmt.Errorf("%d acknowledged writes are lost, the first is %s, acknowledged by node %d in epoch %d at LSN %d",
			len(lost), a.Key, a.Node, a.Epoch, a.LSN))
	}
	if len(dual) > 0 {
		a := dual[0]
		faults = append(faults, fmt.Errorf("%d writes were acknowledged by an older epoch after a newer one had begun, the first is %s by node %d in epoch %d",
			len(dual), a.Key, a.Node, a.Epoch))
	}
	if len(v.Failovers) == 0 {
		faults = append(faults, errors.New("no failover was measured"))
	}
	return errors.Join(faults...)
}

// inMS is d in milliseconds with one decimal.
func inMS(d time.Duration) float64 {
	return math.Round(float64(d)/float64(100*time.Microsecond)) / 10
}
