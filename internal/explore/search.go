package explore

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Report is what an exploration found.
type Report struct {
	Config    string
	States    int // different ones
	Steps     int // taken from them
	Depth     int // longest of the shortest ways to a state
	Machines  int // different states of Orchestrators
	Complete  bool
	Promoted  [maxEpochs]int // states in which the epoch has had a promoted database
	Acked     [maxEpochs]int // and an acknowledged write
	Took      time.Duration
	Broken    string   // the violation, empty for none
	Invariant string   // which
	Trace     []string // how it came about
}

// String is the report in a few lines.
func (r Report) String() string {
	var b strings.Builder
	verdict := "bound reached"
	if r.Complete {
		verdict = "all states within the bounds"
	}
	fmt.Fprintf(&b, "%s: %d states, %d steps, depth %d, %d machine states, %v (%s); states with a primary of epoch 1, 2, …: %v, with an acknowledged write: %v",
		r.Config, r.States, r.Steps, r.Depth, r.Machines, r.Took.Round(time.Millisecond), verdict, r.Promoted[1:6], r.Acked[1:6])
	if r.Broken != "" {
		fmt.Fprintf(&b, "\n%s: %s\n", r.Invariant, r.Broken)
		for i, line := range r.Trace {
			fmt.Fprintf(&b, "%3d. %s\n", i+1, line)
		}
	}
	return b.String()
}

// limit bounds a search.
type limit struct {
	states int           // 0: any
	time   time.Duration // 0: any
}

// visit is how a state was reached first.
type visit struct {
	from int32
	by   step
}

// search visits every state that can be reached, nearest first, until one
// breaks an invariant, or the limit is reached. sample, if not nil, is called
// with every state.
func (w *world) search(start *state, max limit, sample func(*state, int) *violation) Report {
	began := time.Now()
	rep := Report{Config: w.Name}
	seen := map[digest]struct{}{}
	var visits []visit
	type open struct {
		s     *state
		index int32
	}
	var level, next []open
	var buffer []byte
	enter := func(s *state, from int32, by step) bool {
		buffer = s.encode(buffer[:0])
		d := digestOf(buffer)
		if _, known := seen[d]; known {
			return false
		}
		seen[d] = struct{}{}
		visits = append(visits, visit{from, by})
		next = append(next, open{s, int32(len(visits) - 1)})
		for e := range maxEpochs {
			if s.begun[e] {
				rep.Promoted[e]++
			}
			if s.acked[e] > 0 {
				rep.Acked[e]++
			}
		}
		return true
	}
	finish := func(complete bool) Report {
		rep.States, rep.Machines, rep.Took, rep.Complete = len(visits), len(w.machines.all), time.Since(began), complete
		return rep
	}
	fail := func(at int32, last *step, v *violation) {
		var path []step
		for i := at; visits[i].from >= 0; i = visits[i].from {
			path = append(path, visits[i].by)
		}
		slices.Reverse(path)
		if last != nil {
			path = append(path, *last)
		}
		rep.Invariant, rep.Broken, rep.Trace = v.invariant, v.what, w.tell(start, path)
	}
	enter(start, -1, step{})
	var steps []step
	for len(next) > 0 {
		level, next = next, level[:0]
		for at, o := range level {
			level[at].s = nil
			if sample != nil {
				if v := sample(o.s, int(o.index)); v != nil {
					fail(o.index, nil, v)
					return finish(false)
				}
			}
			steps = w.enabled(o.s, steps)
			for _, st := range steps {
				after, broken := w.take(o.s, st)
				rep.Steps++
				if broken != nil {
					fail(o.index, &st, broken)
					return finish(false)
				}
				enter(after, o.index, st)
			}
			if max.states > 0 && len(visits) >= max.states || max.time > 0 && at%64 == 0 && time.Since(began) > max.time {
				return finish(false)
			}
		}
		if len(next) > 0 {
			rep.Depth++
		}
	}
	return finish(true)
}

// tell describes the steps of a path.
func (w *world) tell(s *state, path []step) []string {
	var out []string
	for _, st := range path {
		out = append(out, w.describe(s, st))
		s, _ = w.take(s, st)
	}
	return out
}

// weight is how likely a step is on a walk, so that walks get somewhere.
func weight(kind stepKind) int {
	switch kind {
	case stepElect, stepCrash, stepReject, stepAlone, stepFail, stepDuplicate, stepUnanswered, stepPromotionFails, stepSwitchover, stepTick, stepAcknowledge:
		return 1
	case stepClock:
		return 2
	}
	return 6
}

// walk takes random steps from start, many walks of a bounded length each,
// until one breaks an invariant. What it found is made as short as it can be.
func (w *world) walk(start *state, rng *rand.Rand, length int, most limit) Report {
	began := time.Now()
	rep := Report{Config: w.Name + ", walks"}
	var steps []step
	for walks := 0; time.Since(began) < most.time && (most.states == 0 || rep.Steps < most.states); walks++ {
		s := start
		var path []step
		for len(path) < length {
			steps = w.enabled(s, steps)
			if len(steps) == 0 {
				break
			}
			total := 0
			for _, st := range steps {
				total += weight(st.kind)
			}
			pick := rng.IntN(total)
			var st step
			for _, st = range steps {
				if pick -= weight(st.kind); pick < 0 {
					break
				}
			}
			after, broken := w.take(s, st)
			path = append(path, st)
			rep.Steps++
			if broken != nil {
				rep.Trace = w.shrink(start, w.tell(start, path), broken.invariant)
				_, v := w.retell(start, rep.Trace)
				rep.Invariant, rep.Broken = v.invariant, v.what
				rep.Took, rep.Machines = time.Since(began), len(w.machines.all)
				return rep
			}
			s = after
		}
		rep.Depth = max(rep.Depth, len(path))
		for e := range maxEpochs {
			if s.begun[e] {
				rep.Promoted[e]++
			}
			if s.acked[e] > 0 {
				rep.Acked[e]++
			}
		}
	}
	rep.Took, rep.Machines = time.Since(began), len(w.machines.all)
	return rep
}

// retell goes through a script as far as it can be followed, and returns how
// far it came and what it broke.
func (w *world) retell(s *state, script []string) (int, *violation) {
	for at, line := range script {
		found := false
		for _, st := range w.enabled(s, nil) {
			if w.describe(s, st) != line {
				continue
			}
			after, broken := w.take(s, st)
			if broken != nil {
				return at + 1, broken
			}
			s, found = after, true
			break
		}
		if !found {
			return at, nil
		}
	}
	return len(script), nil
}

// shrink leaves out what a script does without.
func (w *world) shrink(start *state, script []string, invariant string) []string {
	for width := len(script) / 2; width >= 1; {
		shorter := false
		for at := 0; at+width <= len(script); {
			less := slices.Concat(script[:at], script[at+width:])
			if n, v := w.retell(start, less); v != nil && v.invariant == invariant {
				script, shorter = less[:n], true
			} else {
				at++
			}
		}
		if !shorter {
			width /= 2
		}
	}
	return script
}

// without returns s after a node has died for good.
func (w *world) without(s *state, i int) *state {
	r := &run{world: w, state: s.clone()}
	r.crash(i)
	r.settle()
	return r.state
}

// fair goes on from s without further faults, everything that was
// sent arriving and every call answered, until there is a primary that speaks
// and is followed by all, and returns it. Raft elects a leader whenever there
// is none, one after the other of those that can be.
func (w *world) fair(s *state) (*state, *violation) {
	free := *w
	free.Bounds, free.fairly = Bounds{Terms: maxEpochs - 1, Clock: 255}, true
	turn := 0
	var last []string
	for range 600 {
		if free.settled(s) {
			return s, nil
		}
		st, ok := free.fairStep(s, &turn)
		if !ok {
			return s, &violation{"I6", "nothing more happens, and there is no primary; the last steps were: " + strings.Join(last, "; ")}
		}
		last = append(last, free.describe(s, st))
		after, broken := free.take(s, st)
		if broken != nil {
			return after, broken
		}
		s = after
	}
	return s, &violation{"I6", "no primary after 600 steps without a fault; the last: " + strings.Join(last[max(0, len(last)-60):], "; ")}
}

// settled reports whether there is a primary, everybody follows it, and has
// its log.
func (w *world) settled(s *state) bool {
	others := -1
	for i := range s.nodes {
		if s.nodes[i].up {
			others++
		}
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		if !n.up || n.mach.state != failover.Promoted || n.primary != n.mach.epoch || n.guard.open != n.primary || !n.guard.speaks(w.now(s, i)) {
			continue
		}
		followers := 0
		for j := range s.nodes {
			if m := &s.nodes[j]; m.up && m.following == (follow{n.primary, id(i)}) && m.wal == n.wal {
				followers++
			}
		}
		return followers == others
	}
	return false
}

// fairStep chooses what comes next when nothing goes wrong.
func (w *world) fairStep(s *state, turn *int) (step, bool) {
	var leader = -1
	for i := range s.nodes {
		n := &s.nodes[i]
		if n.up && n.leader && (leader < 0 || n.term > s.nodes[leader].term) {
			leader = i
		}
	}
	steps := w.enabled(s, nil)
	order := []stepKind{stepReject, stepHear, stepAppend, stepReceive, stepDatabase, stepRecord, stepWork, stepUnanswered}
	for _, kind := range order {
		for _, st := range steps {
			if st.kind != kind || kind == stepAppend && int(st.a) != leader {
				continue
			}
			if kind == stepWork && s.nodes[st.a].tasks[st.b].kind == offerLeadership {
				continue
			}
			return st, true
		}
	}
	// An offered leadership is taken by whom it is offered to, if it may vote.
	for i := range s.nodes {
		for _, t := range s.nodes[i].tasks {
			if t.kind != offerLeadership {
				continue
			}
			for _, st := range steps {
				if w.Broken.BegsInVain && t.node != protocol.NoNode && s.nodes[i].mach.begging() {
					break
				}
				if st.kind == stepElect && int(st.b) == i && (t.node == protocol.NoNode || id(int(st.a)) == t.node) {
					return st, true
				}
			}
			for k, t := range s.nodes[i].tasks {
				if t.kind == offerLeadership {
					return step{stepFail, uint8(i), uint8(k)}, true
				}
			}
		}
	}
	if leader < 0 {
		var elections []step
		for _, st := range steps {
			if st.kind == stepElect {
				elections = append(elections, st)
			}
		}
		if len(elections) > 0 {
			*turn++
			return elections[*turn%len(elections)], true
		}
	}
	*turn++ // timers and time by turns
	for _, kind := range [][]stepKind{{stepTick, stepClock}, {stepClock, stepTick}}[*turn%2] {
		for _, st := range steps {
			if st.kind == kind {
				return st, true
			}
		}
	}
	return step{}, false
}

// begin returns the state an exploration begins with: cold, or with node 1
// primary of epoch 1.
func (w *world) begin() (*state, error) {
	s := w.cold()
	if !w.Warm {
		return s, nil
	}
	turn := 0
	elected := false
	free := *w
	free.Broken, free.Bounds = Rules{NoDrift: w.Broken.NoDrift}, Bounds{Terms: 1, Clock: 20}
	for range 200 {
		if w.Almost && slices.ContainsFunc(s.nodes[0].tasks, func(t task) bool { return t.kind == acquireToken }) {
			return s, nil
		}
		if free.settled(s) {
			if s.clock != 0 {
				return nil, fmt.Errorf("the first primary had to wait")
			}
			return s, nil
		}
		st, ok := step{stepElect, 0, 1}, true
		if elected {
			st, ok = free.fairStep(s, &turn)
		}
		elected = true
		if !ok {
			break
		}
		after, broken := free.take(s, st)
		if broken != nil {
			return nil, broken
		}
		s = after
	}
	return nil, fmt.Errorf("node 1 does not become primary of epoch 1: %+v", s)
}
