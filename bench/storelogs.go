package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// storeLogs measures StoreLogs: one entry and many, alone and beside readers.
func storeLogs(b *bench) error {
	shapes := []struct {
		count, size int
		goals       []goal
	}{
		{1, 128, []goal{atMost(1.05, nameWAL), atMost(0.5, nameBolt)}},
		{1, 1024, []goal{atMost(1.05, nameWAL), atMost(0.5, nameBolt)}},
		{64, 1024, []goal{atMost(1.10, nameWAL), atMost(0.4, nameBolt)}},
	}
	for _, withReaders := range []int{0, readers} {
		group := "StoreLogs"
		if withReaders > 0 {
			group = fmt.Sprintf("StoreLogs beside %d readers", withReaders)
		}
		for _, shape := range shapes {
			for _, p := range payloadKinds {
				name := fmt.Sprintf("storelogs/%s/%dx%d/readers=%d", p.name, shape.count, shape.size, withReaders)
				label := fmt.Sprintf("%d × %s, %s", shape.count, sizeText(shape.size), p.name)
				err := b.step(name, func(dir string) error {
					all, err := pairedAppends(b, dir, p.make(shape.size), shape.count, withReaders)
					if err == nil {
						b.add(makeRow(group, label, nanoseconds, all, shape.goals...))
					}
					return err
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func sizeText(size int) string {
	if size%1024 == 0 {
		return fmt.Sprintf("%d KiB", size/1024)
	}
	return fmt.Sprintf("%d B", size)
}

// pairedAppends lets all stores and the disk append in turn. A round's value
// is the median of its calls.
func pairedAppends(b *bench, dir string, data payloads, count, withReaders int) (all []series, err error) {
	calls := b.scale.appends
	if count > 1 {
		calls = max(1, calls/2)
	}
	var cs []contender
	for _, k := range kinds {
		l, err := openLane(k, filepath.Join(dir, k.name), data)
		if err != nil {
			cs = append(cs, broken(k.name, err))
			continue
		}
		defer func() { _ = l.close() }()
		if err := l.fillTo(b.scale.preload); err != nil {
			cs = append(cs, broken(k.name, err))
			continue
		}
		cs = append(cs, contender{k.name, appendRound(calls, count, withReaders, l.recent(1024), l.append)})
	}
	d, err := newDisk(filepath.Join(dir, nameDisk), max(1<<24, int64(count*data.size()*calls)), data)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.close() }()
	cs = append(cs, contender{nameDisk, appendRound(calls, count, withReaders, d.read, d.append)})
	return alternate(b.scale.rounds, cs), nil
}

// broken is a contender that cannot take part, for the reason given.
func broken(name string, reason error) contender {
	return contender{name, func(int) (float64, error) { return 0, reason }}
}

// appendFunc appends n entries durably and tells how long it took.
type appendFunc func(n int) (time.Duration, error)

// appendRound makes a round of some calls of one append function.
func appendRound(calls, count, withReaders int, read burst, app appendFunc) func(int) (float64, error) {
	return func(int) (float64, error) {
		took := make([]float64, 0, calls)
		err := beside(withReaders, read, func() error {
			for range calls {
				t, err := app(count)
				if err != nil {
					return err
				}
				took = append(took, float64(t))
			}
			return nil
		})
		return medianOf(took), err
	}
}
