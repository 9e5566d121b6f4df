package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table is the result as text: a header, lines of as many cells, and notes.
type table struct {
	header []string
	lines  [][]string // one of a single cell begins a group
	notes  []string
}

// columns are the stores in the order they are shown.
var columns = []string{nameJSONL, nameWAL, nameBolt, nameDisk}

func makeTable(rows []row) table {
	t := table{header: []string{"", nameJSONL, nameWAL, nameBolt, nameDisk, "÷ raft-wal", "÷ raft-boltdb", "goal", ""}}
	group := ""
	for _, r := range rows {
		if r.Group != group {
			group = r.Group
			t.lines = append(t.lines, []string{group})
		}
		line := []string{r.Name}
		for _, name := range columns {
			line = append(line, t.cell(r, name))
		}
		for _, peer := range []string{nameWAL, nameBolt} {
			text := ""
			if ratio, ok := r.Ratios[peer]; ok {
				text = formatRatio(ratio)
			}
			line = append(line, text)
		}
		t.lines = append(t.lines, append(line, goalText(r), verdict(r)))
	}
	return t
}

func (t *table) cell(r row, name string) string {
	c, ok := r.Cells[name]
	switch {
	case !ok:
		return ""
	case c.Missing == "":
		return r.Unit.format(c.Median)
	}
	note := fmt.Sprintf("%s, %s: %s", name, r.Name, c.Missing)
	for i, n := range t.notes {
		if n == note {
			return fmt.Sprintf("no [%d]", i+1)
		}
	}
	t.notes = append(t.notes, note)
	return fmt.Sprintf("no [%d]", len(t.notes))
}

func goalText(r row) string {
	var parts []string
	for _, g := range r.Goals {
		if g.Peer == "" {
			parts = append(parts, "≤ "+r.Unit.format(g.Bound))
		} else {
			parts = append(parts, fmt.Sprintf("≤ %.2f %s", g.Bound, g.name()))
		}
	}
	return strings.Join(parts, ", ")
}

// verdict names the goals that were missed.
func verdict(r row) string {
	if len(r.Goals) == 0 {
		return ""
	}
	var missed []string
	for _, g := range r.Goals {
		if !g.Met {
			missed = append(missed, g.name())
		}
	}
	if missed == nil {
		return "met"
	}
	return "MISSED: " + strings.Join(missed, ", ")
}

// writeText writes aligned columns for a terminal.
func (t table) writeText(w io.Writer) {
	widths := make([]int, len(t.header))
	for _, line := range append([][]string{t.header}, t.lines...) {
		if len(line) == 1 {
			continue
		}
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	write := func(line []string) {
		var b strings.Builder
		for i, c := range line {
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(c)))
			if i == 0 || i >= 7 {
				b.WriteString(c + pad + "  ")
			} else {
				b.WriteString(pad + c + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	write(t.header)
	for _, line := range t.lines {
		if len(line) == 1 {
			fmt.Fprintf(w, "\n%s\n", line[0])
			continue
		}
		write(line)
	}
	for i, n := range t.notes {
		fmt.Fprintf(w, "\n[%d] %s\n", i+1, n)
	}
}

// writeMarkdown writes one table for each group.
func (t table) writeMarkdown(w io.Writer) {
	for _, line := range t.lines {
		if len(line) == 1 {
			fmt.Fprintf(w, "\n### %s\n\n| %s |\n|%s\n", line[0], strings.Join(t.header, " | "),
				" --- |"+strings.Repeat(" ---: |", 6)+" --- | --- |")
			continue
		}
		cells := make([]string, len(line))
		for i, c := range line {
			cells[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	for i, n := range t.notes {
		fmt.Fprintf(w, "\n[%d] %s\n", i+1, n)
	}
}
