package jsonlstore

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// MaxDamageListed bounds Report.Damage; DamageCount goes on counting.
const MaxDamageListed = 1000

// verifyAttempts is how often Verify looks at damage again, in case a running
// node was cutting the log while it was read.
const verifyAttempts = 3

// Report is what Verify found in a state directory.
type Report struct {
	File   string // path of the open part of the log
	Sealed int    // how many sealed parts lie before it
	Bytes  int64  // length of all parts, without the room
	Lines  int    // how many they have, blank ones included
	// RoomBytes is what is written ahead as blanks behind the last entry.
	RoomBytes int64

	Entries     int    // good entries
	First, Last uint64 // indexes of the first and the last; 0, 0: none
	Terms       []TermSpan
	Commit      uint64 // the commit index, 0: unknown
	// Torn is what a crash, or a writer at work, left behind the last entry;
	// nil if there is nothing. It was never acknowledged.
	Torn *TornTail
	// Damage lists what is wrong, in the order of the log, up to
	// MaxDamageListed places; the state file's comes last. The index file of a sealed
	// part that is of no use is among it, though no entry is lost by that.
	Damage      []*logstore.CorruptionError
	DamageCount int

	State StateReport
}

// TermSpan is a run of entries of one term.
type TermSpan struct{ Term, First, Last uint64 }

// StateReport is what raft_state.json says.
type StateReport struct {
	File    string
	Missing bool // there is no such file
	Damaged bool // it cannot be believed: what follows is empty
	Foreign bool // as the original writes it, without a checksum
	// Torn: a crash, or a writer at work, is in the middle of a change of it, and
	// what follows is the new state, which the next start puts in its place. That
	// is no damage.
	Torn        bool
	CurrentTerm uint64
	VotedTerm   uint64 // term of the last vote, 0: none
	VotedFor    string // its candidate, as Raft's transport encodes it
	CommitIndex uint64
}

// OK tells whether nothing is damaged. A torn tail is no damage.
func (r *Report) OK() bool { return r.DamageCount == 0 }

func (r *Report) damaged(e *logstore.CorruptionError) {
	r.DamageCount++
	if len(r.Damage) < MaxDamageListed {
		r.Damage = append(r.Damage, e)
	}
}

// Verify reads everything in a state directory and checks all of it: every
// checksum, every payload, contiguity within the parts of the log and from each to the
// next, index files against their parts, and the log against the state file.
// It takes no lock and changes nothing, so it may run beside a node. An error
// means that it could not be read at all; damage is in the report.
func Verify(dir string, opts ...Option) (Report, error) {
	o, err := collect(opts)
	if err != nil {
		return Report{}, err
	}
	var report Report
	err = settled(func() (bool, error) {
		before := report
		var err error
		report, err = verifyOnce(dir, o)
		return report.OK() || sameDamage(&before, &report), err
	})
	return report, err
}

// settled has look called until it says that what it saw is no writer at work: what
// moves is that, what stays is damage.
func settled(look func() (done bool, err error)) (err error) {
	for range verifyAttempts {
		var done bool
		if done, err = look(); errors.Is(err, errMoved) {
			continue
		}
		if err != nil || done {
			return err
		}
	}
	return err
}

func sameDamage(a, b *Report) bool {
	return a.DamageCount == b.DamageCount && a.Damage[0].Error() == b.Damage[0].Error()
}

func verifyOnce(dir string, o options) (Report, error) {
	r := Report{File: filepath.Join(dir, LogFile), State: StateReport{File: filepath.Join(dir, StateFile)}}
	run, before := uint64(0), uint64(0) // the last entries without a gap between them, and the entry before the gap
	visit := func(path string, line rawLine, p *parsedLine) error {
		if r.Entries == 0 || p.index != r.Last+1 {
			run, before = p.index, r.Last
		}
		return r.addLine(path, line, p)
	}
	w := logWalk{o: o, dir: dir, visit: visit, damaged: func(e *logstore.CorruptionError) error { r.damaged(e); return nil }}
	if err := w.run(); err != nil {
		return r, err
	}
	if err := w.isStateDirectory(); err != nil {
		return r, err
	}
	r.Sealed, r.Bytes, r.Lines, r.RoomBytes = w.sizes()
	r.Torn = w.torn
	r.dropAfter(w.last, run, before)
	r.Commit = min(r.Commit, r.Last)
	r.State.fill(w.loaded, w.stateDamage)
	if e := w.commitBeyond(); e != nil {
		r.damaged(e)
	} else if w.loaded.st != nil {
		r.Commit = max(r.Commit, min(w.loaded.st.commit, r.Last))
	}
	if w.stateDamage != nil {
		r.damaged(w.stateDamage)
	}
	return r, nil
}

func (r *Report) addLine(path string, line rawLine, p *parsedLine) error {
	var l raft.Log
	if err := p.fill(&l); err != nil { // the checksum is right, and yet
		r.damaged(badPayload(path, line, p, err))
		return nil
	}
	if r.Entries == 0 {
		r.First = p.index
	}
	r.Entries++
	r.Last = p.index
	r.Commit = max(r.Commit, min(p.commit, p.index))
	if n := len(r.Terms); n > 0 && r.Terms[n-1].Term == p.term {
		r.Terms[n-1].Last = p.index
	} else {
		r.Terms = append(r.Terms, TermSpan{Term: p.term, First: p.index, Last: p.index})
	}
	return nil
}

func badPayload(path string, line rawLine, p *parsedLine, err error) *logstore.CorruptionError {
	return &logstore.CorruptionError{
		File: path, Line: line.number, Offset: line.offset, Index: p.index, Reason: err.Error(), Advice: logAdvice,
	}
}

// dropAfter takes out entries that were good by themselves but belong to a
// torn batch. That has no gap: it lies in what begins with run, with the entry before
// in front of it.
func (r *Report) dropAfter(last, run, before uint64) {
	if r.Last <= last || r.Entries == 0 {
		return
	}
	from := max(last+1, run)
	r.Entries -= int(r.Last - from + 1)
	if r.Last = last; from == run {
		r.Last = before
	}
	for n := len(r.Terms); n > 0; n-- {
		if r.Terms[n-1].First <= last {
			r.Terms[n-1].Last = min(r.Terms[n-1].Last, last)
			break
		}
		r.Terms = r.Terms[:n-1]
	}
	if r.Entries == 0 {
		r.First, r.Last = 0, 0
	}
}

func (s *StateReport) fill(l loadedState, damage *logstore.CorruptionError) {
	st := l.st
	s.Damaged, s.Torn = damage != nil, l.torn
	s.Missing = st == nil && damage == nil
	if st == nil {
		return
	}
	s.Foreign = st.foreign
	s.CommitIndex = st.commit
	// Missing keys are zero here, and a length other than 8 does not get past
	// decodeState.
	s.CurrentTerm, _ = logstore.Uint64Value(nil, st.values[logstore.KeyCurrentTerm])
	s.VotedTerm, _ = logstore.Uint64Value(nil, st.values[logstore.KeyLastVoteTerm])
	s.VotedFor = string(st.values[logstore.KeyLastVoteCand])
}

// commitBeyondLog is the damage of a log that has lost its end.
func commitBeyondLog(file string, lines int, offset int64, last, commit uint64) *logstore.CorruptionError {
	return &logstore.CorruptionError{
		File: file, Line: lines + 1, Offset: offset, Index: last + 1,
		Reason: fmt.Sprintf("the log ends with index %d, but %s says that %d was committed", last, StateFile, commit),
		Advice: logAdvice,
	}
}
