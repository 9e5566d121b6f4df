package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// intro says how to read the tables.
//
//go:embed intro.md
var intro string

// report is the result of a run.
type report struct {
	Machine machine `json:"machine"`
	Scale   string  `json:"scale"`
	Rounds  int     `json:"rounds"`
	Rows    []row   `json:"rows"`
}

func (b *bench) report() report {
	return report{Machine: describeMachine(b.dir), Scale: b.scale.name, Rounds: b.scale.rounds, Rows: b.rows}
}

// readReport reads what -json has written.
func readReport(name string) (r report, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (r report) print(out io.Writer, asJSON, asMarkdown bool) error {
	switch {
	case len(r.Rows) == 0:
		return errors.New("nothing was measured; -list names the measurements")
	case asJSON:
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	case asMarkdown:
		r.writeMarkdown(out)
	default:
		r.Machine.writeText(out)
		fmt.Fprintln(out)
		makeTable(r.Rows).writeText(out)
		fmt.Fprintf(out, "\n%s\n", r.summary())
	}
	return nil
}

// writeMarkdown writes the whole of docs/benchmarks.md.
func (r report) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "%s\n## The machine\n\n| | |\n| --- | --- |\n", intro)
	for _, l := range r.Machine.lines() {
		fmt.Fprintf(w, "| %s | %s |\n", l[0], l[1])
	}
	fmt.Fprintf(w, "\nScale: %s (%d rounds). %s.\n\n## The numbers\n", r.Scale, r.Rounds, r.summary())
	makeTable(r.Rows).writeMarkdown(w)
}

// summary counts the goals.
func (r report) summary() string {
	var met, missed int
	for _, row := range r.Rows {
		for _, g := range row.Goals {
			if g.Met {
				met++
			} else {
				missed++
			}
		}
	}
	return fmt.Sprintf("goals: %d met, %d missed", met, missed)
}
