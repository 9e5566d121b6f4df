package torture

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault names a kind of step. The names are what --faults takes and what the
// verdict counts by.
type Fault string

// The faults. What each does is in doFault; how long it lasts is the step's.
const (
	FaultKill       Fault = "kill"             // kill -9, down for a while, started again
	FaultPause      Fault = "pause"            // SIGSTOP, SIGCONT
	FaultStutter    Fault = "stutter"          // stopped and continued again and again
	FaultPauseAll   Fault = "pause-all"        // every node stopped, woken one by one
	FaultIsolate    Fault = "isolate"          // cut from all other nodes, both ways
	FaultOneWay     Fault = "one-way"          // what it sends is lost, or what is sent to it
	FaultPartial    Fault = "partial"          // cut from one other node
	FaultFlap       Fault = "flap"             // isolated and back, again and again
	FaultSlowNet    Fault = "slow-net"         // delay, jitter and loss on one node's link
	FaultDiskFull   Fault = "disk-full"        // no byte left under one node's data
	FaultSwitchover Fault = "switchover"       // asked for, by the API
	FaultStorm      Fault = "switchover-storm" // asked of every node at once, each to another
	FaultTerminate  Fault = "terminate"        // SIGTERM, and started again
	FaultRestart    Fault = "rolling-restart"  // the same, one node after the other
	FaultBlackout   Fault = "blackout"         // kill -9 of every node at once
	FaultWipe       Fault = "wipe"             // a node loses its directory while all others run

	// FaultCalm is no fault at all: the load runs on, and nothing may happen. It
	// comes only when it is asked for.
	FaultCalm Fault = "calm"

	// Combinations: two faults at once, on purpose.
	FaultWakeKill       Fault = "wake-kill"       // the primary is paused; as it wakes, its successor is killed
	FaultSwitchoverKill Fault = "switchover-kill" // a switchover, and one of the two dies in the middle of it
	FaultRejoinKill     Fault = "rejoin-kill"     // a node is killed again and again while it starts
	FaultCutPause       Fault = "cut-pause"       // the primary is cut from a replica, and paused
)

// family says what a fault needs of the machine.
type family int

const (
	needsNothing family = iota
	needsNetwork        // links that can be cut
	needsNetem          // links that can be slowed
	needsDisk           // a disk that can be filled
)

// kind is what the scheduler knows of a fault.
type kind struct {
	fault    Fault
	needs    family
	weight   int           // how often, relative to the others
	min, max time.Duration // how long it lasts
	turns    int           // repetitions, at most; 0: it has none
}

// kinds lists every fault once.
func kinds() []kind {
	return []kind{
		{FaultKill, needsNothing, 4, 0, 4 * time.Second, 0},
		{FaultPause, needsNothing, 5, 100 * time.Millisecond, 20 * time.Second, 0},
		{FaultStutter, needsNothing, 2, 50 * time.Millisecond, 600 * time.Millisecond, 10},
		{FaultPauseAll, needsNothing, 1, 100 * time.Millisecond, 5 * time.Second, 0},
		{FaultIsolate, needsNetwork, 4, 200 * time.Millisecond, 8 * time.Second, 0},
		{FaultOneWay, needsNetwork, 3, 300 * time.Millisecond, 6 * time.Second, 0},
		{FaultPartial, needsNetwork, 3, 300 * time.Millisecond, 6 * time.Second, 0},
		{FaultFlap, needsNetwork, 1, 50 * time.Millisecond, 700 * time.Millisecond, 8},
		{FaultSlowNet, needsNetem, 2, time.Second, 8 * time.Second, 0},
		{FaultDiskFull, needsDisk, 2, 300 * time.Millisecond, 12 * time.Second, 0},
		{FaultSwitchover, needsNothing, 3, 0, 0, 0},
		{FaultStorm, needsNothing, 1, 0, 0, 4},
		{FaultTerminate, needsNothing, 2, 0, time.Second, 0},
		{FaultRestart, needsNothing, 2, 0, 500 * time.Millisecond, 0},
		{FaultBlackout, needsNothing, 1, 0, 2 * time.Second, 0},
		{FaultWipe, needsNothing, 1, 0, time.Second, 0},
		{FaultWakeKill, needsNothing, 2, 600 * time.Millisecond, 4 * time.Second, 0},
		{FaultSwitchoverKill, needsNothing, 2, 0, 120 * time.Millisecond, 0},
		{FaultRejoinKill, needsNothing, 2, 0, 300 * time.Millisecond, 5},
		{FaultCutPause, needsNetwork, 2, 200 * time.Millisecond, 5 * time.Second, 0},
		{FaultCalm, needsNothing, 0, 5 * time.Second, 5 * time.Second, 0},
	}
}

// FaultNames lists the names of all faults.
func FaultNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, string(k.fault))
	}
	return names
}

// Target says which node a step is done to; who that is shows when it is done.
type Target string

// The targets.
const (
	OnPrimary Target = "primary"
	OnReplica Target = "replica"
	OnAll     Target = "all"
)

// Step is one entry of the script.
type Step struct {
	N      int           // from 1
	Fault  Fault         // what
	Target Target        // to whom
	Pick   int           // chooses among those that fit the target
	For    time.Duration // how long; of each turn, if there are turns
	Turns  int           // 0: once
	// Variant chooses between two ways of doing it: whether the node that is
	// cut off is cut off from the clients too, which way a one-way cut goes,
	// which of two nodes dies.
	Variant bool
	// Lead is how long the load runs untroubled before.
	Lead time.Duration
}

// String writes the step as a line of the script.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%03d +%v %s %s", s.N, s.Lead, s.Fault, s.Target)
	if s.Pick > 0 {
		fmt.Fprintf(&b, " pick=%d", s.Pick)
	}
	if s.For > 0 {
		fmt.Fprintf(&b, " for=%v", s.For)
	}
	if s.Turns > 0 {
		fmt.Fprintf(&b, " turns=%d", s.Turns)
	}
	if s.Variant {
		b.WriteString(" variant")
	}
	return b.String()
}

const (
	minLead = 100 * time.Millisecond
	maxLead = 1500 * time.Millisecond
	// primaryShare is how often, of 10, a fault that could hit any node hits
	// the primary.
	primaryShare = 7
	// grain is what times in a script are multiples of.
	grain = time.Millisecond
)

// Scheduler deals out steps: the same for the same seed, number of nodes and
// faults. Every fault comes once, in random order, before weights decide. It is
// not safe for concurrent use.
type Scheduler struct {
	random *rand.Rand
	kinds  []kind
	first  []kind // not dealt yet
	nodes  int
	n      int
	// Longest bounds how long a step lasts; 0: as its kind has it.
	Longest time.Duration
	// Target makes every fault that could hit any node hit this; "" leaves it open.
	Target Target
}

// NewScheduler returns a scheduler of these faults, at least one.
func NewScheduler(seed uint64, nodes int, faults []Fault) (*Scheduler, error) {
	s := &Scheduler{random: rand.New(rand.NewPCG(seed, 0)), nodes: nodes}
	for _, k := range kinds() {
		if slices.Contains(faults, k.fault) {
			s.kinds = append(s.kinds, k)
		}
	}
	if len(s.kinds) == 0 {
		return nil, fmt.Errorf("no faults to choose from: want some of %s", strings.Join(FaultNames(), ", "))
	}
	s.first = slices.Clone(s.kinds)
	s.random.Shuffle(len(s.first), func(i, j int) { s.first[i], s.first[j] = s.first[j], s.first[i] })
	return s, nil
}

// Next returns the next step.
func (s *Scheduler) Next() Step {
	s.n++
	k := s.choose()
	step := Step{N: s.n, Fault: k.fault, Lead: s.between(minLead, maxLead)}
	longest := k.max
	if s.Longest > 0 {
		longest = max(min(longest, s.Longest), k.min)
	}
	step.For = s.between(k.min, longest)
	if k.turns > 0 {
		step.Turns = 2 + s.random.IntN(k.turns-1)
	}
	step.Variant = s.random.IntN(2) == 0
	if k.fault == FaultIsolate { // whom clients still reach is the more dangerous one
		step.Variant = s.random.IntN(4) == 0
	}
	step.Target = OnPrimary
	if s.random.IntN(10) >= primaryShare {
		step.Target = OnReplica
	}
	if s.Target != "" {
		step.Target = s.Target
	}
	step.Pick = s.random.IntN(max(s.nodes-1, 1))
	switch k.fault {
	case FaultPauseAll, FaultStorm, FaultRestart, FaultBlackout, FaultCalm:
		step.Target = OnAll
	case FaultSwitchover, FaultSwitchoverKill, FaultWakeKill, FaultCutPause:
		step.Target = OnPrimary
	}
	return step
}

// choose picks a kind.
func (s *Scheduler) choose() kind {
	if len(s.first) > 0 {
		k := s.first[0]
		s.first = s.first[1:]
		return k
	}
	if len(s.kinds) == 1 {
		return s.kinds[0]
	}
	total := 0
	for _, k := range s.kinds {
		total += k.weight
	}
	at := s.random.IntN(total)
	for _, k := range s.kinds {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	return s.kinds[0] // never: the weights add up
}

// between picks a time from low to high. Short ones are as likely as long ones:
// the logarithm is what is evenly spread.
func (s *Scheduler) between(low, high time.Duration) time.Duration {
	at := s.random.Float64()
	if high <= low {
		return low
	}
	from := math.Log(float64(max(low, 10*time.Millisecond)))
	to := math.Log(float64(max(high, 10*time.Millisecond)))
	return max(low, min(high, time.Duration(math.Exp(from+at*(to-from))).Round(grain)))
}
