package storetest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// testReadersBesideWriter has readers look at everything while entries are
// appended and both ends are cut, as Raft's replication, snapshot and metrics
// goroutines do.
func testReadersBesideWriter(t testing.TB, s logstore.Store) {
	const rounds, readers = 60, 3
	var stop atomic.Bool
	var wg sync.WaitGroup
	for r := range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(1, uint64(r)))
			for !stop.Load() {
				readOnce(t, s, rng)
			}
		}()
	}
	next := uint64(1)
	for round := uint64(1); round <= rounds; round++ {
		mustStore(t, s, entries(next, next+7, round)...)
		next += 8
		if err := s.SetUint64([]byte(logstore.KeyCurrentTerm), round); err != nil {
			t.Error(err)
		}
		switch round % 4 {
		case 1: // cut the tail
			if err := s.DeleteRange(next-5, next+100); err != nil {
				t.Error(err)
			}
			next -= 5
		case 3: // cut the front, keep the last entries
			if err := s.DeleteRange(0, next-5); err != nil {
				t.Error(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	checkHolds(t, s, first, next-1)
}

// readOnce reads one entry. It may be gone, but what is there is whole.
func readOnce(t testing.TB, s logstore.Store, rng *rand.Rand) {
	first, err := s.FirstIndex()
	if err != nil {
		t.Errorf("FirstIndex: %v", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		t.Errorf("LastIndex: %v", err)
	}
	if last == 0 || first == 0 || first > last {
		return // cut in between
	}
	index := first + rng.Uint64N(last-first+1)
	var l raft.Log
	switch err := s.GetLog(index, &l); {
	case err == raft.ErrLogNotFound: //nolint:errorlint // Raft compares by identity
	case err != nil:
		t.Errorf("GetLog(%d): %v", index, err)
	case l.Index != index || !Same(&l, entry(l.Index, l.Term)):
		t.Errorf("GetLog(%d) = %+v", index, l)
	}
	if term, err := s.GetUint64([]byte(logstore.KeyCurrentTerm)); err != nil && err.Error() != "not found" {
		t.Errorf("GetUint64(CurrentTerm) = %d, %v", term, err)
	}
}

// testRandom does the same random things to the store and to the reference,
// and compares.
func testRandom(t testing.TB, s logstore.Store) {
	ref := logstore.NewMemory()
	w := NewWorkload(7)
	for range 150 {
		op := w.Next(ref)
		got, want := op.Do(s), op.Do(ref)
		if (got == nil) != (want == nil) {
			t.Fatalf("%s: %v, the reference says %v", op.Name, got, want)
		}
		if diff := Diff(ref, s); diff != "" {
			t.Fatalf("after %s: %s", op.Name, diff)
		}
	}
}
