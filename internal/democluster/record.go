package democluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Ack is a write that a primary acknowledged, as the client saw it. Times
// count from the client's start, on the clock that only goes forward.
type Ack struct {
	Key   string          `json:"key"`
	Value string          `json:"value"`
	Epoch protocol.Epoch  `json:"epoch"`
	LSN   protocol.LSN    `json:"lsn"`
	Node  protocol.NodeID `json:"node"` // who acknowledged
	Sent  time.Duration   `json:"sent_ns"`
	Acked time.Duration   `json:"acked_ns"`
}

// byAcked returns the acknowledgements in the order the client got them.
func byAcked(acks []Ack) []Ack {
	sorted := slices.Clone(acks)
	slices.SortStableFunc(sorted, func(a, b Ack) int { return cmp.Compare(a.Acked, b.Acked) })
	return sorted
}

// Failover returns how long the writes were interrupted when the primacy moved
// on from epoch old: from the last acknowledgement of old, or of an epoch
// before it, to the first of a later one. The last word of a primary that was
// just killed may reach the client a moment after the kill; it still counts as
// before, because its epoch does. ok is false as long as there are not both.
func Failover(acks []Ack, old protocol.Epoch) (gap time.Duration, first Ack, ok bool) {
	var last Ack
	var haveLast, haveFirst bool
	for _, a := range acks {
		switch {
		case a.Epoch <= old && (!haveLast || a.Acked > last.Acked):
			last, haveLast = a, true
		case a.Epoch > old && (!haveFirst || a.Acked < first.Acked):
			first, haveFirst = a, true
		}
	}
	return first.Acked - last.Acked, first, haveLast && haveFirst
}

// LostWrites returns the acknowledged writes that data, the content of the
// final primary, does not hold, or holds with another value.
func LostWrites(acks []Ack, data map[string]string) []Ack {
	var lost []Ack
	for _, a := range acks {
		if value, ok := data[a.Key]; !ok || value != a.Value {
			lost = append(lost, a)
		}
	}
	return lost
}

// DualPrimaryAcks returns the acknowledgements by an older epoch after the
// first by a newer one. What counts is when the acknowledgement arrived, not
// when the write was sent: a primary that slept through its own replacement
// and then answers what it was asked before is what this looks for.
func DualPrimaryAcks(acks []Ack) []Ack {
	var dual []Ack
	var newest protocol.Epoch // among those acknowledged strictly earlier
	sorted := byAcked(acks)
	for i := 0; i < len(sorted); {
		j := i
		for ; j < len(sorted) && sorted[j].Acked == sorted[i].Acked; j++ {
			if sorted[j].Epoch < newest {
				dual = append(dual, sorted[j])
			}
		}
		for ; i < j; i++ {
			newest = max(newest, sorted[i].Epoch)
		}
	}
	return dual
}

// LongestGap returns the longest time without an acknowledgement between from
// and to, the ends included.
func LongestGap(acks []Ack, from, to time.Duration) time.Duration {
	last, longest := from, time.Duration(0)
	for _, a := range byAcked(acks) {
		if a.Acked < from || a.Acked > to {
			continue
		}
		longest = max(longest, a.Acked-last)
		last = a.Acked
	}
	return max(longest, to-last)
}

// Latency returns the q-quantile (0 to 1) of the time from send to
// acknowledgement; 0 if there are none.
func Latency(acks []Ack, q float64) time.Duration {
	if len(acks) == 0 {
		return 0
	}
	took := make([]time.Duration, len(acks))
	for i, a := range acks {
		took[i] = a.Acked - a.Sent
	}
	slices.Sort(took)
	return took[int(q*float64(len(took)-1))]
}
