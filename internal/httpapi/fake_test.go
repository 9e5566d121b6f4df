package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// fakeBackend is a node of one: a real state, no Raft, errors on demand.
type fakeBackend struct {
	mu         sync.Mutex
	state      *fsm.State
	index      uint64
	proposed   []command.Command
	err        error // of Propose, Read and Switchover
	wait       bool  // Propose, Read and Switchover last until their context ends
	switchedTo []protocol.NodeID
	journal    []failover.Record
	live       chan failover.Record
	subscribed chan struct{} // one token per call of Events, when not nil
	probes     map[string]bool
	samples    []Metric
	boom       bool // Status panics
	entered    chan struct{}
}

func newFake() *fakeBackend {
	return &fakeBackend{state: fsm.NewState(), live: make(chan failover.Record), probes: map[string]bool{}}
}

func (f *fakeBackend) Status() any {
	if f.boom {
		panic("boom")
	}
	return map[string]any{"node_id": 1, "role": "primary", "epoch": 7}
}

func (f *fakeBackend) Nodes() any {
	return []map[string]any{{"node_id": 1, "alive": true}, {"node_id": 2, "alive": false}}
}

func (f *fakeBackend) outcome(ctx context.Context) error {
	if f.entered != nil {
		f.entered <- struct{}{}
	}
	if f.wait {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (f *fakeBackend) Propose(ctx context.Context, c command.Command) (fsm.Result, error) {
	if err := f.outcome(ctx); err != nil {
		return fsm.Result{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proposed = append(f.proposed, c)
	f.index++
	return f.state.Apply(f.index, 1, c), nil
}

func (f *fakeBackend) ProposeIf(ctx context.Context, c command.KvWrite, revision uint64) (fsm.Result, error) {
	f.mu.Lock()
	have := f.state.KVRevision(c.Key)
	f.mu.Unlock()
	if f.err == nil && have != revision {
		return fsm.Result{}, &fsm.RevisionError{Key: c.Key, Want: revision, Have: have}
	}
	return f.Propose(ctx, c)
}

func (f *fakeBackend) Read(ctx context.Context, c fsm.Consistency, read func(*fsm.State)) (fsm.Freshness, error) {
	if err := f.outcome(ctx); err != nil {
		return fsm.Freshness{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	read(f.state)
	fresh := fsm.Freshness{Index: f.index}
	if c == fsm.Stale {
		fresh.Stale, fresh.AgeMS = true, 12
	}
	return fresh, nil
}

func (f *fakeBackend) Switchover(ctx context.Context, to protocol.NodeID) error {
	f.mu.Lock()
	f.switchedTo = append(f.switchedTo, to)
	f.mu.Unlock()
	return f.outcome(ctx)
}

func (f *fakeBackend) Journal(after uint64) []failover.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []failover.Record
	for _, r := range f.journal {
		if r.Seq > after {
			kept = append(kept, r)
		}
	}
	return kept
}

func (f *fakeBackend) Events(context.Context) <-chan failover.Record {
	if f.subscribed != nil {
		f.subscribed <- struct{}{}
	}
	return f.live
}

func (f *fakeBackend) Is(probe string) (bool, string) {
	return f.probes[probe], "asked for " + probe
}

func (f *fakeBackend) Metrics() []Metric { return f.samples }

func (f *fakeBackend) apply(t *testing.T, commands ...command.Command) {
	t.Helper()
	for _, c := range commands {
		result, err := f.Propose(t.Context(), c)
		if err == nil {
			err = result.Err()
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Name(), err)
		}
	}
	f.proposed = nil
}

// call sends a request to h, as a program on another machine would.
func call(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// sameJSON compares documents, not their spelling.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w bytes.Buffer
	if err := json.Compact(&g, []byte(got)); err != nil {
		t.Fatalf("not JSON: %v: %s", err, got)
	}
	if err := json.Compact(&w, []byte(want)); err != nil {
		t.Fatalf("the test wants no JSON: %v: %s", err, want)
	}
	if g.String() != w.String() {
		t.Errorf("got  %s\nwant %s", g.String(), w.String())
	}
}

func errorCode(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	raw, _ := io.ReadAll(w.Result().Body)
	var body struct{ Error, Code string }
	if err := json.Unmarshal(raw, &body); err != nil || body.Error == "" {
		t.Fatalf("status %d without an error document: %q", w.Code, raw)
	}
	return body.Code
}

// open serves f to everybody on this machine.
func open(f *fakeBackend) http.Handler { return serveWith(f, NewAccess(nil, Tokens{})) }

func serveWith(f *fakeBackend, access *Access) http.Handler {
	return New(f, NewGuard(access, nil), nil)
}

func (f *fakeBackend) lay(ctx context.Context, c command.KvWrite, err error) error {
	if err == nil {
		_, err = f.Propose(ctx, c)
	}
	return err
}

func (f *fakeBackend) Rules() fsm.Rules {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Rules()
}

func (f *fakeBackend) Pause(ctx context.Context, reason string) error {
	c, err := fsm.PauseCommand(fsm.Mark{Node: 1, Reason: reason})
	return f.lay(ctx, c, err)
}

func (f *fakeBackend) Resume(ctx context.Context) error { return f.lay(ctx, fsm.ResumeCommand(), nil) }

func (f *fakeBackend) BeginMaintenance(ctx context.Context, id protocol.NodeID, reason string) error {
	c, err := fsm.MaintenanceCommand(fsm.NodeMark{NodeID: id, Mark: fsm.Mark{Node: 1, Reason: reason}})
	return f.lay(ctx, c, err)
}

func (f *fakeBackend) EndMaintenance(ctx context.Context, id protocol.NodeID) error {
	return f.lay(ctx, fsm.EndMaintenanceCommand(id), nil)
}

func (f *fakeBackend) PermitFailover(ctx context.Context, id protocol.NodeID, reason string) error {
	c, err := fsm.PermitCommand(fsm.Permit{NodeID: id, After: 7, Mark: fsm.Mark{Node: 1, Reason: reason}})
	return f.lay(ctx, c, err)
}
