package jsonlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// TailPollInterval is how often a Tail that follows looks at the file, unless
// its options bring their own ticks. A look at a log that did not change reads
// its last line and one sector.
const TailPollInterval = 250 * time.Millisecond

// TailOptions says what Tail shows. The zero value shows nothing but damage.
type TailOptions struct {
	Last   int  // begin with that many of the last entries
	Follow bool // then go on with what happens, until the context ends
	// Ticks has a following Tail look again with every value; nil: every
	// TailPollInterval.
	Ticks <-chan time.Time
}

// TailKind says what a TailEvent is about.
type TailKind uint8

// The kinds of events.
const (
	TailEntry    TailKind = iota // Entry is the next entry
	TailDamage                   // Damage stands where the next entry should
	TailCut                      // entries First to Last, shown or passed over before, were cut off the end
	TailFrontCut                 // the log begins with index First now, later than before
)

// TailEvent is one thing that Tail tells.
type TailEvent struct {
	Kind        TailKind
	Entry       *raft.Log // belongs to the caller
	Damage      *logstore.CorruptionError
	First, Last uint64
}

// ErrTailGone is wrapped by the last error of a Tail whose directory vanished.
var ErrTailGone = errors.New("the state directory is gone: there is nothing more to follow")

// Tail yields the last entries of the log in a state directory and, if it is to
// follow, then what a running node does to it. It takes no lock and changes
// nothing. It sees what is in the file, which may be a little more than what the
// node has acknowledged; what is taken back is told as a TailCut.
//
// It ends when the context ends, without an error, or with one as the last
// thing it yields: it wraps ErrTailGone if the directory vanished. A
// directory without a log is waited for when following.
func Tail(ctx context.Context, dir string, t TailOptions, opts ...Option) iter.Seq2[TailEvent, error] {
	return func(yield func(TailEvent, error) bool) {
		o, err := collect(opts)
		if err == nil {
			err = newFollower(o, dir, t, func(e TailEvent) error {
				if ctx.Err() != nil || !yield(e, nil) {
					return errStopped
				}
				return nil
			}).run(ctx, t)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(TailEvent{}, err)
		}
	}
}

// tailMarks bounds how many entries a follower remembers: so far back it finds
// out how much of the tail was cut without reading the whole log again.
const tailMarks = 1024

// tailRound and tailRoundBytes bound how much is read before it is told.
const (
	tailRound      = 256
	tailRoundBytes = 4 << 20
)

// tailAttempts is how often a part that a writer is changing is read again
// before the next tick.
const tailAttempts = 3

// tailPending bounds how much of what is no entry is compared with what stood
// there at the last look, in bytes.
const tailPending = 1 << 20

// mark is the place of an entry, and what stood there.
type mark struct {
	index       uint64
	offset, end int64
	sum         uint32
}

// follower knows how far it has read, and sees at each look what became of it.
//
// What it has read is still there as long as the line of the last entry is: a
// writer that cuts the tail and writes anew puts another line there, and one
// that cuts the front moves it.
type follower struct {
	o     options
	dir   string
	path  string
	show  int
	waits bool // for a log that is not there
	tell  func(TailEvent) error

	placed bool                                // the start was found
	first  uint64                              // of the log; 0: it is empty
	last   uint64                              // index of the last entry passed; 0: none
	end    int64                               // where to read on
	resync bool                                // behind damage: any higher index may follow
	marks  []mark                              // of entries up to last, the newest at the end
	damage map[int64]*logstore.CorruptionError // places of damage from end on, by offset

	size  int64 // of the file at the last look
	stuck stuck // what stands at end and is no entry
}

func newFollower(o options, dir string, t TailOptions, tell func(TailEvent) error) *follower {
	return &follower{o: o, dir: dir, path: filepath.Join(dir, LogFile), show: max(t.Last, 0), waits: t.Follow, tell: tell}
}

// stuck describes bytes that are no entry: a write in progress, what is left of
// one, or damage.
type stuck struct {
	size    int64
	sum     uint32
	scanned bool // the whole log was looked at, and this is no damage
}

func (f *follower) run(ctx context.Context, t TailOptions) error {
	if err := f.look(); err != nil || !t.Follow {
		return err
	}
	ticks := t.Ticks
	if ticks == nil {
		ticker := time.NewTicker(TailPollInterval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-ticks:
			if !open {
				return nil
			}
		}
		if err := f.look(); err != nil {
			return err
		}
	}
}

// look tells what has happened since the last look.
func (f *follower) look() error {
	file, err := f.o.fs.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := f.o.fs.Stat(f.dir); f.placed && errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", f.dir, ErrTailGone)
		} else if statErr == nil && f.waits {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", f.path, err)
	}
	defer file.Close() // only read from
	for range tailAttempts {
		moved, err := f.lookAt(file)
		if err != nil || !moved {
			return err
		}
	}
	return nil // the next tick will see
}

// lookAt looks at the open log; moved tells that it changed meanwhile.
func (f *follower) lookAt(file vfs.File) (moved bool, err error) {
	if !f.placed {
		if err := f.place(file); err != nil {
			return false, err
		}
	}
	size, err := file.Size()
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", f.path, err)
	}
	grown := size != f.size
	f.size = size
	if n := len(f.marks); n > 0 && !stands(file, f.marks[n-1]) {
		if err := f.goBack(file); err != nil {
			return false, err
		}
	} else if n == 0 && size < f.end {
		f.end, f.damage, f.stuck = 0, nil, stuck{}
	} else if quiet, err := f.quiet(file, grown); err != nil || quiet {
		return false, err
	}
	return f.readOn(file)
}

// quiet tells whether nothing new stands behind what was read.
func (f *follower) quiet(file vfs.File, grown bool) (bool, error) {
	if f.stuck != (stuck{}) {
		now, err := f.pending(file)
		return err == nil && f.stuck.scanned && now == f.stuck, err
	}
	if grown {
		return false, nil
	}
	var probe [vfs.SectorSize]byte
	n, err := file.ReadAt(probe[:], f.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading %s: %w", f.path, err)
	}
	return len(trimTail(probe[:n])) == 0, nil
}

// pending describes what stands behind what was read.
func (f *follower) pending(file vfs.File) (stuck, error) {
	now := stuck{size: f.size, scanned: f.stuck.scanned}
	buf := make([]byte, max(0, min(tailPending, f.size-f.end)))
	n, err := file.ReadAt(buf, f.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return now, fmt.Errorf("reading %s: %w", f.path, err)
	}
	now.sum = lineSum(buf[:n])
	return now, nil
}

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
			m := markOf(p.index, line.offset+line.skipped, line.end, line.text)
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

// readOn reads and tells what stands behind what was read.
func (f *follower) readOn(file vfs.File) (moved bool, err error) {
	for more := true; more; {
		var r round
		if r, err = f.readRound(file); err != nil {
			return false, err
		}
		// A writer may have cut the tail and written anew while it was read.
		if n := len(f.marks); n > 0 && !stands(file, f.marks[n-1]) {
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
	if f.waits && now != f.stuck {
		f.stuck = now
		f.stuck.scanned = false
		return false, nil
	}
	if f.stuck.scanned {
		return false, nil
	}
	scan, err := f.scan(file, nil)
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
	if !line.tooLong {
		text = trimTail(text)
		if len(text) == 0 {
			return true
		}
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
	if err := p.fill(l); err != nil {
		e := &logstore.CorruptionError{File: f.path, Offset: line.offset, Index: p.index, Reason: err.Error(), Advice: logAdvice}
		r.events = append(r.events, TailEvent{Kind: TailDamage, Damage: e})
	} else {
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
	r.marks = append(r.marks, markOf(p.index, line.offset+line.skipped, r.end, line.text))
	return true
}

func markOf(index uint64, offset, end int64, text []byte) mark {
	return mark{index: index, offset: offset, end: end, sum: lineSum(text)}
}

// stands tells whether an entry is where it was.
func stands(file io.ReaderAt, m mark) bool {
	buf := make([]byte, m.end-m.offset)
	n, _ := file.ReadAt(buf, m.offset) // what cannot be read is not there
	return n == len(buf) && lineSum(buf) == m.sum
}

// lineSum is the sum of a line without the blanks around it.
func lineSum(text []byte) uint32 { return crc32.Checksum(trimTail(text), castagnoli) }

// trimTail cuts off blanks, and what a disk shows that never wrote.
func trimTail(text []byte) []byte { return bytes.Trim(text, " \t\r\n\x00") }

// offsetReader reads a file from base on.
type offsetReader struct {
	r    io.ReaderAt
	base int64
}

func (o offsetReader) ReadAt(p []byte, off int64) (int, error) { return o.r.ReadAt(p, off+o.base) }
