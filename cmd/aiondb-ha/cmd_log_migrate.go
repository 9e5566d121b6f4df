package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/kinds"
)

func logMigrateCommand() command {
	return command{
		name: "log migrate", args: "", short: "copy a Raft log into another kind of store", data: true,
		long: "KIND is jsonl, wal (a directory of hashicorp/raft-wal) or boltdb (a file of hashicorp/raft-boltdb,\n" +
			"version 1 or 2). Every entry and every stable value is copied, then read again and compared. The\n" +
			"source is not changed, and must not be in use. The target must not exist; until it is complete\n" +
			"its name ends in " + kinds.PartialSuffix + ", and a migration that was interrupted goes on where it was.\n" +
			"\n" +
			"Instead of KIND:PATH, --from takes a data directory of Consul, Nomad, Vault or rqlite, and says what\n" +
			"it found there. Snapshots are not part of the log: they stay where they are.",
		examples: []string{
			"aiondb-ha log migrate --from boltdb:/var/lib/app/raft.db --to jsonl:/var/lib/app/raft",
			"aiondb-ha log migrate --from jsonl:/var/lib/app/raft --to wal:/var/lib/app/wal",
			"aiondb-ha log migrate --from /opt/consul --to jsonl:/tmp/consul-log",
		},
		setup: setupLogMigrate,
	}
}

func setupLogMigrate(fs *flag.FlagSet) runner {
	from := fs.String("from", "", "copy the log at `KIND:PATH`")
	to := fs.String("to", "", "make the log at `KIND:PATH`")
	index := fs.Uint64("from-index", 0, "leave out the entries before `INDEX`, which a snapshot must cover")
	return func(a *app, in *input) error {
		source, program, err := findSource(*from)
		if err != nil {
			return err
		}
		target, err := locate("--to", *to)
		if err != nil {
			return err
		}
		if program != nil {
			fmt.Fprintf(a.stderr, "%s is a data directory of %s. %s\n", term.Safe(*from), program.Name, program.Offline)
		}
		p := progress{out: a.stderr, shown: term.IsTerminal(a.stderr)}
		start := time.Now()
		report, err := kinds.Migrate(a.ctx, source, target, kinds.MigrateOptions{From: *index, Progress: p.tell})
		p.end()
		if errors.Is(err, logstore.ErrHole) {
			err = fmt.Errorf("%w: give --from-index", err)
		}
		if a.ctx.Err() != nil {
			return errors.New("interrupted: the same command goes on where this one was")
		}
		if err != nil {
			return err
		}
		return a.migrated(in, source, target, report, time.Since(start))
	}
}

func locate(flagName, text string) (logstore.Location, error) {
	if text == "" {
		return logstore.Location{}, misused("%s is missing: want KIND:PATH, with KIND one of jsonl, wal, boltdb", flagName)
	}
	l, err := kinds.All().Parse(text)
	if err != nil {
		return l, misused("%s %s", flagName, err)
	}
	if l.Kind.OpenSource == nil {
		return l, misused("%s: a store of the kind %s keeps nothing on disk", flagName, l.Kind.Name)
	}
	return l, nil
}

// findSource reads --from: KIND:PATH, or a path whose kind can be seen.
func findSource(text string) (logstore.Location, *kinds.Program, error) {
	if info, err := os.Stat(text); text != "" && err == nil {
		if p, ok := kinds.RecogniseProgram(text); ok && info.IsDir() {
			return p.Log, &p, nil
		}
		if found := kinds.All().Recognise(text); len(found) == 1 {
			return logstore.Location{Kind: found[0], Path: text}, nil, nil
		}
		return logstore.Location{}, nil, misused("--from %s: what is there is no log that can be recognised (in use?): say its kind, as in boltdb:%s", term.Safe(text), term.Safe(text))
	}
	l, err := locate("--from", text)
	return l, nil, err
}

// migratedBody is what log migrate prints with --json.
type migratedBody struct {
	From       string `json:"from"`
	To         string `json:"to"`
	First      uint64 `json:"first"`
	Last       uint64 `json:"last"`
	Entries    uint64 `json:"entries"`
	Resumed    uint64 `json:"resumed"` // of these, copied by an earlier attempt
	Keys       int    `json:"keys"`
	DurationMS int64  `json:"duration_ms"`
	Verified   bool   `json:"verified"`
}

func (a *app) migrated(in *input, from, to logstore.Location, r logstore.CopyReport, took time.Duration) error {
	var n uint64
	if r.Last > 0 {
		n = r.Last - r.First + 1
	}
	if in.json {
		return a.object(migratedBody{from.String(), to.String(), r.First, r.Last, n, r.Resumed, r.Keys, took.Milliseconds(), true})
	}
	style := a.style()
	table := term.NewTable()
	row := func(name, format string, args ...any) { table.Row(style.Dim(name), fmt.Sprintf(format, args...)) }
	row("from", "%s", term.Safe(from.String()))
	row("to", "%s", term.Safe(to.String()))
	row("copied", "%s, %d stable values, in %s (%.0f entries a second)", entriesOf(int(n), r.First, r.Last), r.Keys, took.Round(time.Millisecond), float64(n)/took.Seconds())
	if r.Resumed > 0 {
		row("", "%d of them by an earlier attempt", r.Resumed)
	}
	row("verdict", "%s", style.Green("every entry and every value is equal"))
	if err := table.Write(a.stdout, style); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "\nWith it a program opens its log so:\n\n%s\n", indent(to.Kind.Program(to.Path)))
	return err
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// progress shows on a terminal how far a migration is.
type progress struct {
	out   io.Writer
	shown bool
	last  time.Time
	used  bool
}

// progressEvery bounds how often the line is drawn.
const progressEvery = 100 * time.Millisecond

func (p *progress) tell(phase kinds.Phase, c logstore.CopyProgress) {
	if !p.shown || time.Since(p.last) < progressEvery {
		return
	}
	p.last, p.used = time.Now(), true
	fmt.Fprintf(p.out, "\r\x1b[K%s: %d of %d entries (%d %%)", phase, c.Done, c.Total, c.Done*100/max(c.Total, 1))
}

func (p *progress) end() {
	if p.used {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
