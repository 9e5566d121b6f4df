package torture

import (
	"cmp"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

// All times in a record count from the start of the run, on the one clock of
// the process that tortures.

// Harm is what a fault did to a node, or to the way between two.
type Harm string

// The harms.
const (
	HarmDown   Harm = "down"    // its process does not run
	HarmPaused Harm = "paused"  // its process is stopped
	HarmCut    Harm = "cut"     // nothing passes between Node and Peer
	HarmOneWay Harm = "one-way" // nothing passes from Node to Peer
	HarmFull   Harm = "full"    // its disk is full
	HarmSlow   Harm = "slow"    // its link is slow and lossy; it is not cut
)

// Window is one harm and how long it lasted. It is as short as is certain: it
// begins when the harm was complete and ends before it began to be mended.
type Window struct {
	Step int             `json:"step"`
	Harm Harm            `json:"harm"`
	Node protocol.NodeID `json:"node"`
	Peer protocol.NodeID `json:"peer,omitempty"` // of a cut; NoNode: the clients
	From time.Duration   `json:"from_ns"`
	To   time.Duration   `json:"to_ns"` // 0: it has not ended
}

// Done is a step as it was done.
type Done struct {
	Step  Step            `json:"step"`
	Node  protocol.NodeID `json:"node"` // to whom; NoNode: to all
	From  time.Duration   `json:"from_ns"`
	To    time.Duration   `json:"to_ns"`    // the harm was over
	Whole time.Duration   `json:"whole_ns"` // every node was seen to be back; 0: it never was
	Note  string          `json:"note,omitempty"`
}

// Interval is a stretch of time, from From to To.
type Interval struct{ From, To time.Duration }

// Length of the interval.
func (i Interval) Length() time.Duration { return i.To - i.From }

// Connected returns the stretches between from and to in which a quorum of
// voters could work: that many processes ran, on disks with room, and every two
// of them could reach each other both ways.
func Connected(windows []Window, nodes int, from, to time.Duration) []Interval {
	edges := []time.Duration{from, to}
	for _, w := range windows {
		for _, at := range []time.Duration{w.From, w.To} {
			if at > from && at < to {
				edges = append(edges, at)
			}
		}
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	var out []Interval
	for i := 1; i < len(edges); i++ {
		if !quorumAt(windows, nodes, edges[i-1]) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].To == edges[i-1] {
			out[n-1].To = edges[i]
		} else {
			out = append(out, Interval{edges[i-1], edges[i]})
		}
	}
	return out
}

// quorumAt looks at every set of nodes; there are at most 2^MaxNodes.
func quorumAt(windows []Window, nodes int, at time.Duration) bool {
	var unfit uint
	cut := make([]uint, nodes) // by node: whom it has no way to or from
	bit := func(id protocol.NodeID) uint { return 1 << (uint(id) - 1) }
	for _, w := range windows {
		if at < w.From || (w.To != 0 && at >= w.To) {
			continue
		}
		switch w.Harm {
		case HarmDown, HarmPaused, HarmFull:
			unfit |= bit(w.Node)
		case HarmCut, HarmOneWay:
			if w.Peer != protocol.NoNode {
				cut[w.Node-1] |= bit(w.Peer)
				cut[w.Peer-1] |= bit(w.Node)
			}
		case HarmSlow:
		}
	}
	for set := uint(1); set < 1<<nodes; set++ {
		size, fits := 0, set&unfit == 0
		for i := 0; i < nodes && fits; i++ {
			if set&(1<<i) != 0 {
				size++
				fits = cut[i]&set == 0
			}
		}
		if fits && size >= nodes/2+1 {
			return true
		}
	}
	return false
}

// Gap is a stretch without an acknowledged write.
type Gap struct {
	Interval
	Step int // that was under way when it began; 0: none
}

// LongestWithoutPrimary returns the longest stretch of one of the connected
// intervals in which no write was acknowledged: as long as nobody acknowledges,
// nobody is primary who is of any use. acks are in the order of Acked.
func LongestWithoutPrimary(acks []democluster.Ack, connected []Interval) Interval {
	var longest Interval
	note := func(from, to time.Duration) {
		if to-from > longest.Length() {
			longest = Interval{from, to}
		}
	}
	i := 0
	for _, c := range connected {
		last := c.From
		for ; i < len(acks) && acks[i].Acked < c.From; i++ {
		}
		for ; i < len(acks) && acks[i].Acked <= c.To; i++ {
			note(last, acks[i].Acked)
			last = acks[i].Acked
		}
		note(last, c.To)
	}
	return longest
}

// Reign is the time of one epoch as the clients saw it.
type Reign struct {
	Epoch protocol.Epoch  `json:"epoch"`
	Node  protocol.NodeID `json:"node"`
	First time.Duration   `json:"first_ack_ns"`
	Last  time.Duration   `json:"last_ack_ns"`
	Acks  int             `json:"acks"`
}

// Reigns sums the acknowledgements up by epoch, in the order of epochs.
func Reigns(acks []democluster.Ack) []Reign {
	by := map[protocol.Epoch]*Reign{}
	for _, a := range acks {
		r := by[a.Epoch]
		if r == nil {
			r = &Reign{Epoch: a.Epoch, Node: a.Node, First: a.Acked, Last: a.Acked}
			by[a.Epoch] = r
		}
		r.First, r.Last = min(r.First, a.Acked), max(r.Last, a.Acked)
		r.Acks++
	}
	var out []Reign
	for _, r := range by {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Reign) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return out
}

// Change is one move of the primacy.
type Change struct {
	Fault      Fault           `json:"fault"` // under way; "none" if none was
	FailoverMS float64         `json:"failover_ms"`
	Step       int             `json:"step,omitempty"`
	OldPrimary protocol.NodeID `json:"old_primary"`
	NewPrimary protocol.NodeID `json:"new_primary"`
	Epoch      protocol.Epoch  `json:"epoch"` // the new one
	AtMS       float64         `json:"at_ms"` // of its first acknowledgement
}

// Spread sums up how long the changes of one fault took.
type Spread struct {
	Count    int     `json:"count"`
	MedianMS float64 `json:"median_ms"`
	P95MS    float64 `json:"p95_ms"`
	MaxMS    float64 `json:"max_ms"`
}

// Spreads sums the changes up by fault. Of an even number the median is the
// mean of the two in the middle; the 95th percentile is the least time that 95
// of 100 do not exceed.
func Spreads(changes []Change) map[Fault]Spread {
	took := map[Fault][]float64{}
	for _, c := range changes {
		took[c.Fault] = append(took[c.Fault], c.FailoverMS)
	}
	out := map[Fault]Spread{}
	for f, all := range took {
		slices.Sort(all)
		n := len(all)
		out[f] = Spread{Count: n, MedianMS: (all[(n-1)/2] + all[n/2]) / 2, P95MS: all[(n*95+99)/100-1], MaxMS: all[n-1]}
	}
	return out
}

// noFault is the fault of a change that none explains.
const noFault Fault = "none"

// Changes lists every move of the primacy to another epoch, with the time from
// the last acknowledgement before to the first after, and the step it belongs to.
func Changes(reigns []Reign, done []Done) []Change {
	var out []Change
	var last time.Duration
	for i, r := range reigns {
		if i > 0 {
			c := Change{Fault: noFault, FailoverMS: inMS(r.First - last), OldPrimary: reigns[i-1].Node,
				NewPrimary: r.Node, Epoch: r.Epoch, AtMS: inMS(r.First)}
			for _, d := range done {
				if d.Step.Fault != FaultCalm && r.First >= d.From && (d.Whole == 0 || last <= d.Whole) {
					c.Fault, c.Step = d.Step.Fault, d.Step.N
				}
			}
			out = append(out, c)
		}
		last = max(last, r.Last)
	}
	return out
}
