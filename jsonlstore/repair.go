package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// RepairOptions is what a person has decided about a repair. The zero value
// decides nothing.
type RepairOptions struct {
	// ResetState allows a raft_state.json that is damaged, or missing beside a damaged
	// log, to be made up from the log. Votes of terms above the log's highest
	// are forgotten: the node may vote a second time in one of them.
	ResetState bool
	// Now is the time in the names of copies; zero: the present.
	Now time.Time
}

// RepairPlan says what is wrong in a state directory and what Repair does about
// it.
type RepairPlan struct {
	Dir   string
	Log   LogRepair
	State StateRepair
	// Torn is what the next Open cuts off by itself: nothing to repair. nil if
	// the log is damaged, too.
	Torn *TornTail
}

// LogRepair is what becomes of the log: everything up to the first damage is kept,
// the rest is cut off.
type LogRepair struct {
	File  string // the part that is, or becomes, the open one: raft_log.jsonl, or a sealed part that takes its name
	Bytes int64  // its length, without the room
	Lines int    // how many it has

	// Cut tells whether the log is cut: File at byte offset KeptBytes, and all of
	// Removed.
	Cut     bool
	Removed []string // parts behind File; they become their own copies
	// Link is the second name of raft_log.jsonl that a crash in the middle of sealing
	// left; it goes first. "": there is none, or nothing to do about the log.
	Link string
	// DropBytes is how much goes from the front of File, because lines of deleted
	// entries are damaged there, as DeletedDamage says. No entry is lost by that.
	DropBytes     int64
	DeletedDamage []*logstore.CorruptionError
	Indexes       []string // index files that are made anew
	// Damage is why, in the order of the file, up to MaxDamageListed places.
	Damage      []*logstore.CorruptionError
	DamageCount int

	KeptEntries         int
	KeptFirst, KeptLast uint64 // indexes, in all parts; 0, 0: none
	KeptLines           int    // number of the last line of File that is kept
	KeptBytes           int64

	// Readable entries behind the first damage: they are whole, but what comes
	// before them is not.
	LostReadable                        int
	LostReadableFirst, LostReadableLast uint64
	// LostFirst and LostLast are the indexes of everything that is lost, as far
	// as can be told; 0: nothing, or unknown.
	LostFirst, LostLast uint64
	// LostCommitted is the highest lost index that is known to be committed; 0:
	// none is.
	LostCommitted uint64
	// LostAcknowledged tells that some of the lost is known to have been
	// promised to the others. If it is false, and something is lost, that may
	// still be so.
	LostAcknowledged bool
}

// StateRepair is what becomes of raft_state.json.
type StateRepair struct {
	File    string
	Problem string // why it cannot be used; "": it can
	Missing bool   // it is not there

	// NeedsReset tells that nothing is done without RepairOptions.ResetState.
	NeedsReset bool
	// Reset: it is made up. Its term is Term, the highest in the log, and the
	// vote of that term counts as used up. Known even if Reset is not allowed.
	Reset bool
	Term  uint64
	// RaiseTerm: it is below the log's highest, which is cut off; it becomes
	// Term, with the vote used up.
	RaiseTerm bool
	// LowerCommit: its commit index is above what is left of the log.
	LowerCommit          bool
	CommitWas, CommitNow uint64

	next *stableState // what is to be written; nil: nothing
	was  *stableState // what says how far the log reaches until that is so; nil: next does
}

// Needed tells whether there is anything to repair.
func (p *RepairPlan) Needed() bool {
	return p.Log.Cut || p.Log.DropBytes > 0 || len(p.Log.Indexes) > 0 || p.State.NeedsReset || p.State.next != nil
}

// ErrNeedsReset is wrapped by the error of a Repair that would have to make up
// raft_state.json and was not allowed to.
var ErrNeedsReset = errors.New("a state file is not made up unless that is asked for")

// ErrNotRepairable is wrapped by the error about a log that cannot be cut so that
// what is left is of any use.
var ErrNotRepairable = errors.New("this log cannot be repaired")

// errDisagree is wrapped by the error about a log that looks different each time
// it is read.
var errDisagree = errors.New("the log changes while it is read: stop the node first")

// PlanRepair tells what Repair with the same options would do. It takes no lock
// and changes nothing.
func PlanRepair(dir string, r RepairOptions, opts ...Option) (RepairPlan, error) {
	o, err := collect(opts)
	if err != nil {
		return RepairPlan{}, err
	}
	var p RepairPlan
	for attempt := range verifyAttempts {
		before := p.Log
		p, err = planRepair(dir, r, o)
		if errors.Is(err, errDisagree) || errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return RepairPlan{}, err
		}
		// What moves is a writer at work, what stays is damage.
		if !p.Needed() || (attempt > 0 && p.Log.DamageCount == before.DamageCount && p.Log.KeptBytes == before.KeptBytes) {
			break
		}
	}
	return p, err
}

func planRepair(dir string, r RepairOptions, o options) (RepairPlan, error) {
	p := RepairPlan{Dir: dir, Log: LogRepair{File: filepath.Join(dir, LogFile)}, State: StateRepair{File: filepath.Join(dir, StateFile)}}
	sv, err := surveyLog(o, dir)
	if err != nil {
		return p, err
	}
	// Two readers of the same log must agree before anything is cut.
	report, err := verifyOnce(dir, o)
	if err != nil {
		return p, err
	}
	if report.Entries != sv.entries || report.First != sv.first || report.Last != sv.last {
		return p, fmt.Errorf("%s: %w", dir, errDisagree)
	}
	if to := sv.w.lost; to > 0 {
		return p, fmt.Errorf("%s: %w: the entries %d to %d, with which it begins, are not there, and what follows is of no use without them: "+
			"put the missing file back or, while all other nodes run, start the node with an empty directory", dir, ErrNotRepairable, sv.w.first(), to)
	}
	p.Log.plan(sv)
	stuck := sv.w.stuck
	if len(sv.deleted) > 0 && !p.Log.Cut && p.Log.DropBytes == 0 {
		stuck = sv.deleted[0] // there is no entry behind them to begin with
	}
	if stuck != nil {
		return p, fmt.Errorf("%w: %w", ErrNotRepairable, stuck)
	}
	for _, x := range sv.w.parts {
		if index := indexPath(dir, x.part.first); x.passed && slices.Contains(p.Log.Indexes, index) {
			return p, fmt.Errorf("%s: %w: it is of no use, and cannot be made anew, because lines of deleted entries in %s are damaged: "+
				"put the index file back or, while all other nodes run, start the node with an empty directory", index, ErrNotRepairable, x.path)
		}
	}
	if !p.Log.Cut && p.Log.DropBytes == 0 {
		p.Torn = sv.w.torn
	}
	p.State.plan(sv, &p.Log, r.ResetState)
	p.Log.judge(sv, max(sv.commit, p.State.CommitWas))
	if report.OK() == (p.Log.Cut || p.Log.DropBytes > 0 || len(p.Log.Indexes) > 0 || sv.w.stateDamage != nil || p.State.LowerCommit) {
		return p, fmt.Errorf("%s: %w", dir, errDisagree)
	}
	return p, nil
}

// plan decides where the log is cut.
func (l *LogRepair) plan(sv *survey) {
	w := &sv.w
	_, l.Bytes, l.Lines, _ = w.sizes()
	l.Damage, l.DamageCount = sv.damage, sv.damageCount
	l.KeptEntries, l.KeptFirst, l.KeptLast = sv.kept.entries, sv.kept.first, sv.kept.last
	l.KeptLines, l.KeptBytes = l.Lines, l.Bytes
	l.Cut = sv.damageCount > 0
	if l.Cut {
		l.KeptLines, l.KeptBytes = sv.kept.line, sv.kept.end
		l.LostReadable, l.LostReadableFirst, l.LostReadableLast = sv.behind.entries, sv.behind.first, sv.behind.last
		l.planParts(sv)
	}
	l.planFront(sv)
	if l.Cut || l.DropBytes > 0 {
		l.Link = w.link
	}
	for _, e := range sv.badIndexes {
		// The open part has none.
		if first, ok := parsePartName(filepath.Base(e.File), indexSuffix); ok && partPath(w.dir, first) != l.File && !slices.Contains(l.Removed, partPath(w.dir, first)) {
			l.Indexes = append(l.Indexes, e.File)
		}
	}
}

// planParts finds the part that the cut lies in, which becomes the open one, and those
// behind it.
func (l *LogRepair) planParts(sv *survey) {
	w := &sv.w
	at := sv.kept.path
	switch {
	case at != "":
	case len(w.parts) > 0:
		at = w.parts[0].path
	case len(w.all) > 0 && w.all[0].path != w.link:
		at = w.all[0].path
	default:
		at = sv.path
	}
	l.File = at
	for _, x := range w.parts {
		if x.path == at {
			l.Bytes, l.Lines = x.bytes, x.lines
		}
	}
	behind := false
	for _, p := range w.all {
		behind = behind || p.path == at
		// Not chosen, because a cut was to delete it; or it begins in the open part.
		beside := at == sv.path && p.sealed && w.base != 0 && p.first >= w.base
		if p.path != at && p.path != w.link && (behind || beside || l.KeptLast == 0) {
			l.Removed = append(l.Removed, p.path)
		}
	}
}

// planFront finds damaged lines of deleted entries in what is, or becomes, the open
// part, which Open reads from end to end.
func (l *LogRepair) planFront(sv *survey) {
	for _, x := range sv.w.parts {
		if x.path != l.File || !x.passed || x.live <= 0 || l.KeptLast == 0 || !l.Cut && x.sealed {
			continue
		}
		l.DropBytes, l.DeletedDamage = x.live, sv.deleted
		if l.Cut {
			continue
		}
		l.Bytes, l.Lines, l.KeptLines, l.KeptBytes = x.bytes, x.lines, x.lines, x.end
		for _, p := range sv.w.all {
			// A cut was to delete it, and who then looks at what begins the open part would not know.
			if p.sealed && p.path != sv.w.link && sv.w.base != 0 && p.first >= sv.w.base {
				l.Removed = append(l.Removed, p.path)
			}
		}
	}
}

// judge says what is lost, given the commit index that is known.
func (l *LogRepair) judge(sv *survey, commit uint64) {
	if l.Cut {
		l.LostFirst = l.Damage[0].Index
		if l.KeptLast > 0 {
			l.LostFirst = l.KeptLast + 1
		}
		for _, d := range l.Damage {
			l.LostLast = max(l.LostLast, d.Index)
		}
		l.LostLast = max(l.LostLast, sv.behind.last, l.LostFirst)
		l.LostAcknowledged = sv.behind.laterBatch
		if after, cutting := sv.w.cut(); cutting && l.KeptLast == after {
			l.LostFirst, l.LostLast, l.LostAcknowledged = 0, 0, false // it was deleted, if not yet removed
		}
	}
	if commit > l.KeptLast {
		if l.LostFirst == 0 && l.KeptLast > 0 {
			l.LostFirst = l.KeptLast + 1
		}
		l.LostLast = max(l.LostLast, commit)
		l.LostCommitted, l.LostAcknowledged = commit, true
	}
}

// plan decides about the state file, for a log of which l is what is left.
func (s *StateRepair) plan(sv *survey, l *LogRepair, reset bool) {
	state, damage := sv.w.loaded.st, sv.w.stateDamage
	s.Term = sv.maxTerm
	switch {
	case damage != nil:
		s.Problem = damage.Reason
	case state == nil && !l.Cut:
		s.Missing = true // Open derives it from the same log
		return
	case state == nil:
		s.Missing, s.Problem = true, "it is not there"
	default:
		s.adjust(state, l)
		return
	}
	s.NeedsReset, s.Reset = true, reset
	if reset {
		s.next = deriveState(sv.maxTerm)
	}
}

// adjust fits a good state to what is left of the log.
func (s *StateRepair) adjust(state *stableState, l *LogRepair) {
	var was StateReport
	was.fill(loadedState{st: state}, nil)
	next := &stableState{values: make(map[string][]byte), commit: min(state.commit, l.KeptLast), first: state.first, cut: state.cut}
	if l.Cut {
		next.cut = nil // what it was to delete goes anyhow
	}
	if l.KeptLast < next.first {
		next.first = 0 // nothing is left, and the next entry may have any index
	}
	changed := next.first != state.first || next.cut != state.cut
	for key, value := range state.values {
		next.values[key] = value
	}
	// A state of the original may be older than its log, or newer.
	s.LowerCommit = state.commit > l.KeptLast && (!state.foreign || l.Cut)
	s.CommitWas, s.CommitNow = state.commit, state.commit
	if s.LowerCommit {
		s.CommitNow = next.commit
	}
	if state.foreign && !l.Cut {
		s.CommitWas, s.CommitNow = 0, 0
	}
	if s.RaiseTerm = l.Cut && was.CurrentTerm < s.Term; s.RaiseTerm {
		putUint64(next.values, logstore.KeyCurrentTerm, s.Term)
		putUint64(next.values, logstore.KeyLastVoteTerm, s.Term)
		next.values[logstore.KeyLastVoteCand] = nobody
	} else {
		s.Term = was.CurrentTerm
	}
	if s.LowerCommit || s.RaiseTerm || changed {
		s.next = next
		s.was = state
	}
}

// RepairResult is what Repair did.
type RepairResult struct {
	RepairPlan
	Copies []string // the files as they were before
	After  Report   // what is there now; empty if nothing was needed
}

// Repair puts a damaged state directory into a state that opens: it cuts the log
// at the first damage and fits the state file to what is left, as PlanRepair
// says. Copies of what it changes lie beside it before it changes anything.
//
// It takes the directory's lock; the error wraps logstore.ErrInUse if another
// store holds it. Where nothing needs repair, nothing is changed or locked. A crash at
// any moment leaves a directory that is still damaged, with Repair to be
// called again, or one that is repaired; and never less than before without a
// copy.
//
// It loses entries that this node may have promised to keep. A node that can
// be emptied and join anew should not be repaired.
func Repair(dir string, r RepairOptions, opts ...Option) (res RepairResult, err error) {
	o, err := collect(opts)
	if err != nil {
		return RepairResult{}, err
	}
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	// Where there is nothing to do, not even a lock file is written.
	if res.RepairPlan, err = planRepair(dir, r, o); err != nil || !res.Needed() {
		return res, err
	}
	lock, err := o.fs.Lock(filepath.Join(dir, LockFile), fmt.Sprintf("pid %d (log repair)", os.Getpid()))
	var locked *vfs.LockedError
	switch {
	case errors.As(err, &locked):
		return RepairResult{}, &logstore.InUseError{Dir: dir, Holder: locked.Holder}
	case err != nil:
		return RepairResult{}, fmt.Errorf("locking %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Undo()) }()
	if res.RepairPlan, err = planRepair(dir, r, o); err != nil {
		return RepairResult{}, err
	}
	if res.State.NeedsReset && !res.State.Reset {
		return res, fmt.Errorf("%s: %s: %w; nothing was changed", res.State.File, res.State.Problem, ErrNeedsReset)
	}
	if !res.Needed() {
		return res, nil
	}
	if err := res.apply(o, r.Now); err != nil {
		return res, err
	}
	if res.After, err = verifyOnce(dir, o); err != nil {
		return res, fmt.Errorf("checking what was done: %w", err)
	}
	if !res.After.OK() {
		return res, fmt.Errorf("it is still damaged after the repair: %w", res.After.Damage[0])
	}
	return res, nil
}

// apply does what the plan says: copies, then the state, which must never claim
// more than the log holds, then the log. As long as parts behind the cut go, there is
// no open part, and the directory does not open. What is deleted stays so: only
// when the log has its new end does the state know of no other.
func (res *RepairResult) apply(o options, now time.Time) error {
	l, next := &res.Log, res.State.next
	if err := res.keepCopies(o, now); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	if next != nil {
		meanwhile := *next
		if was := res.State.was; was != nil {
			meanwhile.first, meanwhile.cut = was.first, was.cut
		}
		if err := res.writeState(o, &meanwhile); err != nil {
			return err
		}
	}
	if err := res.cutLog(o, now); err != nil {
		return err
	}
	for _, path := range l.Indexes {
		if err := rebuildIndex(o, res.Dir, path); err != nil {
			return fmt.Errorf("making %s anew: %w", path, err)
		}
	}
	if next != nil && res.State.was != nil && (next.first != res.State.was.first || next.cut != res.State.was.cut) {
		return res.writeState(o, next)
	}
	return nil
}

func (res *RepairResult) writeState(o options, st *stableState) error {
	if err := replaceStateOf(o.fs, res.Dir, encodeState(st)); err != nil {
		return fmt.Errorf("replacing %s: %w", res.State.File, err)
	}
	return nil
}

// cutLog leaves of the log what is kept.
func (res *RepairResult) cutLog(o options, now time.Time) error {
	l := &res.Log
	if l.Link != "" { // before the file that it leads to becomes a copy, or shorter
		if err := removePartFiles(o.fs, res.Dir, l.Link); err != nil {
			return fmt.Errorf("removing %s: %w", l.Link, err)
		}
	}
	// The open part first, and from there on backwards.
	for _, path := range slices.Backward(l.Removed) {
		if err := res.setAside(o, path, now); err != nil {
			return fmt.Errorf("setting %s aside: %w", path, err)
		}
	}
	switch {
	case l.DropBytes > 0:
		if err := dropFront(o.fs, res.Dir, l.File, l.DropBytes, l.KeptBytes); err != nil {
			return fmt.Errorf("taking damaged lines out of %s: %w", l.File, err)
		}
	case l.Cut:
		if err := cutFile(o.fs, l.File, l.KeptBytes); err != nil {
			return fmt.Errorf("cutting %s: %w", l.File, err)
		}
		if err := makeOpenPart(o.fs, res.Dir, l.File); err != nil {
			return fmt.Errorf("making %s the open part: %w", l.File, err)
		}
	}
	return nil
}

// keepCopies copies what is going to be changed. Parts that are removed become their
// own copies later.
func (res *RepairResult) keepCopies(o options, now time.Time) error {
	l := &res.Log
	var paths []string
	if l.Cut || l.DropBytes > 0 {
		paths = append(paths, l.File)
	}
	paths = append(paths, l.Indexes...)
	if res.State.next != nil && !res.State.Missing {
		paths = append(paths, res.State.File, res.State.File+tempSuffix)
	}
	for _, path := range paths {
		name, err := keepCopy(o.fs, res.Dir, path, now)
		if errors.Is(err, fs.ErrNotExist) && (path != res.State.File && path != l.File) {
			continue // an index, or a twin, that is not there
		}
		if err != nil {
			return err
		}
		res.Copies = append(res.Copies, name)
	}
	return nil
}

// setAside gives a part the name of a copy, and removes its index file.
func (res *RepairResult) setAside(o options, path string, now time.Time) error {
	name, err := freeName(o.fs, path+copySuffix+now.UTC().Format(copyTime))
	if err != nil {
		return err
	}
	if err := o.fs.Rename(path, name); err != nil {
		return err
	}
	res.Copies = append(res.Copies, name)
	if first, ok := parsePartName(filepath.Base(path), partSuffix); ok {
		if err := removeIfThere(o.fs, indexPath(res.Dir, first)); err != nil {
			return err
		}
	}
	return o.fs.SyncDir(res.Dir)
}

// removePartFiles removes a sealed part and its index file.
func removePartFiles(fsys vfs.FS, dir, path string) error {
	first, ok := parsePartName(filepath.Base(path), partSuffix)
	if !ok {
		return fmt.Errorf("%s is no sealed part", path)
	}
	if err := errors.Join(removeIfThere(fsys, indexPath(dir, first)), removeIfThere(fsys, path)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// dropFront has the bytes [from, to) of a part be the open part.
func dropFront(fsys vfs.FS, dir, path string, from, to int64) error {
	open := filepath.Join(dir, LogFile)
	temp := open + copyTemp
	src, err := fsys.Open(path)
	if err != nil {
		return err
	}
	defer src.Close() // only read from
	file, err := createAnew(fsys, temp)
	if err != nil {
		return err
	}
	if err = copyRange(file, src, from, to); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = fsys.Rename(temp, open)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(fsys, temp))
	}
	if err := fsys.SyncDir(dir); err != nil || path == open {
		return err
	}
	// It begins before the first entry, and the open part no later: it is of no use.
	return removePartFiles(fsys, dir, path)
}

// makeOpenPart gives a part the open part's name, unless it has it.
func makeOpenPart(fsys vfs.FS, dir, path string) error {
	first, ok := parsePartName(filepath.Base(path), partSuffix)
	if !ok {
		return nil
	}
	if err := removeIfThere(fsys, indexPath(dir, first)); err != nil {
		return err
	}
	if err := fsys.Rename(path, filepath.Join(dir, LogFile)); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// rebuildIndex makes the index file of a sealed part anew.
func rebuildIndex(o options, dir, path string) error {
	first, ok := parsePartName(filepath.Base(path), indexSuffix)
	if !ok {
		return fmt.Errorf("%s is no index file", path)
	}
	x, err := scanPart(o.fs, part{path: partPath(dir, first), first: first, sealed: true}, maxLineLen(o.maxEntry))
	if err != nil {
		return err
	}
	if _, err := writeIndex(o.fs, dir, x); err != nil {
		return err
	}
	return o.fs.SyncDir(dir)
}

// cutFile leaves the first size bytes of a file.
func cutFile(fsys vfs.FS, path string, size int64) error {
	file, err := fsys.OpenReadWrite(path)
	if err != nil {
		return err
	}
	err = file.Truncate(size)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
