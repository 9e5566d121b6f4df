package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// getLog measures reads of a log that the page cache holds, as that of a
// running node is.
func getLog(b *bench) error {
	for _, size := range []int{128, 1024} {
		for _, p := range payloadKinds {
			wanted := map[bool]bool{}
			for _, random := range []bool{true, false} {
				wanted[random] = b.wants(fmt.Sprintf("getlog/%s/%d/%s", p.name, size, orderText(random)))
			}
			if !wanted[true] && !wanted[false] {
				continue
			}
			err := b.inDir(fmt.Sprintf("getlog/%s/%d", p.name, size), func(dir string) error {
				cs, done, err := readLanes(dir, p.make(size), b.scale.small)
				if err != nil {
					return err
				}
				defer done()
				for _, random := range []bool{true, false} {
					if !wanted[random] {
						continue
					}
					all := alternate(b.scale.rounds, cs(random, b.scale.reads))
					b.add(makeRow(fmt.Sprintf("GetLog in a log of %s entries", countText(b.scale.small)),
						fmt.Sprintf("%s, %s, %s", orderText(random), sizeText(size), p.name), nanoseconds, all,
						atMost(0.8, nameWAL), atMost(0.8, nameBolt)))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func orderText(random bool) string {
	if random {
		return "random"
	}
	return "sequential"
}

// readLanes fills a log of n entries in every store and on the disk. It
// returns what makes the contenders, and what closes the stores.
func readLanes(dir string, data payloads, n int) (cs func(random bool, reads int) []contender, done func(), err error) {
	d, err := newDisk(filepath.Join(dir, nameDisk), int64(n*data.size()), data)
	if err != nil {
		return nil, nil, err
	}
	var lanes []*lane
	reasons := map[string]error{}
	for _, k := range kinds {
		l, err := openLane(k, filepath.Join(dir, k.name), data)
		if err == nil {
			lanes = append(lanes, l)
			err = l.fillTo(n)
		}
		reasons[k.name] = err
	}
	cs = func(random bool, reads int) []contender {
		all := []contender{{nameDisk, d.readRound(random, reads)}}
		for _, l := range lanes {
			if reasons[l.kind.name] == nil {
				all = append(all, contender{l.kind.name, l.readRound(random, reads)})
			}
		}
		for name, reason := range reasons {
			if reason != nil {
				all = append(all, broken(name, reason))
			}
		}
		return all
	}
	return cs, func() {
		_ = d.close()
		for _, l := range lanes {
			_ = l.close()
		}
	}, nil
}

// readRound makes a round of GetLog calls. The entries are checked when the
// time has been taken, all of them.
func (l *lane) readRound(random bool, reads int) func(int) (float64, error) {
	logs := make([]raft.Log, reads)
	indexes := make([]uint64, reads)
	return func(r int) (float64, error) {
		first, last := l.first.Load(), l.last.Load()
		choose(indexes, r, random, first, last)
		clear(logs)
		start := time.Now()
		for i, index := range indexes {
			if err := l.store.GetLog(index, &logs[i]); err != nil {
				return 0, fmt.Errorf("GetLog of %d: %w", index, err)
			}
		}
		took := time.Since(start)
		for i, index := range indexes {
			if err := l.check(&logs[i], index); err != nil {
				return 0, err
			}
		}
		clear(logs)
		return float64(took) / float64(reads), nil
	}
}

// choose sets the indexes of a round, the same for every store.
func choose(indexes []uint64, r int, random bool, first, last uint64) {
	rng := rand.New(rand.NewPCG(4, uint64(r))) //nolint:gosec // G115: a count
	count := last - first + 1
	from := rng.Uint64N(count)
	for i := range indexes {
		if random {
			indexes[i] = first + rng.Uint64N(count)
		} else {
			indexes[i] = first + (from+uint64(i))%count
		}
	}
}

func (d *disk) readRound(random bool, reads int) func(int) (float64, error) {
	each := int64(d.data.size())
	indexes := make([]uint64, reads)
	return func(r int) (float64, error) {
		choose(indexes, r, random, 0, uint64(d.size/each)-1) //nolint:gosec // G115: a size
		start := time.Now()
		for _, index := range indexes {
			if _, err := d.file.ReadAt(make([]byte, each), int64(index)*each); err != nil { //nolint:gosec // G115: within the file
				return 0, err
			}
		}
		return float64(time.Since(start)) / float64(reads), nil
	}
}

func countText(n int) string {
	switch {
	case n%1_000_000 == 0:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n%1000 == 0:
		return fmt.Sprintf("%d k", n/1000)
	}
	return fmt.Sprint(n)
}
