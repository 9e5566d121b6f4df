package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
)

// stream is an open event stream, read line by line.
type stream struct {
	t      *testing.T
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func openStream(t *testing.T, url string, header ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("status %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &stream{t, bufio.NewScanner(resp.Body), cancel}
}

// next returns the ID and the number of the next event.
func (s *stream) next() (id string, seq uint64) {
	s.t.Helper()
	for s.lines.Scan() {
		line := s.lines.Text()
		if rest, ok := strings.CutPrefix(line, "id: "); ok {
			id = rest
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			var record failover.Record
			if err := json.Unmarshal([]byte(rest), &record); err != nil {
				s.t.Fatalf("%v: %s", err, rest)
			}
			return id, record.Seq
		}
	}
	s.t.Fatalf("the stream ended: %v", s.lines.Err())
	return "", 0
}

func (s *stream) want(seqs ...uint64) (lastID string) {
	s.t.Helper()
	for _, want := range seqs {
		id, got := s.next()
		if got != want {
			s.t.Fatalf("event %d, want %d", got, want)
		}
		lastID = id
	}
	return lastID
}

func records(seqs ...uint64) []failover.Record {
	var all []failover.Record
	for _, n := range seqs {
		all = append(all, failover.Record{Seq: n, Event: "ElectionWon"})
	}
	return all
}

func TestEventStream(t *testing.T) {
	f := newFake()
	f.journal = records(1, 2, 3)
	f.live = make(chan failover.Record, 8)
	server := httptest.NewServer(open(f))
	t.Cleanup(server.Close)

	s := openStream(t, server.URL+"/v1/events?after=1")
	s.want(2, 3)
	for _, r := range records(3, 4, 5) { // 3 was in the journal already
		f.live <- r
	}
	lastID := s.want(4, 5)
	s.cancel()

	f.mu.Lock()
	f.journal = records(1, 2, 3, 4, 5, 6)
	f.mu.Unlock()
	s = openStream(t, server.URL+"/v1/events", "Last-Event-ID", lastID)
	s.want(6)
	s.cancel()

	// An ID of an earlier process says nothing about the events of this one.
	s = openStream(t, server.URL+"/v1/events", "Last-Event-ID", "earlier-5")
	s.want(1, 2, 3, 4, 5, 6)

	// The node closes: so does the stream.
	close(f.live)
	for s.lines.Scan() {
		if strings.HasPrefix(s.lines.Text(), "data:") {
			t.Errorf("after the end: %s", s.lines.Text())
		}
	}
	if s.lines.Err() != nil {
		t.Errorf("not a clean end: %v", s.lines.Err())
	}
}

func TestSlowReaderReadsTheJournal(t *testing.T) {
	f := newFake()
	f.live = make(chan failover.Record, 2)
	server := httptest.NewServer(open(f))
	t.Cleanup(server.Close)
	s := openStream(t, server.URL+"/v1/events")
	f.live <- records(1)[0]
	s.want(1)
	f.mu.Lock()
	f.journal = records(1, 2, 3, 4)
	f.mu.Unlock()
	f.live <- failover.Record{Event: failover.RecordsSkipped}
	f.live <- records(4)[0]
	s.want(2, 3, 4)
	f.live <- records(5)[0]
	s.want(5)
}

func TestEventStreamOfARestartedNode(t *testing.T) {
	f := newFake()
	f.live = make(chan failover.Record, 1)
	server := httptest.NewServer(open(f))
	t.Cleanup(server.Close)
	s := openStream(t, server.URL+"/v1/events?after=900") // of the time before
	f.live <- records(1)[0]
	s.want(1)
}

func TestIdleStreamBeats(t *testing.T) {
	f := newFake()
	a := newAPI(f, NewGuard(NewAccess(nil, Tokens{}), nil), nil)
	a.heartbeat = time.Millisecond
	server := httptest.NewServer(a.guard.Wrap(a.need, a))
	t.Cleanup(server.Close)
	s := openStream(t, server.URL+"/v1/events")
	for beats := 0; beats < 3; {
		if !s.lines.Scan() {
			t.Fatal("the stream ended")
		}
		if s.lines.Text() == ": alive" {
			beats++
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	f := newFake()
	f.subscribed = make(chan struct{}, MaxStreams)
	server := httptest.NewServer(open(f))
	t.Cleanup(server.Close)
	var open []*stream
	for range MaxStreams {
		open = append(open, openStream(t, server.URL+"/v1/events"))
		<-f.subscribed
	}
	resp, err := http.Get(server.URL + "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
	for _, s := range open {
		s.cancel()
	}
}

func TestEventsAsOneDocument(t *testing.T) {
	f := newFake()
	f.journal = records(1, 2, 3)
	w := call(open(f), "GET", "/v1/events?follow=false&after=1", "")
	var body struct{ Events []failover.Record }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || len(body.Events) != 2 || body.Events[0].Seq != 2 {
		t.Errorf("%v: %s", err, w.Body)
	}
}
