package explore

import (
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds limit what may happen on one path.
type Bounds struct {
	Terms       uint8 // Raft terms, and so epochs; below maxEpochs
	Writes      uint8 // records written by primaries
	Crashes     uint8 // of any node, each may be followed by a restart
	Faults      uint8 // duplicated or unanswered messages, failed calls, leaderships lost for nothing
	Switchovers uint8
	Clock       uint8 // steps of time
}

// Config is what is explored.
type Config struct {
	Name   string
	Bounds Bounds

	Warm   bool // begin with node 1 primary of epoch 1, the others following
	Almost bool // if warm: before node 1 has opened its guard
	Fine   bool // ballots in steps between which anything may happen; machines that hear late
	Grace  bool // a ballot waits for the third voter, or for its timer
	Lease  bool // with the lease and a clock
	Grudge bool // whoever failed is passed over for ever, and in cool-down for ever
	Begin  bool // a database begins its timeline with a record of its own

	// StepPermille is how much, in 1/1000 of the lease, a step of the clock is;
	// 0: 500. RatePermille is what each node's clock makes of it; 0: 1000.
	StepPermille int
	RatePermille [nodes]int

	Broken Rules
}

// leaseDuration is D. What matters is how it compares with a step.
const leaseDuration = time.Second

// ever is longer than any exploration lasts.
const ever = 10_000 * leaseDuration

// Broken rules: each takes one rule of the protocol away, in the model around
// the real machines.
type Rules struct {
	LSNFirst            bool // positions are compared by LSN before timeline
	FloorForgotten      bool // the floor does not survive a crash
	AnswerBeforePromise bool // a voter answers before it has raised its floor
	PositionBeforeFence bool // a voter reads its position before it fences its database
	ForkBeforeFence     bool // a candidate reads its position before it fences its database
	GuardIgnoresBallot  bool // a ballot does not close the guard
	GuardReopens        bool // a guard closed in an epoch may open in it again
	BallotTooSmall      bool // an unanswered ballot counts as a grant
	AckTooSmall         bool // a write is acknowledged with one copy less than a quorum
	AckUnflushed        bool // a replica confirms what it has not flushed
	AckUnguarded        bool // a write is acknowledged without asking the guard
	NoCut               bool // a replica does not cut off what its primary's timeline does not have
	CutBelowFence       bool // a replica cuts its log for an epoch below its fence
	StaleStream         bool // a replica takes records of an epoch below its fence
	NoBar               bool // a voter lets AppendEntries of older epochs succeed after a ballot
	AgeIgnored          bool // the winner of a ballot does not wait for the old lease
	StampAtReceipt      bool // the lease counts from when an answer came
	NoDrift             bool // nothing is added to or taken from D
	BegsInVain          bool // a node that is passed over is not offered leadership again when it is needed
	ForkUncommitted     bool // a promotion goes on before its fork is committed
}

// violation is an invariant that does not hold.
type violation struct {
	invariant string
	what      string
}

func (v *violation) Error() string { return v.invariant + ": " + v.what }

// world takes states from one to the next.
type world struct {
	Config
	machines *machines
	fairly   bool                 // time passes without a lease too
	steps    [nodes]time.Duration // what a step of the clock is to each node
	voters   []protocol.NodeID
}

func newWorld(c Config) *world {
	if c.Bounds.Terms >= maxEpochs {
		panic("more terms than there is room for")
	}
	if c.StepPermille == 0 {
		c.StepPermille = 500
	}
	w := &world{Config: c, voters: []protocol.NodeID{1, 2, 3}}
	const once = time.Nanosecond // due as soon as anything else is
	timing := failover.Timing{BallotTimeout: 2 * once, Grace: once, DatabaseTimeout: once, RaftTimeout: once, StepDownTimeout: once,
		BackoffMin: once, BackoffMax: once, CoolDown: once, DeferMemory: 2 * leaseDuration, HandoverTimeout: once, PollInterval: once}
	if c.Grudge {
		timing.CoolDown, timing.DeferMemory = ever, ever
	}
	if c.Lease {
		timing.Lease = leaseDuration
		if c.Broken.NoDrift {
			timing.Lease = leaseDuration * 100 / 105
		}
	}
	w.machines = &machines{timing: timing, voters: w.voters, known: map[string]*machine{}}
	if c.Grace {
		w.machines.alive = w.voters
	}
	for i := range w.steps {
		rate := c.RatePermille[i]
		if rate == 0 {
			rate = 1000
		}
		w.steps[i] = leaseDuration * time.Duration(c.StepPermille) / 1000 * time.Duration(rate) / 1000
	}
	return w
}

func id(i int) protocol.NodeID     { return protocol.NodeID(i + 1) }
func index(id protocol.NodeID) int { return int(id) - 1 }

// now is the time of node i's clock.
func (w *world) now(s *state, i int) time.Duration {
	return time.Hour + time.Duration(s.clock)*w.steps[i]
}

// cold is the cluster before its nodes have started for the first time.
func (w *world) cold() *state {
	s := &state{}
	for i := range s.nodes {
		w.start(s, i)
	}
	s.settle()
	return s
}

// run is a state on its way to the next: the first violation ends it.
type run struct {
	*world
	*state
	broken *violation
}

func (r *run) violated(invariant, format string, args ...any) {
	if r.broken == nil {
		r.broken = &violation{invariant, fmt.Sprintf(format, args...)}
	}
}

func (w *world) start(s *state, i int) {
	r := &run{world: w, state: s}
	n := &s.nodes[i]
	n.up = true
	n.mach = w.machines.start(id(i), n.floor.epoch)
	n.guard = guard{}.closeBelow(n.floor.epoch + 1)
	n.barred, n.fence = n.floor.epoch, n.floor.epoch
	n.stamps = noStamps
	if w.Lease {
		n.help = newHelp(w.now(s, i))
	}
	r.slotDemotion(i, follow{epoch: n.floor.epoch})
}

func (r *run) crash(i int) {
	n := &r.nodes[i]
	kept := node{term: n.term, log: n.log, floor: n.floor, wal: n.wal[:len(n.wal)-int(n.volatile)]}
	if r.Broken.FloorForgotten {
		kept.floor = promise{}
	}
	*n = kept
	messages := r.messages[:0:0]
	for _, m := range r.messages {
		switch {
		case m.to == id(i): // calls end with the one called, and answers with the one who asked
			continue
		case m.from == id(i) && m.kind == ballotRequest:
			m.orphan, m.current = true, false
		case m.from == id(i) && m.kind == promoteNotify:
		}
		messages = append(messages, m)
	}
	r.messages = messages
	for j := range r.nodes {
		for k := range r.nodes[j].tasks {
			if t := &r.nodes[j].tasks[k]; t.kind == vote && t.node == id(i) {
				t.orphan = true
			}
		}
	}
}

// post tells machine i something that comes in by itself. In a fine world it
// hears of it later, in order.
func (r *run) post(i int, s stimulus) {
	if !r.Fine {
		r.feed(i, s)
		return
	}
	n := &r.nodes[i]
	n.inbox = append(n.inbox[:len(n.inbox):len(n.inbox)], s)
}

// answer tells machine i the outcome of an action.
func (r *run) answer(i int, awaited bool, s stimulus) {
	if awaited {
		r.feed(i, s)
	}
}

// feed lets machine i take a step and begins what it wants done.
func (r *run) feed(i int, s stimulus) {
	n := &r.nodes[i]
	s.after = time.Duration(n.idle) * r.steps[i]
	if s.kind == tick {
		s.after = max(s.after, n.mach.wake)
	}
	t := r.machines.step(n.mach, s)
	n.mach, n.idle = t.to, 0
	if !t.kept {
		n.promoAwaited = false
		for k := range n.tasks {
			n.tasks[k].awaited = false
		}
	}
	if !t.asking {
		for k := range r.messages {
			if m := &r.messages[k]; m.kind == ballotRequest && m.from == id(i) {
				m.current = false
			}
		}
	}
	for k, action := range t.actions {
		r.perform(i, action, t.awaits[k])
	}
	// What nobody waits for and changes nothing is as good as over.
	tasks := n.tasks[:0:0]
	for _, t := range n.tasks {
		if t.awaited || t.kind == prepare && (r.Fine || t.stage > 0) || t.kind == commitFork && t.stage == 0 || t.kind == acquireToken || t.kind == vote {
			tasks = append(tasks, t)
		}
	}
	n.tasks = tasks
	r.proceed(i)
}

// proceed does at once what is of no interest to anybody else, unless the
// world is fine: a proposal is seen when it is replicated, a leadership given
// up at any later time might as well have been given up before.
func (r *run) proceed(i int) {
	if r.Fine {
		return
	}
	n := &r.nodes[i]
	for k, t := range n.tasks {
		if t.stage == 0 && (t.kind == commitNoop || t.kind == commitFork || t.kind == newTerm) {
			r.work(i, k)
			return // comes back here by itself, if the machine was told
		}
	}
}

func (r *run) perform(i int, action failover.Action, awaited bool) {
	n := &r.nodes[i]
	add := func(t task) {
		t.awaited = awaited
		for k, old := range n.tasks { // one abandoned and asked for again
			if old.kind == t.kind && old.epoch == t.epoch && old.stage == 0 && t.kind != vote {
				n.tasks[k] = t
				return
			}
		}
		n.tasks = append(n.tasks, t)
	}
	switch a := action.(type) {
	case failover.CloseGuard:
		r.closeBelow(i, a.Below)
	case failover.CommitNoop:
		add(task{kind: commitNoop})
	case failover.Prepare:
		add(task{kind: prepare, epoch: a.Epoch})
	case failover.CommitFork:
		from := protocol.Position{Timeline: a.Fork.Parent, LSN: a.Fork.LSN}
		if r.Broken.LSNFirst {
			from.Timeline = n.wal[:from.LSN].position().Timeline
		}
		add(task{kind: commitFork, epoch: a.Fork.Epoch, from: from})
	case failover.AcquireToken:
		add(task{kind: acquireToken, epoch: a.Epoch})
	case failover.OfferLeadership:
		add(task{kind: offerLeadership, node: a.To})
	case failover.NewTerm:
		add(task{kind: newTerm})
	case failover.Promote:
		n.promotion, n.promoAwaited = a.Epoch, awaited
	case failover.Demote:
		r.slotDemotion(i, follow{a.Epoch, a.Primary})
	case failover.SendBallots:
		for _, m := range a.Messages {
			req := m.Message.(protocol.BallotRequest)
			r.send(message{kind: ballotRequest, to: m.To, from: id(i), epoch: req.Epoch, position: req.Position, current: true})
		}
	case failover.Send:
		if !r.Fine {
			return // lost: what it brings, the history brings too
		}
		for _, m := range a.Messages {
			r.send(message{kind: promoteNotify, to: m.To, from: id(i), epoch: m.Message.(protocol.PromoteNotify).Epoch})
		}
	case failover.Emit:
	default:
		panic(fmt.Sprintf("unknown action %T", action))
	}
}

// send puts a message on its way. The same one twice is one: duplication is a
// fault of its own.
func (r *run) send(m message) {
	for k, old := range r.messages {
		if old == m {
			return
		}
		if m.kind == ballotRequest && old.kind == m.kind && old.to == m.to && old.from == m.from && old.epoch == m.epoch && !old.orphan {
			r.messages[k] = m // asked once more
			return
		}
		if m.kind >= appendSuccess && old.kind == m.kind && old.to == m.to && old.from == m.from {
			r.messages[k] = m // the older one is lost
			return
		}
	}
	r.messages = append(r.messages, m)
}

// slotDemotion is databaseWorker.demote: it overtakes what waits. To follow
// nobody is nothing to do for a database that does nothing.
func (r *run) slotDemotion(i int, f follow) {
	n := &r.nodes[i]
	n.demotion, n.promotion, n.promoAwaited = nil, 0, false
	if f.primary != protocol.NoNode || n.primary != 0 || n.following.primary != protocol.NoNode {
		n.demotion = &f
	}
}
