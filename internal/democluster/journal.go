package democluster

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// maxTold bounds the lines of the decision journal that the tour shows.
const maxTold = 6

// tellJournal shows what the new primary noted down while it took over: its
// own reasons, with the time since the fault.
func (t *tour) tellJournal(ctx context.Context, report FailoverReport, fault time.Time) {
	var journal struct {
		Events []struct {
			At    time.Time `json:"at"`
			Event string    `json:"event"`
			Text  string    `json:"text"`
		} `json:"events"`
	}
	if err := t.cluster.call(ctx, http.MethodGet, report.NewPrimary, "/v1/events?follow=false", nil, &journal); err != nil {
		return // the tour goes on without: it is colour, not proof
	}
	told := 0
	for _, e := range journal.Events {
		since := e.At.Sub(fault)
		if since < 0 || told == maxTold {
			continue
		}
		told++
		t.more("", "%s  %s", t.Dim(fmt.Sprintf("+%4d ms", since.Milliseconds())), e.Event)
	}
}
