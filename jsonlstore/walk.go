package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// errMoved is wrapped by the error of a walk through a log that a node changed
// meanwhile, so that it cannot be told what was there.
var errMoved = errors.New("the log changes while it is read")

// walkAttempts is how often a walk is begun before it gives up on a log that changes.
const walkAttempts = 20

// logWalk goes through a log as it was at one moment, all parts in order, as Open
// would find it, and looks at every byte. Cat, Verify, Stat, Tail and Repair all use
// it. It takes no lock and changes nothing.
//
// A node may be at work: it appends to the open part, seals it, cuts parts off. What
// is appended while the walk goes on is not seen. What is cut may end the walk with
// errMoved, or look like damage; a second walk tells.
type logWalk struct {
	o   options
	dir string
	// visit is called for every good line that belongs to the log, in order, and must
	// not keep what it is given; damaged for every place of damage. An error of
	// theirs ends the walk.
	visit   func(path string, line rawLine, p *parsedLine) error
	damaged func(*logstore.CorruptionError) error
	// spoilt is called for damage by which no entry is lost: of index files, and of
	// deleted lines that still stand in the open part. nil: damaged is.
	spoilt  func(*logstore.CorruptionError) error
	endPart func() // may be nil

	loaded      loadedState
	stateDamage *logstore.CorruptionError

	parts   []walkedPart // those that belong to the log
	missing bool         // there is no log at all
	last    uint64       // index of the last good entry without a torn tail; 0: none
	torn    *TornTail    // of the open part
	lost    uint64       // entries up to here are missing in front of everything; 0: none are

	all    []part                    // that are there
	link   string                    // path of the open part under its second name, that of a sealed part; "": it has none
	rival  string                    // path of a sealed part that begins where the open one does, and is another, or behind that; "": there is none
	reopen string                    // path of the sealed part that an unfinished cut makes the open one; "": it makes none
	stuck  error                     // damage by which no entry is lost, and that Repair cannot mend; nil: there is none
	front  *logstore.CorruptionError // damage before the open part's first entry; nil: none
	ends   uint64                    // with which the part before the present one ends; 0: there is none, or it is damaged
	broken bool                      // damage was found by which entries are lost
	// Damage in front of the first entry that is not deleted: what comes behind
	// it tells whether that entry is lost.
	unclear []*logstore.CorruptionError
	open    frozenFile
	base    uint64 // index of the open part's first entry, 0: none that can be read
}

// walkedPart is a part and what was found in it.
type walkedPart struct {
	part
	entries     int
	first, last uint64 // indexes of its entries, deleted ones included
	live        int64  // where the first entry begins that is not deleted; -1: there is none
	passed      bool   // there is damage before that
	lines       int
	bytes       int64 // its length, without the room
	room        int64
	end         int64 // behind its last good line
	badIndex    error // why its index file is of no use; nil: it is good
}

// run makes the walk.
func (w *logWalk) run() error {
	parts, err := w.begin()
	if err != nil {
		return err
	}
	if w.open.file != nil {
		defer w.open.file.Close() // only read from
	}
	if w.missing = len(parts) == 0; w.missing {
		return nil
	}
	w.all = parts
	if parts, err = w.choose(parts); err != nil {
		return err
	}
	if first := w.first(); first > 0 && len(parts) > 0 {
		begins := parts[0].first
		if !parts[0].sealed {
			begins = w.base
		}
		if begins > first {
			w.lost = begins - 1
			if err := w.report(missingEntries(w.dir, first, begins-1)); err != nil {
				return err
			}
		}
	}
	for _, p := range parts {
		if err := w.walkPart(p); err != nil {
			return err
		}
		if w.endPart != nil {
			w.endPart()
		}
	}
	return w.end()
}

// first returns the index below which entries are deleted; 0: it is not known.
func (w *logWalk) first() uint64 {
	if w.loaded.st == nil {
		return 0
	}
	return w.loaded.st.first
}

// cut returns the index above which entries are deleted, if a cut is not finished.
func (w *logWalk) cut() (after uint64, cutting bool) {
	if w.loaded.st == nil || w.loaded.st.cut == nil {
		return 0, false
	}
	return *w.loaded.st.cut, true
}

func (w *logWalk) report(e *logstore.CorruptionError) error {
	w.broken = true
	return w.damaged(e)
}

// reportSpoilt reports damage by which no entry is lost.
func (w *logWalk) reportSpoilt(e *logstore.CorruptionError) error {
	if w.spoilt != nil {
		return w.spoilt(e)
	}
	return w.damaged(e)
}

// deletedAdvice is what to do about damage in lines of deleted entries.
const deletedAdvice = "no entry is lost by that, the log begins behind it: `aiondb-ha log repair DIR --yes` takes those lines out"

// stuckAdvice is what to do about it where a cut is not finished that has a sealed part
// become the open one.
const stuckAdvice = "no entry is lost by that, but a deletion cannot be finished: while all other nodes run, start the node with an empty directory"

// clearUp tells what the unclear damage is, for which next is the index of the first
// entry behind it; 0: there is none. lost tells that entries are.
func (w *logWalk) clearUp(next uint64) (lost bool, err error) {
	unclear, first := w.unclear, w.first()
	w.unclear = nil
	if next != 0 && next <= first {
		for _, e := range unclear {
			switch {
			case e.File == w.reopen:
				e.Advice = stuckAdvice
				w.stuck = e
			case filepath.Base(e.File) == LogFile:
				e.Advice = deletedAdvice
			default:
				continue // nobody reads it any more
			}
			if err := w.reportSpoilt(e); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	for i, e := range unclear {
		if e.Index > 0 && e.Index < first {
			if !lost && i == len(unclear)-1 { // the line that says so is one more that cannot be believed
				e.Index = first
			} else {
				continue
			}
		}
		lost = true
		if err := w.report(e); err != nil {
			return true, err
		}
	}
	return lost, nil
}

func missingEntries(dir string, from, to uint64) *logstore.CorruptionError {
	return &logstore.CorruptionError{
		File: partPath(dir, from), Index: from, Advice: logAdvice,
		Reason: fmt.Sprintf("the entries %d to %d are not there, and no file begins with %d", from, to, from),
	}
}

// begin opens the open part and lists the others, at a moment at which nobody was
// changing either.
func (w *logWalk) begin() ([]part, error) {
	for range walkAttempts {
		loaded, damage, err := w.loadState()
		if err != nil {
			return nil, err
		}
		w.loaded, w.stateDamage = loaded, damage
		parts, err := w.list()
		if err != nil {
			return nil, err
		}
		err = w.freezeOpen(parts)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errMoved) {
			return nil, err
		}
		again, listErr := w.list()
		after, _, stateErr := w.loadState()
		if err := errors.Join(listErr, stateErr); err != nil {
			return nil, err
		}
		if err == nil && slices.Equal(parts, again) && sameLog(loaded.st, after.st) {
			return parts, nil
		}
		if w.open.file != nil {
			if err := w.open.file.Close(); err != nil {
				return nil, err
			}
			w.open = frozenFile{}
		}
	}
	return nil, fmt.Errorf("%s: %w", w.dir, errMoved)
}

func sameLog(a, b *stableState) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.first == b.first && (a.cut == nil) == (b.cut == nil) && (a.cut == nil || *a.cut == *b.cut)
}

func (w *logWalk) loadState() (l loadedState, damage *logstore.CorruptionError, err error) {
	if l, err = loadState(w.o.fs, filepath.Join(w.dir, StateFile)); errors.As(err, &damage) {
		err = nil
	}
	return l, damage, err
}

func (w *logWalk) list() ([]part, error) {
	parts, err := listParts(w.o.fs, w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return parts, err
}

// freezeOpen opens the open part, if there is one, and looks where it ends.
func (w *logWalk) freezeOpen(parts []part) error {
	if n := len(parts); n == 0 || parts[n-1].sealed {
		return nil
	}
	path := parts[len(parts)-1].path
	file, err := w.o.fs.Open(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	if w.open, err = freeze(file); err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", path, err), file.Close())
	}
	w.base, w.front = 0, nil
	sc := scanner{
		r: w.open, size: w.open.size, file: path, maxLine: maxLineLen(w.o.maxEntry),
		damaged: func(e *logstore.CorruptionError) error { w.front = e; return errStopped },
		visit: func(_ rawLine, p *parsedLine) error {
			w.base = p.index
			return errStopped
		},
	}
	if _, err := sc.run(); err != nil && !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// choose leaves the parts that belong to the log.
func (w *logWalk) choose(parts []part) ([]part, error) {
	n := len(parts)
	open := !parts[n-1].sealed
	sealed := parts
	if open {
		sealed = parts[:n-1]
	}
	w.link, w.rival, w.reopen = "", "", ""
	if k := len(sealed); open && k > 0 && (w.base == 0 || sealed[k-1].first == w.base) {
		// The open part under a second name, until a new one is in its place.
		same, err := w.secondName(sealed[k-1])
		switch {
		case err != nil:
			return nil, err
		case same:
			w.link = sealed[k-1].path
			sealed = sealed[:k-1]
		case w.base != 0:
			w.rival = sealed[k-1].path
		}
	}
	after, cutting := w.cut()
	if k := len(sealed); k > 0 && !cutting && w.base != 0 && sealed[k-1].first > w.base {
		w.rival = sealed[k-1].path
	}
	if cutting {
		if after == 0 {
			return nil, nil
		}
		sealed = slices.DeleteFunc(slices.Clone(sealed), func(p part) bool { return p.first > after })
		open = open && (w.base != 0 && w.base <= after || len(sealed) == 0)
	}
	// A part is of no use if the next begins at or before the first entry. But which of
	// two that begin alike is the log, nobody can tell.
	for len(sealed) > 0 && sealed[0].path != w.rival {
		next := w.base
		if len(sealed) > 1 {
			next = sealed[1].first
		}
		if next == 0 || next > w.first() {
			break
		}
		sealed = sealed[1:]
	}
	if open {
		return append(slices.Clip(sealed), parts[n-1]), nil
	}
	if k := len(sealed); cutting && k > 0 {
		w.reopen = sealed[k-1].path
	}
	return sealed, nil
}

// secondName tells whether all that a sealed part holds stands in the open one.
func (w *logWalk) secondName(p part) (bool, error) {
	file, err := w.o.fs.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s: %w", p.path, errMoved)
	}
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", p.path, err)
	}
	defer file.Close() // only read from
	sealed, err := freeze(file)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", p.path, err)
	}
	a, b := make([]byte, readChunk), make([]byte, readChunk)
	if sealed.from == 0 || sealed.from > w.open.from {
		return false, nil
	}
	for at := int64(0); at < sealed.from; {
		n := min(readChunk, sealed.from-at)
		if _, err := sealed.ReadAt(a[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("reading %s: %w", p.path, err)
		}
		if _, err := w.open.ReadAt(b[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("reading %s: %w", LogFile, err)
		}
		if string(a[:n]) != string(b[:n]) {
			return false, nil
		}
		at += n
	}
	return true, nil
}

// walkPart goes through one part.
func (w *logWalk) walkPart(p part) error {
	src := w.open
	if p.sealed {
		file, err := w.o.fs.Open(p.path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", p.path, errMoved)
		}
		if err != nil {
			return fmt.Errorf("opening %s: %w", p.path, err)
		}
		defer file.Close() // only read from
		size, err := file.Size()
		if err != nil {
			return fmt.Errorf("reading %s: %w", p.path, err)
		}
		src = frozenFile{file: file, from: size, size: size}
	}
	after, cutting := w.cut()
	x := walkedPart{part: p, live: -1}
	index := &partIndex{partHead: partHead{first: p.first}, starts: newStarts(0, src.size)}
	bad, visited, run := false, uint64(0), uint64(1) // run: where the last entries begin that have no gap between them
	if p.path == w.rival {
		bad = true
		reason := fmt.Sprintf("it begins with the same index as %s, and does not hold the same", LogFile)
		if p.first > w.base {
			reason = fmt.Sprintf("a sealed part that begins behind %s, which begins with index %d", LogFile, w.base)
		}
		if err := w.report(&logstore.CorruptionError{File: p.path, Line: 1, Index: p.first, Advice: logAdvice, Reason: reason}); err != nil {
			return err
		}
	}
	damaged := func(e *logstore.CorruptionError) error {
		if visited < w.first() && (!p.sealed || p.first < w.first()) {
			if len(w.unclear) == MaxDamageListed {
				w.unclear = w.unclear[:MaxDamageListed-1]
			}
			w.unclear = append(w.unclear, e)
			return nil
		}
		bad = true
		return w.report(e)
	}
	clearUp := func(next uint64) error {
		if len(w.unclear) == 0 {
			return nil
		}
		x.passed = x.passed || slices.ContainsFunc(w.unclear, func(e *logstore.CorruptionError) bool { return e.File == p.path })
		lost, err := w.clearUp(next)
		bad = bad || lost
		return err
	}
	sc := scanner{
		r: src, size: src.size, file: p.path, maxLine: maxLineLen(w.o.maxEntry), damaged: damaged,
		visit: func(line rawLine, l *parsedLine) error {
			if err := clearUp(l.index); err != nil {
				return err
			}
			if x.entries == 0 {
				if err := w.join(p, line, l.index, bad || x.passed); err != nil {
					return err
				}
				x.first = l.index
			}
			if l.index != visited+1 {
				run = l.index
			}
			x.entries++
			visited = l.index
			index.count++
			index.starts.add(line.offset)
			index.bytes, index.maxTerm = line.end, max(index.maxTerm, l.term)
			if l.commit > 0 {
				index.mark = commitMark{index: l.index, commit: min(l.commit, l.index)}
			}
			if l.index < w.first() || cutting && l.index > after {
				return nil
			}
			if x.live < 0 {
				// Blanks before it look like lines of its batch that were never written.
				x.live = line.offset + line.skipped + int64(len(line.text)-len(bytes.TrimLeft(line.text, " ")))
			}
			return w.visit(p.path, line, l)
		},
	}
	torn, err := sc.run()
	if err != nil {
		return err
	}
	x.last, x.lines, x.bytes, x.room, x.end = sc.last, sc.lines, src.size-sc.room, sc.room, sc.end
	if visited > sc.last {
		x.entries -= int(visited - max(sc.last+1, run) + 1)
	}
	if torn != nil && p.sealed && p.path != w.reopen { // it was synced before it was sealed
		if err := damaged(&logstore.CorruptionError{
			File: p.path, Line: torn.Line, Offset: torn.Offset, Index: max(sc.last+1, p.first), Reason: torn.Reason, Advice: logAdvice,
		}); err != nil {
			return err
		}
	}
	if !p.sealed {
		if err := clearUp(0); err != nil {
			return err
		}
	}
	bad = bad || len(w.unclear) > 0 // the open part tells, if nobody can say where it begins
	if !p.sealed && !cutting {
		w.torn = torn
	}
	if x.last > 0 {
		w.last = max(w.last, min(x.last, afterOr(after, cutting))) // where parts overlap, it is lower
	}
	if w.ends = x.last; bad {
		w.ends = 0
	}
	if err := w.checkPart(&x, index, bad, torn); err != nil {
		return err
	}
	w.parts = append(w.parts, x)
	return nil
}

func afterOr(after uint64, cutting bool) uint64 {
	if cutting {
		return after
	}
	return logstore.MaxIndex
}

// join checks that a part goes on where the one before it ends.
func (w *logWalk) join(p part, line rawLine, first uint64, bad bool) error {
	named := first
	if p.sealed {
		if named = p.first; named != first && !bad {
			if err := w.report(&logstore.CorruptionError{
				File: p.path, Line: line.number, Offset: line.offset, Index: named, Advice: logAdvice,
				Reason: (&logstore.ContiguityError{Expected: named, Given: first}).Error(),
			}); err != nil {
				return err
			}
		}
	}
	switch {
	case w.ends == 0 || named == w.ends+1 || bad && !p.sealed:
		return nil
	case named > w.ends+1:
		return w.report(missingEntries(w.dir, w.ends+1, named-1))
	}
	return w.report(&logstore.CorruptionError{
		File: p.path, Line: line.number, Offset: line.offset, Index: named, Advice: logAdvice,
		Reason: fmt.Sprintf("the part before it ends with index %d", w.ends),
	})
}

// checkPart looks at what a part as a whole must be.
func (w *logWalk) checkPart(x *walkedPart, index *partIndex, bad bool, torn *TornTail) error {
	if x.entries == 0 && !bad && (x.sealed || len(w.parts) > 0 || w.link != "") {
		e := &logstore.CorruptionError{File: x.path, Line: 1, Index: x.part.first, Reason: errNoEntries.Error(), Advice: logAdvice}
		if !x.sealed {
			e.Reason = "it holds no entry, but behind a sealed part it always did"
			if torn != nil {
				e.Line, e.Offset = torn.Line, torn.Offset
				e.Reason += ": " + torn.Reason
			}
			w.torn = nil
			e.Index = w.last + 1
		}
		return w.report(e)
	}
	if !x.sealed || bad || x.path == w.reopen {
		return nil
	}
	x.badIndex = w.checkIndex(index, x)
	if x.badIndex == nil {
		return nil
	}
	if _, err := w.o.fs.Stat(x.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", x.path, errMoved)
	}
	if !errors.Is(x.badIndex, errBadIndex) && !errors.Is(x.badIndex, fs.ErrNotExist) {
		return x.badIndex
	}
	return w.reportSpoilt(&logstore.CorruptionError{
		File: indexPath(w.dir, x.part.first), Index: x.part.first, Reason: x.badIndex.Error(), Advice: indexAdvice,
	})
}

// indexAdvice is what to do about a bad index file.
const indexAdvice = "no entry is lost by that: `aiondb-ha log repair DIR --yes` makes it anew from the part"

// checkIndex compares the index file of a part with what was found in the part. Where
// lines of deleted entries are damaged, it need only be right about the others.
func (w *logWalk) checkIndex(found *partIndex, p *walkedPart) error {
	x, err := loadIndex(w.o.fs, w.dir, found.first)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the index file is not there: %w", fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	from := found.first
	if p.passed {
		from = max(from, w.first())
	}
	n := int(p.last - from + 1)
	fits := x.last() == p.last && x.bytes == found.bytes && x.maxTerm >= found.maxTerm && n <= min(x.count, found.count) &&
		(x.mark.index < from || x.mark == found.mark) // of deleted entries, too, or not at all
	for k := 1; fits && k <= n; k++ {
		fits = x.starts.at(x.count-k) == found.starts.at(found.count-k)
	}
	if !fits {
		return fmt.Errorf("%w: it does not fit the part", errBadIndex)
	}
	return nil
}

// end looks at what the log as a whole must be.
func (w *logWalk) end() error {
	after, cutting := w.cut()
	if _, err := w.clearUp(0); err != nil {
		return err
	}
	if n := len(w.all); w.all[n-1].sealed {
		return w.report(&logstore.CorruptionError{
			File: filepath.Join(w.dir, LogFile), Index: w.last + 1, Advice: logAdvice,
			Reason: fmt.Sprintf("it is not there, but older parts of the log are, such as %s", filepath.Base(w.all[n-1].path)),
		})
	}
	if cutting && after > 0 && w.front != nil && w.reopen != "" {
		// Whether this is the part to be left, or the one to be replaced, it does not say.
		return w.report(w.front)
	}
	if w.broken {
		return nil
	}
	if cutting && w.last < after {
		return w.report(missingEntries(w.dir, w.last+1, after))
	}
	if first := w.first(); first > w.last {
		e := &logstore.CorruptionError{
			File: filepath.Join(w.dir, LogFile), Line: 1, Index: w.last + 1, Advice: logAdvice,
			Reason: fmt.Sprintf("the log ends with index %d, but %s says that it begins with %d", w.last, StateFile, first),
		}
		if k := len(w.parts); k > 0 {
			e.Line, e.Offset = w.parts[k-1].lines+1, w.parts[k-1].end
		}
		return w.report(e)
	}
	return nil
}

// isStateDirectory fails if neither of the two files was there.
func (w *logWalk) isStateDirectory() error {
	if w.missing && w.loaded.st == nil && w.stateDamage == nil {
		return fmt.Errorf("%s holds neither %s nor %s: not a state directory", w.dir, LogFile, StateFile)
	}
	return nil
}

// sizes adds up the parts.
func (w *logWalk) sizes() (sealed int, bytes int64, lines int, room int64) {
	for _, p := range w.parts {
		if p.sealed {
			sealed++
		}
		bytes, lines, room = bytes+p.bytes, lines+p.lines, room+p.room
	}
	return sealed, bytes, lines, room
}

// commitBeyond is the damage of a log that ends before an index that the state file
// says was committed; nil: there is none. A state of the original may be older than
// its log, or newer.
func (w *logWalk) commitBeyond() *logstore.CorruptionError {
	st := w.loaded.st
	if st == nil || st.foreign || st.commit <= w.last {
		return nil
	}
	lines, offset := 0, int64(0)
	if n := len(w.parts); n > 0 {
		lines, offset = w.parts[n-1].lines, w.parts[n-1].bytes
	}
	return commitBeyondLog(filepath.Join(w.dir, LogFile), lines, offset, w.last, st.commit)
}

// frozenFile is a file as it was when it was looked at, though it may be appended to
// since: what stood at its end, where nothing was written yet, is remembered.
type frozenFile struct {
	file vfs.File
	from int64  // behind the last byte that was written
	tail []byte // what stood there: blanks, or zeros
	size int64
}

// maxFrozen bounds how much of that is remembered.
const maxFrozen = 4 << 20

// freeze looks for the end of what is written, from the end of the file on.
func freeze(file vfs.File) (frozenFile, error) {
	size, err := file.Size()
	if err != nil {
		return frozenFile{}, err
	}
	f := frozenFile{file: file, from: size, size: size}
	for step := int64(4 << 10); f.from > 0 && size-f.from < maxFrozen; step = min(2*step, readChunk) {
		n := min(step, f.from)
		buf := make([]byte, n, n+int64(len(f.tail)))
		k, err := file.ReadAt(buf, f.from-n)
		if err != nil && !errors.Is(err, io.EOF) {
			return frozenFile{}, err
		}
		if int64(k) < n { // cut meanwhile
			return frozenFile{}, errMoved
		}
		written := len(trimUnwritten(buf))
		f.tail = append(buf[written:], f.tail...)
		f.from -= n - int64(written)
		if written > 0 {
			break
		}
	}
	return f, nil
}

// ReadAt implements io.ReaderAt.
func (f frozenFile) ReadAt(p []byte, at int64) (n int, err error) {
	if at < f.from {
		n, err = f.file.ReadAt(p[:min(int64(len(p)), f.from-at)], at)
		if err != nil || n == len(p) {
			return n, err
		}
		at += int64(n)
	}
	if at < f.size {
		n += copy(p[n:], f.tail[at-f.from:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
