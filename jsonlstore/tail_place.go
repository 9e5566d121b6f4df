package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// place finds out where to begin.
func (f *follower) place() error {
	scan, err := f.scan(nil)
	if err != nil {
		return err
	}
	f.placed, f.first = true, scan.first
	f.goOnBehind(scan, scan.marks[:len(scan.marks)-min(f.show, len(scan.marks))])
	// What is damaged before it would otherwise not be told.
	for _, d := range scan.damage {
		if d.Index > 0 && d.Index <= f.last || d.File == f.path && d.Offset < f.end {
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
		f.last, f.end, f.path = marks[n-1].index, marks[n-1].end, marks[n-1].path
	}
	f.know(scan)
}

// know takes over where the damage is that was found.
func (f *follower) know(scan *tailScan) {
	f.damage = make(map[int64]*logstore.CorruptionError)
	for _, d := range scan.damage {
		switch {
		case d.File == f.path && d.Offset >= f.end:
			f.damage[d.Offset] = d
		case d.Line == 0 && d.Index == f.last+1 && f.damage[f.end] == nil: // what is missing should stand here
			f.damage[f.end] = d
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
func (f *follower) scan(known []mark) (scan *tailScan, err error) {
	for attempt := range verifyAttempts {
		before := scan
		if scan, err = f.scanOnce(known); errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return nil, err
		}
		// What moves is a writer at work, what stays is damage.
		if len(scan.damage) == 0 || (attempt > 0 && before != nil && len(scan.damage) == len(before.damage)) {
			break
		}
	}
	return scan, err
}

func (f *follower) scanOnce(known []mark) (*tailScan, error) {
	sums := make(map[uint64]uint32, len(known))
	for _, m := range known {
		sums[m.index] = m.sum
	}
	scan := &tailScan{}
	keep := f.show + tailMarks
	w := logWalk{
		o: f.o, dir: f.dir,
		damaged: func(e *logstore.CorruptionError) error {
			if len(scan.damage) < MaxDamageListed {
				scan.damage = append(scan.damage, e)
			}
			return nil
		},
		spoilt: func(*logstore.CorruptionError) error { return nil },
		visit: func(path string, line rawLine, p *parsedLine) error {
			if scan.first == 0 {
				scan.first = p.index
			}
			m := markOf(path, p.index, line, line.end)
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
	if err := w.run(); err != nil {
		return nil, err
	}
	ofTornBatch := func(m mark) bool { return m.index > w.last }
	scan.marks = slices.DeleteFunc(scan.marks, ofTornBatch)
	scan.matched = slices.DeleteFunc(scan.matched, ofTornBatch)
	scan.before = slices.DeleteFunc(scan.before, ofTornBatch)
	if w.last == 0 {
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
			f.path, f.sealed, f.fresh = filepath.Join(f.dir, LogFile), false, false
			f.marks, f.last, f.end, f.resync = f.marks[:n], m.index, m.end, false
			f.damage, f.stuck = nil, stuck{}
			return f.tell(TailEvent{Kind: TailCut, First: m.index + 1, Last: was})
		}
	}
	// The front was cut, or more of the tail than is remembered.
	scan, err := f.scan(f.marks)
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

// catchUp reads what stands in sealed parts behind the last entry passed, and leaves f
// in the open part.
func (f *follower) catchUp(open vfs.File) error {
	openPath := filepath.Join(f.dir, LogFile)
	n := len(f.marks)
	if n > 0 && stands(open, f.marks[n-1]) {
		if f.path != openPath || f.fresh {
			f.path, f.sealed, f.fresh, f.end, f.damage, f.stuck = openPath, false, false, f.marks[n-1].end, nil, stuck{}
		}
		return nil
	}
	sealed, err := listParts(f.o.fs, f.dir)
	if err != nil {
		return err
	}
	sealed = slices.DeleteFunc(sealed, func(p part) bool { return !p.sealed })
	i := 0
	if n > 0 {
		for i < len(sealed) && sealed[i].first <= f.last {
			i++
		}
		i-- // the part that the last entry passed should be in
	} else if f.last > 0 || f.end > 0 {
		return nil
	}
	if i < 0 || i >= len(sealed) {
		f.path, f.sealed, f.fresh = openPath, false, false
		return nil
	}
	from := int64(0)
	if n > 0 {
		from = f.marks[n-1].end
	}
	for read := false; i < len(sealed); i++ {
		p := sealed[i]
		if p.first > f.last+1 && f.last > 0 && !f.resync {
			if err := f.tellMissing(); err != nil {
				return err
			}
		}
		there, err := f.readSealed(p, from, n > 0 && !read)
		if err != nil {
			return err
		}
		if !there {
			f.fresh = false
			return nil // it was cut: goBack finds out how far
		}
		read, from = true, 0
	}
	if f.path != openPath {
		f.path, f.sealed, f.fresh, f.end, f.damage, f.stuck = openPath, false, true, 0, nil, stuck{}
	}
	return nil
}

// tellMissing is asked for where a part is not there: it tells so, unless a writer is
// at work, which removes parts one after the other.
func (f *follower) tellMissing() error {
	scan, err := f.scan(nil)
	if err != nil {
		return err
	}
	for _, d := range scan.damage {
		if d.Line == 0 && d.Index == f.last+1 {
			f.resync = true
			return f.tell(TailEvent{Kind: TailDamage, Damage: d})
		}
	}
	return fmt.Errorf("%s: %w", f.dir, errMoved)
}

// readSealed tells what stands in a sealed part from there on. If the last entry passed
// should stand in it and does not, there is false.
func (f *follower) readSealed(p part, from int64, marked bool) (there bool, err error) {
	file, err := f.o.fs.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", p.path, err)
	}
	defer file.Close() // only read from
	if marked && !stands(file, f.marks[len(f.marks)-1]) {
		return false, nil
	}
	size, err := file.Size()
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", p.path, err)
	}
	if marked && f.fresh && size-from <= roomBytes {
		if blank, err := isBlank(file, from, size); err == nil && blank {
			return true, nil // as at the last look
		}
	}
	if marked {
		f.marks[len(f.marks)-1].path = p.path // under its new name
	}
	f.path, f.sealed, f.fresh, f.end, f.size, f.damage, f.stuck = p.path, true, false, from, size, nil, stuck{}
	for range tailAttempts {
		again, err := f.readOn(file)
		if err != nil || !again {
			return true, err
		}
	}
	return true, nil
}
