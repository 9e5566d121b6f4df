package jsonlstore

import (
	"errors"
	"fmt"
	"path/filepath"

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
