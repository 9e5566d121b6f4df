package protocol

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestLineage(t *testing.T) {
	h := History{
		{Epoch: 2, NodeID: 1, Parent: 0, LSN: 0},   // an empty database
		{Epoch: 5, NodeID: 2, Parent: 2, LSN: 100}, //
		{Epoch: 7, NodeID: 3, Parent: 2, LSN: 90},  // never saw what 5 wrote
		{Epoch: 8, NodeID: 1, Parent: 5, LSN: 100}, // 5 wrote nothing
		{Epoch: 9, NodeID: 1, Parent: 7, LSN: 120},
	}
	old := History{{Epoch: 3, NodeID: 1, Parent: 0, LSN: 40}, {Epoch: 4, NodeID: 1, Parent: 3, LSN: 41}} // records from before
	for _, test := range []struct {
		h    History
		e    Epoch
		want Lineage
	}{
		{h, 2, Lineage{{2, MaxLSN}}},
		{h, 5, Lineage{{2, 100}, {5, MaxLSN}}},
		{h, 7, Lineage{{2, 90}, {7, MaxLSN}}},
		{h, 8, Lineage{{2, 100}, {8, MaxLSN}}},
		{h, 9, Lineage{{2, 90}, {7, 120}, {9, MaxLSN}}},
		{h[1:], 8, Lineage{{2, 100}, {8, MaxLSN}}},
		{old, 4, Lineage{{0, 40}, {3, 41}, {4, MaxLSN}}},
	} {
		got, err := test.h.Lineage(test.e)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("epoch %d: %v, %v, want %v", test.e, got, err, test.want)
		}
	}
	for name, bad := range map[string]struct {
		h History
		e Epoch
	}{
		"unknown epoch":     {h, 6},
		"empty history":     {nil, 1},
		"own parent":        {History{{Epoch: 4, Parent: 4, LSN: 1}}, 4},
		"younger parent":    {History{{Epoch: 4, Parent: 5, LSN: 1}, {Epoch: 5, Parent: 4, LSN: 2}}, 4},
		"fork before birth": {History{{Epoch: 2, LSN: 50}, {Epoch: 3, Parent: 2, LSN: 49}}, 3},
		"nothing left":      {History{{Epoch: 2, LSN: MaxLSN}}, 2},
	} {
		if l, err := bad.h.Lineage(bad.e); l != nil || !errors.Is(err, ErrBadHistory) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func TestLineageValid(t *testing.T) {
	for _, good := range []Lineage{nil, {{0, 1}}, {{3, MaxLSN}}, {{0, 5}, {1, 6}, {9, MaxLSN}}} {
		if err := good.Valid(); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []Lineage{{{1, 0}}, {{1, 5}, {2, 5}}, {{1, 5}, {2, 4}}, {{1, 5}, {1, 6}}, {{2, 5}, {1, 6}}} {
		if err := bad.Valid(); !errors.Is(err, ErrBadHistory) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// record is what a log is made of in the twin: one element an LSN.
type record struct {
	epoch Epoch
	id    int // no two records ever written share it
}

// lineageOf reads a log record by record.
func lineageOf(log []record) Lineage {
	var l Lineage
	for i, r := range log {
		if len(l) == 0 || l[len(l)-1].Epoch != r.epoch {
			l = append(l, Segment{Epoch: r.epoch})
		}
		l[len(l)-1].End = LSN(i + 1)
	}
	return l
}

// Nodes with real logs are promoted, write, follow one another and are cut back, in
// any order, good and bad. After every step what the history says is compared
// with the records themselves.
func TestLineageAgainstRecords(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var (
			logs    [4][]record
			history History
			writer  = -1 // who is primary
			epoch   Epoch
			written int
		)
		write := func(n int) {
			for range rng.IntN(6) {
				logs[n] = append(slices.Clone(logs[n]), record{epoch, written})
				written++
			}
		}
		if rng.IntN(2) == 0 { // records from before the first epoch, on all nodes
			write(0)
			logs = [4][]record{logs[0], logs[0], logs[0], logs[0]}
		}
		for range 30 {
			if writer < 0 || rng.IntN(4) == 0 {
				writer = rng.IntN(len(logs))
				epoch += Epoch(1 + rng.IntN(3))
				fork := Fork{Epoch: epoch, NodeID: NodeID(writer + 1), LSN: LSN(len(logs[writer]))}
				if n := len(logs[writer]); n > 0 {
					fork.Parent = logs[writer][n-1].epoch
				}
				history = append(history, fork)
			}
			write(writer)
			lineage, err := history.Lineage(epoch)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			checkAgainst(t, seed, lineage, logs[writer])
			follower := rng.IntN(len(logs))
			own := lineageOf(logs[follower])
			common := int(lineage.CommonPrefix(own))
			want := 0
			for want < min(len(logs[follower]), len(logs[writer])) && logs[follower][want] == logs[writer][want] {
				want++
			}
			if common != want || int(own.CommonPrefix(lineage)) != want {
				t.Fatalf("seed %d: common prefix of %v and %v is %d, want %d", seed, lineage, own, common, want)
			}
			upTo := common + rng.IntN(len(logs[writer])-common+1)
			logs[follower] = slices.Concat(logs[follower][:common], logs[writer][common:upTo])
		}
	}
}

func checkAgainst(t *testing.T, seed uint64, l Lineage, log []record) {
	t.Helper()
	for i, r := range log {
		if got := l.EpochAt(LSN(i + 1)); got != r.epoch {
			t.Fatalf("seed %d: %v: record %d was written in %d, EpochAt says %d", seed, l, i+1, r.epoch, got)
		}
	}
	if l.EpochAt(0) != 0 || l.EpochAt(LSN(len(log)+1)) != l[len(l)-1].Epoch || l.EpochAt(MaxLSN) != l[len(l)-1].Epoch {
		t.Fatalf("seed %d: %v is wrong at its ends", seed, l)
	}
	if own := lineageOf(log); own.EpochAt(LSN(len(log)+1)) != 0 {
		t.Fatalf("seed %d: %v knows who wrote behind its end", seed, own)
	}
}

// Two lineages that have nothing to do with each other: the answer is still
// the greatest LSN at which both have the same epoch.
func TestCommonPrefixOfStrangers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	random := func() Lineage {
		var log []record
		for e, i := Epoch(0), 0; i < 12; e, i = e+Epoch(rng.IntN(3)), i+1 {
			log = append(log, record{epoch: e})
		}
		return lineageOf(log[rng.IntN(4):])
	}
	for range 5000 {
		a, b := random(), random()
		want := LSN(0)
		for lsn := LSN(1); lsn <= min(a[len(a)-1].End, b[len(b)-1].End); lsn++ {
			if a.EpochAt(lsn) == b.EpochAt(lsn) {
				want = lsn
			}
		}
		if got := a.CommonPrefix(b); got != want {
			t.Fatalf("%v and %v agree up to %d, want %d", a, b, got, want)
		}
	}
}
