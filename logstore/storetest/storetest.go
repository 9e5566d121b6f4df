// Package storetest is the conformance suite for logstore.Store: everything
// that hashicorp/raft relies on, one test each.
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, func(t testing.TB) logstore.Store { return mystore.Open(t.TempDir()) })
//	}
//
// A store that keeps its entries on disk also runs RunPersistent, which closes
// and reopens it; one that can be put on a disk of the test's own making runs RunCrash,
// which cuts the power.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Open returns an empty store. The suite closes it.
type Open func(t testing.TB) logstore.Store

// Run checks a store against the contract. known lists the checks that the store
// is known to fail, by name and reason: each is run all the same and must fail,
// so that the list cannot outlive what it lists.
func Run(t *testing.T, open Open, known ...Deviation) {
	deviations := byCheck(t, known)
	for _, c := range checks() {
		d, deviates := deviations[c.name]
		delete(deviations, c.name)
		t.Run(c.name, func(t *testing.T) {
			if deviates {
				d.confirm(t, func(t testing.TB) { c.run(t, open) })
				return
			}
			c.run(t, open)
		})
	}
	noneLeft(t, deviations)
}

// check is one demand of the contract.
type check struct {
	name string
	test func(testing.TB, logstore.Store)
}

func (c check) run(t testing.TB, open Open) {
	s := open(t)
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	c.test(t, s)
}

func checks() []check {
	return []check{
		{"Empty", testEmpty},
		{"IsMonotonic", testIsMonotonic},
		{"MissingLogIsTheBareError", testMissingLog},
		{"MissingKeyIsTheBareText", testMissingKey},
		{"EntriesComeBackExactly", testRoundTrip},
		{"NilAndEmptyAreToldApart", testNilAndEmpty},
		{"NothingIsKeptOrChanged", testOwnership},
		{"NothingToStore", testNothingToStore},
		{"NilEntryIsRefused", testNilEntry},
		{"Contiguity", testContiguity},
		{"AllOrNothing", testAllOrNothing},
		{"DeleteRange", testDeleteRange},
		{"MiddleIsRefused", testMiddle},
		{"AnyStartAfterDeletingAll", testAnyStart},
		{"StableValues", testStable},
		{"EmptyKey", testEmptyKey},
		{"OneSetOfKeys", testOneSetOfKeys},
		{"CurrentTermNeverGoesDown", testCurrentTerm},
		{"VoteTermRemovesCandidate", testVote},
		{"VotesStayGiven", testVotesStayGiven},
		{"CommitIndex", testCommitIndex},
		{"WorksBehindLogCache", testLogCache},
		{"ReadersBesideWriter", testReadersBesideWriter},
		{"RandomAgainstReference", testRandom},
		{"NoWriteInFlight", testWriteInFlight},
		{"Close", testClose},
	}
}

// entry makes a small entry whose content tells its index and term.
func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", index, term)}
}

func entries(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, entry(i, term))
	}
	return logs
}

func mustStore(t testing.TB, s logstore.Store, logs ...*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatalf("StoreLogs: %v", err)
	}
}

// Same tells whether two entries are equal, nil and empty bytes told apart.
func Same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type &&
		sameBytes(a.Data, b.Data) && sameBytes(a.Extensions, b.Extensions) && a.AppendedAt.Equal(b.AppendedAt)
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// checkHolds fails the test unless the store holds first to last, contiguous,
// each entry as entry made it with any term.
func checkHolds(t testing.TB, s logstore.Store, first, last uint64) {
	t.Helper()
	checkBounds(t, s, first, last)
	for i := first; i <= last && i > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatalf("GetLog(%d): %v", i, err)
		}
		if want := entry(i, l.Term); !Same(&l, want) {
			t.Fatalf("GetLog(%d) = %+v, want %+v", i, l, want)
		}
	}
	var l raft.Log
	for _, i := range []uint64{0, first - 1, last + 1, math.MaxUint64} {
		if i >= first && i <= last && i != 0 {
			continue
		}
		if err := s.GetLog(i, &l); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares by identity
			t.Fatalf("GetLog(%d) of a log from %d to %d: %v", i, first, last, err)
		}
	}
}

func checkBounds(t testing.TB, s logstore.Store, first, last uint64) {
	t.Helper()
	gotFirst, err := s.FirstIndex()
	if err != nil {
		t.Fatalf("FirstIndex: %v", err)
	}
	gotLast, err := s.LastIndex()
	if err != nil {
		t.Fatalf("LastIndex: %v", err)
	}
	if gotFirst != first || gotLast != last {
		t.Fatalf("the log holds %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
}

func testEmpty(t testing.TB, s logstore.Store) {
	checkBounds(t, s, 0, 0)
	for _, r := range [][2]uint64{{0, 0}, {1, 1}, {1, 0}, {0, math.MaxUint64}} {
		if err := s.DeleteRange(r[0], r[1]); err != nil {
			t.Errorf("DeleteRange(%d, %d) of an empty log: %v", r[0], r[1], err)
		}
	}
	if c, err := s.GetCommitIndex(); c != 0 || err != nil {
		t.Errorf("GetCommitIndex = %d, %v", c, err)
	}
	if has, err := raft.HasExistingState(s, s, raft.NewInmemSnapshotStore()); has || err != nil {
		t.Errorf("raft.HasExistingState = %v, %v", has, err)
	}
}

func testIsMonotonic(t testing.TB, s logstore.Store) {
	if !s.IsMonotonic() {
		t.Error("IsMonotonic is false")
	}
}

func testMissingLog(t testing.TB, s logstore.Store) {
	checkHolds(t, s, 0, 0)
	mustStore(t, s, entries(5, 7, 1)...)
	checkHolds(t, s, 5, 7)
}

func testMissingKey(t testing.TB, s logstore.Store) {
	for _, key := range [][]byte{[]byte("CurrentTerm"), []byte("LastVoteTerm"), []byte("LastVoteCand"), []byte("other"), {}, nil} {
		val, err := s.Get(key)
		if val != nil || err == nil || err.Error() != "not found" || errors.Unwrap(err) != nil {
			t.Errorf("Get(%q) = %v, %v; want nil and an error that says exactly: not found", key, val, err)
		}
		n, err := s.GetUint64(key)
		if n != 0 || err == nil || err.Error() != "not found" || errors.Unwrap(err) != nil {
			t.Errorf("GetUint64(%q) = %d, %v; want 0 and an error that says exactly: not found", key, n, err)
		}
	}
}

func testNothingToStore(t testing.TB, s logstore.Store) {
	mustStore(t, s)
	if err := s.StoreLogs([]*raft.Log{}); err != nil {
		t.Errorf("StoreLogs of an empty slice: %v", err)
	}
	checkHolds(t, s, 0, 0)
}

func testNilEntry(t testing.TB, s logstore.Store) {
	if err := s.StoreLogs([]*raft.Log{nil}); err == nil {
		t.Error("a nil entry was stored")
	}
	checkHolds(t, s, 0, 0)
}

func testOwnership(t testing.TB, s logstore.Store) {
	given := entry(1, 1)
	given.Extensions = []byte("extension")
	data, ext := given.Data, given.Extensions
	if err := s.StoreLog(given); err != nil {
		t.Fatal(err)
	}
	if want := entry(1, 1); given.Index != 1 || !bytes.Equal(data, want.Data) || string(ext) != "extension" || given.Extensions == nil {
		t.Fatalf("StoreLog changed its argument: %+v", given)
	}
	clear(data)
	clear(ext)
	var got raft.Log
	for range 2 {
		got = raft.Log{Type: raft.LogBarrier, Data: []byte("left over"), Extensions: []byte("left over")}
		if err := s.GetLog(1, &got); err != nil {
			t.Fatal(err)
		}
		want := entry(1, 1)
		want.Extensions = []byte("extension")
		if !Same(&got, want) {
			t.Fatalf("GetLog = %+v, want %+v", got, want)
		}
		clear(got.Data) // the second time shows whether this reached the store
		clear(got.Extensions)
	}
	val := []byte("value")
	if err := s.Set([]byte("key"), val); err != nil {
		t.Fatal(err)
	}
	clear(val)
	for range 2 {
		got, err := s.Get([]byte("key"))
		if err != nil || string(got) != "value" {
			t.Fatalf("Get = %q, %v", got, err)
		}
		clear(got)
	}
}

func testContiguity(t testing.TB, s logstore.Store) {
	for _, c := range []struct {
		name            string
		stored          uint64 // 1 to this are there first
		give            []uint64
		expected, given uint64
	}{
		{"index 0 into an empty log", 0, []uint64{0}, 0, 0},
		{"no index can follow", 0, []uint64{math.MaxUint64}, 0, math.MaxUint64},
		{"gap within the first batch", 0, []uint64{4, 6}, 5, 6},
		{"repeat within the first batch", 0, []uint64{4, 4}, 5, 4},
		{"backwards within the first batch", 0, []uint64{4, 3}, 5, 3},
		{"overflow within the first batch", 0, []uint64{math.MaxUint64 - 1, math.MaxUint64}, math.MaxUint64, math.MaxUint64},
		{"gap", 3, []uint64{5}, 4, 5},
		{"repeat", 3, []uint64{3}, 4, 3},
		{"index 0", 3, []uint64{0}, 4, 0},
		{"gap within a batch", 3, []uint64{4, 5, 7}, 6, 7},
		{"repeat within a batch", 3, []uint64{4, 5, 5}, 6, 5},
	} {
		last, err := s.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if last < c.stored {
			mustStore(t, s, entries(last+1, c.stored, 1)...)
		}
		var logs []*raft.Log
		for _, i := range c.give {
			logs = append(logs, entry(i, 1))
		}
		err = s.StoreLogs(logs)
		var gap *logstore.ContiguityError
		if !errors.As(err, &gap) || gap.Expected != c.expected || gap.Given != c.given {
			t.Errorf("%s: %v; want expected %d, given %d", c.name, err, c.expected, c.given)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(c.given)) {
			t.Errorf("%s: the error does not tell the given index: %v", c.name, err)
		}
		checkHolds(t, s, min(c.stored, 1), c.stored)
	}
}

func testAllOrNothing(t testing.TB, s logstore.Store) {
	mustStore(t, s, entries(1, 3, 1)...)
	if err := s.StoreLogs([]*raft.Log{entry(4, 1), entry(5, 1), entry(9, 1)}); err == nil {
		t.Fatal("a gap was stored")
	}
	checkHolds(t, s, 1, 3)
	mustStore(t, s, entries(4, 6, 2)...) // the same indexes again
	checkHolds(t, s, 1, 6)
}

func testDeleteRange(t testing.TB, s logstore.Store) {
	const first, last = 10, 20
	for _, c := range []struct {
		name                string
		min, max            uint64
		wantFirst, wantLast uint64
	}{
		{"prefix", 10, 12, 13, 20},
		{"prefix from 0", 0, 12, 13, 20},
		{"all but the last", 10, 19, 20, 20},
		{"suffix", 18, 20, 10, 17},
		{"suffix to beyond the end", 18, 99, 10, 17},
		{"suffix to the end of numbers", 18, math.MaxUint64, 10, 17},
		{"all but the first", 11, 20, 10, 10},
		{"all", 10, 20, 0, 0},
		{"more than all", 1, math.MaxUint64, 0, 0},
		{"inverted", 15, 12, 10, 20},
		{"before the log", 1, 9, 10, 20},
		{"nothing", 0, 0, 10, 20},
		{"behind the log", 21, 30, 10, 20},
	} {
		if err := s.DeleteRange(0, math.MaxUint64); err != nil {
			t.Fatal(err)
		}
		mustStore(t, s, entries(first, last, 1)...)
		if err := s.DeleteRange(c.min, c.max); err != nil {
			t.Errorf("%s: DeleteRange(%d, %d): %v", c.name, c.min, c.max, err)
		}
		checkHolds(t, s, c.wantFirst, c.wantLast)
		if c.wantLast > 0 { // and it goes on
			mustStore(t, s, entries(c.wantLast+1, c.wantLast+3, 2)...)
			checkHolds(t, s, c.wantFirst, c.wantLast+3)
		}
	}
}

func testMiddle(t testing.TB, s logstore.Store) {
	mustStore(t, s, entries(10, 20, 1)...)
	for _, r := range [][2]uint64{{12, 18}, {15, 15}, {11, 19}} {
		if err := s.DeleteRange(r[0], r[1]); !errors.Is(err, logstore.ErrMiddle) {
			t.Errorf("DeleteRange(%d, %d) of a log from 10 to 20: %v", r[0], r[1], err)
		}
		checkHolds(t, s, 10, 20)
	}
}

func testAnyStart(t testing.TB, s logstore.Store) {
	for _, start := range []uint64{1, 1000, 7, math.MaxUint64 - 4} {
		mustStore(t, s, entries(start, start+2, 1)...)
		checkHolds(t, s, start, start+2)
		if err := s.DeleteRange(start, start+2); err != nil {
			t.Fatal(err)
		}
		checkHolds(t, s, 0, 0)
	}
}

func testLogCache(t testing.TB, s logstore.Store) {
	cache, err := raft.NewLogCache(4, s)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 9; i += 3 {
		if err := cache.StoreLogs(entries(i, i+2, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cache.DeleteRange(8, 9); err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 7; i++ {
		var l raft.Log
		if err := cache.GetLog(i, &l); err != nil || !Same(&l, entry(i, 1)) {
			t.Fatalf("GetLog(%d) = %+v, %v", i, l, err)
		}
	}
	checkHolds(t, s, 1, 7)
}

func testWriteInFlight(t testing.TB, s logstore.Store) {
	mustStore(t, s, entry(1, 1))
	if err := s.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	if since := s.WriteInFlight(); !since.IsZero() {
		t.Errorf("nothing is being written, but WriteInFlight says so since %v", since)
	}
}

func testClose(t testing.TB, s logstore.Store) {
	mustStore(t, s, entry(1, 1))
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	var l raft.Log
	for name, call := range map[string]func() error{
		"FirstIndex":       func() error { _, err := s.FirstIndex(); return err },
		"LastIndex":        func() error { _, err := s.LastIndex(); return err },
		"GetLog":           func() error { return s.GetLog(1, &l) },
		"StoreLog":         func() error { return s.StoreLog(entry(2, 1)) },
		"DeleteRange":      func() error { return s.DeleteRange(1, 1) },
		"Get":              func() error { _, err := s.Get([]byte("k")); return err },
		"GetUint64":        func() error { _, err := s.GetUint64([]byte("k")); return err },
		"Set":              func() error { return s.Set([]byte("k"), []byte("v")) },
		"SetUint64":        func() error { return s.SetUint64([]byte("k"), 1) },
		"StageCommitIndex": func() error { return s.StageCommitIndex(1) },
		"GetCommitIndex":   func() error { _, err := s.GetCommitIndex(); return err },
	} {
		if err := call(); !errors.Is(err, logstore.ErrClosed) {
			t.Errorf("%s of a closed store: %v", name, err)
		}
	}
	if since := s.WriteInFlight(); !since.IsZero() {
		t.Errorf("WriteInFlight of a closed store: %v", since)
	}
}

// someTime is a point in time with nanoseconds and a zone.
func someTime() time.Time {
	return time.Date(2026, 2, 3, 4, 5, 6, 789, time.FixedZone("somewhere", 5*3600+1800))
}
