package democluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/walplane"
	"github.com/aiondb/aiondb-ha/protocol"
)

// fakePlane is the data plane of some nodes behind real HTTP servers.
type fakePlane struct {
	nodes   []Node
	primary atomic.Int64 // index; -1: nobody knows
	epoch   atomic.Int64
	lsn     atomic.Int64
	hold    atomic.Pointer[chan struct{}] // node 1, when it is primary, answers when it is closed
	asked   atomic.Int64                  // when node 1 was last asked, Unix nanoseconds
	valid   atomic.Int64                  // ms, of what the primary answers; 0: without limit
}

func newFakePlane(t *testing.T, n int) *fakePlane {
	t.Helper()
	p := &fakePlane{}
	p.epoch.Store(1)
	for i := range n {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { p.serve(i, w) }))
		t.Cleanup(srv.Close)
		p.nodes = append(p.nodes, Node{ID: protocol.NodeID(i + 1), APIAddr: strings.TrimPrefix(srv.URL, "http://")})
	}
	return p
}

func (p *fakePlane) serve(i int, w http.ResponseWriter) {
	if i == 0 {
		p.asked.Store(time.Now().UnixNano()) // before it is looked up who is primary
	}
	primary, epoch := p.primary.Load(), p.epoch.Load()
	if int64(i) != primary {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"error":"not primary","code":"not_primary","primary":%d}`, primary+1)
		return
	}
	if hold := p.hold.Load(); hold != nil && i == 0 {
		<-*hold
	}
	if valid := p.valid.Load(); valid > 0 {
		w.Header().Set(walplane.HeaderValid, fmt.Sprint(valid))
	}
	fmt.Fprintf(w, `{"epoch":%d,"lsn":%d}`, epoch, p.lsn.Add(1))
}

func startClient(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestClientFollowsThePrimary(t *testing.T) {
	p := newFakePlane(t, 3)
	log := filepath.Join(t.TempDir(), "client.jsonl")
	c := startClient(t, ClientConfig{Nodes: p.nodes, Pace: time.Millisecond, Log: log})
	ctx := deadline(t, 20*time.Second)
	if err := c.WaitAcks(ctx, 20); err != nil {
		t.Fatal(err)
	}
	p.primary.Store(-1)
	c.Mark("kill", 1)
	p.epoch.Store(2)
	p.primary.Store(2)
	first, err := c.WaitEpoch(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if first.Node != 3 || first.Epoch != 2 || first.Acked <= first.Sent {
		t.Errorf("first acknowledgement of epoch 2: %+v", first)
	}
	if err := c.WaitAcks(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	acks := c.Acks()
	keys := map[string]bool{}
	for _, a := range acks {
		if keys[a.Key] || a.Value == "" || a.LSN == 0 {
			t.Errorf("acknowledgement %+v: key seen before, or no value or LSN", a)
		}
		keys[a.Key] = true
	}
	if c.Epoch() != 2 || c.Tried() < len(acks) {
		t.Errorf("epoch %d, tried %d, acknowledged %d", c.Epoch(), c.Tried(), len(acks))
	}
	if _, _, ok := Failover(acks, 1); !ok {
		t.Error("no failover in the record")
	}

	// The log holds the same, line by line, and the mark.
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var logged, marks int
	for line := range bytes.Lines(raw) {
		var either struct {
			Ack
			Fault string
		}
		if err := json.Unmarshal(line, &either); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if either.Fault != "" {
			marks++
			continue
		}
		if either.Ack != acks[logged] {
			t.Fatalf("line %d: %+v, want %+v", logged+1, either.Ack, acks[logged])
		}
		logged++
	}
	if logged != len(acks) || marks != 1 {
		t.Errorf("the log holds %d acknowledgements and %d marks, want %d and 1", logged, marks, len(acks))
	}
}

// A primary that is paused and answers after the client has turned away has
// acknowledged, and the record must show it; unless its answer says itself that
// it has come too late: then the outcome is unknown.
func TestClientAndLateAcknowledgements(t *testing.T) {
	for _, test := range []struct {
		name  string
		valid int64
		dual  bool
	}{{"of no limit", 0, true}, {"still valid", 1000 * lateFor.Milliseconds(), true}, {"not valid any more", 29, false}} {
		t.Run(test.name, func(t *testing.T) {
			const writers, timeout = 2, 30 * time.Millisecond
			p := newFakePlane(t, 2)
			c := startClient(t, ClientConfig{Nodes: p.nodes, Writers: writers, Pace: time.Millisecond, Timeout: timeout})
			ctx := deadline(t, 20*time.Second)
			if err := c.WaitAcks(ctx, 5); err != nil {
				t.Fatal(err)
			}
			waiting := func(until func() bool) {
				t.Helper()
				for tick := time.Tick(time.Millisecond); !until(); {
					select {
					case <-tick:
					case <-ctx.Done():
						t.Fatalf("%d answers are overdue", len(c.late))
					}
				}
			}
			wake := make(chan struct{})
			p.hold.Store(&wake)
			waiting(func() bool { return len(c.late) >= writers })
			p.epoch.Store(2)
			p.primary.Store(1)
			if _, err := c.WaitEpoch(ctx, 1); err != nil {
				t.Fatal(err)
			}
			// Whatever it was asked, the client has turned away from by now.
			waiting(func() bool { return time.Since(time.Unix(0, p.asked.Load())) > timeout })
			unknown := c.Unknown()
			p.valid.Store(test.valid)
			p.primary.Store(-1)
			close(wake) // the old primary wakes, and answers what it was asked in epoch 1
			waiting(func() bool { return len(c.late) == 0 })
			if dual := len(DualPrimaryAcks(c.Acks())); (dual > 0) != test.dual {
				t.Errorf("%d late acknowledgements are in the record", dual)
			}
			if test.dual != (c.Unknown() < unknown) {
				t.Errorf("%d writes of unknown outcome, %d before", c.Unknown(), unknown)
			}
		})
	}
}

func TestClientStopsAtOnceWithoutNodes(t *testing.T) {
	p := newFakePlane(t, 1)
	wake := make(chan struct{})
	defer close(wake)
	p.hold.Store(&wake)
	c := startClient(t, ClientConfig{Nodes: p.nodes, Timeout: 20 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.WaitAcks(ctx, 1); err == nil || !strings.Contains(err.Error(), "1 more acknowledged writes (0 acknowledged in all)") {
		t.Errorf("got %v", err)
	}
	start := time.Now()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > lateFor/2 {
		t.Errorf("close took %v: it waited for late answers", took)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestClientConfigIsChecked(t *testing.T) {
	for _, cfg := range []ClientConfig{
		{},
		{Nodes: make([]Node, 1), Writers: -1},
		{Nodes: make([]Node, 1), Writers: maxWriters + 1},
		{Nodes: make([]Node, 1), Pace: -1},
		{Nodes: make([]Node, 1), Log: filepath.Join(os.DevNull, "x")},
	} {
		if c, err := NewClient(cfg); err == nil {
			_ = c.Close()
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// A dump comes in pages, and a later record of a key stands for the earlier.
func TestDumpReadsEveryPage(t *testing.T) {
	log := []string{
		`{"lsn":2,"epoch":1,"key":"a","value":"1"}`, `{"lsn":3,"epoch":1,"key":"b","value":"1"}`,
		`{"lsn":5,"epoch":2,"key":"a","value":"2"}`, `{"lsn":6,"epoch":2,"key":"b","deleted":true}`,
		`{"lsn":7,"epoch":2,"key":"c","value":"3"}`,
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var from int
		_, _ = fmt.Sscan(r.FormValue("from"), &from)
		w.Header().Set(walplane.HeaderCommit, "7")
		for sent, i := 0, 0; i < len(log) && sent < 2; i++ {
			var lsn int
			_, _ = fmt.Sscanf(log[i], `{"lsn":%d,`, &lsn)
			if lsn >= from {
				fmt.Fprintln(w, log[i])
				sent++
			}
		}
	}))
	defer srv.Close()
	c := &Cluster{nodes: []Node{{ID: 1, APIAddr: strings.TrimPrefix(srv.URL, "http://")}}, http: srv.Client()}
	data, err := c.Dump(deadline(t, 20*time.Second), 1)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(data) != "map[a:2 c:3]" {
		t.Errorf("got %v", data)
	}
}
