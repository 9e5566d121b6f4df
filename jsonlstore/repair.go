package jsonlstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// LogRepair is what becomes of raft_log.jsonl: everything up to the first
// damage is kept, the rest is cut off.
type LogRepair struct {
	File  string
	Bytes int64 // its length, without the room
	Lines int   // how many it has

	// Cut tells whether the log is cut, at byte offset KeptBytes.
	Cut bool
	// Damage is why, in the order of the file, up to MaxDamageListed places.
	Damage      []*logstore.CorruptionError
	DamageCount int

	KeptEntries         int
	KeptFirst, KeptLast uint64 // indexes; 0, 0: none
	KeptLines           int    // number of the last line that is kept
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
}

// Needed tells whether there is anything to repair.
func (p *RepairPlan) Needed() bool {
	return p.Log.Cut || p.State.NeedsReset || p.State.next != nil
}

// ErrNeedsReset is wrapped by the error of a Repair that would have to make up
// raft_state.json and was not allowed to.
var ErrNeedsReset = errors.New("a state file is not made up unless that is asked for")

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
		if errors.Is(err, errDisagree) {
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
	loaded, err := loadState(o.fs, p.State.File)
	state := loaded.st
	var stateDamage *logstore.CorruptionError
	if err != nil && !errors.As(err, &stateDamage) {
		return p, err
	}
	sv, err := surveyLog(o, dir)
	if err != nil {
		return p, err
	}
	if sv.missing && state == nil && stateDamage == nil {
		return p, fmt.Errorf("%s holds neither %s nor %s: not a state directory", dir, LogFile, StateFile)
	}
	// Two readers of the same log must agree before anything is cut.
	report, err := verifyOnce(dir, o)
	if err != nil {
		return p, err
	}
	if report.Entries != sv.entries || report.First != sv.first || report.Last != sv.last {
		return p, fmt.Errorf("%s: %w", dir, errDisagree)
	}
	p.Log.plan(sv)
	if !p.Log.Cut {
		p.Torn = sv.torn
	}
	p.State.plan(state, stateDamage, sv, &p.Log, r.ResetState)
	p.Log.judge(sv, max(sv.commit, p.State.CommitWas))
	if report.OK() == (p.Log.Cut || stateDamage != nil || p.State.LowerCommit) {
		return p, fmt.Errorf("%s: %w", dir, errDisagree)
	}
	return p, nil
}

// plan decides where the log is cut.
func (l *LogRepair) plan(sv *survey) {
	l.Bytes, l.Lines = sv.size-sv.room, sv.lines
	l.Damage, l.DamageCount = sv.damage, sv.damageCount
	l.KeptEntries, l.KeptFirst, l.KeptLast = sv.kept.entries, sv.kept.first, sv.kept.last
	l.KeptLines, l.KeptBytes = sv.lines, l.Bytes
	if l.Cut = sv.damageCount > 0; l.Cut {
		l.KeptLines, l.KeptBytes = sv.kept.line, sv.kept.end
		l.LostReadable, l.LostReadableFirst, l.LostReadableLast = sv.behind.entries, sv.behind.first, sv.behind.last
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
func (s *StateRepair) plan(state *stableState, damage *logstore.CorruptionError, sv *survey, l *LogRepair, reset bool) {
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
	if s.LowerCommit || s.RaiseTerm {
		s.next = next
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
// more than the log holds, then the log.
func (res *RepairResult) apply(o options, now time.Time) error {
	for _, file := range []struct {
		path   string
		change bool
	}{{res.Log.File, res.Log.Cut}, {res.State.File, res.State.next != nil && !res.State.Missing}} {
		if !file.change {
			continue
		}
		name, err := keepCopy(o.fs, res.Dir, file.path, now)
		if err != nil {
			return fmt.Errorf("%w; nothing was changed", err)
		}
		res.Copies = append(res.Copies, name)
	}
	if next := res.State.next; next != nil {
		if err := replaceFile(o.fs, res.Dir, res.State.File, encodeState(next)); err != nil {
			return fmt.Errorf("replacing %s: %w", res.State.File, err)
		}
	}
	if res.Log.Cut {
		if err := cutFile(o.fs, res.Log.File, res.Log.KeptBytes); err != nil {
			return fmt.Errorf("cutting %s: %w", res.Log.File, err)
		}
	}
	return nil
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
