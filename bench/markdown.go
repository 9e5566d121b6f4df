package main

import (
	_ "embed"
	"fmt"
	"io"
)

// intro says how to read the tables.
//
//go:embed intro.md
var intro string

// writeMarkdown writes the whole of docs/benchmarks.md.
func (b *bench) writeMarkdown(w io.Writer, m machine) {
	fmt.Fprintf(w, "%s\n## The machine\n\n| | |\n| --- | --- |\n", intro)
	for _, l := range m.lines() {
		fmt.Fprintf(w, "| %s | %s |\n", l[0], l[1])
	}
	fmt.Fprintf(w, "\nScale: %s (%d rounds). %s.\n\n## The numbers\n", b.scale.name, b.scale.rounds, summary(b.rows))
	makeTable(b.rows).writeMarkdown(w)
}
