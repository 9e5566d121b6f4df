package storetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Machine is a computer with a store on its disk, whose power a test can cut. A
// store that does its input and output through an interface gets one by putting a
// disk in memory behind it.
type Machine interface {
	// Open opens the store, and makes it if it is not there. There is one open at
	// a time.
	Open() (logstore.Store, error)

	// Ops tells how many operations the disk has done: writes, syncs, changes of
	// names and whatever else changes it.
	Ops() int

	// CrashAt cuts the power in the middle of the n-th operation from now on; the
	// next one is 1. That one and all after it fail.
	CrashAt(n int)

	// Crashed tells whether the power was cut.
	Crashed() bool

	// AfterCrash returns another machine whose disk holds what a crash may
	// leave there now: everything that was synced, and of the rest any part, chosen by
	// the seed. Seed 0 leaves nothing of the rest.
	AfterCrash(seed uint64) Machine
}

// How much RunCrash does.
const (
	crashHistories = 30
	crashLength    = 25 // operations of the workload
	crashPoints    = 4  // places in a history
	crashDisks     = 6  // for each of them
	crashReopenOps = 12 // the second crash comes among the first so many operations of recovery
)

// RunCrash cuts the power at many places of random histories, and while the store
// recovers from that, and checks each time that the store opens by itself, that all it
// acknowledged is there, nothing but that and part of what it was writing,
// and that it works on. known is what it is for Run.
func RunCrash(t *testing.T, newMachine func(t testing.TB) Machine, known ...Deviation) {
	deviations := byCheck(t, known)
	for _, c := range []struct {
		name  string
		twice bool
	}{{"PowerCut", false}, {"PowerCutWhileRecovering", true}} {
		d, deviates := deviations[c.name]
		delete(deviations, c.name)
		t.Run(c.name, func(t *testing.T) {
			if deviates {
				d.confirm(t, func(t testing.TB) { testCrash(t, newMachine, c.twice) })
				return
			}
			testCrash(t, newMachine, c.twice)
		})
	}
	noneLeft(t, deviations)
}

func testCrash(t testing.TB, newMachine func(t testing.TB) Machine, twice bool) {
	for seed := uint64(1); seed <= crashHistories; seed++ {
		rng := rand.New(rand.NewPCG(seed, 17))
		whole := newMachine(t)
		play(t, whole, seed)
		for range crashPoints {
			at := 1 + rng.IntN(whole.Ops())
			m := newMachine(t)
			m.CrashAt(at)
			h := play(t, m, seed)
			if !m.Crashed() {
				t.Fatalf("history %d: the machine did not crash at operation %d of %d", seed, at, whole.Ops())
			}
			for disk := range uint64(crashDisks) {
				what := fmt.Sprintf("history %d, crash at operation %d, disk %d", seed, at, disk)
				image := m.AfterCrash(disk)
				if twice {
					image = crashWhileOpening(t, image, 1+rng.IntN(crashReopenOps), what).AfterCrash(rng.Uint64())
				}
				h.checkAfter(t, image, what)
			}
		}
	}
}

// History is what was done to a store until its machine stopped.
type History struct {
	Acked    *logstore.Memory // what was acknowledged
	InFlight *Op              // what the crash interrupted; nil: nothing, or the opening
}

// play does the operations of a seed until the machine stops.
func play(t testing.TB, m Machine, seed uint64) History {
	t.Helper()
	h := History{Acked: logstore.NewMemory()}
	s, err := m.Open()
	if err != nil {
		if !m.Crashed() {
			t.Fatalf("opening a new store: %v", err)
		}
		return h
	}
	defer func() {
		if err := s.Close(); err != nil && !m.Crashed() {
			t.Errorf("Close: %v", err)
		}
	}()
	w := NewWorkload(seed)
	for range crashLength {
		op := w.Next(h.Acked)
		err := op.Do(s)
		if m.Crashed() && err != nil {
			h.InFlight = &op
			return h
		}
		// Without an error it is acknowledged, whatever stopped right after.
		if want := op.Do(h.Acked); (err == nil) != (want == nil) {
			t.Fatalf("%s: %v, the reference says %v", op.Name, err, want)
		}
		if m.Crashed() {
			return h
		}
	}
	return h
}

// Possible lists every state that a crash may leave: nothing of the operation
// it interrupted, all of it, or the first entries of its batch, as a store may
// have that writes a batch one entry at a time.
func (h History) Possible() []*logstore.Memory {
	states := []*logstore.Memory{h.Acked}
	if h.InFlight == nil {
		return states
	}
	s := &stepper{Memory: h.Acked.Clone()}
	if err := h.InFlight.Do(s); err == nil {
		states = append(append(states, s.steps...), s.Memory)
	}
	return states
}

// stepper remembers the states in the middle of a batch.
type stepper struct {
	*logstore.Memory
	steps []*logstore.Memory
}

func (r *stepper) StoreLogs(logs []*raft.Log) error {
	if err := r.Clone().StoreLogs(logs); err != nil {
		return err
	}
	for i := 1; i < len(logs); i++ {
		step := r.Clone()
		step.DropStaged()
		if err := step.StoreLogs(logs[:i]); err != nil {
			return err
		}
		r.steps = append(r.steps, step)
	}
	return r.Memory.StoreLogs(logs)
}

// Match returns a copy of the possible state that a store is in, or says for
// each how the store differs. The commit index is not compared: a crash may
// set it back.
func (h History) Match(s logstore.Store) (state *logstore.Memory, differences string) {
	for _, p := range h.Possible() {
		diff := DiffLog(p, s) + DiffStable(p, s)
		if diff == "" {
			return p.Clone(), ""
		}
		differences += "\n  not " + diff
	}
	name := "nothing"
	if h.InFlight != nil {
		name = h.InFlight.Name
	}
	return nil, fmt.Sprintf("while %s was written: no possible state:%s", name, differences)
}

// checkAfter opens what a crash has left, compares it with what may be there,
// and works on.
func (h History) checkAfter(t testing.TB, image Machine, what string) {
	t.Helper()
	s, err := image.Open()
	if err != nil {
		t.Fatalf("%s: it does not open: %v", what, err)
	}
	state, differences := h.Match(s)
	if state == nil {
		t.Fatalf("%s, %s", what, differences)
	}
	last, _ := state.LastIndex() // the reference does not fail
	if commit, err := s.GetCommitIndex(); err != nil || commit > last {
		t.Fatalf("%s: commit index %d of a log that ends with %d, %v", what, commit, last, err)
	}
	w := NewWorkload(99)
	for range 3 {
		op := w.Next(state)
		if got, want := op.Do(s), op.Do(state); (got == nil) != (want == nil) {
			t.Fatalf("%s: afterwards %s: %v, the reference says %v", what, op.Name, got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("%s: Close: %v", what, err)
	}
	again, err := image.AfterCrash(0).Open()
	if err != nil {
		t.Fatalf("%s: opening once more: %v", what, err)
	}
	if d := DiffLog(state, again) + DiffStable(state, again); d != "" {
		t.Fatalf("%s: opened once more: %s", what, d)
	}
	if err := again.Close(); err != nil {
		t.Fatalf("%s: Close: %v", what, err)
	}
}

// crashWhileOpening cuts the power while the store recovers, if it does that much.
func crashWhileOpening(t testing.TB, image Machine, at int, what string) Machine {
	t.Helper()
	image.CrashAt(at)
	s, err := image.Open()
	if err != nil {
		if !image.Crashed() {
			t.Fatalf("%s: it does not open: %v", what, err)
		}
		return image
	}
	if err := s.Close(); err != nil && !image.Crashed() {
		t.Fatalf("%s: Close: %v", what, err)
	}
	return image
}
