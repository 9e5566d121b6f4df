package jsonlstore

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// readOn reads and tells what stands behind what was read.
func (f *follower) readOn(file vfs.File) (moved bool, err error) {
	for more := true; more; {
		var r round
		if r, err = f.readRound(file); err != nil {
			return false, err
		}
		// A writer may have cut the tail and written anew while it was read.
		if n := len(f.marks); n > 0 && f.marks[n-1].path == f.path && !stands(file, f.marks[n-1]) {
			return true, nil
		}
		for _, m := range r.marks {
			if !stands(file, m) {
				return true, nil
			}
		}
		more = r.more
		if err := f.take(r); err != nil {
			return false, err
		}
		if r.stuck {
			return f.isStuck(file, r.stuckAt)
		}
	}
	f.stuck = stuck{}
	return false, nil
}

// isStuck looks at what is no entry: a write in progress is given a tick, then
// the whole log is scanned to tell damage from what a crash left.
func (f *follower) isStuck(file vfs.File, at int64) (again bool, err error) {
	now, err := f.pending(file)
	if err != nil {
		return false, err
	}
	if f.waits && !f.sealed && now != f.stuck {
		f.stuck = now
		f.stuck.scanned = false
		return false, nil
	}
	if f.stuck.scanned {
		return false, nil
	}
	scan, err := f.scan(nil)
	if err != nil {
		return false, err
	}
	f.know(scan)
	f.stuck = now
	f.stuck.scanned = f.damage[at] == nil
	return !f.stuck.scanned, nil
}

// round is a part of what is new.
type round struct {
	events []TailEvent
	marks  []mark
	first  uint64
	last   uint64
	end    int64
	resync bool
	bytes  int
	more   bool // there is more to read

	stuck   bool  // the next line is no entry
	stuckAt int64 // where it begins
}

// take tells what a round has read.
func (f *follower) take(r round) error {
	f.first, f.last, f.end, f.resync = r.first, r.last, r.end, r.resync
	f.marks = append(f.marks, r.marks...)
	f.fresh = f.fresh && len(r.marks) == 0
	if over := len(f.marks) - tailMarks; over > tailMarks {
		f.marks = append(f.marks[:0:0], f.marks[over:]...)
	}
	for _, e := range r.events {
		if err := f.tell(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) readRound(file vfs.File) (round, error) {
	r := round{first: f.first, last: f.last, end: f.end, resync: f.resync}
	lr := newLineReader(offsetReader{file, f.end}, f.size-f.end, maxLineLen(f.o.maxEntry))
	for len(r.events) < tailRound && r.bytes < tailRoundBytes {
		line, err := lr.next()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return r, fmt.Errorf("reading %s: %w", f.path, err)
		}
		line.offset += f.end
		line.end += f.end
		if r.stuck = !f.addLine(&r, line); r.stuck {
			r.stuckAt = line.offset
			return r, nil
		}
	}
	r.more = true
	return r, nil
}

// addLine adds a line to a round; false if it is no entry.
func (f *follower) addLine(r *round, line rawLine) bool {
	text := line.text
	if !line.terminated {
		text = trimUnwritten(text)
	}
	if !line.tooLong && len(trimBlanks(text)) == 0 {
		return true
	}
	damage := f.damage[line.offset]
	if damage != nil {
		r.events = append(r.events, TailEvent{Kind: TailDamage, Damage: damage})
		r.end, r.resync = line.end, true
	}
	p, err := parseLine(text)
	if line.tooLong || err != nil || r.last > 0 && p.index != r.last+1 && (!r.resync || p.index <= r.last) {
		return damage != nil
	}
	l := new(raft.Log)
	if err := p.fill(l); err != nil && !p.summed {
		return damage != nil // as bad as a line that is none
	} else if err != nil {
		e := &logstore.CorruptionError{File: f.path, Offset: line.offset, Index: p.index, Reason: err.Error(), Advice: logAdvice}
		r.events = append(r.events, TailEvent{Kind: TailDamage, Damage: e})
	} else if p.index >= r.first { // and not deleted
		r.events = append(r.events, TailEvent{Kind: TailEntry, Entry: l})
	}
	if r.first == 0 {
		r.first = p.index
	}
	r.last, r.resync = p.index, false
	r.bytes += len(text)
	r.end = line.end
	if !line.terminated { // without the blanks, in whose place the next comes
		r.end = line.end - int64(len(line.text)-len(trimUnwritten(line.text)))
	}
	r.marks = append(r.marks, markOf(f.path, p.index, line, r.end))
	return true
}

// offsetReader reads a file from base on.
type offsetReader struct {
	r    io.ReaderAt
	base int64
}

func (o offsetReader) ReadAt(p []byte, off int64) (int, error) { return o.r.ReadAt(p, off+o.base) }
