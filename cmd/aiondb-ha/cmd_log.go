package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	raftcommand "github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/logview"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore"
)

func logCommands() []command {
	return []command{
		{
			name: "log cat", args: "DIR", short: "print the Raft log of a state directory", min: 1, max: 1, data: true,
			long: "DIR is ha/node-N in a data directory. The node may be running: nothing is locked or changed.\n" +
				"Damage is named on standard error and passed over, and the exit status is 1. With --json one\n" +
				"object a line.",
			examples: []string{"aiondb-ha log cat /var/lib/aiondb/ha/node-1 --from 100", "aiondb-ha log cat --json DIR | jq -c .command"},
			setup:    setupLogCat,
		},
		{
			name: "log verify", args: "DIR", short: "check every byte of a state directory", min: 1, max: 1, data: true,
			long: "Checksums, contiguity, payloads, and the two files against each other. The node may be\n" +
				"running. Damage: exit status 1, with file, line and offset. What a crash left behind the last\n" +
				"entry (a torn tail) is no damage: it is cut off when the node starts.",
			examples: []string{"aiondb-ha log verify /var/lib/aiondb/ha/node-1", "aiondb-ha log verify --json DIR | jq .damage"},
			setup:    simple(runLogVerify),
		},
		{
			name: "log tail", args: "DIR", short: "print the end of the Raft log, and follow it", min: 1, max: 1, data: true,
			long: "The node may be running: nothing is locked or changed. With -f it goes on with what the node\n" +
				"appends until Ctrl-C, and says so when the node cuts off the end or the front of its log. With\n" +
				"--json one object a line: entries as log cat prints them, and such events as {\"event\":…}.",
			examples: []string{"aiondb-ha log tail -f /var/lib/aiondb/ha/node-1", "aiondb-ha log tail -n 100 --json DIR | jq -c .command"},
			setup:    setupLogTail,
		},
		{
			name: "log stat", args: "DIR", short: "count what is in a state directory", min: 1, max: 1, data: true,
			long: "Entries by term, type and command, appends, room written ahead, what a crash left behind, and\n" +
				"the node's term, vote and commit index. The node may be running: nothing is locked or changed.\n" +
				"Damage: exit status 1.",
			examples: []string{"aiondb-ha log stat /var/lib/aiondb/ha/node-1", "aiondb-ha log stat --json DIR | jq .commands"},
			setup:    simple(runLogStat),
		},
		{
			name: "log repair", args: "DIR", short: "show how to make a damaged log open again, and do it", min: 1, max: 1, data: true,
			long: "Cuts the log off at the first damage. Without --yes it shows what that means, and changes\n" +
				"nothing. With --yes the node must be stopped, and a copy of what is changed stays beside it.\n" +
				"\n" +
				"What is cut off may have been promised to the other nodes: a repaired node can lose what the\n" +
				"cluster has confirmed. While all other nodes run, it is safer to move the state directory\n" +
				"away and start the node empty.\n" +
				"\n" +
				"A damaged raft_state.json is not made up without --reset-state. The log shows only a lower\n" +
				"bound of the node's term, and no votes: a node that forgets a vote can vote twice in one term,\n" +
				"and then there may be two leaders.",
			examples: []string{"aiondb-ha log repair /var/lib/aiondb/ha/node-1", "aiondb-ha log repair /var/lib/aiondb/ha/node-1 --yes"},
			setup:    setupLogRepair,
		},
		logMigrateCommand(),
	}
}

func setupLogCat(fs *flag.FlagSet) runner {
	from := fs.Uint64("from", 0, "begin at `INDEX`")
	to := fs.Uint64("to", 1<<64-1, "end after `INDEX`")
	return func(a *app, in *input) error {
		out := bufio.NewWriter(a.stdout)
		damaged := 0
		for entry, err := range jsonlstore.Cat(in.args[0]) {
			if a.ctx.Err() != nil {
				return errors.Join(errors.New("interrupted"), out.Flush())
			}
			if errors.Is(err, logstore.ErrCorrupt) {
				damaged++
				if flushErr := out.Flush(); flushErr != nil { // so that the damage is told where it is
					return flushErr
				}
				fmt.Fprintln(a.stderr, "aiondb-ha: "+term.Safe(err.Error()))
				continue
			}
			if err != nil {
				return errors.Join(err, out.Flush())
			}
			if entry.Index < *from || entry.Index > *to {
				continue
			}
			if err := writeEntry(out, in, entry, a.style()); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if damaged > 0 {
			return fmt.Errorf("places of damage: %d", damaged)
		}
		return nil
	}
}

// writeEntry writes one entry on a line.
func writeEntry(out *bufio.Writer, in *input, l *raft.Log, style term.Style) error {
	line := logview.Append(nil, l)
	if in.json {
		_, err := out.Write(append(line, '\n'))
		return err
	}
	var view struct {
		Type    string
		Servers []struct{ ID, Address, Suffrage string }
	}
	if err := json.Unmarshal(line, &view); err != nil {
		return fmt.Errorf("entry %d cannot be shown: %w", l.Index, err)
	}
	what := style.Dim(view.Type)
	if c, err := raftcommand.Decode(l.Data); l.Type == raft.LogCommand && err == nil {
		what = describe(c)
	} else if len(view.Servers) > 0 {
		for i, s := range view.Servers {
			what += fmt.Sprintf("%s %s %s at %s", strings.Repeat(",", min(i, 1)), strings.ToLower(term.Safe(s.Suffrage)), term.Safe(s.ID), term.Safe(s.Address))
		}
	} else if len(l.Data) > 0 {
		what += " " + shorten(l.Data)
	}
	at := strings.Repeat(" ", len(time.DateTime))
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.Local().Format(time.DateTime)
	}
	_, err := fmt.Fprintf(out, "%10d  term %-6d %s  %s\n", l.Index, l.Term, style.Dim(at), what)
	return err
}

// describe writes a command for people.
func describe(c raftcommand.Command) string {
	switch c := c.(type) {
	case raftcommand.AddNode:
		return fmt.Sprintf("AddNode %s at %s", c.NodeID, term.Safe(c.Address))
	case raftcommand.RemoveNode:
		return fmt.Sprintf("RemoveNode %s", c.NodeID)
	case raftcommand.AssignShard:
		return fmt.Sprintf("AssignShard table %d shard %d to node %s", c.TableID, c.ShardID, c.NodeID)
	case raftcommand.TransferShard:
		return fmt.Sprintf("TransferShard table %d shard %d from node %s to node %s", c.TableID, c.ShardID, c.FromNode, c.ToNode)
	case raftcommand.UpdateConfig:
		return fmt.Sprintf("UpdateConfig %s = %s", shorten([]byte(c.Key)), shorten([]byte(c.Value)))
	case raftcommand.KvWrite:
		if c.Delete {
			return "KvWrite " + shorten(c.Key) + " deleted"
		}
		return "KvWrite " + shorten(c.Key) + " = " + shorten(c.Value)
	}
	return c.Name()
}

// shorten shows the beginning of something long, made safe to print.
func shorten(raw []byte) string {
	text := term.Safe(string(raw[:min(len(raw), maxShown)]))
	if len(raw) > maxShown {
		text += fmt.Sprintf("… (%d bytes)", len(raw))
	}
	return text
}

// verdict is what log verify found, as JSON.
type verdict struct {
	OK          bool         `json:"ok"`
	File        string       `json:"file"`
	Sealed      int          `json:"sealed_parts,omitempty"`
	Bytes       int64        `json:"bytes"`
	Lines       int          `json:"lines"`
	Entries     int          `json:"entries"`
	First       uint64       `json:"first"`
	Last        uint64       `json:"last"`
	Commit      uint64       `json:"commit"`
	Terms       []termBody   `json:"terms"`
	Torn        *tornBody    `json:"torn"`
	DamageCount int          `json:"damage_count"`
	Damage      []damageBody `json:"damage"`
	State       stateBody    `json:"state"`
}

type termBody struct {
	Term  uint64 `json:"term"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

type tornBody struct {
	Line   int    `json:"line"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	Reason string `json:"reason"`
}

type damageBody struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Offset int64  `json:"offset"`
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
}

type stateBody struct {
	File        string `json:"file"`
	Missing     bool   `json:"missing"`
	CurrentTerm uint64 `json:"current_term"`
	VotedTerm   uint64 `json:"voted_term"`
	VotedFor    string `json:"voted_for"`
	CommitIndex uint64 `json:"commit_index"`
}

func newVerdict(r jsonlstore.Report) verdict {
	v := verdict{
		OK: r.OK(), File: r.File, Sealed: r.Sealed, Bytes: r.Bytes, Lines: r.Lines, Entries: r.Entries, First: r.First, Last: r.Last, Commit: r.Commit,
		Terms: []termBody{}, DamageCount: r.DamageCount, Damage: []damageBody{},
		State: stateBody{r.State.File, r.State.Missing && stateDamage(r) == nil, r.State.CurrentTerm, r.State.VotedTerm, strings.ToValidUTF8(r.State.VotedFor, "\ufffd"), r.State.CommitIndex},
	}
	for _, t := range r.Terms {
		v.Terms = append(v.Terms, termBody(t))
	}
	if r.Torn != nil {
		torn := tornBody(*r.Torn)
		v.Torn = &torn
	}
	for _, d := range r.Damage {
		v.Damage = append(v.Damage, damageBody{d.File, d.Line, d.Offset, d.Index, d.Reason})
	}
	return v
}

// stateDamage returns what is wrong with the state file itself; nil: nothing.
func stateDamage(r jsonlstore.Report) *logstore.CorruptionError {
	for _, d := range r.Damage {
		if d.File == r.State.File {
			return d
		}
	}
	return nil
}

// runLogVerify prints the report; damage is the error.
func runLogVerify(a *app, in *input) error {
	r, err := jsonlstore.Verify(in.args[0])
	if err != nil {
		return err
	}
	if in.json {
		err = a.object(newVerdict(r))
	} else {
		err = reportTable(r, a.style()).Write(a.stdout, a.style())
	}
	if err != nil || r.OK() {
		return err
	}
	err = r.Damage[0]
	if r.DamageCount > 1 {
		err = fmt.Errorf("%w (places of damage: %d, --json lists them)", err, r.DamageCount)
	}
	return err
}

func reportTable(r jsonlstore.Report, style term.Style) *term.Table {
	tab := newLogTable(style)
	tab.size(r.File, r.Sealed, r.Bytes, r.Lines)
	terms := ""
	if len(r.Terms) > 0 {
		terms = fmt.Sprintf(", term %d to %d", r.Terms[0].Term, r.Terms[len(r.Terms)-1].Term)
	}
	tab.entries(r.Entries, r.First, r.Last, terms, r.Commit)
	tab.row("state", "%s", stateText(r.State, stateDamage(r), r.Entries, ""))
	tab.torn(r.Torn)
	if r.OK() {
		tab.row("verdict", "%s", style.Green("no damage"))
	} else {
		tab.row("verdict", "%s", style.Red(fmt.Sprintf("damaged, places: %d", r.DamageCount)))
	}
	return tab.Table
}
