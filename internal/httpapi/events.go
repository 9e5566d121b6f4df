package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
)

// events streams the decision journal: first what is kept, from ?after= or the
// Last-Event-ID of a client that comes back, then what happens. With
// ?follow=false it answers with what is kept, as one document.
//
// An event's ID is "boot-number". Numbers begin again when a node restarts; the
// boot tells a returning client's number apart, so that it misses nothing of
// the new process.
func (a *api) events(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r, "after", "follow")
	if err != nil {
		return err
	}
	after, err := a.position(r, q)
	if err != nil {
		return err
	}
	follow, err := q.flag("follow", true)
	if err != nil {
		return err
	}
	if !follow {
		records := a.backend.Journal(after)
		if records == nil {
			records = []failover.Record{}
		}
		return writeJSON(w, http.StatusOK, struct {
			Events []failover.Record `json:"events"`
		}{records})
	}
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		return failf(http.StatusServiceUnavailable, CodeBusy, "%d event streams are open, that is the limit: close one", MaxStreams)
	}
	a.stream(w, r, after)
	return nil
}

// position reads where the client wants to begin.
func (a *api) position(r *http.Request, q request) (uint64, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		boot, number, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || boot != a.boot {
			return 0, nil // of an earlier process: all is new
		}
		return n, nil
	}
	text := q.query.Get("after")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, badRequest("after=%q: want the number of an event", text)
	}
	return n, nil
}

func (a *api) stream(w http.ResponseWriter, r *http.Request, after uint64) {
	// Subscribed before the journal is read: what happens in between comes
	// twice and is left out once, instead of being lost.
	live := a.backend.Events(r.Context())
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	out := &eventWriter{w: w, control: http.NewResponseController(w), boot: a.boot}
	if out.raw("retry: 1000\n\n") != nil {
		return
	}
	if r.Method == http.MethodHead {
		return
	}
	last := uint64(0)
	replay := func(after uint64) error {
		for _, record := range a.backend.Journal(after) {
			if err := out.record(record); err != nil {
				return err
			}
			last = max(last, record.Seq)
		}
		return nil
	}
	if replay(after) != nil {
		return
	}
	beat := time.NewTicker(a.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case record, open := <-live:
			if !open {
				return
			}
			var err error
			switch {
			case record.Event == failover.RecordsSkipped:
				err = replay(last) // too slow for the live ones; the journal has them
			case record.Seq > last:
				last = record.Seq
				err = out.record(record)
			}
			if err != nil {
				return
			}
		case <-beat.C:
			if out.raw(": alive\n\n") != nil {
				return
			}
		}
	}
}

// eventWriter writes Server-Sent Events, each write with a deadline of its own.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	boot    string
}

func (e *eventWriter) record(record failover.Record) error {
	document, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return e.raw(fmt.Sprintf("id: %s-%d\ndata: %s\n\n", e.boot, record.Seq, document))
}

func (e *eventWriter) raw(text string) error {
	err := e.control.SetWriteDeadline(time.Now().Add(streamWriteTimeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.control.Flush()
}
