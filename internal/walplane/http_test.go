package walplane

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// call makes one request and returns status and body.
func call(t testing.TB, h http.Handler, method, target, body string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, strings.TrimSuffix(string(b), "\n")
}

func TestHandler(t *testing.T) {
	g := cluster(t, 3)
	one, two := g.dbs[1].Handler(), g.dbs[2].Handler()
	escaped := url.PathEscape("a/b c%ü")
	long := strings.Repeat("k", MaxKeyLen+1)
	for _, c := range []struct {
		h              http.Handler
		method, target string
		body           string
		status         int
		want           string // the whole body, or for an error its code
	}{
		{one, "PUT", "/v1/data/k", "v", 200, `{"epoch":1,"lsn":2}`},
		{one, "GET", "/v1/data/k", "", 200, `{"key":"k","value":"v","epoch":1,"lsn":2}`},
		{one, "PUT", "/v1/data/" + escaped, "w", 200, `{"epoch":1,"lsn":3}`},
		{one, "GET", "/v1/data/" + escaped, "", 200, `{"key":"a/b c%ü","value":"w","epoch":1,"lsn":3}`},
		{one, "GET", "/v1/data/a/b%20c%25%C3%BC", "", 200, `{"key":"a/b c%ü","value":"w","epoch":1,"lsn":3}`},
		{one, "PUT", "/v1/data/bin", "\xff", 200, `{"epoch":1,"lsn":4}`},
		{one, "GET", "/v1/data/bin", "", 200, `{"key":"bin","value_base64":"/w==","epoch":1,"lsn":4}`},
		{one, "PUT", "/v1/data/empty", "", 200, `{"epoch":1,"lsn":5}`},
		{one, "GET", "/v1/data/empty", "", 200, `{"key":"empty","value":"","epoch":1,"lsn":5}`},
		{one, "DELETE", "/v1/data/k?timeout=10s", "", 200, `{"epoch":1,"lsn":6}`},
		{one, "GET", "/v1/data/k", "", 404, "not_found"},
		{one, "GET", "/v1/data/k?stale=true", "", 404, "not_found"},
		{one, "GET", "/v1/data/bin?stale=true", "", 200, `{"key":"bin","value_base64":"/w==","epoch":1,"lsn":4,"stale":true,"age_ms":0}`},
		{one, "GET", "/v1/data?from=3", "", 200, `{"lsn":3,"epoch":1,"key":"a/b c%ü","value":"w"}
{"lsn":4,"epoch":1,"key":"bin","value_base64":"/w=="}
{"lsn":5,"epoch":1,"key":"empty","value":""}
{"lsn":6,"epoch":1,"key":"k","deleted":true}`},
		{one, "GET", "/v1/data?from=7", "", 200, ""},
		{one, "GET", "/v1/data?from=70", "", 200, ""},
		{one, "GET", "/v1/data?from=0", "", 400, "bad_request"},
		{one, "GET", "/v1/data?from=x", "", 400, "bad_request"},
		{one, "GET", "/v1/data/k?timeout=2", "", 400, "bad_request"},
		{one, "GET", "/v1/data/k?timeout=61s", "", 400, "bad_request"},
		{one, "GET", "/v1/data/k?timeout=-1s", "", 400, "bad_request"},
		{one, "GET", "/v1/data/k?stale=perhaps", "", 400, "bad_request"},
		{one, "GET", "/v1/data/k?a=%zz", "", 400, "bad_request"},
		{one, "PUT", "/v1/data/%ff", "", 400, "bad_request"},
		{one, "PUT", "/v1/data/" + long, "", 400, "bad_request"},
		{one, "PUT", "/v1/data/big", strings.Repeat("v", MaxValueLen+1), 413, "too_large"},
		{one, "PUT", "/v1/data", "", 405, "bad_request"},
		{one, "POST", "/v1/data/k", "", 405, "bad_request"},
		{one, "GET", "/v2/data/k", "", 404, "not_found"},
		{two, "PUT", "/v1/data/k", "v", 503, "not_primary"},
		{two, "GET", "/v1/data/k", "", 503, "not_primary"},
		{two, "GET", "/v1/data", "", 503, "not_primary"},
	} {
		name := c.method + " " + c.target[:min(len(c.target), 40)]
		resp, body := call(t, c.h, c.method, c.target, c.body)
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body, c.status)
			continue
		}
		if c.status == 200 {
			if body != c.want {
				t.Errorf("%s: %s, want %s", name, body, c.want)
			}
			continue
		}
		var e errorJSON
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != c.want || e.Error == "" {
			t.Errorf("%s: %s (%v), want code %s", name, body, err, c.want)
		}
		if e.Code == "not_primary" && (e.Primary != 1 || e.Address != address(1)) {
			t.Errorf("%s: %s", name, body)
		}
	}
	// A replica answers when told that stale will do, and says how stale.
	g.level(1, 2)
	eventually(t, func() string {
		_, body := call(t, two, "GET", "/v1/data/bin?stale=true", "")
		var e struct {
			Stale bool
			AgeMS *int64 `json:"age_ms"`
			LSN   uint64
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil || !e.Stale || e.LSN != 4 || e.AgeMS == nil || *e.AgeMS < 0 {
			return "a dated answer of the replica: " + body
		}
		return ""
	})
	resp, body := call(t, two, "GET", "/v1/data?stale=true&from=6", "")
	if resp.StatusCode != 200 || body != `{"lsn":6,"epoch":1,"key":"k","deleted":true}` || resp.Header.Get(HeaderNext) != "7" ||
		resp.Header.Get(HeaderCommit) != "6" || resp.Header.Get(HeaderAge) == "" {
		t.Errorf("%s, %v", body, resp.Header)
	}
	// Alone: no quorum for anybody.
	g.stop(2, 3)
	for target, want := range map[string]int{"PUT /v1/data/k?timeout=20ms": 504, "GET /v1/data/bin?timeout=20ms": 200} {
		method, target, _ := strings.Cut(target, " ")
		if resp, body := call(t, one, method, target, ""); resp.StatusCode != want || want == 504 && !strings.Contains(body, `"unknown_outcome"`) {
			t.Errorf("%s %s: %d %s", method, target, resp.StatusCode, body)
		}
	}
}

// A write that waits for a lease and a read that waits for the first commit
// are told apart from a write that is lost from sight.
func TestHandlerWithoutQuorum(t *testing.T) {
	g := newGroup(t, 3)
	g.start(1)
	g.promote(1, 1)
	h := g.dbs[1].Handler()
	if resp, body := call(t, h, "GET", "/v1/data/k?timeout=20ms", ""); resp.StatusCode != 503 || !strings.Contains(body, `"no_quorum"`) || !strings.Contains(body, "1 of 3") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := call(t, h, "GET", "/v1/data?timeout=20ms", ""); resp.StatusCode != 503 || !strings.Contains(body, `"no_quorum"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	g.must(g.dbs[1].StopWrites(g.ctx()))
	if resp, body := call(t, h, "PUT", "/v1/data/k?timeout=20ms", ""); resp.StatusCode != 504 || !strings.Contains(body, `"timeout"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	g.guards[1].Close(errors.New("over"))
	eventually(t, func() string {
		resp, body := call(t, h, "PUT", "/v1/data/k", "")
		if resp.StatusCode != 503 || !strings.Contains(body, `"not_primary"`) {
			return fmt.Sprintf("not primary: %d %s", resp.StatusCode, body)
		}
		return ""
	})
}

// What a leased primary answers says how long it is valid, from when the
// request arrived: whatever takes time after that is not added.
func TestAnswersSayHowLongTheyAreValid(t *testing.T) {
	const lease = 900 * time.Millisecond
	g := newGroup(t, 1)
	var now atomic.Int64
	now.Store(int64(time.Hour))
	g.clock = func() time.Duration { return time.Duration(now.Load()) }
	g.start(1)
	g.promote(1, 1)
	h := g.dbs[1].Handler()
	expect := func(method, target string, status int, want string) {
		t.Helper()
		resp, body := call(t, h, method, target, "v")
		if resp.StatusCode != status || resp.Header.Get(HeaderValid) != want {
			t.Errorf("%s %s: %d %s, valid for %q, want %d and %q", method, target, resp.StatusCode, body, resp.Header.Get(HeaderValid), status, want)
		}
	}
	expect("PUT", "/v1/data/k", 200, "") // not leased
	expect("GET", "/v1/data/k", 200, "")
	g.guards[1].Extend(1, g.clock()+lease)
	for _, c := range []struct {
		method, target string
		status         int
		want           string
	}{
		{"PUT", "/v1/data/k", 200, "900"},
		{"GET", "/v1/data/k", 200, "900"},
		{"GET", "/v1/data", 200, "900"},
		{"DELETE", "/v1/data/k", 200, "900"},
		{"GET", "/v1/data/k", 404, "900"},
		{"GET", "/v1/data/k?stale=true", 404, ""},
		{"GET", "/v1/data?stale=true", 200, ""},
		{"GET", "/v1/data/k?timeout=x", 400, ""},
	} {
		expect(c.method, c.target, c.status, c.want)
	}
	now.Add(int64(700*time.Millisecond + 1)) // what is left, rounded down
	expect("PUT", "/v1/data/k", 200, "199")
	// A request of which 100 ms pass while it is read: less 2·ε of them.
	r := httptest.NewRequest("PUT", "/v1/data/k", readerFunc(func([]byte) (int, error) {
		now.Add(int64(100 * time.Millisecond))
		return 0, io.EOF
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := w.Result().Header.Get(HeaderValid); w.Code != 200 || got != "189" {
		t.Errorf("%d, valid for %q", w.Code, got)
	}
	now.Add(int64(lease))
	expect("GET", "/v1/data/k?timeout=10ms", 503, "")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A dump that does not fit one page is read page by page, over epochs, and
// gives every record once.
func TestDumpPages(t *testing.T) {
	g := newGroup(t, 1)
	g.start(1)
	g.promote(1, 1)
	want := map[uint64]string{}
	for i := range 12 {
		if i == 5 {
			g.fence(2, 1)
			g.promote(2, 1)
		}
		value := strings.Repeat(fmt.Sprint(i%10), 900_000)
		a := g.put(1, fmt.Sprintf("k%d", i), value)
		want[uint64(a.LSN)] = fmt.Sprintf("%d k%d %s", a.Epoch, i, value)
	}
	server := httptest.NewServer(g.dbs[1].Handler())
	defer server.Close()
	server.Client().Timeout = patience
	from, pages := "1", 0
	for ; ; pages++ {
		resp, err := server.Client().Get(server.URL + "/v1/data?from=" + from)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		n := 0
		for ; ; n++ {
			line, err := lines.ReadBytes('\n')
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var l struct {
				LSN, Epoch uint64
				Key, Value string
			}
			if err := json.Unmarshal(line, &l); err != nil {
				t.Fatal(err)
			}
			if want[l.LSN] != fmt.Sprintf("%d %s %s", l.Epoch, l.Key, l.Value) {
				t.Fatalf("lsn %d: epoch %d, %s", l.LSN, l.Epoch, l.Key)
			}
			delete(want, l.LSN)
		}
		resp.Body.Close()
		from = resp.Header.Get(HeaderNext)
		if n == 0 {
			break
		}
	}
	if len(want) != 0 || pages < 3 {
		t.Fatalf("%d records missing after %d pages", len(want), pages)
	}
}
