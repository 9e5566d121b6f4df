package explore

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// stimulus is one input of an Orchestrator, and how long after the last one it
// comes, in a form that can be a map's key.
type stimulus struct {
	kind   stimulusKind
	after  time.Duration
	epoch  protocol.Epoch
	node   protocol.NodeID
	answer protocol.BallotAnswer
	age    time.Duration // prepared
}

type stimulusKind uint8

const (
	gained stimulusKind = iota
	lost
	epochBegun
	prepared // epoch of no use; node: the earlier primary; answer.Position: the own one
	ballotAnswered
	ballotUnanswered
	forkCommitted
	tokenAcquired
	promoted
	offered
	failed // epoch: the floor that stands against it
	epochSeen
	primaryKnown
	handOver
	tick
)

// String says what a machine hears of late.
func (s stimulus) String() string {
	switch s.kind {
	case gained:
		return fmt.Sprintf("it leads in term %d", s.epoch)
	case lost:
		return "it leads no more"
	case epochSeen:
		return fmt.Sprintf("epoch %d of node %d has begun", s.epoch, s.node)
	case primaryKnown:
		return fmt.Sprintf("node %d is primary of epoch %d by the history", s.node, s.epoch)
	case ballotAnswered:
		return fmt.Sprintf("node %d has answered the ballot of epoch %d", s.answer.VoterID, s.answer.Epoch)
	}
	return fmt.Sprintf("(%d)", s.kind)
}

// machine is one state of a real Orchestrator. States that cannot be told
// apart by what they do are one machine: an Orchestrator holds closures and
// cannot be copied, so a machine keeps a history that leads to it and is
// brought back by replaying that. Every transition is taken by the real code
// once and remembered.
type machine struct {
	id      uint32
	local   protocol.NodeID
	floor   protocol.Epoch // at its start
	history []stimulus
	next    map[stimulus]*transition

	// Read off the Orchestrator, in the numbering of history.
	await, round uint64
	wake         time.Duration // after the last input; -1: none
	state        failover.State
	epoch        protocol.Epoch
	blocked      string
}

// begging reports whether the machine offers leadership to a node that it would
// rather pass over.
func (m *machine) begging() bool { return strings.HasPrefix(m.blocked, "no quorum without") }

// transition is what the real Orchestrator did about one input.
type transition struct {
	to      *machine
	actions []failover.Action
	awaits  []bool // per action: its answer is the one waited for
	kept    bool   // what was waited for before still is
	asking  bool   // the round of ballots is still the same
}

// machines interns the states of all Orchestrators of one exploration.
type machines struct {
	timing failover.Timing
	voters []protocol.NodeID
	alive  []protocol.NodeID
	known  map[string]*machine
	all    []*machine
	steps  int // taken by the real code
}

var epochStart = time.Unix(1<<30, 0).UTC()

func (ms *machines) start(local protocol.NodeID, floor protocol.Epoch) *machine {
	return ms.intern(&machine{local: local, floor: floor}, failover.NewOrchestrator(local, floor, ms.timing), time.Time{})
}

// step returns the transition of m under s.
func (ms *machines) step(m *machine, s stimulus) *transition {
	if t := m.next[s]; t != nil {
		return t
	}
	o := failover.NewOrchestrator(m.local, m.floor, ms.timing)
	now := epochStart
	var round, await uint64
	for _, past := range m.history {
		now = now.Add(past.after)
		o.Step(now, ms.input(past, &await, &round))
		await, round = counters(o)
	}
	now = now.Add(s.after)
	awaited, asked := await, round
	out := o.Step(now, ms.input(s, &await, &round))
	ms.steps++
	await, round = counters(o)
	t := &transition{actions: out.Actions, kept: await == awaited && await != 0, asking: round == asked}
	for _, a := range out.Actions {
		t.awaits = append(t.awaits, await != 0 && attemptOf(a) == await)
	}
	history := append(slices.Clip(m.history), s)
	t.to = ms.intern(&machine{local: m.local, floor: m.floor, history: history}, o, out.Wake)
	m.next[s] = t
	return t
}

func (ms *machines) intern(m *machine, o *failover.Orchestrator, wake time.Time) *machine {
	now := epochStart
	for _, past := range m.history {
		now = now.Add(past.after)
	}
	key := fmt.Sprintf("%d|%s", m.local, fingerprint(o, now))
	if known := ms.known[key]; known != nil {
		return known
	}
	m.id, m.next = uint32(len(ms.all)), map[stimulus]*transition{}
	m.await, m.round = counters(o)
	m.wake = -1
	if !wake.IsZero() {
		m.wake = max(0, wake.Sub(now))
	}
	m.state, m.epoch, m.blocked = o.State(), o.Epoch(), o.Blocked()
	ms.known[key] = m
	ms.all = append(ms.all, m)
	return m
}

func (ms *machines) input(s stimulus, await, round *uint64) failover.Input {
	switch s.kind {
	case gained:
		return failover.LeadershipChanged{Leading: true, Term: uint64(s.epoch)}
	case lost:
		return failover.LeadershipChanged{}
	case epochBegun:
		return failover.EpochBegun{Attempt: *await, Epoch: s.epoch}
	case prepared:
		return failover.Prepared{Attempt: *await, Position: s.answer.Position, Voters: ms.voters, Alive: ms.alive,
			Age: s.age, Earlier: s.node}
	case ballotAnswered:
		return failover.BallotAnswered{Round: *round, Answer: s.answer}
	case ballotUnanswered:
		return failover.BallotUnanswered{Round: *round, Node: s.node}
	case forkCommitted:
		return failover.ForkCommitted{Attempt: *await}
	case tokenAcquired:
		return failover.TokenAcquired{Attempt: *await}
	case promoted:
		return failover.DatabasePromoted{Attempt: *await}
	case offered:
		return failover.LeadershipOffered{Attempt: *await}
	case failed:
		return failover.Failed{Attempt: *await, Floor: s.epoch}
	case epochSeen:
		return failover.EpochSeen{Epoch: s.epoch, Node: s.node}
	case primaryKnown:
		return failover.PrimaryKnown{Epoch: s.epoch, Node: s.node}
	case handOver:
		return failover.HandOver{Epoch: s.epoch, To: s.node}
	case tick:
		return failover.Tick{}
	}
	panic(fmt.Sprintf("unknown stimulus %d", s.kind))
}

func attemptOf(a failover.Action) uint64 {
	switch a := a.(type) {
	case failover.CommitNoop:
		return a.Attempt
	case failover.Prepare:
		return a.Attempt
	case failover.CommitFork:
		return a.Attempt
	case failover.AcquireToken:
		return a.Attempt
	case failover.Promote:
		return a.Attempt
	case failover.OfferLeadership:
		return a.Attempt
	case failover.NewTerm:
		return a.Attempt
	}
	return 0
}

func counters(o *failover.Orchestrator) (await, round uint64) {
	v := reflect.ValueOf(o).Elem()
	return v.FieldByName("await").Uint(), v.FieldByName("round").Uint()
}

// fingerprint writes down all of an Orchestrator that can make a difference to
// what it does. New fields count by themselves. Left out are the time itself
// (times count from now), the numbers of attempts and rounds (machine.await
// stands for them), and what only the journal or people read.
func fingerprint(o *failover.Orchestrator, now time.Time) string {
	var b strings.Builder
	v := reflect.ValueOf(o).Elem()
	phase := v.FieldByName("phase").Uint()
	const following, outwaiting = 0, 4 // of failover.phase
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch name {
		case "now", "out", "timing", "attempt", "round", "why", "setback", "began", "lastStep", "open", "rounds", "local":
			continue
		case "await":
			fmt.Fprintf(&b, "await=%t ", f.Uint() != 0)
			continue
		case "failures":
			fmt.Fprintf(&b, "failures=%d ", min(f.Int(), 3)) // failover.maxFailures
			continue
		case "prepared", "granted", "helped", "yielded":
			if phase == following {
				continue // written before it is read again
			}
		case "until":
			if v.FieldByName("next").IsNil() && phase != outwaiting {
				continue
			}
		}
		b.WriteString(name)
		b.WriteByte('=')
		write(&b, f, now)
		b.WriteByte(' ')
	}
	return b.String()
}

var timeType = reflect.TypeFor[time.Time]()

func write(b *strings.Builder, v reflect.Value, now time.Time) {
	if v.Type() == timeType {
		writeTime(b, v, now)
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		fmt.Fprintf(b, "%t", v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		fmt.Fprintf(b, "%d", v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		fmt.Fprintf(b, "%d", v.Uint())
	case reflect.String:
		b.WriteString(v.String())
	case reflect.Func: // a method value or a closure over the machine alone: its code says which
		fmt.Fprintf(b, "%x", v.Pointer())
	case reflect.Pointer:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		write(b, v.Elem(), now)
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			write(b, v.Index(i), now)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case reflect.Map:
		var items []string
		for _, k := range v.MapKeys() {
			var item strings.Builder
			write(&item, k, now)
			item.WriteByte(':')
			write(&item, v.MapIndex(k), now)
			items = append(items, item.String())
		}
		slices.Sort(items)
		fmt.Fprintf(b, "%v", items)
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "Attempt" {
				continue
			}
			write(b, v.Field(i), now)
			b.WriteByte(',')
		}
		b.WriteByte('}')
	default:
		panic(fmt.Sprintf("an Orchestrator holds a %v: teach the fingerprint about it", v.Type()))
	}
}

// writeTime writes a time as its distance from now. Steps of the model's clock
// are many milliseconds, the timers of the machine nanoseconds: what lies
// between is the sum of a few timers and makes no difference.
func writeTime(b *strings.Builder, v reflect.Value, now time.Time) {
	var t time.Time
	// The fields of time.Time can be read, but not the value as a whole.
	wall, ext := v.Field(0).Uint(), v.Field(1).Int()
	if wall == 0 && ext == 0 {
		b.WriteByte('-')
		return
	}
	const secondsToUnix = 62135596800 // from year 1
	t = time.Unix(ext-secondsToUnix, int64(wall)).UTC()
	switch d := t.Sub(now); {
	case d > time.Microsecond || d < -time.Microsecond:
		fmt.Fprintf(b, "%dms", d.Round(time.Millisecond).Milliseconds())
	case d < 0:
		b.WriteByte('<')
	default:
		fmt.Fprintf(b, "%d", int64(d))
	}
}
