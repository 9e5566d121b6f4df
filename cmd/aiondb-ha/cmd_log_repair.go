package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// maxDamageShown bounds the places of damage that people see; log verify --json
// lists them.
const maxDamageShown = 10

// repairBody is what log repair prints as JSON.
type repairBody struct {
	Needed bool            `json:"needed"`
	Done   bool            `json:"done"`
	Copies []string        `json:"copies"`
	Log    repairLogBody   `json:"log"`
	State  repairStateBody `json:"state"`
}

type repairLogBody struct {
	File             string       `json:"file"`
	Cut              bool         `json:"cut"`
	Removed          []string     `json:"removed,omitempty"`
	Indexes          []string     `json:"indexes,omitempty"`
	SecondName       string       `json:"second_name,omitempty"`
	DropBytes        int64        `json:"drop_bytes,omitempty"`
	DeletedDamage    []damageBody `json:"deleted_damage,omitempty"`
	DamageCount      int          `json:"damage_count"`
	Damage           []damageBody `json:"damage"`
	KeptLines        int          `json:"kept_lines"`
	KeptBytes        int64        `json:"kept_bytes"`
	KeptEntries      int          `json:"kept_entries"`
	KeptFirst        uint64       `json:"kept_first"`
	KeptLast         uint64       `json:"kept_last"`
	LostFirst        uint64       `json:"lost_first"`
	LostLast         uint64       `json:"lost_last"`
	LostReadable     int          `json:"lost_readable"`
	LostCommitted    uint64       `json:"lost_committed"`
	LostAcknowledged bool         `json:"lost_acknowledged"`
}

type repairStateBody struct {
	File         string `json:"file"`
	Problem      string `json:"problem"`
	NeedsReset   bool   `json:"needs_reset"`
	Reset        bool   `json:"reset"`
	Term         uint64 `json:"term"`
	RaiseTerm    bool   `json:"raise_term"`
	CommitBefore uint64 `json:"commit_before"`
	CommitAfter  uint64 `json:"commit_after"`
}

func newRepairBody(p jsonlstore.RepairPlan, done bool, copies []string) repairBody {
	l, s := p.Log, p.State
	body := repairBody{
		Needed: p.Needed(), Done: done, Copies: append([]string{}, copies...),
		Log: repairLogBody{
			File: l.File, Cut: l.Cut, Removed: l.Removed, Indexes: l.Indexes, SecondName: l.Link, DropBytes: l.DropBytes, DamageCount: l.DamageCount, Damage: []damageBody{},
			KeptLines: l.KeptLines, KeptBytes: l.KeptBytes, KeptEntries: l.KeptEntries, KeptFirst: l.KeptFirst, KeptLast: l.KeptLast,
			LostFirst: l.LostFirst, LostLast: l.LostLast, LostReadable: l.LostReadable, LostCommitted: l.LostCommitted, LostAcknowledged: l.LostAcknowledged,
		},
		State: repairStateBody{s.File, s.Problem, s.NeedsReset, s.Reset, s.Term, s.RaiseTerm, s.CommitWas, s.CommitNow},
	}
	for _, d := range l.Damage {
		body.Log.Damage = append(body.Log.Damage, damageBody{d.File, d.Line, d.Offset, d.Index, d.Reason})
	}
	for _, d := range l.DeletedDamage {
		body.Log.DeletedDamage = append(body.Log.DeletedDamage, damageBody{d.File, d.Line, d.Offset, d.Index, d.Reason})
	}
	return body
}

func setupLogRepair(fs *flag.FlagSet) runner {
	yes := fs.Bool("yes", false, "do it; without this nothing is changed")
	reset := fs.Bool("reset-state", false, "make up a damaged raft_state.json from the log, with the danger told above")
	return func(a *app, in *input) error {
		options := jsonlstore.RepairOptions{ResetState: *reset}
		if !*yes {
			p, err := jsonlstore.PlanRepair(in.args[0], options)
			if err != nil {
				return err
			}
			return a.repairReport(in, p, false, nil)
		}
		res, err := jsonlstore.Repair(in.args[0], options)
		if errors.Is(err, jsonlstore.ErrNeedsReset) {
			return fmt.Errorf("%w; `aiondb-ha log repair %s` tells what --reset-state would do, and its danger", err, term.Safe(in.args[0]))
		}
		for _, name := range res.Copies {
			if err != nil {
				err = fmt.Errorf("%w; %s is a copy of what was there", err, name)
			}
		}
		if err != nil {
			return err
		}
		return a.repairReport(in, res.RepairPlan, res.Needed(), res.Copies)
	}
}

// repairReport prints what is to be done, or was.
func (a *app) repairReport(in *input, p jsonlstore.RepairPlan, done bool, copies []string) error {
	if in.json {
		return a.object(newRepairBody(p, done, copies))
	}
	r := repairTable{Table: term.NewTable(), style: a.style(), p: p, dir: in.args[0]}
	if !p.Needed() {
		r.nothing()
		return r.Write(a.stdout, r.style)
	}
	r.log()
	r.state()
	r.result(done, copies)
	return r.Write(a.stdout, r.style)
}

type repairTable struct {
	*term.Table
	style term.Style
	p     jsonlstore.RepairPlan
	dir   string
}

func (r *repairTable) row(name, format string, args ...any) {
	r.Row(r.style.Dim(name), fmt.Sprintf(format, args...))
}

func (r *repairTable) nothing() {
	l := r.p.Log
	r.row("log", "%s: %s", term.Safe(l.File), entriesOf(l.KeptEntries, l.KeptFirst, l.KeptLast))
	if t := r.p.Torn; t != nil {
		r.row("torn tail", "line %d, byte offset %d, %d bytes, never acknowledged: it is cut off at the next start", t.Line, t.Offset, t.Bytes)
	}
	r.row("verdict", "%s", r.style.Green("nothing to repair"))
}

func entriesOf(n int, first, last uint64) string {
	if n == 0 {
		return "no entries"
	}
	return span("entry", "entries", first, last)
}

func (r *repairTable) log() {
	l := r.p.Log
	r.row("log", "%s, %d bytes, %d lines", term.Safe(l.File), l.Bytes, l.Lines)
	for i, d := range l.Damage {
		if i == maxDamageShown {
			r.row("", "%d more places, `aiondb-ha log verify --json %s` lists them", l.DamageCount-i, term.Safe(r.dir))
			break
		}
		index := ""
		if d.Index > 0 {
			index = fmt.Sprintf(", index %d", d.Index)
		}
		where := ""
		if d.File != l.File {
			where = term.Safe(d.File) + ": "
		}
		if d.Line == 0 { // it is not there
			r.row("damage", "%s%s", where, term.Safe(d.Reason))
			continue
		}
		r.row("damage", "%sline %d, byte offset %d%s: %s", where, d.Line, d.Offset, index, term.Safe(d.Reason))
	}
	if s := r.p.State; s.LowerCommit && !l.Cut {
		r.row("damage", "the log ends with index %d, but %s says that %d was committed", l.KeptLast, term.Safe(s.File), s.CommitWas)
	}
	for _, path := range l.Indexes {
		r.row("index", "%s is made anew from its part; no entry is lost by that", term.Safe(path))
	}
	for i, d := range l.DeletedDamage {
		if i == maxDamageShown {
			break
		}
		r.row("damage", "line %d, byte offset %d: %s; it is before the first entry that is not deleted", d.Line, d.Offset, term.Safe(d.Reason))
	}
	if l.DropBytes > 0 {
		r.row("taken out", "the first %d bytes, lines of deleted entries; no entry is lost by that", l.DropBytes)
	}
	if l.Link != "" {
		r.row("removed", "%s, a second name of the open part", term.Safe(l.Link))
	}
	kept := entriesOf(l.KeptEntries, l.KeptFirst, l.KeptLast)
	switch {
	case l.DropBytes > 0:
		kept = fmt.Sprintf("%s, %d bytes", kept, l.KeptBytes-l.DropBytes)
	case l.KeptLines > 0:
		kept = fmt.Sprintf("%s, %s, %d bytes", span("line", "lines", 1, l.KeptLines), kept, l.KeptBytes)
	}
	r.row("kept", "%s", kept)
	if l.Cut && l.Bytes > l.KeptBytes {
		r.row("cut off", "%s, from byte offset %d, %d bytes", span("line", "lines", min(l.KeptLines+1, l.Lines), l.Lines), l.KeptBytes, l.Bytes-l.KeptBytes)
	}
	for _, path := range l.Removed {
		r.row("set aside", "%s, as a whole", term.Safe(path))
	}
	r.lost()
}

func (r *repairTable) lost() {
	l := r.p.Log
	if !l.Cut && l.LostCommitted == 0 {
		return
	}
	lost := "an entry whose index cannot be told, and what follows it"
	switch {
	case l.LostFirst > 0:
		lost = span("entry", "entries", l.LostFirst, l.LostLast)
	case l.LostLast > 0:
		lost = fmt.Sprintf("entries up to %d", l.LostLast)
	}
	if l.LostReadable > 0 {
		lost += fmt.Sprintf(" (%d can be read, but a log has no holes)", l.LostReadable)
	}
	if l.LostCommitted > 0 {
		lost += fmt.Sprintf(", committed up to index %d", l.LostCommitted)
	}
	r.row("lost", "%s", lost)
	promise := "this node may have promised these entries to the others;"
	if l.LostAcknowledged {
		promise = "this node has promised these entries to the others;"
	}
	r.row(r.style.Red("danger"), "%s", promise)
	r.row("", "while all other nodes run, starting it with an empty directory is safer")
}

func (r *repairTable) state() {
	s := r.p.State
	if s.LowerCommit {
		r.row("state", "the commit index, %d, becomes %d", s.CommitWas, s.CommitNow)
	}
	if s.RaiseTerm {
		r.row("state", "the term becomes %d, the highest in what is cut off; the vote of that term is used up", s.Term)
	}
	if !s.NeedsReset {
		return
	}
	r.row("state", "%s cannot be used: %s", term.Safe(s.File), term.Safe(s.Problem))
	r.row("", "the log shows that the node's term is %d or higher; its votes, and other keys, cannot be known", s.Term)
	r.row("--reset-state", "makes it up: term %d, the vote of that term used up, no commit index", s.Term)
	r.row(r.style.Red("danger"), "if this node has voted in a term above %d, it can vote there once more: then there may be two leaders", s.Term)
	r.row("", "in one term, and entries that the cluster has confirmed are lost. Putting a good copy of the file back, or")
	r.row("", "starting it with an empty directory while all other nodes run, is safer.")
}

func (r *repairTable) result(done bool, copies []string) {
	for _, name := range copies {
		r.row("copy", "%s", term.Safe(name))
	}
	switch l := r.p.Log; {
	case done:
		r.row("result", "%s", r.style.Green("repaired: "+entriesOf(l.KeptEntries, l.KeptFirst, l.KeptLast)+", no damage left"))
	case r.p.State.NeedsReset && !r.p.State.Reset:
		r.row("result", "nothing was changed, and nothing will be without --reset-state")
	default:
		r.row("result", "nothing was changed: with --yes it is done, and a copy of what was there is kept beside it")
	}
}
