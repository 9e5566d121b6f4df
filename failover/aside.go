package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// returnsEndured is how often leadership may come back to a node in its
// cool-down before that takes it for a sign that nobody else can be primary.
// Once it may be chance, or a node that had to learn who has the better log.
const returnsEndured = 1

// standsAside says why this node must not become primary although it leads,
// and who may, NoNode for nobody in particular; "" if nothing is against it.
func (o *Orchestrator) standsAside() (why string, to protocol.NodeID) {
	permit := o.rules.Permit
	switch {
	case slices.Contains(o.rules.Witnesses, o.local):
		return "this node is a witness, it has no data", protocol.NoNode
	case slices.Contains(o.rules.Maintenance, o.local):
		return "this node is in maintenance", protocol.NoNode
	case !o.rules.Paused || o.last.Node == protocol.NoNode || o.last.Node == o.local || permit.Permits(o.local, o.last.Epoch):
		return "", protocol.NoNode
	case permit.Permits(permit.Node, o.last.Epoch):
		return fmt.Sprintf("failover is paused, and node %d is permitted to take over", permit.Node), permit.Node
	}
	return fmt.Sprintf("failover is paused, and node %d was primary: resume, or permit a failover to a node", o.last.Node), o.last.Node
}

// standAside hands leadership to whoever may be primary. If nobody is known
// who may, there is no primary, and the rules are looked at again after a while.
func (o *Orchestrator) standAside(why string, to protocol.NodeID, alive []protocol.NodeID) {
	o.aside++
	handOn := func() {
		o.step("StoodAside", to, why)
		o.offer(to, why)
	}
	switch reachable := to == protocol.NoNode || slices.Contains(alive, to); {
	case !reachable:
		if o.aside == 1 {
			o.emit(NoEligiblePrimary{Epoch: o.epoch}, fmt.Sprintf("%s; node %d is not heard of", why, to))
		}
		o.rest(o.backoff(o.aside), why, o.commitNoop)
	case o.aside == 1:
		handOn()
	default: // it has been offered, and leadership is here still or again
		o.rest(o.backoff(o.aside-1), why, handOn)
	}
}

// rulesChanged takes the rules as this node has them. What may be promoted is
// decided by those that came with EpochBegun.
func (o *Orchestrator) rulesChanged(rules Rules) {
	if rules.equal(o.rules) {
		return
	}
	resumed := o.rules.Paused && !rules.Paused
	if rules.Paused != o.rules.Paused {
		what, why := "FailoverPaused", "nobody takes the primacy from the node that has it"
		if resumed {
			what, why = "FailoverResumed", "the best node takes over again when the primary is lost"
		}
		o.step(what, protocol.NoNode, why)
	}
	for _, change := range []struct {
		what, why string
		now, was  []protocol.NodeID
	}{{"MaintenanceBegun", "it will not become primary", rules.Maintenance, o.rules.Maintenance},
		{"MaintenanceEnded", "it may become primary again", o.rules.Maintenance, rules.Maintenance}} {
		for _, id := range change.now {
			if !slices.Contains(change.was, id) {
				o.step(change.what, id, change.why)
			}
		}
	}
	if p := rules.Permit; p != o.rules.Permit && p.Node != protocol.NoNode {
		o.step("FailoverPermitted", p.Node, fmt.Sprintf("by an operator, to follow the primary of epoch %d", p.After))
	}
	o.rules = rules
	if resumed && o.held && o.phase == following {
		o.demote(PrimaryKnown{Epoch: o.floor})
	}
	if o.phase == resting && o.aside > 0 && o.next != nil {
		o.until = o.now // looks again at once
	}
}

// hold keeps the database as it is while failover is paused: its guard is
// closed, so it acknowledges nothing, and that is all that safety asks for. It
// is demoted when somebody else has a claim, when it is to be promoted again,
// or on resuming.
func (o *Orchestrator) hold() bool {
	if o.exposed && o.rules.Paused && !o.retired {
		o.held = true
		o.step("DemotionHeld", o.local, "failover is paused: the guard is closed, and the database left as it is")
	}
	return o.held
}

// cool makes this node not eligible for a while: its own promotion has failed,
// or its disk.
func (o *Orchestrator) cool(reason string) {
	o.cooling, o.returns, o.setback = o.now.Add(o.timing.CoolDown), 0, reason
}

// inCoolDown returns why this node hands on a leadership it has just gained,
// "" if it does not. A cool-down prefers others, and gives way when there are
// none: leadership that keeps coming back means that they cannot do without
// this node (I6).
func (o *Orchestrator) inCoolDown() string {
	if !o.now.Before(o.cooling) {
		return ""
	}
	if o.returns++; o.returns > returnsEndured {
		o.endCoolDown("leadership has come back again: nobody else can be primary")
		return ""
	}
	return "in cool-down until " + o.cooling.Format(time.TimeOnly)
}

func (o *Orchestrator) endCoolDown(why string) {
	o.step("CoolDownEnded", o.local, why)
	o.cooling = time.Time{}
}

// beg offers leadership to a node that has been passed over, since it had
// not taken it before: without its grant there is no quorum, and it will not
// grant, so only it can win (I6).
func (o *Orchestrator) beg(to protocol.NodeID, why string) {
	offer := func() {
		o.deferred[to] = o.now
		o.offer(to, why)
	}
	if o.begged++; o.begged == 1 {
		offer()
		return
	}
	o.begged = min(o.begged, maxBegged)
	o.rest(o.backoff(o.begged-1), why, offer)
}

// maxBegged bounds a count that only chooses a wait: backoff has reached its
// end by then.
const maxBegged = 16

// Aside says why this node does not become primary by the rules it knows; empty
// if it may.
func (o *Orchestrator) Aside() string {
	why, _ := o.standsAside()
	return why
}

// Maintained reports whether this node is in maintenance.
func (o *Orchestrator) Maintained() bool { return slices.Contains(o.rules.Maintenance, o.local) }
