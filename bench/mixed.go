package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The mixed load: one goroutine appends, as Raft's main loop does, batches of
// mostly few entries; now and then it finds that a new leader has other entries
// at the end. Another cuts the front off when there is much of it, as the
// snapshotter does. Readers follow behind the end.
const (
	mixedSize     = 512
	mixedReaders  = 3
	mixedMaxBatch = 32
	mixedKeep     = 1500 // entries that a cut of the front leaves
	mixedCutAt    = 2000 // entries that make one due
	conflictOdds  = 50   // one in so many batches is preceded by a cut of the tail
	conflictMax   = 8    // entries it takes away
)

// mixedOps are the operations of the mixed load, in the order of the rows.
var mixedOps = []string{"StoreLogs", "GetLog", "DeleteRange, front", "DeleteRange, tail"}

// latencies are those of one store: of each operation, by round.
type latencies struct {
	mu     sync.Mutex
	rounds map[string][][]float64
}

func (l *latencies) begin() {
	for _, op := range mixedOps {
		l.rounds[op] = append(l.rounds[op], nil)
	}
}

func (l *latencies) note(op string, took ...float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.rounds[op]) - 1
	l.rounds[op][last] = append(l.rounds[op][last], took...)
}

// mixedLoad measures a load like Raft's on every store in turn.
func mixedLoad(b *bench) error {
	for _, p := range payloadKinds {
		err := b.step("mixed/"+p.name, func(dir string) error {
			all := map[string]*latencies{}
			var cs []contender
			for _, k := range kinds {
				l, err := openLane(k, filepath.Join(dir, k.name), p.make(mixedSize))
				if err == nil {
					defer func() { _ = l.close() }()
					err = l.fillTo(mixedKeep)
				}
				if err != nil {
					cs = append(cs, broken(k.name, err))
					continue
				}
				lat := &latencies{rounds: map[string][][]float64{}}
				all[k.name] = lat
				cs = append(cs, contender{k.name, func(r int) (float64, error) {
					lat.begin()
					return 0, mixedRound(l, r, b.scale.batches, lat)
				}})
			}
			b.addMixed(fmt.Sprintf("A load like Raft's, %s, %s", sizeText(mixedSize), p.name), alternate(b.scale.rounds, cs), all)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mixedRound makes a fixed number of appends, the same for every store.
func mixedRound(l *lane, r, batches int, lat *latencies) error {
	cut := make(chan struct{}, 1)
	snapshotter := make(chan error, 1)
	go func() { snapshotter <- l.cutFronts(cut, lat) }()
	err := beside(mixedReaders, l.followEnd(lat), func() error { return l.appendMixed(r, batches, cut, lat) })
	close(cut)
	if cutErr := <-snapshotter; err == nil {
		err = cutErr
	}
	if err == nil {
		err = l.checkEnds()
	}
	return err
}

func (l *lane) appendMixed(r, batches int, cut chan<- struct{}, lat *latencies) error {
	rng := rand.New(rand.NewPCG(5, uint64(r))) //nolint:gosec // G115: a count
	for range batches {
		if rng.IntN(conflictOdds) == 0 {
			if err := l.conflict(1+rng.Uint64N(conflictMax), lat); err != nil {
				return err
			}
		}
		n := 1 + int(rng.ExpFloat64()*3)
		took, err := l.append(min(n, mixedMaxBatch))
		if err != nil {
			return err
		}
		lat.note("StoreLogs", float64(took))
		if l.last.Load()-l.first.Load() >= mixedCutAt {
			select {
			case cut <- struct{}{}:
			default: // one is on its way
			}
		}
	}
	return nil
}

// conflict takes n entries off the end.
func (l *lane) conflict(n uint64, lat *latencies) error {
	last := l.last.Load()
	l.conflicts.Add(1) // before, so that no reader takes a missing entry for a lost one
	l.last.Store(last - n)
	start := time.Now()
	err := l.store.DeleteRange(last-n+1, last)
	lat.note("DeleteRange, tail", float64(time.Since(start)))
	l.term++
	return err
}

// cutFronts cuts the front off whenever told to.
func (l *lane) cutFronts(cut <-chan struct{}, lat *latencies) error {
	for range cut {
		first, last := l.first.Load(), l.last.Load()
		if last-first < mixedCutAt {
			continue
		}
		to := last - mixedKeep
		l.first.Store(to + 1)
		start := time.Now()
		if err := l.store.DeleteRange(first, to); err != nil {
			return fmt.Errorf("DeleteRange of %d to %d: %w", first, to, err)
		}
		lat.note("DeleteRange, front", float64(time.Since(start)))
	}
	return nil
}

// followEnd reads a run near the end. An entry may be missing if it has been
// deleted meanwhile, and for no other reason.
func (l *lane) followEnd(lat *latencies) burst {
	return func(rng *rand.Rand) error {
		took := make([]float64, 0, burstLen)
		conflicts, last := l.conflicts.Load(), l.last.Load()
		from := last - min(last-1, 200)
		from += rng.Uint64N(last - from + 1)
		for index := from; index <= last && len(took) < burstLen; index++ {
			var log raft.Log
			start := time.Now()
			err := l.store.GetLog(index, &log)
			took = append(took, float64(time.Since(start)))
			if errors.Is(err, raft.ErrLogNotFound) && (index < l.first.Load() || conflicts != l.conflicts.Load()) {
				break
			}
			if err != nil {
				return fmt.Errorf("GetLog of %d: %w", index, err)
			}
			if err := l.check(&log, index); err != nil {
				return err
			}
		}
		lat.note("GetLog", took...)
		return nil
	}
}

// addMixed adds the rows. Percentiles are those of all rounds together; what
// they are divided by is of the same round where a round has calls enough.
func (b *bench) addMixed(group string, outcome []series, all map[string]*latencies) {
	for _, op := range mixedOps {
		for _, p := range []struct {
			name  string
			q     float64
			least int // calls it takes to say anything
		}{{"p50", 0.5, 5}, {"p99", 0.99, 100}, {"p99.9", 0.999, 1000}} {
			var pooled, byRound []series
			enough := false
			for _, s := range outcome {
				one, each := series{name: s.name, err: s.err}, series{name: s.name, err: s.err}
				if lat := all[s.name]; lat != nil && s.err == nil {
					rounds := lat.rounds[op][len(lat.rounds[op])-b.scale.rounds:]
					one.values, one.err = percentile(slices.Concat(rounds...), p.q, p.least)
					enough = enough || one.err == nil
					for _, r := range rounds {
						if v, err := percentile(r, p.q, p.least); err == nil {
							each.values = append(each.values, v...)
						}
					}
				}
				pooled, byRound = append(pooled, one), append(byRound, each)
			}
			if !enough {
				continue
			}
			r := makeRow(group, op+", "+p.name, nanoseconds, pooled)
			for peer, ratio := range makeRow(group, "", nanoseconds, byRound).Ratios {
				if ratio.N == b.scale.rounds {
					r.Ratios[peer] = ratio
				}
			}
			b.add(r)
		}
	}
}

// percentile returns one value, or why there is none.
func percentile(took []float64, q float64, least int) ([]float64, error) {
	if len(took) < least {
		return nil, fmt.Errorf("%d calls are too few", len(took))
	}
	slices.Sort(took)
	return []float64{quantile(took, q)}, nil
}
