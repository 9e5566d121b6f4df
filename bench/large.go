package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// largeSize is the size of the payloads in large logs.
const largeSize = 128

// largeLogs measures what may grow with the log: opening, memory, truncation,
// size on disk, and the cost of appending and reading.
func largeLogs(b *bench) error {
	for _, p := range payloadKinds {
		if !b.listing && !slices.Contains(b.scale.bulk, p.name) {
			continue
		}
		l := large{bench: b, data: p.make(largeSize), group: fmt.Sprintf("A log of %s entries of %s, %s",
			countText(b.scale.large), sizeText(largeSize), p.name)}
		steps := []struct {
			name string
			do   func() error
		}{
			{"size", l.size}, {"heap", l.heap}, {"open-small", l.openSmall}, {"open", l.openLarge}, {"getlog", l.getLog},
			{"delete-front", l.deleteFront}, {"append", l.append},
			// The last one: raft-wal v0.4.0 cannot read all of a log again that was opened after a cut of its tail.
			{"delete-tail", l.deleteTail},
		}
		var wanted []func() error
		for _, s := range steps {
			name := "large/" + p.name + "/" + s.name
			if b.wants(name) {
				wanted = append(wanted, func() error {
					return b.inDir(name, func(dir string) error { l.scratch = dir; return s.do() })
				})
			}
		}
		if len(wanted) == 0 {
			continue
		}
		err := b.inDir("large/"+p.name+"/fill", func(dir string) error {
			l.dir = dir
			l.fill()
			for _, do := range wanted {
				if err := do(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// large is one set of large logs, closed between the steps that use them.
type large struct {
	*bench
	data    payloads
	group   string
	dir     string           // DIR/STORE holds the log of a store
	scratch string           // a step's own
	broken  map[string]error // by store: why there is no log of it
	written map[string]int64 // by store: bytes of heap above an empty store's, once the log was written
}

// fill writes the logs, one store after the other.
func (l *large) fill() {
	l.broken, l.written = map[string]error{}, map[string]int64{}
	for _, k := range kinds {
		if err := l.fillOne(k); err != nil {
			l.broken[k.name] = err
		}
	}
}

func (l *large) fillOne(k kind) (err error) {
	lane, err := openLane(k, filepath.Join(l.dir, k.name), l.data)
	if err != nil {
		return err
	}
	empty := heapBytes()
	if err := lane.fillTo(l.bench.scale.large); err != nil {
		_ = lane.close()
		return err
	}
	lane.logs = nil
	l.written[k.name] = heapBytes() - empty
	return lane.close()
}

// heapBytes returns what is in use on the heap.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // G115: what fits into memory
}

// each makes contenders, one for each store that has a log.
func (l *large) each(round func(k kind) func(int) (float64, error)) []contender {
	var cs []contender
	for _, k := range kinds {
		if err := l.broken[k.name]; err != nil {
			cs = append(cs, broken(k.name, err))
			continue
		}
		cs = append(cs, contender{k.name, round(k)})
	}
	return cs
}

func (l *large) report(name string, u unit, all []series, goals ...goal) {
	l.add(makeRow(l.group, name, u, all, goals...))
}

func (l *large) size() error {
	for _, allocated := range []bool{false, true} {
		label := "size of the files, per entry"
		if allocated {
			label = "room taken on disk, per entry"
		}
		l.report(label, bytesUnit, alternate(1, l.each(func(k kind) func(int) (float64, error) {
			return func(int) (float64, error) {
				n, err := diskUsage(filepath.Join(l.dir, k.name), allocated)
				return float64(n) / float64(l.bench.scale.large), err
			}
		})))
	}
	return nil
}

// diskUsage adds up the files in dir.
func diskUsage(dir string, allocated bool) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if allocated {
			total += allocatedBytes(info)
		} else {
			total += info.Size()
		}
		return nil
	})
	return total, err
}

func (l *large) heap() error {
	// The bound is 32 MiB for a million entries.
	bound := float64(32<<20) * float64(l.bench.scale.large) / 1e6
	l.report("heap above an empty store's, after writing", bytesUnit, alternate(1, l.each(func(k kind) func(int) (float64, error) {
		return func(int) (float64, error) { return float64(max(0, l.written[k.name])), nil }
	})), atMost(bound, ""))
	l.report("heap above an empty store's, after opening", bytesUnit, alternate(1, l.each(func(k kind) func(int) (float64, error) {
		return func(int) (float64, error) {
			empty, err := l.heapOf(k, filepath.Join(l.scratch, k.name))
			if err != nil {
				return 0, err
			}
			full, err := l.heapOf(k, filepath.Join(l.dir, k.name))
			return float64(max(0, full-empty)), err
		}
	})), atMost(bound, ""))
	return nil
}

// heapOf returns what opening the store in dir adds to the heap.
func (l *large) heapOf(k kind, dir string) (int64, error) {
	before := heapBytes()
	lane, err := openLane(k, dir, l.data)
	if err != nil {
		return 0, err
	}
	after := heapBytes()
	return after - before, lane.close()
}

func (l *large) openSmall() error {
	n := l.bench.scale.small
	all := alternate(l.bench.scale.opens, l.each(func(k kind) func(int) (float64, error) {
		dir := filepath.Join(l.scratch, k.name)
		lane, err := openLane(k, dir, l.data)
		if err == nil {
			err = lane.fillTo(n)
		}
		if err == nil {
			err = lane.close()
		}
		if err != nil {
			return broken(k.name, err).round
		}
		return openRound(k, dir, l.data, n)
	}))
	l.report(fmt.Sprintf("open with %s entries", countText(n)), nanoseconds, all)
	return nil
}

func (l *large) openLarge() error {
	n := l.bench.scale.large
	all := alternate(l.bench.scale.opens, l.each(func(k kind) func(int) (float64, error) {
		return openRound(k, filepath.Join(l.dir, k.name), l.data, n)
	}))
	l.report(fmt.Sprintf("open with %s entries", countText(n)), nanoseconds, all,
		atMost(2, nameWAL), atMost(float64(100*time.Millisecond), ""))
	return nil
}

// openRound opens a log of n entries, and looks at it once the time is taken.
func openRound(k kind, dir string, data payloads, n int) func(int) (float64, error) {
	return func(int) (float64, error) {
		lane := &lane{kind: k, dir: dir, data: data}
		start := time.Now()
		s, err := k.open(dir)
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		lane.store = s
		lane.first.Store(1)
		lane.last.Store(uint64(n)) //nolint:gosec // G115: a count
		if err := lane.checkEnds(); err != nil {
			_ = lane.close()
			return 0, err
		}
		return float64(took), lane.close()
	}
}

// opened opens the large logs for a step. What cannot be opened is out.
func (l *large) opened() (lanes map[string]*lane, done func()) {
	lanes = map[string]*lane{}
	for _, k := range kinds {
		if l.broken[k.name] != nil {
			continue
		}
		lane, err := openLane(k, filepath.Join(l.dir, k.name), l.data)
		if err != nil {
			l.broken[k.name] = err
			continue
		}
		lanes[k.name] = lane
	}
	return lanes, func() {
		for _, lane := range lanes {
			_ = lane.close()
		}
	}
}

func (l *large) getLog() error {
	lanes, done := l.opened()
	defer done()
	for _, random := range []bool{true, false} {
		all := alternate(l.bench.scale.rounds, l.each(func(k kind) func(int) (float64, error) {
			return lanes[k.name].readRound(random, l.bench.scale.reads)
		}))
		l.report("GetLog, "+orderText(random), nanoseconds, all, atMost(0.8, nameWAL), atMost(0.8, nameBolt))
	}
	return nil
}

// growthLen is how many entries the log has that the large one is compared
// with.
const growthLen = 1000

// append measures StoreLogs of one entry in a log of a thousand entries and in
// the large one, by turns. The two are divided within a round.
func (l *large) append() error {
	lanes, done := l.opened()
	defer done()
	sides := map[bool]func(k kind) func(int) (float64, error){
		true: func(k kind) func(int) (float64, error) {
			return appendRound(l.bench.scale.appends, 1, 0, nil, lanes[k.name].append)
		},
		false: func(k kind) func(int) (float64, error) {
			small, err := openLane(k, filepath.Join(l.scratch, k.name), l.data)
			if err == nil {
				err = small.fillTo(growthLen)
			}
			if err != nil {
				return broken(k.name, err).round
			}
			lanes["small "+k.name] = small // closed with the others
			return appendRound(l.bench.scale.appends, 1, 0, nil, small.append)
		},
	}
	small, big := l.each(sides[false]), l.each(sides[true])
	all := alternate(l.bench.scale.rounds, append(small, big...))
	smallAll, bigAll := all[:len(small)], all[len(small):]
	growth := make([]series, len(small))
	for i := range growth {
		growth[i] = series{name: smallAll[i].name, values: pairs(bigAll[i], smallAll[i]), err: smallAll[i].err}
		if growth[i].err == nil {
			growth[i].err = bigAll[i].err
		}
	}
	l.report(fmt.Sprintf("StoreLogs of 1, at %s entries", countText(growthLen)), nanoseconds, smallAll)
	l.report(fmt.Sprintf("StoreLogs of 1, at %s entries", countText(l.bench.scale.large)), nanoseconds, bigAll)
	l.report("the latter ÷ the former", plainNumber, growth, atMost(1.1, ""))
	return nil
}

// tailLen is how many entries at the end are deleted, as if a new leader had
// others.
const tailLen = 100

func (l *large) deleteTail() error {
	lanes, done := l.opened()
	defer done()
	all := alternate(l.bench.scale.rounds, l.each(func(k kind) func(int) (float64, error) {
		lane := lanes[k.name]
		return func(int) (float64, error) {
			last := lane.last.Load()
			took, err := lane.delete(last-tailLen+1, last)
			if err != nil {
				return 0, err
			}
			_, err = lane.append(tailLen)
			return float64(took), err
		}
	}))
	l.report(fmt.Sprintf("DeleteRange of the last %d", tailLen), nanoseconds, all)
	return nil
}

// deleteFront cuts the front half off, of a fresh copy in every round.
func (l *large) deleteFront() error {
	n := l.bench.scale.large
	all := alternate(l.bench.scale.cuts, l.each(func(k kind) func(int) (float64, error) {
		return func(r int) (float64, error) {
			dir := filepath.Join(l.scratch, fmt.Sprint(k.name, r))
			if err := copyDir(dir, filepath.Join(l.dir, k.name)); err != nil {
				return 0, err
			}
			lane, err := openLane(k, dir, l.data)
			if err != nil {
				return 0, err
			}
			took, err := lane.delete(1, uint64(n/2)) //nolint:gosec // G115: a count
			for range 100 {                          // what is left is still right
				if err == nil {
					first, last := lane.first.Load(), lane.last.Load()
					err = lane.readOne(first + rand.Uint64N(last-first+1))
				}
			}
			if closeErr := lane.close(); err == nil {
				err = closeErr
			}
			if err == nil {
				err = os.RemoveAll(dir)
			}
			return float64(took), err
		}
	}))
	l.report("DeleteRange of the front half", nanoseconds, all, atMost(float64(20*time.Millisecond), ""))
	return nil
}

// copyDir copies the files of a closed store, durably, so that the copy's own
// writing is over when it is used.
func copyDir(dst, src string) error {
	if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
		return err
	}
	return filepath.WalkDir(dst, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0) //nolint:gosec // G122: a directory of our own making
		if err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	})
}
