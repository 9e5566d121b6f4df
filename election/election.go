package election

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Result is how a ballot stands.
type Result uint8

// The results. All but Pending are final.
const (
	Pending           Result = iota
	Won                      // a quorum granted, nobody better was seen
	Lost                     // a better position was seen, or a higher floor
	Timeout                  // no quorum in time
	InsufficientNodes        // fewer voters can be reached than a quorum
)

// String returns the result in one or two words.
func (r Result) String() string {
	switch r {
	case Pending:
		return "pending"
	case Won:
		return "won"
	case Lost:
		return "lost"
	case Timeout:
		return "timeout"
	case InsufficientNodes:
		return "insufficient nodes"
	}
	return "result(" + strconv.Itoa(int(r)) + ")"
}

// Config describes one ballot.
type Config struct {
	Local    protocol.NodeID   // the candidate
	Voters   []protocol.NodeID // all of them, the candidate among them
	Epoch    protocol.Epoch
	Position protocol.Position // the candidate's, read after its own promise

	// Timeout is how long the ballot may take, from New.
	Timeout time.Duration
	// Grace is how long the candidate waits for those of Alive that have not
	// answered when a quorum has: with asynchronous replication the longest
	// log may be outside the first quorum. It bounds the wait, and need not be
	// waited out when everybody has answered.
	Grace time.Duration
	// Alive are the voters that health holds alive.
	Alive []protocol.NodeID
	// PassedOver are voters to whom leadership has been offered in vain of
	// late. A better position of theirs does not make the ballot lost, nor
	// does the grace wait for them; they do not count as grants by that. A
	// quorum of grants without them still holds every acknowledged write.
	PassedOver []protocol.NodeID
}

// Outcome is a ballot's result and what it rests on.
type Outcome struct {
	Result Result
	// Best is the voter with the best position above the candidate's, of those
	// not passed over; NoNode if there is none. BestPosition belongs to it.
	Best         protocol.NodeID
	BestPosition protocol.Position
	// Floor is the highest floor above the epoch that a voter reported, and
	// FloorNode that voter; 0 and NoNode if there is none. The ballot is then
	// lost and cannot be won in this epoch.
	Floor     protocol.Epoch
	FloorNode protocol.NodeID
	// PassedOver is the voter with the best position above the candidate's
	// among those passed over; NoNode if there is none. When no quorum grants
	// without it, nobody but it can win.
	PassedOver protocol.NodeID
	Granted    []protocol.NodeID // ascending, the candidate among them
	Answered   int               // voters that gave their position, the candidate among them
	Needed     int               // quorum
}

// standing is what is known of one voter. The order is that of caution: an
// answer never takes a voter to a lower standing, so that the outcome does not
// depend on the order in which answers, repeated ones too, arrive (I7).
type standing uint8

const (
	silent      standing = iota
	unreachable          // no answer will come, or it could not promise
	granted
	better
	stale
)

type voterState struct {
	standing standing
	position protocol.Position
	floor    protocol.Epoch
}

// LeaderElection is one ballot, seen by its candidate. It is a plain value
// machine: answers and times in, Outcome out. Not safe for concurrent use.
type LeaderElection struct {
	cfg      Config
	voters   map[protocol.NodeID]*voterState
	deadline time.Time
	settled  time.Time // when a quorum had given positions; zero before
	outcome  Outcome
}

// New opens a ballot at now. The candidate's own promise and position count at
// once, so that a single voter has won when New returns.
func New(cfg Config, now time.Time) *LeaderElection {
	e := &LeaderElection{cfg: cfg, voters: map[protocol.NodeID]*voterState{}, deadline: now.Add(cfg.Timeout)}
	for _, id := range cfg.Voters {
		e.voters[id] = &voterState{}
	}
	if own := e.voters[cfg.Local]; own != nil {
		own.standing, own.position = granted, cfg.Position
	}
	e.evaluate(now)
	return e
}

// Answer takes a voter's answer. Answers of another epoch, of strangers and of
// the candidate itself are ignored, and so is everything after the result.
func (e *LeaderElection) Answer(now time.Time, a protocol.BallotAnswer) {
	v := e.voters[a.VoterID]
	if v == nil || a.VoterID == e.cfg.Local || a.Epoch != e.cfg.Epoch {
		return
	}
	next := voterState{position: a.Position}
	switch a.Refusal {
	case protocol.BallotStaleEpoch:
		next.standing, next.floor = stale, max(a.Floor, e.cfg.Epoch)
	case protocol.BallotGranted, protocol.BallotBetter:
		switch {
		case a.Position.Compare(e.cfg.Position) > 0:
			next.standing = better // whatever it calls it
		case a.Granted():
			next.standing = granted
		default:
			next.standing = unreachable // contradicts itself: no grant
		}
	default:
		next.standing = unreachable
	}
	if next.standing > v.standing || next.standing == v.standing && next.floor > v.floor {
		*v = next
	}
	e.evaluate(now)
}

// Unreachable notes that no answer of a voter will come, unless one does.
func (e *LeaderElection) Unreachable(now time.Time, id protocol.NodeID) {
	if v := e.voters[id]; v != nil && v.standing == silent {
		v.standing = unreachable
	}
	e.evaluate(now)
}

// Tick lets time pass. It is due at Deadline at the latest.
func (e *LeaderElection) Tick(now time.Time) { e.evaluate(now) }

// Deadline returns when the next Tick is due for something to happen: the end
// of the grace once a quorum has answered, else of the ballot.
func (e *LeaderElection) Deadline() time.Time {
	if !e.settled.IsZero() && e.graceCounts() {
		if end := e.settled.Add(e.cfg.Grace); end.Before(e.deadline) {
			return end
		}
	}
	return e.deadline
}

// Outcome returns how the ballot stands. Its slice is the caller's.
func (e *LeaderElection) Outcome() Outcome {
	out := e.outcome
	out.Granted = slices.Clone(out.Granted)
	return out
}

// graceCounts reports whether the end of the grace can decide the ballot.
func (e *LeaderElection) graceCounts() bool {
	return e.outcome.Best != protocol.NoNode || len(e.outcome.Granted) >= e.outcome.Needed
}

func (e *LeaderElection) evaluate(now time.Time) {
	if e.outcome.Result != Pending {
		return
	}
	out := Outcome{Needed: Quorum(len(e.voters))}
	pending, awaited := 0, false
	var passedOver protocol.Position
	for id, v := range e.voters {
		switch v.standing {
		case silent:
			pending++
			awaited = awaited || slices.Contains(e.cfg.Alive, id) && !slices.Contains(e.cfg.PassedOver, id)
		case granted:
			out.Granted = append(out.Granted, id)
			out.Answered++
		case better:
			out.Answered++
			if slices.Contains(e.cfg.PassedOver, id) {
				order := v.position.Compare(passedOver)
				if out.PassedOver == protocol.NoNode || cmp.Or(order, cmp.Compare(out.PassedOver, id)) > 0 {
					out.PassedOver, passedOver = id, v.position
				}
				break
			}
			order := v.position.Compare(out.BestPosition)
			if out.Best == protocol.NoNode || cmp.Or(order, cmp.Compare(out.Best, id)) > 0 {
				out.Best, out.BestPosition = id, v.position
			}
		case stale:
			if v.floor > out.Floor || v.floor == out.Floor && id < out.FloorNode {
				out.Floor, out.FloorNode = v.floor, id
			}
		}
	}
	slices.Sort(out.Granted)
	if out.Answered >= out.Needed && e.settled.IsZero() {
		e.settled = now
	}
	e.outcome = out
	e.outcome.Result = e.result(now, pending, awaited)
}

func (e *LeaderElection) result(now time.Time, pending int, awaited bool) Result {
	out := &e.outcome
	if out.FloorNode != protocol.NoNode {
		return Lost
	}
	timedOut := !now.Before(e.deadline)
	heardAll := pending == 0 || timedOut ||
		!e.settled.IsZero() && (!awaited || !now.Before(e.settled.Add(e.cfg.Grace)))
	switch quorum := len(out.Granted) >= out.Needed; {
	case heardAll && out.Best != protocol.NoNode:
		return Lost
	case heardAll && quorum:
		return Won
	case quorum:
		return Pending // within the grace
	case timedOut:
		return Timeout
	case out.Best == protocol.NoNode && len(out.Granted)+pending < out.Needed:
		return InsufficientNodes
	}
	return Pending
}
