package jsonlstore

import (
	"fmt"
	"slices"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// place finds out where to begin.
func (f *follower) place(file vfs.File) error {
	scan, err := f.scan(file, nil)
	if err != nil {
		return err
	}
	f.placed, f.first = true, scan.first
	f.goOnBehind(scan, scan.marks[:len(scan.marks)-min(f.show, len(scan.marks))])
	// What is damaged before it would otherwise not be told.
	for _, d := range scan.damage {
		if d.Offset < f.end {
			if err := f.tell(TailEvent{Kind: TailDamage, Damage: d}); err != nil {
				return err
			}
		}
	}
	return nil
}

// goOnBehind has f read on behind the last of marks, or from the front.
func (f *follower) goOnBehind(scan *tailScan, marks []mark) {
	f.marks, f.last, f.end, f.resync = slices.Clone(marks), 0, 0, false
	if n := len(marks); n > 0 {
		f.last, f.end = marks[n-1].index, marks[n-1].end
	}
	f.know(scan)
}

// know takes over where the damage is that was found.
func (f *follower) know(scan *tailScan) {
	f.damage = make(map[int64]*logstore.CorruptionError)
	for _, d := range scan.damage {
		if d.Offset >= f.end {
			f.damage[d.Offset] = d
		}
	}
	f.stuck = stuck{}
}

// tailScan is what a walk through the whole log found.
type tailScan struct {
	first  uint64
	marks  []mark // of the last entries
	damage []*logstore.CorruptionError

	// Of the entries that were known:
	matched []mark // those that are still there, maybe elsewhere in the file
	before  []mark // the one before the first of them, if there is one
}

// scan walks through the log; known are marks of entries read before.
func (f *follower) scan(file vfs.File, known []mark) (scan *tailScan, err error) {
	for attempt := range verifyAttempts {
		before := scan
		if scan, err = f.scanOnce(file, known); err != nil {
			return nil, err
		}
		// What moves is a writer at work, what stays is damage.
		if len(scan.damage) == 0 || (attempt > 0 && len(scan.damage) == len(before.damage)) {
			break
		}
	}
	return scan, nil
}

func (f *follower) scanOnce(file vfs.File, known []mark) (*tailScan, error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.path, err)
	}
	sums := make(map[uint64]uint32, len(known))
	for _, m := range known {
		sums[m.index] = m.sum
	}
	scan := &tailScan{}
	keep := f.show + tailMarks
	sc := scanner{
		r: file, size: size, file: f.path, maxLine: maxLineLen(f.o.maxEntry),
		damaged: func(e *logstore.CorruptionError) error {
			if len(scan.damage) < MaxDamageListed {
				scan.damage = append(scan.damage, e)
			}
			return nil
		},
		visit: func(line rawLine, p *parsedLine) error {
			if scan.first == 0 {
				scan.first = p.index
			}
			m := markOf(p.index, line, line.end)
			if sum, ok := sums[m.index]; ok && sum == m.sum {
				scan.matched = append(scan.matched, m)
			}
			if len(known) > 0 && m.index < known[0].index {
				scan.before = append(scan.before[:0], m)
			}
			if len(scan.marks) == 2*keep {
				scan.marks = append(scan.marks[:0], scan.marks[keep:]...)
			}
			scan.marks = append(scan.marks, m)
			return nil
		},
	}
	if _, err := sc.run(); err != nil {
		return nil, err
	}
	ofTornBatch := func(m mark) bool { return m.index > sc.last }
	scan.marks = slices.DeleteFunc(scan.marks, ofTornBatch)
	scan.matched = slices.DeleteFunc(scan.matched, ofTornBatch)
	scan.before = slices.DeleteFunc(scan.before, ofTornBatch)
	if sc.last == 0 {
		scan.first = 0
	}
	return scan, nil
}

// goBack finds the place to read on from when the last entry read is no longer
// where it was.
func (f *follower) goBack(file vfs.File) error {
	was := f.last
	for n := len(f.marks) - 1; n > 0; n-- {
		if m := f.marks[n-1]; stands(file, m) { // the tail was cut
			f.marks, f.last, f.end, f.resync = f.marks[:n], m.index, m.end, false
			f.damage, f.stuck = nil, stuck{}
			return f.tell(TailEvent{Kind: TailCut, First: m.index + 1, Last: was})
		}
	}
	// The front was cut, or more of the tail than is remembered.
	scan, err := f.scan(file, f.marks)
	if err != nil {
		return err
	}
	first := f.first
	f.first = scan.first
	if len(scan.matched) > 0 {
		f.goOnBehind(scan, scan.matched)
	} else {
		// Nothing of what is remembered is left; what comes before that is taken
		// to be as it was.
		f.goOnBehind(scan, scan.before)
	}
	if first > 0 && f.first > first {
		if err := f.tell(TailEvent{Kind: TailFrontCut, First: f.first}); err != nil {
			return err
		}
	}
	switch {
	case f.last > 0 && f.last < was:
		return f.tell(TailEvent{Kind: TailCut, First: f.last + 1, Last: was})
	case f.last == 0 && f.first <= was: // including an empty log
		return f.tell(TailEvent{Kind: TailCut, First: max(first, f.first), Last: was})
	}
	return nil
}
