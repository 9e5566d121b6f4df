package storetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Op is one thing that is done to a store.
type Op struct {
	Name string // for people
	Do   func(logstore.Store) error
}

// Workload makes up things that Raft might do, at random but the same for the
// same seed, with a bad one among them now and then. Not for concurrent use.
type Workload struct {
	rng  *rand.Rand
	term uint64
	cand int
}

// NewWorkload returns the workload of a seed.
func NewWorkload(seed uint64) *Workload {
	return &Workload{rng: rand.New(rand.NewPCG(seed, 99)), term: 1}
}

// stableKeys are the keys that a Workload sets; Diff compares them.
func stableKeys() []string {
	return []string{logstore.KeyCurrentTerm, logstore.KeyLastVoteTerm, logstore.KeyLastVoteCand, "other", "number"}
}

// Next returns the next thing to do to a store that holds what ref holds.
func (w *Workload) Next(ref *logstore.Memory) Op {
	first, _ := ref.FirstIndex() // the reference does not fail
	last, _ := ref.LastIndex()
	switch n := w.rng.IntN(100); {
	case n < 50:
		return w.store(last)
	case n < 58:
		return deleteRange(first, first+w.rng.Uint64N(last-first+1)) // a prefix, perhaps all
	case n < 66:
		return deleteRange(last-w.rng.Uint64N(last-first+1), last+w.rng.Uint64N(3)) // a suffix
	case n < 68:
		return deleteRange(0, last+1)
	case n < 70:
		return deleteRange(w.rng.Uint64N(last+2), w.rng.Uint64N(last+2))
	case n < 76:
		index := last + w.rng.Uint64N(4)
		return Op{fmt.Sprintf("StageCommitIndex(%d)", index), func(s logstore.Store) error { return s.StageCommitIndex(index) }}
	case n < 84:
		w.term += w.rng.Uint64N(2)
		return setUint64(logstore.KeyCurrentTerm, w.term)
	case n < 88:
		return setUint64(logstore.KeyLastVoteTerm, w.term)
	case n < 94:
		w.cand++
		return set(logstore.KeyLastVoteCand, fmt.Sprintf("%d@host", w.cand))
	case n < 97:
		return setUint64("number", w.rng.Uint64())
	}
	return set("other", string(make([]byte, w.rng.IntN(2000))))
}

func (w *Workload) store(last uint64) Op {
	if last == 0 {
		last = w.rng.Uint64N(5)
	}
	var logs []*raft.Log
	for i := range uint64(1 + w.rng.IntN(4)) {
		logs = append(logs, w.entry(last+1+i))
	}
	if w.rng.IntN(12) == 0 {
		logs[w.rng.IntN(len(logs))].Index += 1 + w.rng.Uint64N(2)
	}
	name := fmt.Sprintf("StoreLogs(%d to %d)", logs[0].Index, logs[len(logs)-1].Index)
	return Op{name, func(s logstore.Store) error { return s.StoreLogs(logs) }}
}

func (w *Workload) entry(index uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: w.term, Type: raft.LogType(w.rng.IntN(6)), AppendedAt: someTime()}
	switch w.rng.IntN(4) {
	case 0:
		l.Type, l.Data = raft.LogCommand, fmt.Appendf(nil, `{"RemoveNode":{"node_id":%d}}`, index)
	case 1:
		l.Data = make([]byte, w.rng.IntN(1500))
		for i := range l.Data {
			l.Data[i] = byte(w.rng.Uint32())
		}
	case 2:
		l.Data, l.Extensions = []byte("data"), []byte("extensions")
	}
	return l
}

func deleteRange(from, to uint64) Op {
	return Op{fmt.Sprintf("DeleteRange(%d, %d)", from, to), func(s logstore.Store) error { return s.DeleteRange(from, to) }}
}

func setUint64(key string, n uint64) Op {
	return Op{fmt.Sprintf("SetUint64(%s, %d)", key, n), func(s logstore.Store) error { return s.SetUint64([]byte(key), n) }}
}

func set(key, val string) Op {
	return Op{fmt.Sprintf("Set(%s, %.20q)", key, val), func(s logstore.Store) error { return s.Set([]byte(key), []byte(val)) }}
}

// Diff compares what two stores hold, the commit index included, and says in
// words where they differ first; "" if they do not.
func Diff(want, got logstore.Store) string {
	if d := DiffLog(want, got); d != "" {
		return d
	}
	a, errA := want.GetCommitIndex()
	b, errB := got.GetCommitIndex()
	if a != b || errA != nil || errB != nil {
		return fmt.Sprintf("commit index %d (%v), want %d (%v)", b, errB, a, errA)
	}
	return DiffStable(want, got)
}

// DiffLog compares the entries alone.
func DiffLog(want, got logstore.Store) string {
	first, err1 := want.FirstIndex()
	last, err2 := want.LastIndex()
	gotFirst, err3 := got.FirstIndex()
	gotLast, err4 := got.LastIndex()
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return err.Error()
		}
	}
	if first != gotFirst || last != gotLast {
		return fmt.Sprintf("holds %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
	for i := first; i <= last && i > 0; i++ {
		var a, b raft.Log
		if err := want.GetLog(i, &a); err != nil {
			return err.Error()
		}
		if err := got.GetLog(i, &b); err != nil {
			return fmt.Sprintf("entry %d: %v", i, err)
		}
		if !Same(&a, &b) {
			return fmt.Sprintf("entry %d is %.200v, want %.200v", i, describe(&b), describe(&a))
		}
	}
	return ""
}

// DiffStable compares the stable values that a Workload sets.
func DiffStable(want, got logstore.Store) string {
	for _, key := range stableKeys() {
		a, errA := want.Get([]byte(key))
		b, errB := got.Get([]byte(key))
		if !sameBytes(a, b) || (errA == nil) != (errB == nil) {
			return fmt.Sprintf("stable value %s is %.40q (%v), want %.40q (%v)", key, b, errB, a, errA)
		}
	}
	return ""
}

// OpenDir opens the store kept in a directory.
type OpenDir func(t testing.TB, dir string) logstore.Store

// RunPersistent checks that what a store acknowledged is there when it is
// opened again. known is what it is for Run.
func RunPersistent(t *testing.T, open OpenDir, known ...Deviation) {
	deviations := byCheck(t, known)
	for _, c := range []struct {
		name string
		test func(testing.TB, OpenDir)
	}{
		{"EntriesComeBackExactly", testReopenedEntries},
		{"StableValuesComeBack", testReopenedStable},
		{"RandomAgainstReference", testReopenedRandom},
	} {
		d, deviates := deviations[c.name]
		delete(deviations, c.name)
		t.Run(c.name, func(t *testing.T) {
			if deviates {
				d.confirm(t, func(t testing.TB) { c.test(t, open) })
				return
			}
			c.test(t, open)
		})
	}
	noneLeft(t, deviations)
}

func testReopenedEntries(t testing.TB, open OpenDir) {
	dir := t.TempDir()
	s := open(t, dir)
	mustStore(t, s, Samples()...)
	s = reopen(t, s, open, dir)
	checkSamples(t, s, Same)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func testReopenedStable(t testing.TB, open OpenDir) {
	dir := t.TempDir()
	s := open(t, dir)
	ref := logstore.NewMemory()
	for _, op := range []Op{
		setUint64(logstore.KeyCurrentTerm, 1<<40+5), setUint64(logstore.KeyLastVoteTerm, 1<<40+3), set(logstore.KeyLastVoteCand, "a:1"),
		setUint64("number", 7), set("other", "value"),
	} {
		for _, to := range []logstore.Store{s, ref} {
			if err := op.Do(to); err != nil {
				t.Fatalf("%s: %v", op.Name, err)
			}
		}
	}
	s = reopen(t, s, open, dir)
	if diff := DiffStable(ref, s); diff != "" {
		t.Fatal(diff)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func testReopenedRandom(t testing.TB, open OpenDir) {
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { s.Close() }()
	ref := logstore.NewMemory()
	w := NewWorkload(8)
	for range 120 {
		op := w.Next(ref)
		if got, want := op.Do(s), op.Do(ref); (got == nil) != (want == nil) {
			t.Fatalf("%s: %v, the reference says %v", op.Name, got, want)
		}
		if w.rng.IntN(3) == 0 {
			s = reopen(t, s, open, dir)
			ref.DropStaged()
		}
		if diff := Diff(ref, s); diff != "" {
			t.Fatalf("after %s: %s", op.Name, diff)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func reopen(t testing.TB, s logstore.Store, open OpenDir, dir string) logstore.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return open(t, dir)
}
