package democluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
)

const (
	// maxTold bounds the lines of the decision journal that the tour shows.
	maxTold = 9
	// maxDetail is how much of a line's detail is shown, columns.
	maxDetail = 60
	// maxScanned bounds what is read of a node's log, bytes.
	maxScanned = 1 << 20
)

// tellJournal shows what the new primary noted down while it took over: its
// own reasons, with the time since the fault. Without an answer the tour goes
// on without: this is colour, not proof.
func (t *tour) tellJournal(ctx context.Context, report FailoverReport, fault time.Time) {
	var journal struct {
		Events []struct {
			At     time.Time `json:"at"`
			Event  string    `json:"event"`
			Detail string    `json:"detail"`
		} `json:"events"`
	}
	if t.cluster.call(ctx, http.MethodGet, report.NewPrimary, "/v1/events?follow=false", nil, &journal) != nil {
		return
	}
	lines := term.NewTable()
	for _, e := range journal.Events {
		if since := e.At.Sub(fault); since >= 0 && lines.Len() < maxTold {
			detail := []rune(term.Safe(e.Detail))
			if len(detail) > maxDetail {
				detail = append(detail[:maxDetail-1], '…')
			}
			lines.Row(fmt.Sprintf("+ %d ms", since.Milliseconds()), term.Safe(e.Event), string(detail))
		}
	}
	var b strings.Builder
	_ = lines.Right(0).Write(&b, t.Style) // a Builder takes everything
	for line := range strings.Lines(b.String()) {
		t.more("", "%s", t.Dim(strings.TrimRight(line, "\n")))
	}
}

// cutLine is how the data plane logs that it cuts a tail: from a position,
// timeline/LSN, back to an LSN.
var cutLine = regexp.MustCompile(`cutting what the primary's timeline does not have.* from="?\d+/(\d+)"? to="?(\d+)"?`)

// cutRecords returns how many records the node whose log this is has cut off,
// going by what the log says from offset on.
func cutRecords(logPath string, offset int64) int {
	f, err := os.Open(logPath)
	if err != nil {
		return 0
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, offset, maxScanned), maxScanned))
	if err != nil {
		return 0
	}
	cut := 0
	for _, match := range cutLine.FindAllSubmatch(raw, -1) {
		from, errFrom := strconv.Atoi(string(match[1]))
		to, errTo := strconv.Atoi(string(match[2]))
		if errFrom == nil && errTo == nil && from > to {
			cut += from - to
		}
	}
	return cut
}
