package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/aiondb/aiondb-ha/logstore"
)

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
	if p.sealed { // its name tells what should stand in front of it
		if _, err := w.clearUp(p.first); err != nil {
			return err
		}
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
	case w.ends == 0 || named == w.ends+1:
		return nil
	case named > w.ends+1:
		if bad && !p.sealed { // what is missing is what is damaged
			return nil
		}
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
	n := 0
	if from <= p.last {
		n = int(p.last - from + 1) //nolint:gosec // G115: at most as many as lines were read
	}
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
