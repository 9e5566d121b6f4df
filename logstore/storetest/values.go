package storetest

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Samples returns entries of every kind, contiguous from index 1: each entry
// type, payloads that look like a store's own syntax, empty and absent bytes,
// odd times. Every store must give each back as it is.
func Samples() []*raft.Log {
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	payloads := [][]byte{
		nil, {}, {0}, every[:], []byte("\n"), []byte("a\nb\r\n"), []byte("not found"), []byte("\xff\xfe not UTF-8"),
		[]byte(`"Noop"`), []byte(` "Noop"`), []byte(`"Noop"` + "\n"), []byte(`null`), []byte(`{}`), []byte(`{"Noop":null}`),
		[]byte(`{"AddNode":{"node_id":1,"address":"10.0.0.1:5433"}}`),
		[]byte(`{"AddNode":{"node_id":1, "address":"10.0.0.1:5433"}}`),
		[]byte(`{"AddNode":{"address":"10.0.0.1:5433","node_id":1}}`),
		[]byte(`{"AddNode":{"node_id":1,"address":"10.0.0.1:5433","crc":"00000000"}}`),
		[]byte(`{"RemoveNode":{"node_id":18446744073709551615}}`),
		[]byte(`{"RemoveNode":{"node_id":18446744073709551616}}`),
		[]byte(`{"RemoveNode":{"node_id":01}}`), []byte(`{"RemoveNode":{"node_id":1.0}}`), []byte(`{"RemoveNode":{"node_id":1e0}}`),
		[]byte(`{"UpdateConfig":{"key":"k","value":"naïve ☃ 𝄞 </script> \u0001 \" \\ /"}}`),
		[]byte(`{"UpdateConfig":{"key":"k","value":"\u002F"}}`),
		[]byte(`{"UpdateConfig":{"key":"k","value":"` + string(bytes.Repeat([]byte(" "), 5000)) + `"}}`),
		[]byte(`{"UpdateConfig":{"key":"k\\u0020","value":"` + string(bytes.Repeat([]byte(" "), 256)) + `\\u0020"}}`),
		[]byte(`{"KvWrite":{"key":[107],"value":[118]}}`), []byte(`{"KvWrite":{"key":[107],"value":null}}`),
		[]byte(`{"KvWrite":{"key":[256],"value":[]}}`), []byte(`{"index":1,"term":1,"command":"Noop"}`),
		bytes.Repeat([]byte{'x'}, 1<<20), bytes.Repeat([]byte{0}, 100_000), bytes.Repeat([]byte("["), 100_000),
	}
	types := []raft.LogType{
		raft.LogCommand, raft.LogNoop, raft.LogAddPeerDeprecated, raft.LogRemovePeerDeprecated,
		raft.LogBarrier, raft.LogConfiguration, 6, 99, 255,
	}
	times := []time.Time{
		{}, someTime(), time.Unix(0, 0), time.Unix(-1, 999_999_999), time.Unix(math.MaxInt32, 1).UTC(),
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(-5, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("west", -3600)),
	}
	terms := []uint64{0, 1, 2, math.MaxUint64}
	var logs []*raft.Log
	add := func(l raft.Log) {
		l.Index = uint64(len(logs)) + 1
		l.Term = terms[len(logs)%len(terms)]
		logs = append(logs, &l)
	}
	for _, p := range payloads {
		add(raft.Log{Type: raft.LogCommand, Data: p, AppendedAt: someTime()})
		if len(p) < 100 {
			for _, typ := range types {
				add(raft.Log{Type: typ, Data: p})
			}
			add(raft.Log{Type: raft.LogCommand, Data: []byte(`"Noop"`), Extensions: p})
		}
	}
	for _, at := range times {
		add(raft.Log{Type: raft.LogCommand, Data: []byte(`"Noop"`), AppendedAt: at})
	}
	return logs
}

func testRoundTrip(t testing.TB, s logstore.Store) {
	logs := Samples()
	// Alone, in pairs, and the rest at once.
	mustStore(t, s, logs[0])
	mustStore(t, s, logs[1], logs[2])
	mustStore(t, s, logs[3:]...)
	checkSamples(t, s, sameButForNil)
}

func testNilAndEmpty(t testing.TB, s logstore.Store) {
	mustStore(t, s, Samples()...)
	checkSamples(t, s, Same)
}

// sameButForNil is Same, with nil and empty bytes taken for the same.
func sameButForNil(a, b *raft.Log) bool {
	x, y := *a, *b
	for _, l := range []*raft.Log{&x, &y} {
		l.Data, l.Extensions = append([]byte{}, l.Data...), append([]byte{}, l.Extensions...)
	}
	return Same(&x, &y)
}

func checkSamples(t testing.TB, s logstore.Store, same func(a, b *raft.Log) bool) {
	t.Helper()
	for _, want := range Samples() {
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil {
			t.Errorf("GetLog(%d): %v", want.Index, err)
			continue
		}
		if !same(&got, want) {
			t.Errorf("entry %d came back as %.300q, want %.300q", want.Index, describe(&got), describe(want))
		}
	}
}

func describe(l *raft.Log) []any {
	return []any{l.Index, l.Term, l.Type, l.Data, l.Data == nil, l.Extensions, l.Extensions == nil, l.AppendedAt}
}

func testStable(t testing.TB, s logstore.Store) {
	keys := [][]byte{[]byte("key"), []byte("LastVoteCand"), {0}, []byte("\xff\"\\\n"), bytes.Repeat([]byte("k"), 3000)}
	values := [][]byte{[]byte("value"), {}, {0}, []byte("\xff\"\\\n"), bytes.Repeat([]byte{7}, 100_000)}
	for _, key := range keys {
		for _, val := range values {
			if err := s.Set(key, val); err != nil {
				t.Fatalf("Set(%.20q): %v", key, err)
			}
			got, err := s.Get(key)
			if err != nil || got == nil || !bytes.Equal(got, val) {
				t.Fatalf("Get(%.20q) = %.20q, %v; want %.20q", key, got, err, val)
			}
			if len(val) != 8 {
				if n, err := s.GetUint64(key); n != 0 || err == nil {
					t.Fatalf("GetUint64 of %d bytes = %d, %v", len(val), n, err)
				}
			}
		}
	}
	for _, n := range []uint64{0, 1, math.MaxUint64, 5} {
		if err := s.SetUint64([]byte("number"), n); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetUint64([]byte("number")); got != n || err != nil {
			t.Fatalf("GetUint64 = %d, %v; want %d", got, err, n)
		}
	}
	if err := s.Set([]byte("nil"), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get([]byte("nil")); got == nil || len(got) != 0 || err != nil {
		t.Fatalf("Get of a nil value = %v, %v", got, err)
	}
}

func testEmptyKey(t testing.TB, s logstore.Store) {
	for _, key := range [][]byte{{}, nil} {
		if err := s.Set(key, []byte("value")); err != nil {
			t.Fatalf("Set of an empty key: %v", err)
		}
		if got, err := s.Get(key); string(got) != "value" || err != nil {
			t.Fatalf("Get of an empty key = %q, %v", got, err)
		}
	}
}

// testOneSetOfKeys checks that a number is its bytes, both ways.
func testOneSetOfKeys(t testing.TB, s logstore.Store) {
	if err := s.SetUint64([]byte("number"), 5); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get([]byte("number")); err != nil || !bytes.Equal(got, []byte{0, 0, 0, 0, 0, 0, 0, 5}) {
		t.Fatalf("Get of a uint64 = %v, %v", got, err)
	}
	if err := s.Set([]byte("bytes"), []byte{0, 0, 0, 0, 0, 0, 1, 0}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.GetUint64([]byte("bytes")); got != 256 || err != nil {
		t.Fatalf("GetUint64 of 8 bytes = %d, %v", got, err)
	}
}

func testCurrentTerm(t testing.TB, s logstore.Store) {
	key := []byte(logstore.KeyCurrentTerm)
	for _, n := range []uint64{1, 1, 7, 7} {
		if err := s.SetUint64(key, n); err != nil {
			t.Fatalf("SetUint64(CurrentTerm, %d): %v", n, err)
		}
	}
	// A lower one is no error, or Raft panics, and is not stored.
	for _, n := range []uint64{6, 1, 0} {
		if err := s.SetUint64(key, n); err != nil {
			t.Errorf("SetUint64(CurrentTerm, %d) after 7: %v", n, err)
		}
		if err := s.Set(key, []byte{0, 0, 0, 0, 0, 0, 0, byte(n)}); err != nil {
			t.Errorf("Set(CurrentTerm, %d) after 7: %v", n, err)
		}
	}
	if err := s.Set(key, []byte("no number")); err == nil {
		t.Error("CurrentTerm was set to something that is no number")
	}
	if got, err := s.GetUint64(key); got != 7 || err != nil {
		t.Fatalf("GetUint64(CurrentTerm) = %d, %v; want 7", got, err)
	}
}

func testVote(t testing.TB, s logstore.Store) {
	term, cand := []byte(logstore.KeyLastVoteTerm), []byte(logstore.KeyLastVoteCand)
	vote := func(n uint64, who string) {
		t.Helper()
		if err := s.SetUint64(term, n); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(cand); got != nil || err == nil || err.Error() != "not found" {
			t.Fatalf("behind the vote's term %d stands the old candidate %q, %v", n, got, err)
		}
		if err := s.Set(cand, []byte(who)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(cand); string(got) != who || err != nil {
			t.Fatalf("Get(LastVoteCand) = %q, %v", got, err)
		}
		if got, err := s.GetUint64(term); got != n || err != nil {
			t.Fatalf("GetUint64(LastVoteTerm) = %d, %v", got, err)
		}
	}
	vote(3, "2@10.0.0.2:7600")
	vote(4, "1@10.0.0.1:7600")
}

// testVotesStayGiven does what Raft does when its heartbeat fast path has set
// its term back.
func testVotesStayGiven(t testing.TB, s logstore.Store) {
	term, cand := []byte(logstore.KeyLastVoteTerm), []byte(logstore.KeyLastVoteCand)
	holds := func(n uint64, who string) {
		t.Helper()
		gotTerm, termErr := s.GetUint64(term)
		got, err := s.Get(cand)
		if gotTerm != n || string(got) != who || termErr != nil || err != nil {
			t.Fatalf("the vote of term %d for %q is now one of term %d for %q (%v, %v)", n, who, gotTerm, got, termErr, err)
		}
	}
	if err := errors.Join(s.SetUint64(term, 34), s.Set(cand, []byte("a:1"))); err != nil {
		t.Fatal(err)
	}
	// The same vote again.
	if err := errors.Join(s.SetUint64(term, 34), s.Set(cand, []byte("a:1"))); err != nil {
		t.Fatal(err)
	}
	holds(34, "a:1")
	// Another one in the same term.
	if err := s.SetUint64(term, 34); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(cand, []byte("b:1")); !errors.Is(err, logstore.ErrVoted) {
		t.Errorf("a second vote in term 34: %v", err)
	}
	holds(34, "a:1")
	// One in a term before.
	if err := s.SetUint64(term, 33); !errors.Is(err, logstore.ErrVoted) {
		t.Errorf("a vote in term 33 after one in term 34: %v", err)
	}
	holds(34, "a:1")
	if err := errors.Join(s.SetUint64(term, 35), s.Set(cand, []byte("b:1"))); err != nil {
		t.Fatal(err)
	}
	holds(35, "b:1")
}

func testCommitIndex(t testing.TB, s logstore.Store) {
	check := func(want uint64) {
		t.Helper()
		if got, err := s.GetCommitIndex(); got != want || err != nil {
			t.Fatalf("GetCommitIndex = %d, %v; want %d", got, err, want)
		}
	}
	stage := func(n uint64) {
		t.Helper()
		if err := s.StageCommitIndex(n); err != nil {
			t.Fatal(err)
		}
	}
	stage(5)
	check(0)
	mustStore(t, s, entries(1, 3, 1)...)
	check(3) // staged beyond the end
	mustStore(t, s, entries(4, 8, 1)...)
	check(5)
	stage(7)
	check(5) // not written yet
	if err := s.StoreLogs(entries(99, 99, 1)); err == nil {
		t.Fatal("a gap was stored")
	}
	check(5)
	mustStore(t, s, entries(9, 9, 1)...)
	check(7)
	if err := s.DeleteRange(1, 2); err != nil {
		t.Fatal(err)
	}
	check(7)
	if err := s.DeleteRange(1, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	check(0)
	mustStore(t, s, entries(20, 22, 1)...)
	if got, err := s.GetCommitIndex(); got > 22 || err != nil {
		t.Fatalf("GetCommitIndex = %d, %v", got, err)
	}
}
