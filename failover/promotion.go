package failover

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/election"
	"github.com/aiondb/aiondb-ha/protocol"
)

// lastEpoch is above every epoch that comes to pass.
const lastEpoch protocol.Epoch = math.MaxUint64

// attempted numbers an action whose answer is waited for from now on.
func (o *Orchestrator) attempted() uint64 {
	o.attempt++
	o.await = o.attempt
	return o.attempt
}

func (o *Orchestrator) commitNoop() {
	o.phase, o.why = beginning, "waiting for a quorum to commit the leader's first entry"
	o.act(CommitNoop{Attempt: o.attempted()})
}

func (o *Orchestrator) epochBegun(in EpochBegun) {
	epoch, again := in.Epoch, o.epoch == in.Epoch
	if o.epoch, o.last = epoch, in.Last; !again {
		o.step("EpochBegun", o.local, "a quorum has committed the leader's first entry")
	}
	o.rulesChanged(in.Rules)
	why, to := o.standsAside()
	switch {
	case epoch < o.floor:
		o.overtaken(o.floor)
	case why != "":
		o.standAside(why, to, in.Alive)
	case epoch <= o.spent:
		// Leadership was lost and regained faster than it was told, and the
		// first telling closed the guard in the term of the second.
		o.newTerm()
	default:
		o.prepare()
	}
}

func (o *Orchestrator) prepare() {
	o.phase, o.why = preparing, "promising this node to its own epoch"
	if o.held {
		o.demote(PrimaryKnown{Epoch: o.epoch})
	}
	o.act(Prepare{Attempt: o.attempted(), Epoch: o.epoch})
}

func (o *Orchestrator) openBallot(in Prepared) {
	o.prepared = in
	if !in.Durable.IsZero() {
		o.emitAt(in.Durable, Step{What: "FloorDurable", Epoch: o.epoch, Node: o.local}, "this node's own promise is on disk")
	}
	o.floor = max(o.floor, o.epoch)
	o.helped.Answer(o.now, o.local, in.Age)
	if in.Earlier == o.local {
		o.yielded = true // its own guard is closed, or this epoch would not have come this far
	}
	passedOver := sorted(append(o.passedOver(), o.rules.neverPrimary()...))
	if in.MaxBehind > 0 && in.Behind > in.MaxBehind {
		if !o.rules.Permit.Permits(o.local, o.last.Epoch) {
			o.tooFarBehind(in, passedOver)
			return
		}
		o.step("LagPermitted", o.local, fmt.Sprintf("%d LSNs behind the last known primary, more than %d, and permitted by an operator", in.Behind, in.MaxBehind))
	}
	o.round++
	o.ballot = election.New(election.Config{Local: o.local, Voters: in.Voters, Epoch: o.epoch, Position: in.Position,
		Timeout: o.timing.BallotTimeout, Grace: o.timing.Grace, Alive: in.Alive, PassedOver: passedOver}, o.now)
	o.phase = balloting
	o.step("BallotOpened", o.local, fmt.Sprintf("own position %v, %d voters%s", in.Position, len(in.Voters), o.silence(in.Age)))
	var messages []protocol.DirectedMessage
	for _, id := range in.Voters {
		if id != o.local {
			messages = append(messages, protocol.DirectedMessage{To: id, Message: protocol.BallotRequest{
				Epoch: o.epoch, CandidateID: o.local, Position: in.Position}})
		}
	}
	if len(messages) > 0 {
		o.act(SendBallots{Round: o.round, Messages: messages})
	}
	o.judge()
}

// passedOver returns to whom leadership was offered in vain of late.
func (o *Orchestrator) passedOver() []protocol.NodeID {
	var ids []protocol.NodeID
	for id, at := range o.deferred {
		if o.now.Sub(at) < o.timing.DeferMemory {
			ids = append(ids, id)
		} else {
			delete(o.deferred, id)
		}
	}
	return sorted(ids)
}

// tooFarBehind hands leadership to a node that has lost less, if one is known.
// If none is, there is no primary: whoever set the limit would rather have that.
func (o *Orchestrator) tooFarBehind(in Prepared, passedOver []protocol.NodeID) {
	why := fmt.Sprintf("%d LSNs behind the last known primary, at most %d are allowed", in.Behind, in.MaxBehind)
	if permitted := o.rules.Permit.Node; permitted != o.local && o.rules.Permit.Permits(permitted, o.last.Epoch) {
		in.Successor = permitted
	}
	if in.Successor != protocol.NoNode && !slices.Contains(passedOver, in.Successor) {
		o.deferred[in.Successor] = o.now
		o.step("TooFarBehind", in.Successor, why)
		o.offer(in.Successor, why)
		return
	}
	if o.rounds++; o.rounds == 1 {
		o.emit(NoEligiblePrimary{Epoch: o.epoch}, why+", and no other node is known that is not")
	}
	o.rest(o.backoff(o.rounds), "no node is eligible: this one is "+why+"; permit a failover to a node to accept the loss", o.commitNoop)
}

func (o *Orchestrator) ballotAnswered(in BallotAnswered) {
	// An answer to an earlier round of this epoch is as good: the voter's
	// promise holds, and its log cannot have grown since. One of another epoch means nothing (I7).
	if o.phase != balloting && o.phase != outwaiting || in.Answer.Epoch != o.epoch ||
		in.Answer.VoterID == o.local || !slices.Contains(o.prepared.Voters, in.Answer.VoterID) {
		return
	}
	detail := ""
	switch in.Answer.Refusal {
	case protocol.BallotGranted:
		detail = fmt.Sprintf("granted, at %v%s", in.Answer.Position, o.silence(ageOf(in.Answer)))
	case protocol.BallotBetter:
		detail = fmt.Sprintf("has a better position, %v", in.Answer.Position)
	case protocol.BallotStaleEpoch:
		detail = fmt.Sprintf("has promised itself to epoch %d", in.Answer.Floor)
	default:
		detail = "could not promise, or not read its position"
	}
	o.step("BallotAnswered", in.Answer.VoterID, detail)
	if promised := in.Answer.Refusal; promised == protocol.BallotGranted || promised == protocol.BallotBetter {
		o.helped.Answer(o.now, in.Answer.VoterID, ageOf(in.Answer))
		o.yielded = o.yielded || in.Answer.VoterID == o.prepared.Earlier
	}
	if o.phase == outwaiting {
		o.outwait()
		return
	}
	o.ballot.Answer(o.now, in.Answer)
	o.judge()
}

// silence tells, for the journal, how long the earlier primary had not been
// heard of: most of a failover's time lies before it begins.
func (o *Orchestrator) silence(age time.Duration) string {
	if o.prepared.Earlier == protocol.NoNode || o.prepared.Earlier == o.local || age >= maxAge {
		return ""
	}
	return fmt.Sprintf("; last heard of an earlier leader %v ago", age.Round(100*time.Microsecond))
}

// maxAge is the age that stands for an infinite one.
const maxAge = math.MaxInt64 / time.Microsecond * time.Microsecond

func ageOf(a protocol.BallotAnswer) time.Duration {
	return time.Duration(min(a.AgeUS, uint64(maxAge/time.Microsecond))) * time.Microsecond
}

// outwait promotes when no lease of an earlier primary can be running any more
// (I1, I4): D·(1+ε) after the youngest help that one of the quorum has given.
// Usually that has passed, since losing a leader takes longer. There is no
// lease if nobody was primary before, or if who was has promised itself to this
// epoch: it closed its guard first.
func (o *Orchestrator) outwait() {
	until := o.helped.Until(o.timing.Lease, o.granted)
	switch waiting := o.phase == outwaiting; {
	case o.timing.Lease > 0 && o.prepared.Earlier != protocol.NoNode && !o.yielded && o.now.Before(until):
		if !waiting {
			o.step("LeaseAwaited", o.prepared.Earlier, fmt.Sprintf("waiting %v for the old lease to run out", until.Sub(o.now).Round(time.Microsecond)))
		}
		o.phase, o.until, o.why = outwaiting, until, fmt.Sprintf("waiting for the old lease of node %d", o.prepared.Earlier)
		return
	case waiting && o.yielded:
		o.step("LeaseOver", o.prepared.Earlier, "its holder has closed its guard")
	case waiting:
		o.step("LeaseOver", o.prepared.Earlier, "waited for the old lease")
	}
	o.commitFork()
}

// judge acts on the ballot's result, if it has one.
func (o *Orchestrator) judge() {
	result := o.ballot.Outcome()
	switch result.Result {
	case election.Pending:
		o.why = fmt.Sprintf("waiting for ballots: %d granted, %d needed", len(result.Granted), result.Needed)
	case election.Won:
		o.ballot, o.rounds = nil, 0
		o.granted = result.Granted
		o.step("BallotWon", o.local, fmt.Sprintf("granted by %v", result.Granted))
		o.outwait()
	case election.Lost:
		o.ballot = nil
		if result.FloorNode != protocol.NoNode {
			o.floor = max(o.floor, result.Floor)
			o.emit(ElectionLost{Epoch: o.epoch}, fmt.Sprintf("node %d is promised to epoch %d", result.FloorNode, result.Floor))
			o.overtaken(result.Floor)
			return
		}
		o.deferred[result.Best] = o.now
		o.emit(ElectionLost{Epoch: o.epoch, Better: result.Best},
			fmt.Sprintf("node %d is at %v, this node at %v", result.Best, result.BestPosition, o.prepared.Position))
		o.offer(result.Best, fmt.Sprintf("node %d has a better position", result.Best))
	default: // Timeout, InsufficientNodes: nothing is spent, the epoch goes on
		o.ballot = nil
		o.rounds++
		o.emit(ElectionFailed{Epoch: o.epoch, Result: result.Result.String()},
			fmt.Sprintf("granted by %v, %d needed", result.Granted, result.Needed))
		if ahead := result.PassedOver; ahead != protocol.NoNode {
			if slices.Contains(o.rules.neverPrimary(), ahead) {
				o.emit(NoEligiblePrimary{Epoch: o.epoch}, fmt.Sprintf("node %d has a better position and is in maintenance", ahead))
				o.rest(o.backoff(o.rounds), fmt.Sprintf("node %d is needed, has a better position, and is in maintenance: resume it", ahead), o.commitNoop)
				return
			}
			o.beg(ahead, fmt.Sprintf("no quorum without node %d, which has a better position", ahead))
			return
		}
		o.rest(o.backoff(o.rounds), fmt.Sprintf("no quorum of ballots: granted by %v, %d needed; asking again",
			result.Granted, result.Needed), o.prepare)
	}
}

func (o *Orchestrator) commitFork() {
	o.phase, o.why = forking, "committing the promotion to the timeline history"
	o.act(CommitFork{Attempt: o.attempted(), Fork: protocol.Fork{Epoch: o.epoch, NodeID: o.local,
		Parent: o.prepared.Position.Timeline, LSN: o.prepared.Position.LSN}})
}

func (o *Orchestrator) promoted() {
	o.phase, o.why = primary, ""
	o.followed, o.lost, o.heard = PrimaryKnown{}, false, false
	o.thereIsAPrimary()
	o.cooling = time.Time{}
	o.emit(PromotionComplete{Epoch: o.epoch}, "")
	o.open, o.began = account{o.began, o.lastStep}, time.Time{}
	var messages []protocol.DirectedMessage
	for _, id := range o.prepared.Voters {
		if id != o.local {
			messages = append(messages, protocol.DirectedMessage{To: id, Message: protocol.PromoteNotify{
				Epoch: o.epoch, NewPrimaryID: o.local, NewPrimaryAddr: o.prepared.Address}})
		}
	}
	if len(messages) > 0 {
		o.act(Send{Messages: messages})
	}
}

// failed takes the failure of the action that was waited for.
func (o *Orchestrator) failed(in Failed) {
	o.floor = max(o.floor, in.Floor)
	if in.Floor > o.epoch && o.epoch != 0 && o.phase != offering {
		o.overtaken(in.Floor)
		return
	}
	if o.phase == offering {
		o.step("OfferFailed", o.local, in.Reason)
		o.offerFailed(in.Reason)
		return
	}
	o.failures++
	wait := o.backoff(o.failures)
	switch o.phase {
	case beginning:
		o.step("CommitFailed", o.local, in.Reason)
		o.retry(wait, "committing the leader's first entry failed: "+in.Reason, o.commitNoop)
	case preparing:
		o.step("PrepareFailed", o.local, in.Reason)
		o.retry(wait, "this node cannot make its promise: "+in.Reason, o.prepare)
	case forking:
		o.step("CommitFailed", o.local, in.Reason)
		o.retry(wait, "committing the timeline history failed: "+in.Reason, o.commitFork)
	case acquiring, promoting:
		o.giveBack(in.Reason)
	}
}

// retry goes on with next after a rest, or hands leadership on when that has
// happened too often: another node may have a better disk.
func (o *Orchestrator) retry(wait time.Duration, why string, next func()) {
	if o.failures < maxFailures {
		o.rest(wait, why, next)
		return
	}
	o.giveBack(why)
}

// giveBack ends a promotion that did not succeed: guard closed, database
// demoted, leadership to somebody else, and none of that again for a while.
func (o *Orchestrator) giveBack(reason string) {
	o.cool(reason)
	o.setbacks = min(o.setbacks+1, maxBegged)
	if o.epoch != 0 {
		o.withdraw("the promotion failed: " + reason)
		o.emit(PromotionFailed{Epoch: o.epoch}, reason)
	}
	o.failures = 0
	o.offer(protocol.NoNode, "in cool-down until "+o.cooling.Format(time.TimeOnly)+": "+reason)
}

// offer hands leadership on. The guard is closed for good in this epoch first,
// open or not: the request to take over may reach its target late, whatever
// Raft reports of it.
func (o *Orchestrator) offer(to protocol.NodeID, why string) {
	if o.epoch != 0 {
		o.closeGuard(o.epoch+1, why)
	}
	o.phase, o.why = offering, why
	o.act(OfferLeadership{Attempt: o.attempted(), To: to})
}

// offerFailed goes on when nobody took over. A node that may be primary makes
// itself a new term at once, one in cool-down after a second try: there is
// nobody else (I6). One that stands aside looks at the rules again; one that shuts
// down asks the others again.
func (o *Orchestrator) offerFailed(reason string) {
	o.failures++
	aside, _ := o.standsAside()
	cooling := o.now.Before(o.cooling)
	switch {
	case o.retired || aside != "" || cooling && o.failures <= returnsEndured:
		if o.failures == 1 {
			o.emit(NoEligiblePrimary{Epoch: o.epoch}, "nobody to hand over to: "+reason)
		}
		o.rest(o.backoff(o.failures), o.why, func() {
			if o.retired || cooling {
				o.offer(protocol.NoNode, o.why)
			} else {
				o.commitNoop()
			}
		})
	case cooling:
		o.endCoolDown("nobody took over: " + reason)
		o.rest(o.backoff(max(o.setbacks, 1)), fmt.Sprintf("nobody took over (%s); trying again after: %s", reason, o.setback), o.newTerm)
	case o.failures > 1:
		o.rest(o.backoff(o.failures), "nobody took over: "+reason, o.newTerm)
	default:
		o.newTerm()
	}
}

// thereIsAPrimary forgets what the way to it has taught.
func (o *Orchestrator) thereIsAPrimary() {
	clear(o.deferred)
	o.begged, o.setbacks, o.aside = 0, 0, 0
}

// newTerm lets this node stand again, in a term above this spent one.
func (o *Orchestrator) newTerm() {
	if o.epoch != 0 {
		o.closeGuard(o.epoch+1, "a new term is asked for")
	}
	o.phase, o.why = offering, fmt.Sprintf("epoch %d is spent; standing again in the next term", o.epoch)
	o.step("NewTermAsked", o.local, "")
	o.act(NewTerm{Attempt: o.attempted()})
}

// rest waits for d, and then goes on with next.
func (o *Orchestrator) rest(d time.Duration, why string, next func()) {
	o.phase, o.why, o.until, o.next, o.await = resting, why, o.now.Add(d), next, 0
}

// backoff is the n-th wait, from 1: doubling, bounded. It needs no chance in
// it: there is one leader a term.
func (o *Orchestrator) backoff(n int) time.Duration {
	d := o.timing.BackoffMin
	for ; n > 1 && d < o.timing.BackoffMax; n-- {
		d *= 2
	}
	return min(d, o.timing.BackoffMax)
}

func (o *Orchestrator) act(a Action) { o.out = append(o.out, a) }

func (o *Orchestrator) closeGuard(below protocol.Epoch, cause string) {
	if below-1 <= o.spent {
		return
	}
	o.spent = below - 1
	o.act(CloseGuard{Below: below, Cause: cause})
}

func (o *Orchestrator) demote(to PrimaryKnown) {
	o.followed, o.exposed, o.held = to, false, false
	o.act(Demote{Epoch: to.Epoch, Primary: to.Node, Address: to.Address})
}

// State returns where the node stands.
func (o *Orchestrator) State() State {
	switch o.phase {
	case following:
		if o.followed.Node != protocol.NoNode && !o.lost {
			return MonitoringPrimary
		}
		return Idle
	case forking, acquiring, promoting:
		return PromotionPending
	case primary:
		return Promoted
	}
	return ElectionInProgress
}

// Leading reports whether this node leads in Raft, as last told.
func (o *Orchestrator) Leading() bool { return o.phase != following }

// Epoch returns the epoch of the primary that Primary names, or that this
// node stands for.
func (o *Orchestrator) Epoch() protocol.Epoch {
	if o.phase != following && o.epoch != 0 {
		return o.epoch
	}
	return o.followed.Epoch
}

// Primary returns who is primary as far as this node knows, NoNode if nobody.
func (o *Orchestrator) Primary() PrimaryKnown {
	switch {
	case o.phase == primary:
		return PrimaryKnown{Node: o.local, Epoch: o.epoch, Address: o.prepared.Address}
	case o.lost:
		return PrimaryKnown{Epoch: o.followed.Epoch}
	}
	return o.followed
}

// Followed returns whom the database follows, lost or not, NoNode for nobody.
func (o *Orchestrator) Followed() PrimaryKnown { return o.followed }

// Blocked says why there is no primary, as far as this node knows; empty if
// there is one.
func (o *Orchestrator) Blocked() string {
	if s := o.State(); s == Promoted || s == MonitoringPrimary {
		return ""
	}
	return o.why
}

// CoolDownUntil returns until when this node is not eligible; zero if it is.
func (o *Orchestrator) CoolDownUntil() time.Time {
	if o.cooling.After(o.now) {
		return o.cooling
	}
	return time.Time{}
}

func sorted(ids []protocol.NodeID) []protocol.NodeID {
	out := slices.Clone(ids)
	slices.Sort(out)
	return slices.Compact(out)
}
