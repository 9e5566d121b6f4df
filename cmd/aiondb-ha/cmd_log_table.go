package main

import (
	"fmt"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore"
)

// logTable is a table about a state directory, with the rows that log verify
// and log stat have in common.
type logTable struct {
	*term.Table
	style term.Style
}

func newLogTable(style term.Style) logTable { return logTable{term.NewTable(), style} }

func (t logTable) row(name, format string, args ...any) {
	t.Row(t.style.Dim(name), fmt.Sprintf(format, args...))
}

func (t logTable) size(file string, sealed int, bytes int64, lines int) {
	t.row("log", "%s, %d bytes, %d lines", term.Safe(file), bytes, lines)
	if sealed > 0 {
		t.row("sealed parts", "%d before it; bytes and lines are of all", sealed)
	}
}

// entries tells of n entries; terms is what is said of their terms.
func (t logTable) entries(n int, first, last uint64, terms string, commit uint64) {
	if n == 0 {
		t.row("entries", "none")
		return
	}
	committed := ""
	if commit > 0 {
		committed = fmt.Sprintf(", committed to %d", commit)
	}
	t.row("entries", "%d, index %d to %d%s%s", n, first, last, terms, committed)
}

func (t logTable) torn(tail *jsonlstore.TornTail) {
	if tail != nil {
		t.row("torn tail", "line %d, byte offset %d, %d bytes, never acknowledged: it is cut off at the next start", tail.Line, tail.Offset, tail.Bytes)
	}
}

// stateText says what raft_state.json holds, with more behind it, beside a log
// of so many entries; damage is nil if it is whole.
func stateText(s jsonlstore.StateReport, damage *logstore.CorruptionError, entries int, more string) string {
	switch {
	case damage != nil:
		return term.Safe(s.File) + " is damaged: " + term.Safe(damage.Reason)
	case s.Missing:
		return missingState(s.File, entries)
	case s.VotedTerm == 0:
		return fmt.Sprintf("term %d, never voted%s", s.CurrentTerm, more)
	case s.VotedFor == "":
		return fmt.Sprintf("term %d, the vote of term %d is used up%s", s.CurrentTerm, s.VotedTerm, more)
	}
	return fmt.Sprintf("term %d, voted for %s in term %d%s", s.CurrentTerm, term.Safe(s.VotedFor), s.VotedTerm, more)
}

// missingState says what a state file that is not there means.
func missingState(file string, entries int) string {
	if entries == 0 {
		return term.Safe(file) + " is not there: never voted"
	}
	return term.Safe(file) + " is not there: the next start takes the term from the log, and votes in higher terms are forgotten"
}
