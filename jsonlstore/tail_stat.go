package jsonlstore

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Stats is what a state directory holds, in numbers.
type Stats struct {
	File  string // path of the log
	Bytes int64  // its length, without the room
	Lines int    // how many it has, blank ones included

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
	for attempt := range verifyAttempts {
		before := st.DamageCount
		if st, err = statOnce(dir, o); err != nil {
			return Stats{}, err
		}
		// What moves is a writer at work, what stays is damage.
		if st.DamageCount == 0 || (attempt > 0 && st.DamageCount == before) {
			break
		}
	}
	return st, nil
}

func statOnce(dir string, o options) (Stats, error) {
	st := Stats{State: StateReport{File: filepath.Join(dir, StateFile)}}
	// The state first, as in Verify.
	loaded, err := loadState(o.fs, st.State.File)
	state := loaded.st
	if err != nil && !errors.As(err, &st.StateError) {
		return st, err
	}
	sv, err := surveyLog(o, dir)
	if err != nil {
		return st, err
	}
	if sv.missing && state == nil && st.StateError == nil {
		return st, fmt.Errorf("%s holds neither %s nor %s: not a state directory", dir, LogFile, StateFile)
	}
	st.State.fill(loaded, st.StateError)
	st.File, st.Bytes, st.Lines = sv.path, sv.size-sv.room, sv.lines
	st.Entries, st.First, st.Last, st.Terms = sv.entries, sv.first, sv.last, sv.terms
	st.Batches, st.Types, st.Commands, st.RoomBytes = sv.batches, sv.types, sv.commands, sv.room
	st.Torn, st.DamageCount = sv.torn, sv.damageCount
	st.Commit = min(sv.commit, sv.last)
	switch {
	case st.StateError != nil:
		st.DamageCount++
	case state != nil && state.commit > sv.last && !state.foreign:
		st.DamageCount++
	case state != nil:
		st.Commit = max(st.Commit, min(state.commit, sv.last))
	}
	return st, nil
}
