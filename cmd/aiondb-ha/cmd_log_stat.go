package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// maxTermsShown bounds the terms that people see; --json has all.
const maxTermsShown = 12

// statBody is what log stat prints as JSON.
type statBody struct {
	File        string         `json:"file"`
	Sealed      int            `json:"sealed_parts,omitempty"`
	Bytes       int64          `json:"bytes"`
	Lines       int            `json:"lines"`
	Entries     int            `json:"entries"`
	First       uint64         `json:"first"`
	Last        uint64         `json:"last"`
	Commit      uint64         `json:"commit"`
	Terms       []termBody     `json:"terms"`
	Types       map[string]int `json:"types"`
	Commands    map[string]int `json:"commands"`
	Batches     int            `json:"batches"`
	RoomBytes   int64          `json:"room_bytes"`
	Torn        *tornBody      `json:"torn"`
	DamageCount int            `json:"damage_count"`
	State       stateBody      `json:"state"`
}

func newStatBody(st jsonlstore.Stats) statBody {
	s := st.State
	body := statBody{
		File: st.File, Sealed: st.Sealed, Bytes: st.Bytes, Lines: st.Lines, Entries: st.Entries, First: st.First, Last: st.Last, Commit: st.Commit,
		Terms: []termBody{}, Types: st.Types, Commands: st.Commands, Batches: st.Batches, RoomBytes: st.RoomBytes, DamageCount: st.DamageCount,
		State: stateBody{s.File, s.Missing, s.CurrentTerm, s.VotedTerm, strings.ToValidUTF8(s.VotedFor, "\ufffd"), s.CommitIndex},
	}
	for _, t := range st.Terms {
		body.Terms = append(body.Terms, termBody(t))
	}
	if st.Torn != nil {
		torn := tornBody(*st.Torn)
		body.Torn = &torn
	}
	return body
}

func runLogStat(a *app, in *input) error {
	st, err := jsonlstore.Stat(in.args[0])
	if err != nil {
		return err
	}
	if in.json {
		err = a.object(newStatBody(st))
	} else {
		err = statTable(st, a.style()).Write(a.stdout, a.style())
	}
	if err == nil && st.DamageCount > 0 {
		err = fmt.Errorf("places of damage: %d; `aiondb-ha log verify %s` names them", st.DamageCount, term.Safe(in.args[0]))
	}
	return err
}

func statTable(st jsonlstore.Stats, style term.Style) *term.Table {
	tab := term.NewTable()
	row := func(name, format string, args ...any) { tab.Row(style.Dim(name), fmt.Sprintf(format, args...)) }
	row("log", "%s, %d bytes, %d lines", term.Safe(st.File), st.Bytes, st.Lines)
	if st.Sealed > 0 {
		row("sealed parts", "%d before it; bytes and lines are of all", st.Sealed)
	}
	if st.Entries == 0 {
		row("entries", "none")
	} else {
		commit := ""
		if st.Commit > 0 {
			commit = fmt.Sprintf(", committed to %d", st.Commit)
		}
		row("entries", "%d, index %d to %d%s", st.Entries, st.First, st.Last, commit)
	}
	terms := st.Terms
	if over := len(terms) - maxTermsShown; over > 0 {
		row("terms", "%d earlier ones, --json lists them", over)
		terms = terms[over:]
	}
	for _, t := range terms {
		row(fmt.Sprintf("term %d", t.Term), "%s", span("index", "index", t.First, t.Last))
	}
	if st.Entries > 0 {
		row("types", "%s", tally(st.Types))
	}
	if len(st.Commands) > 0 {
		row("commands", "%s", tally(st.Commands))
	}
	row("batches", "%d", st.Batches)
	row("blank room", "%d bytes, written ahead", st.RoomBytes)
	if t := st.Torn; t != nil {
		row("torn tail", "line %d, byte offset %d, %d bytes, never acknowledged: it is cut off at the next start", t.Line, t.Offset, t.Bytes)
	}
	row("state", "%s", stateLine(st))
	return tab
}

func stateLine(st jsonlstore.Stats) string {
	s := st.State
	commit := fmt.Sprintf("commit index %d", s.CommitIndex)
	switch {
	case st.StateError != nil:
		return term.Safe(s.File) + " is damaged: " + term.Safe(st.StateError.Reason)
	case s.Missing:
		return missingState(s.File, st.Entries)
	case s.VotedTerm == 0:
		return fmt.Sprintf("term %d, never voted, %s", s.CurrentTerm, commit)
	case s.VotedFor == "":
		return fmt.Sprintf("term %d, the vote of term %d is used up, %s", s.CurrentTerm, s.VotedTerm, commit)
	}
	return fmt.Sprintf("term %d, voted for %s in term %d, %s", s.CurrentTerm, term.Safe(s.VotedFor), s.VotedTerm, commit)
}

// tally writes counts, the largest first.
func tally(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%d %s", counts[name], term.Safe(name))
	}
	return strings.Join(parts, ", ")
}
