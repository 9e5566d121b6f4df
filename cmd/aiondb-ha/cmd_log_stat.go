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
	tab := newLogTable(style)
	tab.size(st.File, st.Sealed, st.Bytes, st.Lines)
	tab.entries(st.Entries, st.First, st.Last, "", st.Commit)
	terms := st.Terms
	if over := len(terms) - maxTermsShown; over > 0 {
		tab.row("terms", "%d earlier ones, --json lists them", over)
		terms = terms[over:]
	}
	for _, t := range terms {
		tab.row(fmt.Sprintf("term %d", t.Term), "%s", span("index", "index", t.First, t.Last))
	}
	if st.Entries > 0 {
		tab.row("types", "%s", tally(st.Types))
	}
	if len(st.Commands) > 0 {
		tab.row("commands", "%s", tally(st.Commands))
	}
	tab.row("batches", "%d", st.Batches)
	tab.row("blank room", "%d bytes, written ahead", st.RoomBytes)
	tab.torn(st.Torn)
	tab.row("state", "%s", stateText(st.State, st.StateError, st.Entries, fmt.Sprintf(", commit index %d", st.State.CommitIndex)))
	return tab.Table
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
