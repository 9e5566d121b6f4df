package failover

import (
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/election"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
)

// phase is what a node is about, finer than State.
type phase uint8

const (
	following  phase = iota // does not lead
	beginning               // CommitNoop
	preparing               // Prepare
	balloting               // SendBallots, and a ballot open
	outwaiting              // ballot won, an earlier lease perhaps still running
	forking                 // CommitFork
	acquiring               // AcquireToken
	promoting               // Promote
	primary                 // promoted
	offering                // OfferLeadership or NewTerm
	resting                 // nothing under way; goes on with next at until
)

// maxFailures is how many times in a row a step of a promotion is tried
// before leadership is handed on.
const maxFailures = 3

// Orchestrator decides what a node does about the primacy. It is a plain
// state machine: inputs and times in, actions out; no goroutine, no clock, no
// disk. Not safe for concurrent use.
//
//	   LeadershipChanged(true)
//	following ──► beginning ──► preparing ──► balloting ──► outwaiting ──► forking ──► acquiring ──► promoting ──► primary
//	    ▲                           ▲   no quorum │ │ better, stale                       │ refused │              │ higher epoch,
//	    │ LeadershipChanged(false), └── resting ◄─┘ ▼                                     ▼         ▼              ▼ switchover
//	    └─ from anywhere ─────────────────────────────────────────────────── offering (leadership to another, or a new term)
//
// An epoch in which leadership has been offered, or a promotion has failed, is
// spent: this node does not become primary in it any more, however long it
// goes on leading. What brings it back is a new term.
type Orchestrator struct {
	local  protocol.NodeID
	timing Timing
	now    time.Time // of the Step under way
	out    []Action

	// What binds the node whether it leads or not.
	floor    protocol.Epoch // highest epoch promised or seen
	spent    protocol.Epoch // highest epoch in which the guard is closed for good
	cooling  time.Time      // not eligible before
	retired  bool
	returns  int                           // of leadership within the cool-down
	setbacks int                           // promotions that failed since there was a primary
	setback  string                        // why, the last time
	deferred map[protocol.NodeID]time.Time // to whom leadership was offered, when
	begged   int                           // offers to one of them all the same, since there was a primary
	rules    Rules                         // as last told
	aside    int                           // how often this node has stood aside for them, since there was a primary

	// Whom the database follows.
	followed PrimaryKnown
	heard    bool // of the followed primary, since it is followed
	lost     bool // not any more

	// The leadership under way.
	phase    phase
	attempt  uint64 // of the last action
	await    uint64 // attempt waited for; 0: none
	epoch    protocol.Epoch
	last     PrimaryKnown // who was primary before epoch, by the history; NoNode: nobody
	prepared Prepared
	round    uint64
	ballot   *election.LeaderElection
	granted  []protocol.NodeID // who let this node win
	helped   fencing.Outwait   // what voters told of their help to earlier leaders
	yielded  bool              // the earlier primary has promised itself to the epoch: it holds no lease
	exposed  bool              // Promote has been asked for and not taken back by Demote
	held     bool              // exposed, and not taken back because failover is paused
	failures int               // of the step under way, in a row
	rounds   int               // ballots without quorum, in a row
	until    time.Time
	next     func()
	why      string // what the node waits for

	// For the journal.
	began    time.Time // the failover; zero: none
	lastStep time.Time
	open     account // of the failover that made this node primary
}

// account is what is kept of a failover until its database can acknowledge.
type account struct{ began, lastStep time.Time }

// NewOrchestrator returns the machine of a node that has just started, with
// the floor its disk holds. The node is not primary of any epoch up to floor
// any more, its own ones included.
func NewOrchestrator(local protocol.NodeID, floor protocol.Epoch, timing Timing) *Orchestrator {
	return &Orchestrator{local: local, floor: floor, spent: floor, timing: timing.withDefaults(),
		deferred: map[protocol.NodeID]time.Time{}, why: "no primary is known yet"}
}

// Step takes one input at one time and returns what is to be done about it.
// Times must not run backwards.
func (o *Orchestrator) Step(now time.Time, in Input) Output {
	o.now, o.out = now, nil
	switch in := in.(type) {
	case LeadershipChanged:
		if o.phase != following { // also before a leadership that was told of without an end of the last
			o.loseLeadership()
		}
		if in.Leading {
			o.gainLeadership(in)
		}
	case EpochSeen:
		o.epochSeen(in)
	case PrimaryKnown:
		o.primaryKnown(in)
	case PrimaryHealth:
		o.primaryHealth(in)
	case Acknowledging:
		o.acknowledging(in.Epoch)
	case HandOver:
		if o.phase == primary && in.Epoch == o.epoch {
			o.withdraw("handing over")
			o.offer(in.To, "handing over")
		}
	case RulesChanged:
		o.rulesChanged(in.Rules)
	case StoreHangs:
		o.storeHangs(in.Reason)
	case Retire:
		o.retire()
	case Received:
		o.received(in)
	case Tick:
		o.tick()
	case BallotAnswered:
		o.ballotAnswered(in)
	case BallotUnanswered:
		if o.phase == balloting && in.Round == o.round {
			o.step("BallotUnanswered", in.Node, in.Reason)
			o.ballot.Unreachable(now, in.Node)
			o.judge()
		}
	default:
		o.answered(in)
	}
	return Output{Actions: o.out, Wake: o.wake()}
}

// answered takes the answers to actions. Late and repeated ones end here (I7).
func (o *Orchestrator) answered(in Input) {
	var attempt uint64
	switch in := in.(type) {
	case EpochBegun:
		attempt = in.Attempt
	case Prepared:
		attempt = in.Attempt
	case ForkCommitted:
		attempt = in.Attempt
	case TokenAcquired:
		attempt = in.Attempt
	case DatabasePromoted:
		attempt = in.Attempt
	case LeadershipOffered:
		attempt = in.Attempt
	case Failed:
		attempt = in.Attempt
	}
	if attempt == 0 || attempt != o.await {
		return
	}
	o.await = 0
	if failed, is := in.(Failed); is {
		o.failed(failed)
		return
	}
	o.failures = 0
	switch in := in.(type) {
	case EpochBegun:
		o.epochBegun(in)
	case Prepared:
		o.openBallot(in)
	case ForkCommitted:
		o.step("ForkCommitted", o.local, fmt.Sprintf("timeline %d begins behind %v", o.epoch, o.prepared.Position))
		o.phase, o.why = acquiring, "acquiring the fencing token"
		o.act(AcquireToken{Attempt: o.attempted(), Epoch: o.epoch})
	case TokenAcquired:
		o.emit(ElectionWon{Epoch: o.epoch}, "the fencing token is durable, the guard open")
		o.phase, o.why, o.exposed = promoting, "the database is being promoted", true
		o.act(Promote{Attempt: o.attempted(), Epoch: o.epoch})
	case DatabasePromoted:
		o.promoted()
	case LeadershipOffered:
		o.rest(o.timing.StepDownTimeout, "waiting for the leadership to end that was given away", func() { o.offerFailed("nobody took over") })
	}
}

func (o *Orchestrator) gainLeadership(in LeadershipChanged) {
	o.begin(in.Campaign.Heard)
	o.epoch, o.failures, o.rounds = 0, 0, 0
	o.helped, o.yielded = fencing.Outwait{}, false
	o.phase = beginning
	o.campaign(in.Campaign)
	if o.followed.Node != protocol.NoNode && !o.lost {
		o.lost = true
		o.emit(PrimaryLost{Node: o.followed.Node, Epoch: o.followed.Epoch}, "Raft elected this node in its place")
	}
	o.emit(LeadershipGained{Term: in.Term}, fmt.Sprintf("Raft elected this node in term %d", in.Term))
	if o.retired {
		o.offer(protocol.NoNode, "this node is shutting down")
		return
	}
	if why := o.inCoolDown(); why != "" {
		o.emit(NoEligiblePrimary{}, "this node is "+why)
		o.offer(protocol.NoNode, why)
		return
	}
	if o.setbacks > 0 {
		o.rest(o.backoff(o.setbacks), "trying again in a moment after: "+o.setback, o.commitNoop)
		return
	}
	o.commitNoop()
}

func (o *Orchestrator) loseLeadership() {
	wasPrimary, epoch := o.phase == primary, o.epoch
	if epoch != 0 {
		o.closeGuard(epoch+1, "leadership lost") // before anything else
	}
	o.phase, o.await, o.ballot, o.next, o.until = following, 0, nil, nil, time.Time{}
	o.why = "waiting for a leader"
	o.emit(LeadershipLost{Epoch: epoch}, "")
	if wasPrimary {
		o.began, o.lastStep = o.now, o.now
		o.emit(PrimaryLost{Node: o.local, Epoch: epoch}, "this node leads no more")
	}
	if !o.hold() && (o.exposed || o.followed.Node != protocol.NoNode && o.followed.Epoch < o.floor) {
		o.demote(PrimaryKnown{Epoch: max(o.floor, epoch)}) // its own promise has cut it off from whom it followed
	}
	o.epoch = 0
	if o.State() == MonitoringPrimary {
		o.began = time.Time{} // there is a primary: this was no failover
	}
}

// withdraw ends the primacy, or the promotion under way, of this epoch for
// good: the guard first, the database after it.
func (o *Orchestrator) withdraw(cause string) {
	wasPrimary := o.phase == primary
	o.closeGuard(o.epoch+1, cause)
	o.await, o.ballot = 0, nil
	o.phase = resting
	if wasPrimary {
		o.began, o.lastStep = o.now, o.now
		o.emit(PrimaryLost{Node: o.local, Epoch: o.epoch}, cause)
	}
	if o.exposed {
		o.demote(PrimaryKnown{Epoch: max(o.floor, o.epoch)})
	}
}

func (o *Orchestrator) epochSeen(in EpochSeen) {
	if in.Node == o.local || in.Epoch == 0 {
		return
	}
	o.floor = max(o.floor, in.Epoch)
	if o.phase != following {
		// Before the epoch of this leadership is known, epochBegun will see it.
		if o.epoch != 0 && in.Epoch > o.epoch {
			o.overtaken(in.Epoch)
		}
		return
	}
	// What the database follows is cut off by its fence. Until the new epoch
	// has a line in the history there is nobody to follow.
	if o.followed.Epoch < in.Epoch {
		o.why = fmt.Sprintf("node %d holds the ballot of epoch %d", in.Node, in.Epoch)
		if o.followed.Node != protocol.NoNode || o.held {
			o.demote(PrimaryKnown{Epoch: in.Epoch})
		}
	}
}

// overtaken stands back before a higher epoch. Its leader was elected by
// Raft, in a term of that number, so Raft deposes this node as soon as the two
// meet: wait for that rather than disturb the new leader. Should it not come
// (Raft's own state was lost or restored from a backup while the floors were
// kept), a new term is forced, one after the other, until Raft's term has
// risen above every floor.
func (o *Orchestrator) overtaken(current protocol.Epoch) {
	if o.epoch <= o.spent && o.await == 0 && o.phase == resting {
		return // known already
	}
	stale := o.epoch
	if o.phase != offering {
		o.withdraw(fmt.Sprintf("epoch %d has begun", current))
	}
	o.emit(StaleEpochDetected{Node: o.local, Stale: stale, Current: current}, "this node stands back")
	o.rest(o.timing.StepDownTimeout, fmt.Sprintf("epoch %d is over, %d has begun; waiting to be deposed", stale, current), o.newTerm)
}

func (o *Orchestrator) primaryKnown(in PrimaryKnown) {
	if in.Epoch > o.last.Epoch {
		o.last = PrimaryKnown{Node: in.Node, Epoch: in.Epoch}
	}
	if in.Epoch == 0 || in.Epoch < o.floor || in.Epoch < o.followed.Epoch {
		return // cut off: a follower never goes below its floor
	}
	if in.Node == o.local {
		o.floor = max(o.floor, in.Epoch)
		if o.phase == following && o.followed.Node != protocol.NoNode && o.followed.Epoch < in.Epoch {
			o.demote(PrimaryKnown{Epoch: in.Epoch}) // its own epoch, which is over: nobody to follow
			o.why = "waiting for a leader"
		}
		return
	}
	if in == o.followed {
		return
	}
	if o.phase != following && o.epoch != 0 && in.Epoch > o.epoch {
		o.floor = max(o.floor, in.Epoch)
		o.overtaken(in.Epoch)
	}
	o.floor = max(o.floor, in.Epoch)
	if in.Node != o.followed.Node || in.Epoch != o.followed.Epoch {
		o.emit(NewPrimaryDetected(in), "")
		o.thereIsAPrimary()
		o.heard, o.lost = false, false
		if o.phase == following {
			o.began = time.Time{}
		}
	}
	o.demote(in)
	if o.phase == following {
		o.why = ""
	}
}

func (o *Orchestrator) primaryHealth(in PrimaryHealth) {
	if o.followed.Node == protocol.NoNode || in.Node != o.followed.Node {
		return
	}
	switch {
	case in.Kind == health.Healthy:
		o.heard = true
		if o.lost {
			o.lost = false
			if o.phase == following {
				o.began, o.why = time.Time{}, ""
			}
			o.emit(Step{What: "PrimaryBack", Epoch: o.followed.Epoch, Node: in.Node}, "heard of again")
		}
	case in.Kind == health.Unreachable && o.heard && !o.lost:
		o.lost = true
		if o.phase == following {
			o.began, o.lastStep = o.now, o.now
			o.why = fmt.Sprintf("primary %d is lost; waiting for Raft to elect a leader", in.Node)
		}
		o.emit(PrimaryLost{Node: in.Node, Epoch: o.followed.Epoch}, "not heard of any more")
	}
}

func (o *Orchestrator) retire() {
	if o.retired {
		return
	}
	o.retired = true
	o.closeGuard(lastEpoch, "this node is shutting down")
	if o.phase != following && o.phase != offering {
		o.withdraw("this node is shutting down")
		o.offer(protocol.NoNode, "this node is shutting down")
	}
}

// storeHangs gives up a leadership whose entries cannot be stored. Raft itself
// would keep it: its heartbeats need no disk.
func (o *Orchestrator) storeHangs(reason string) {
	o.cool(reason)
	if o.phase == following || o.phase == offering || o.epoch != 0 && o.epoch <= o.spent {
		return
	}
	o.withdraw(reason)
	o.offer(protocol.NoNode, reason)
}

func (o *Orchestrator) received(in Received) {
	switch m := in.Message.(type) {
	case protocol.AppendEntries:
		o.emit(AppendEntriesReceived{From: in.From, Payload: m.Payload}, fmt.Sprintf("%d bytes", len(m.Payload)))
	case protocol.AppendEntriesResponse:
		o.emit(AppendEntriesResponseReceived{From: in.From, Payload: m.Payload}, fmt.Sprintf("%d bytes", len(m.Payload)))
	}
}

func (o *Orchestrator) tick() {
	switch {
	case o.phase == balloting:
		o.ballot.Tick(o.now)
		o.judge()
	case o.phase == outwaiting:
		o.outwait()
	case o.phase == resting && o.next != nil && !o.now.Before(o.until):
		next := o.next
		o.next = nil
		next()
	}
}

func (o *Orchestrator) wake() time.Time {
	switch {
	case o.phase == balloting:
		return o.ballot.Deadline()
	case o.phase == outwaiting, o.phase == resting && o.next != nil:
		return o.until
	}
	return time.Time{}
}
