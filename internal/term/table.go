package term

import (
	"io"
	"strings"
)

// Table collects rows and writes them with their columns lined up. Cells may
// hold colour codes; they should not hold line breaks (see Safe). It is not
// safe for concurrent use.
type Table struct {
	header []string
	right  map[int]bool
	rows   [][]string
}

// columnGap separates two columns.
const columnGap = "  "

// NewTable returns a table with these column titles; without titles the table
// has no header line.
func NewTable(header ...string) *Table {
	return &Table{header: header, right: make(map[int]bool)}
}

// Right sets columns (counted from 0) flush right, as numbers should be. It
// returns t.
func (t *Table) Right(columns ...int) *Table {
	for _, c := range columns {
		t.right[c] = true
	}
	return t
}

// Row adds a row. It returns t.
func (t *Table) Row(cells ...string) *Table {
	t.rows = append(t.rows, cells)
	return t
}

// Len returns the number of rows, the header not counted.
func (t *Table) Len() int { return len(t.rows) }

// Write writes the table, the header dimmed. No line ends in blanks.
func (t *Table) Write(w io.Writer, s Style) error {
	var widths []int
	measure := func(cells []string) {
		for i, c := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(c))
		}
	}
	measure(t.header)
	for _, r := range t.rows {
		measure(r)
	}
	var b strings.Builder
	if len(t.header) > 0 {
		var head strings.Builder
		t.line(&head, t.header, widths)
		b.WriteString(s.Dim(strings.TrimSuffix(head.String(), "\n")))
		b.WriteByte('\n')
	}
	for _, r := range t.rows {
		t.line(&b, r, widths)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *Table) line(b *strings.Builder, cells []string, widths []int) {
	pending := 0 // blanks owed before the next visible cell
	for i, c := range cells {
		if i > 0 {
			pending += len(columnGap)
		}
		fill := widths[i] - Width(c)
		if t.right[i] {
			pending += fill
			fill = 0
		}
		if c != "" {
			b.WriteString(strings.Repeat(" ", pending))
			pending = 0
			b.WriteString(c)
		}
		pending += fill
	}
	b.WriteByte('\n')
}
