package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

func TestReads(t *testing.T) {
	f := newFake()
	f.apply(t,
		command.AddNode{NodeID: 2, Address: "b:1"},
		command.AssignShard{TableID: 7, ShardID: 0, NodeID: 2},
		command.UpdateConfig{Key: "mode", Value: "fast <&>"},
		command.KvWrite{Key: []byte("a//b/.."), Value: []byte("v")},
		command.KvWrite{Key: []byte{0xff, '/'}, Value: []byte{0x80}},
		command.KvWrite{Key: []byte("empty"), Value: []byte{}},
		command.KvWrite{Key: []byte("ha/own"), Value: []byte("own")},
	)
	h := open(f)
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/v1/status", 200, `{"epoch":7,"node_id":1,"role":"primary"}`},
		{"/v1/nodes", 200, `{"nodes":[{"alive":true,"node_id":1},{"alive":false,"node_id":2}]}`},
		{"/v1/shards", 200, `{"shards":[{"table_id":7,"shard_id":0,"node_id":2}],"stale":false,"age_ms":0,"index":7}`},
		{"/v1/shards?stale=true", 200, `{"shards":[{"table_id":7,"shard_id":0,"node_id":2}],"stale":true,"age_ms":12,"index":7}`},
		{"/v1/shards?stale", 200, `{"shards":[{"table_id":7,"shard_id":0,"node_id":2}],"stale":true,"age_ms":12,"index":7}`},
		{"/v1/config", 200, `{"settings":[{"key":"mode","value":"fast <&>"}],"stale":false,"age_ms":0,"index":7}`},
		{"/v1/config/mode", 200, `{"key":"mode","value":"fast <&>","stale":false,"age_ms":0,"index":7}`},
		{"/v1/config/none", 404, `{"error":"no setting \"none\"","code":"not_found"}`},
		{"/v1/kv/a//b/..", 200, `{"key":"a//b/..","value":"v","revision":4,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv/a%2F%2Fb%2F%2E%2E?stale=1", 200, `{"key":"a//b/..","value":"v","revision":4,"stale":true,"age_ms":12,"index":7}`},
		{"/v1/kv/%FF%2F", 200, `{"key_base64":"/y8=","value_base64":"gA==","revision":5,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv/empty", 200, `{"key":"empty","value":"","revision":6,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv/none", 404, `{"error":"no key \"none\"","code":"not_found"}`},
		{"/v1/kv?prefix=a&limit=5", 200, `{"entries":[{"key":"a//b/..","value":"v","revision":4}],"more":false,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv?limit=1", 200, `{"entries":[{"key":"a//b/..","value":"v","revision":4}],"more":true,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv?prefix=h&limit=1", 200, `{"entries":[],"more":false,"stale":false,"age_ms":0,"index":7}`}, // the cluster's own: hidden
		{"/v1/kv?prefix=h&all", 200, `{"entries":[{"key":"ha/own","value":"own","revision":7}],"more":false,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv?prefix=ha/", 200, `{"entries":[{"key":"ha/own","value":"own","revision":7}],"more":false,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv?prefix=e&limit=1", 200, `{"entries":[{"key":"empty","value":"","revision":6}],"more":false,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv/ha/own", 200, `{"key":"ha/own","value":"own","revision":7,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/kv?prefix=zz", 200, `{"entries":[],"more":false,"stale":false,"age_ms":0,"index":7}`},
		{"/v1/events?follow=false", 200, `{"events":[]}`},
	} {
		w := call(h, "GET", c.path, "")
		if w.Code != c.status {
			t.Errorf("%s: status %d, want %d: %s", c.path, w.Code, c.status, w.Body)
			continue
		}
		t.Run(c.path, func(t *testing.T) { sameJSON(t, w.Body.String(), c.want) })
		for name, want := range map[string]string{"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.path, name, got, want)
			}
		}
	}
}

func TestListStopsAtItsSize(t *testing.T) {
	f := newFake()
	big := bytes.Repeat([]byte{'v'}, MaxValueLen)
	for i := range 40 {
		f.apply(t, command.KvWrite{Key: fmt.Appendf(nil, "k%02d", i), Value: big})
	}
	w := call(open(f), "GET", "/v1/kv?limit=1000", "")
	if n := strings.Count(w.Body.String(), `"revision"`); n == 0 || n > MaxListBytes/MaxValueLen || !strings.Contains(w.Body.String(), `"more":true`) {
		t.Errorf("%d entries of %d bytes in an answer of %d bytes", n, MaxValueLen, w.Body.Len())
	}
}

func TestWrites(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		want               command.Command
	}{
		{"PUT", "/v1/kv/a//b", "value\n", command.KvWrite{Key: []byte("a//b"), Value: []byte("value\n")}},
		{"PUT", "/v1/kv/%00%FF?timeout=2s", "\x00\xfe", command.KvWrite{Key: []byte{0, 0xff}, Value: []byte{0, 0xfe}}},
		{"PUT", "/v1/kv/none", "", command.KvWrite{Key: []byte("none"), Value: []byte{}}},
		{"DELETE", "/v1/kv/a", "", command.KvWrite{Key: []byte("a"), Delete: true}},
		{"PUT", "/v1/config/%2F", "v", command.UpdateConfig{Key: "/", Value: "v"}},
		{"PUT", "/v1/config/a%2Fb", "ü", command.UpdateConfig{Key: "a/b", Value: "ü"}},
		{"POST", "/v1/shards/assign", `{"table_id":0,"shard_id":0,"node_id":1}`, command.AssignShard{NodeID: 1}},
		{"POST", "/v1/shards/transfer", `{"table_id":0,"shard_id":0,"from_node":1,"to_node":2}`, command.TransferShard{FromNode: 1, ToNode: 2}},
		{"POST", "/v1/nodes", `{"node_id":3,"address":"c:1"}`, command.AddNode{NodeID: 3, Address: "c:1"}},
		{"DELETE", "/v1/nodes/2", "", command.RemoveNode{NodeID: 2}},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			f := newFake()
			f.apply(t, command.AddNode{NodeID: 1, Address: "a:1"}, command.AddNode{NodeID: 2, Address: "b:1"}, command.AssignShard{NodeID: 1})
			w := call(open(f), c.method, c.path, c.body)
			if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"index":4,"changed":`) {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
			if len(f.proposed) != 1 || !reflect.DeepEqual(f.proposed[0], c.want) {
				t.Errorf("proposed %#v, want %#v", f.proposed, c.want)
			}
		})
	}
}

func TestWritesThatDependOnARevision(t *testing.T) {
	f := newFake()
	f.apply(t, command.UpdateConfig{Key: "k", Value: "v"}, command.KvWrite{Key: []byte("a"), Value: []byte("v")})
	h := open(f)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"PUT", "/v1/kv/a?if_revision=1", "w", 409, `{"error":"key \"a\" has revision 2, want 1: nothing was written","code":"revision_mismatch","revision":2}`},
		{"PUT", "/v1/kv/a?if_revision=0", "w", 409, `{"error":"key \"a\" is there already, with revision 2: nothing was written","code":"revision_mismatch","revision":2}`},
		{"PUT", "/v1/kv/b?if_revision=18446744073709551615", "w", 409, `{"error":"key \"b\" is not there, want revision 18446744073709551615: nothing was written","code":"revision_mismatch","revision":0}`},
		{"PUT", "/v1/kv/a?if_revision=2&timeout=1s", "w", 200, `{"index":3,"changed":true}`},
		{"DELETE", "/v1/kv/a?if_revision=2", "", 409, `{"error":"key \"a\" has revision 3, want 2: nothing was written","code":"revision_mismatch","revision":3}`},
		{"PUT", "/v1/kv/a?if_revision=3", "w", 200, `{"index":4,"changed":false}`},
		{"DELETE", "/v1/kv/a?if_revision=3", "", 200, `{"index":5,"changed":true}`},
		{"DELETE", "/v1/kv/a?if_revision=0", "", 200, `{"index":6,"changed":false}`},
		{"PUT", "/v1/kv/a?if_revision=0", "w", 200, `{"index":7,"changed":true}`},
		{"PUT", "/v1/kv/ha/own?if_revision=0", "w", 409, `{"error":"keys under \"ha/\" belong to the cluster itself: choose another","code":"refused"}`},
	} {
		before := len(f.proposed)
		w := call(h, c.method, c.path, c.body)
		if done := len(f.proposed) > before; w.Code != c.status || done != (c.status == 200) {
			t.Errorf("%s %s: status %d, want %d; proposed: %v", c.method, c.path, w.Code, c.status, done)
		}
		sameJSON(t, w.Body.String(), c.want)
	}
}

func TestRemovedShardsAreTold(t *testing.T) {
	f := newFake()
	f.apply(t, command.AddNode{NodeID: 2, Address: "b:1"}, command.AssignShard{TableID: 7, ShardID: 1, NodeID: 2})
	w := call(open(f), "DELETE", "/v1/nodes/2", "")
	sameJSON(t, w.Body.String(), `{"index":3,"changed":true,"removed":[{"table_id":7,"shard_id":1,"node_id":2}]}`)
}

func TestSwitchover(t *testing.T) {
	f := newFake()
	h := open(f)
	for _, body := range []string{`{"to":3}`, `{}`, ``} {
		if w := call(h, "POST", "/v1/switchover", body); w.Code != 200 || !strings.Contains(w.Body.String(), `"epoch":7`) {
			t.Errorf("%q: status %d: %s", body, w.Code, w.Body)
		}
	}
	if want := []protocol.NodeID{3, 0, 0}; !reflect.DeepEqual(f.switchedTo, want) {
		t.Errorf("switched to %v, want %v", f.switchedTo, want)
	}
}

func TestRefusedRequests(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/v2/status", "", 404, CodeNotFound},
		{"GET", "/v1/config/", "", 400, CodeBadRequest},
		{"DELETE", "/v1/config/a", "", 405, CodeBadRequest},
		{"PUT", "/v1/config/" + strings.Repeat("k", MaxKeyLen+1), "v", 413, CodeTooLarge},
		{"PUT", "/v1/config/%FF", "v", 400, CodeBadRequest},
		{"POST", "/v1/status", "", 405, CodeBadRequest},
		{"POST", "/v1/kv/a", "", 405, CodeBadRequest},
		{"GET", "/v1/switchover", "", 405, CodeBadRequest},
		{"GET", "/v1/kv/", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?stal=true", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?stale=perhaps", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?stale=true&stale=false", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?timeout=2", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?timeout=-1s", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?timeout=61s", "", 400, CodeBadRequest},
		{"GET", "/v1/kv?limit=0", "", 400, CodeBadRequest},
		{"GET", "/v1/kv?limit=1001", "", 400, CodeBadRequest},
		{"GET", "/v1/kv?limit=many", "", 400, CodeBadRequest},
		{"GET", "/v1/kv?prefix=%zz", "", 400, CodeBadRequest},
		{"GET", "/v1/events?after=-1", "", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?stale=true", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?if_revision", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?if_revision=-1", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?if_revision=+1", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?if_revision=1&if_revision=1", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a?if_revision=18446744073709551616", "v", 400, CodeBadRequest},
		{"DELETE", "/v1/kv/a?if_revision=0x1", "", 400, CodeBadRequest},
		{"GET", "/v1/kv/a?if_revision=1", "", 400, CodeBadRequest},
		{"PUT", "/v1/config/a?if_revision=1", "v", 400, CodeBadRequest},
		{"PUT", "/v1/kv/a", strings.Repeat("v", MaxValueLen+1), 413, CodeTooLarge},
		{"PUT", "/v1/kv/" + strings.Repeat("k", MaxKeyLen+1), "v", 413, CodeTooLarge},
		{"PUT", "/v1/kv/ha/own", "v", 409, CodeRefused},
		{"DELETE", "/v1/kv/ha%2Fx", "", 409, CodeRefused},
		{"PUT", "/v1/config/a", "\xff", 400, CodeBadRequest},
		{"POST", "/v1/nodes", `{"node_id":3}`, 400, CodeBadRequest},
		{"POST", "/v1/nodes", `{"node_id":3,"address":"c:1","extra":1}`, 400, CodeBadRequest},
		{"POST", "/v1/nodes", `{"node_id":3,"address":"c:1"} {}`, 400, CodeBadRequest},
		{"POST", "/v1/nodes", `{"node_id":3,"address":"` + strings.Repeat("c", protocol.MaxAddrLen+1) + `"}`, 400, CodeBadRequest},
		{"POST", "/v1/nodes", strings.Repeat(" ", MaxBodyLen+1), 413, CodeTooLarge},
		{"DELETE", "/v1/nodes/0", "", 400, CodeBadRequest},
		{"DELETE", "/v1/nodes/two", "", 400, CodeBadRequest},
		{"POST", "/v1/shards/assign", `{"table_id":1,"node_id":2}`, 400, CodeBadRequest},
		{"POST", "/v1/shards/transfer", `{"table_id":1,"shard_id":2,"to_node":2}`, 400, CodeBadRequest},
		{"POST", "/v1/switchover", `{"to":"three"}`, 400, CodeBadRequest},
		{"POST", "/v1/switchover", `[`, 400, CodeBadRequest},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			f := newFake()
			w := call(open(f), c.method, c.path, c.body)
			if w.Code != c.status || errorCode(t, w) != c.code {
				t.Errorf("status %d, want %d %s: %s", w.Code, c.status, c.code, w.Body)
			}
			if len(f.proposed)+len(f.switchedTo) > 0 {
				t.Errorf("it was done all the same: %v %v", f.proposed, f.switchedTo)
			}
			if c.status == 405 && w.Header().Get("Allow") == "" {
				t.Error("no Allow header")
			}
		})
	}
}

func TestErrorsOfTheNode(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		also   string
	}{
		{failover.ErrNoQuorum, 503, CodeNoQuorum, ""},
		{fmt.Errorf("propose: %w", failover.ErrNoQuorum), 503, CodeNoQuorum, ""},
		{failover.ErrOutcomeUnknown, 504, CodeUnknownOutcome, ""},
		{errors.Join(failover.ErrNoQuorum, failover.ErrOutcomeUnknown), 504, CodeUnknownOutcome, ""},
		{errors.Join(failover.ErrOutcomeUnknown, &fsm.RevisionError{}), 504, CodeUnknownOutcome, ""},
		{&fsm.RefusedError{Reason: "node 9 is not a member"}, 409, CodeRefused, "node 9 is not a member"},
		{failover.ErrBusy, 409, CodeRefused, ""},
		{&failover.NotPrimaryError{Primary: 2, Address: "b:1"}, 503, CodeNotPrimary, `"primary":2,"address":"b:1"`},
		{&failover.NotLeaderError{Leader: 3}, 503, CodeNotLeader, `"leader":3`},
		{failover.ErrClosed, 503, CodeClosed, ""},
		{fsm.ErrHalted, 503, CodeHalted, ""},
		{errors.New("disk on fire"), 500, CodeInternal, "disk on fire"},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			f := newFake()
			f.err = c.err
			h := open(f)
			for _, req := range [][2]string{{"PUT", "/v1/kv/a"}, {"PUT", "/v1/kv/a?if_revision=0"}, {"DELETE", "/v1/kv/a?if_revision=0"}, {"GET", "/v1/kv/a"}, {"GET", "/v1/kv"}, {"GET", "/v1/shards"}, {"GET", "/v1/config"}, {"GET", "/v1/config/a"}, {"POST", "/v1/switchover"}} {
				w := call(h, req[0], req[1], "")
				if w.Code != c.status || errorCode(t, w) != c.code || !strings.Contains(w.Body.String(), c.also) {
					t.Errorf("%v: status %d, want %d %s: %s", req, w.Code, c.status, c.code, w.Body)
				}
			}
		})
	}
}

func TestRefusedByTheState(t *testing.T) {
	w := call(open(newFake()), "POST", "/v1/shards/assign", `{"table_id":1,"shard_id":0,"node_id":9}`)
	if w.Code != 409 || errorCode(t, w) != CodeRefused {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.wait = true
		h := open(f)
		for _, c := range []struct {
			method, path, code string
			after              time.Duration
		}{
			{"PUT", "/v1/kv/a?timeout=2s", CodeUnknownOutcome, 2 * time.Second},
			{"PUT", "/v1/kv/a", CodeUnknownOutcome, DefaultTimeout},
			{"PUT", "/v1/kv/a?if_revision=0", CodeUnknownOutcome, DefaultTimeout},
			{"GET", "/v1/kv/a?timeout=500ms", CodeTimeout, 500 * time.Millisecond},
			{"POST", "/v1/switchover?timeout=60s", CodeTimeout, time.Minute},
		} {
			start := time.Now()
			w := call(h, c.method, c.path, "")
			if w.Code != 504 || errorCode(t, w) != c.code || time.Since(start) != c.after {
				t.Errorf("%s %s: status %d after %s: %s", c.method, c.path, w.Code, time.Since(start), w.Body)
			}
		}
	})
}

func TestProbes(t *testing.T) {
	f := newFake()
	f.probes[ProbeReplica], f.probes[ProbeHealth] = true, true
	h := open(f)
	for _, probe := range []string{ProbePrimary, ProbeReplica, ProbeLeader, ProbeHealth, ProbeReady} {
		want := http.StatusServiceUnavailable
		if f.probes[probe] {
			want = http.StatusOK
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			if w := call(h, method, "/"+probe, ""); w.Code != want || !strings.Contains(w.Body.String(), "asked for "+probe) {
				t.Errorf("%s /%s: %d %s", method, probe, w.Code, w.Body)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	f := newFake()
	f.samples = []Metric{
		{Name: "b_total", Help: "Things\nso far.", Type: "counter", Value: 3, Labels: map[string]string{"z": `q"\`, "a": "1"}},
		{Name: "a", Type: "gauge", Value: 0.5},
		{Name: "b_total", Help: "Things\nso far.", Type: "counter", Value: 4, Labels: map[string]string{"a": "2", "no-name": "x"}},
		{Name: "no name", Value: 1},
	}
	w := call(open(f), "GET", "/metrics", "")
	want := "# TYPE a gauge\na 0.5\n# HELP b_total Things\\nso far.\n# TYPE b_total counter\n" +
		`b_total{a="1",z="q\"\\"} 3` + "\n" + `b_total{a="2"} 4` + "\n"
	if w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("got\n%s\nwant\n%s", w.Body, want)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	f := newFake()
	f.boom = true
	h := open(f)
	for range MaxInFlight + 1 { // and gives its place back
		if w := call(h, "GET", "/v1/status", ""); w.Code != 500 || errorCode(t, w) != CodeInternal {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	}
}

func TestTooManyAtOnce(t *testing.T) {
	f := newFake()
	f.wait, f.entered = true, make(chan struct{})
	h := open(f)
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan struct{})
	for range MaxInFlight {
		go func() {
			defer func() { finished <- struct{}{} }()
			r, _ := http.NewRequestWithContext(ctx, "GET", "/v1/kv/a", nil)
			h.ServeHTTP(discard{make(http.Header)}, r)
		}()
		<-f.entered
	}
	if w := call(h, "GET", "/v1/status", ""); w.Code != 503 || errorCode(t, w) != CodeBusy {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	cancel()
	for range MaxInFlight {
		<-finished
	}
	if w := call(h, "GET", "/v1/status", ""); w.Code != 200 {
		t.Errorf("status %d after all left: %s", w.Code, w.Body)
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestRules(t *testing.T) {
	f := newFake()
	h := open(f)
	for _, step := range []struct{ method, target, body, has string }{
		{"GET", "/v1/pause", "", `"pause":null`},
		{"POST", "/v1/pause", "", `"pause":{`},
		{"POST", "/v1/pause", `{"reason":"new switch"}`, `"reason":"new switch"`},
		{"POST", "/v1/pause", `{"node":2,"reason":"new disk"}`, `"maintenance":[{"node_id":2,`},
		{"POST", "/v1/failover", `{"to":3,"reason":"burnt"}`, `"permit":{"node_id":3,"after":7,`},
		{"GET", "/v1/pause", "", `"permit":{"node_id":3`},
		{"DELETE", "/v1/pause?node=2", "", `"maintenance":[]`},
		{"DELETE", "/v1/pause", "", `"pause":null`},
	} {
		w := call(h, step.method, step.target, step.body)
		if w.Code != 200 || !strings.Contains(w.Body.String(), step.has) {
			t.Errorf("%s %s %s: %d %s, want %s", step.method, step.target, step.body, w.Code, w.Body, step.has)
		}
	}
	for _, step := range []struct{ method, target, body string }{
		{"POST", "/v1/failover", ""}, {"POST", "/v1/failover", `{"to":0}`}, {"DELETE", "/v1/pause?node=x", ""}, {"POST", "/v1/pause", `{"nod":2}`},
		{"GET", "/v1/pause?x=1", ""},
	} {
		if w := call(h, step.method, step.target, step.body); w.Code != 400 {
			t.Errorf("%s %s %s: %d %s", step.method, step.target, step.body, w.Code, w.Body)
		}
	}
	f.err = failover.ErrNoQuorum
	for _, step := range []struct{ method, target, body string }{{"POST", "/v1/pause", ""}, {"DELETE", "/v1/pause", ""}, {"POST", "/v1/failover", `{"to":3}`}} {
		if w := call(h, step.method, step.target, step.body); w.Code != 503 || !strings.Contains(w.Body.String(), CodeNoQuorum) {
			t.Errorf("%s %s without a quorum: %d %s", step.method, step.target, w.Code, w.Body)
		}
	}
}
