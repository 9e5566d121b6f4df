package jsonlstore

import (
	"path/filepath"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Stats is what a state directory holds, in numbers.
type Stats struct {
	File   string // path of the open part of the log
	Sealed int    // how many sealed parts lie before it
	Bytes  int64  // length of all parts, without the room
	Lines  int    // how many they have, blank ones included

	Entries     int
	First, Last uint64 // indexes of the first and the last; 0, 0: none
	Terms       []TermSpan
	Batches     int            // appends that the entries came in, as far as the log still shows
	Types       map[string]int // entries by type: command, noop, configuration, …
	Commands    map[string]int // of the commands, by kind: KvWrite, …; OpaqueCommand for other payloads
	Commit      uint64         // the commit index, 0: unknown
	RoomBytes   int64          // blanks written ahead for what comes next

	Torn        *TornTail // what a crash, or a writer at work, left behind the last entry; nil: nothing
	DamageCount int       // places of damage; Verify names them

	State      StateReport
	StateError *logstore.CorruptionError // raft_state.json is damaged; nil: it is not
}

// Stat counts what is in a state directory. Like Verify it takes no lock and
// changes nothing, so it may run beside a node. An error means that it could
// not be read at all.
func Stat(dir string, opts ...Option) (Stats, error) {
	o, err := collect(opts)
	if err != nil {
		return Stats{}, err
	}
	var st Stats
	err = settled(func() (bool, error) {
		before := st.DamageCount
		var err error
		st, err = statOnce(dir, o)
		return st.DamageCount == 0 || st.DamageCount == before, err
	})
	return st, err
}

func statOnce(dir string, o options) (Stats, error) {
	st := Stats{State: StateReport{File: filepath.Join(dir, StateFile)}}
	sv, err := surveyLog(o, dir)
	if err != nil {
		return st, err
	}
	w := &sv.w
	st.State.fill(w.loaded, w.stateDamage)
	st.StateError = w.stateDamage
	st.File = sv.path
	st.Sealed, st.Bytes, st.Lines, st.RoomBytes = w.sizes()
	st.Entries, st.First, st.Last, st.Terms = sv.entries, sv.first, sv.last, sv.terms
	st.Batches, st.Types, st.Commands = sv.batches, sv.types, sv.commands
	st.Torn, st.DamageCount = w.torn, sv.damageCount+len(sv.badIndexes)+len(sv.deleted)
	st.Commit = min(sv.commit, sv.last)
	if st.StateError != nil {
		st.DamageCount++
	}
	if w.commitBeyond() != nil {
		st.DamageCount++
	} else if w.loaded.st != nil {
		st.Commit = max(st.Commit, min(w.loaded.st.commit, sv.last))
	}
	return st, nil
}
