package httpapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/leak"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	adminToken  = "admin-token-0123456789-0123456789-0"
	admin2Token = "admin-token-second-0123456789-01234"
	viewToken   = "read-token-0123456789-0123456789-01"
	cluster     = "the-secret-of-the-cluster-0123456789"
)

func secrets(texts ...string) (list []protocol.Secret) {
	for _, text := range texts {
		list = append(list, protocol.NewSecret(text))
	}
	return list
}

func newTestAccess() *Access {
	return NewAccess([][]byte{[]byte(cluster)}, Tokens{Admin: secrets(adminToken, admin2Token), Read: secrets(viewToken)})
}

// every is every route there is, with a request for it.
func every(a *api) map[string]Scope {
	all := map[string]Scope{
		"GET /v1/kv/a": ScopeRead, "HEAD /v1/kv/a": ScopeRead, "PUT /v1/kv/a": ScopeAdmin, "DELETE /v1/kv/a": ScopeAdmin, "POST /v1/kv/a": ScopeAdmin,
		"GET /v1/config/a": ScopeRead, "PUT /v1/config/a": ScopeAdmin,
		"GET /nothing/here": ScopeRead, "PATCH /v1/status": ScopeRead, "GET /v1/../v1/status": ScopeRead, "GET //v1/status": ScopeRead,
		"GET /v1/kv/../status": ScopeRead, "PUT /v1/kv/%2e%2e/%2e%2e/health": ScopeAdmin, "PUT /v1//kv/a": ScopeRead, "PUT /v1/%6bv/a": ScopeRead,
	}
	for pattern, row := range a.table {
		all[strings.NewReplacer("{id}", "2", "{$}", "").Replace(pattern)] = row.need
	}
	return all
}

// TestScopes asks for everything with every kind of token. What the routes need
// is also held against a list kept here, so that a slip in the table shows.
func TestScopes(t *testing.T) {
	access := newTestAccess()
	admin, read := DeriveTokens([]byte(cluster))
	f := newFake()
	close(f.live) // an event stream ends at once
	a := newAPI(f, NewGuard(access, nil), nil)
	h := a.guard.Wrap(a.need, a)
	public := []string{"GET /", "GET /v1/session", "POST /v1/session", "DELETE /v1/session", "GET /health", "GET /ready", "GET /primary", "GET /replica", "GET /leader",
		"OPTIONS /health", "OPTIONS /ready", "OPTIONS /primary", "OPTIONS /replica", "OPTIONS /leader"}
	for request, need := range every(a) {
		method, path, _ := strings.Cut(request, " ")
		changes := method != "GET" && method != "HEAD" && method != "OPTIONS"
		isPublic := false
		for _, p := range public {
			isPublic = isPublic || p == request
		}
		switch {
		case need == unscoped:
			t.Errorf("%s has no scope", request)
		case isPublic != (need == ScopePublic):
			t.Errorf("%s needs %v", request, need)
		}
		for _, c := range []struct {
			token string
			has   Scope
		}{
			{"", ScopePublic}, {viewToken, ScopeRead}, {string(read.Bytes()), ScopeRead},
			{adminToken, ScopeAdmin}, {admin2Token, ScopeAdmin}, {string(admin.Bytes()), ScopeAdmin},
			{cluster, unscoped}, {adminToken[:34], unscoped}, {adminToken + "0", unscoped}, {"x", unscoped},
		} {
			f.proposed, f.switchedTo = nil, nil
			var header []string
			if c.token != "" {
				header = []string{"Authorization", "Bearer " + c.token}
			}
			w := call(h, method, path, "", header...)
			want := 0 // anything else
			switch {
			case c.has == unscoped:
				want = http.StatusUnauthorized
			case c.has < need && c.has == ScopePublic:
				want = http.StatusUnauthorized
			case c.has < need:
				want = http.StatusForbidden
			}
			if want == 0 && (w.Code == http.StatusUnauthorized && request != "POST /v1/session" || w.Code == http.StatusForbidden) || want != 0 && w.Code != want {
				t.Errorf("%s with %q: status %d, want %d: %s", request, c.token, w.Code, want, w.Body)
			}
			if w.Code >= 400 && method != "HEAD" && w.Code != http.StatusServiceUnavailable && errorCode(t, w) == "" {
				t.Errorf("%s: no code: %s", request, w.Body)
			}
			if w.Code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no challenge", request)
			}
			if c.has != ScopeAdmin && (len(f.proposed) > 0 || len(f.switchedTo) > 0) {
				t.Errorf("%s with %q has changed something: %v %v", request, c.token, f.proposed, f.switchedTo)
			}
			if changes && need == ScopeRead && c.has == ScopeAdmin && w.Code < 400 && w.Code != http.StatusTemporaryRedirect && w.Code != http.StatusPermanentRedirect && w.Code != http.StatusMovedPermanently {
				t.Errorf("%s changes something, and a read token would do: status %d", request, w.Code)
			}
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	h := serveWith(newFake(), newTestAccess())
	for header, want := range map[string]int{
		"Bearer " + adminToken: 200, "bearer " + adminToken: 200, "Bearer   " + adminToken + " ": 200,
		adminToken: 401, "Basic " + adminToken: 401, "Bearer": 401, "Bearer ": 401, "Bearer a b": 401,
		"Bearer " + adminToken + " " + adminToken: 401, "Bearer " + strings.Repeat("a", 10000): 401, "\x00": 401,
	} {
		if w := call(h, "GET", "/v1/status", "", "Authorization", header); w.Code != want {
			t.Errorf("%q: status %d, want %d", header, w.Code, want)
		}
	}
}

// from makes a request that has come in on a local address.
func from(method, target, local string, secure bool, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	addr, _ := net.ResolveTCPAddr("tcp", local)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
	r.Host = local
	if r.TLS = nil; secure {
		r.TLS = &tls.ConnectionState{}
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// Nothing is answered from afar without TLS and a token, not even a probe; on
// loopback a token is asked for when there is one.
func TestBeyondLoopback(t *testing.T) {
	bearer := []string{"Authorization", "Bearer " + adminToken}
	for _, c := range []struct {
		name, local, target string
		secure              bool
		tokens              Tokens
		header              []string
		want                int
	}{
		{"loopback", "127.0.0.1:1", "/v1/status", false, Tokens{}, nil, 200},
		{"loopback, required", "127.0.0.1:1", "/v1/status", false, Tokens{Required: true}, nil, 401},
		{"loopback, a token set", "[::1]:1", "/v1/status", false, Tokens{Read: secrets(viewToken)}, nil, 401},
		{"loopback, the token", "[::1]:1", "/v1/status", false, Tokens{Admin: secrets(adminToken)}, bearer, 200},
		{"afar, no tokens", "10.0.0.1:1", "/v1/status", true, Tokens{}, nil, 403},
		{"afar, no tokens, a probe", "10.0.0.1:1", "/health", true, Tokens{}, nil, 403},
		{"afar, clear", "10.0.0.1:1", "/v1/status", false, Tokens{Admin: secrets(adminToken)}, bearer, 403},
		{"afar, a probe in the clear", "10.0.0.1:1", "/health", false, Tokens{Admin: secrets(adminToken)}, nil, 403},
		{"afar, no token given", "10.0.0.1:1", "/v1/status", true, Tokens{Admin: secrets(adminToken)}, nil, 401},
		{"afar, the token", "10.0.0.1:1", "/v1/status", true, Tokens{Admin: secrets(adminToken)}, bearer, 200},
		{"afar, another one", "10.0.0.1:1", "/v1/status", true, Tokens{Admin: secrets(admin2Token)}, bearer, 401},
		{"afar, a probe", "10.0.0.1:1", "/health", true, Tokens{Required: true}, nil, 200},
		{"afar, a probe with a wrong token", "10.0.0.1:1", "/health", true, Tokens{Required: true}, bearer, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.probes["health"] = true
			w := httptest.NewRecorder()
			serveWith(f, NewAccess([][]byte{[]byte(cluster)}, c.tokens)).ServeHTTP(w, from("GET", c.target, c.local, c.secure, c.header...))
			if w.Code != c.want {
				t.Errorf("status %d, want %d: %s", w.Code, c.want, w.Body)
			}
		})
	}
}

// A stranger learns from a probe yes or no.
func TestProbesSayNoReasonToStrangers(t *testing.T) {
	f := newFake()
	h := serveWith(f, newTestAccess())
	sameJSON(t, call(h, "GET", "/primary", "").Body.String(), `{"ok":false}`)
	sameJSON(t, call(h, "GET", "/primary", "", "Authorization", "Bearer "+viewToken).Body.String(), `{"ok":false,"reason":"asked for primary"}`)
}

func TestRotation(t *testing.T) {
	access := newTestAccess()
	h := serveWith(newFake(), access)
	status := func(token string) int {
		return call(h, "GET", "/v1/status", "", "Authorization", "Bearer "+token).Code
	}
	cookie := login(t, h, adminToken)
	access.SetTokens(Tokens{Admin: secrets(admin2Token)})
	if status(adminToken) != 401 || status(admin2Token) != 200 || status(viewToken) != 401 {
		t.Error("the tokens are not those that were set")
	}
	if w := call(h, "GET", "/v1/status", "", "Cookie", cookie); w.Code != 401 {
		t.Errorf("a session outlives its token: status %d", w.Code)
	}
	old, _ := DeriveTokens([]byte(cluster))
	other, _ := DeriveTokens([]byte(cluster + "2"))
	access.SetSecrets([][]byte{[]byte(cluster + "2"), []byte(cluster)})
	if status(string(old.Bytes())) != 200 || status(string(other.Bytes())) != 200 {
		t.Error("during a rotation both secrets count")
	}
	access.SetSecrets([][]byte{[]byte(cluster + "2")})
	if status(string(old.Bytes())) != 401 || status(string(other.Bytes())) != 200 {
		t.Error("after it the old one does not")
	}
}

// login returns the cookie, as a browser sends it.
func login(t *testing.T, h http.Handler, token string) string {
	t.Helper()
	w := call(h, "POST", "/v1/session", `{"token":"`+token+`"}`, "Sec-Fetch-Site", "same-origin")
	cookies := w.Result().Cookies()
	if w.Code != 200 || len(cookies) != 1 {
		t.Fatalf("status %d, %d cookies: %s", w.Code, len(cookies), w.Body)
	}
	if found := leak.Find([]byte(w.Header().Get("Set-Cookie")+w.Body.String()), []byte(token)); found != "" {
		t.Errorf("the token is in the answer: %s", found)
	}
	return cookies[0].Name + "=" + cookies[0].Value
}

func TestSession(t *testing.T) {
	access := newTestAccess()
	now := time.Unix(1_800_000_000, 0)
	access.now = func() time.Time { return now }
	f := newFake()
	h := serveWith(f, access)
	for _, c := range []struct {
		body string
		want int
	}{{`{"token":"wrong"}`, 401}, {`{"token":"` + cluster + `"}`, 401}, {`{}`, 400}, {``, 400}, {`{"token":5}`, 400}, {`{"tokens":""}`, 400}, {`[`, 400}} {
		w := call(h, "POST", "/v1/session", c.body)
		if w.Code != c.want || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s: status %d, want %d: %s", c.body, w.Code, c.want, w.Header())
		}
	}
	cookie, view := login(t, h, adminToken), login(t, h, viewToken)
	ours := []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}
	for _, c := range []struct {
		name, method, path string
		header             []string
		want               int
	}{
		{"reads", "GET", "/v1/status", []string{"Cookie", cookie}, 200},
		{"writes", "PUT", "/v1/kv/a", ours, 200},
		{"writes, an older browser", "PUT", "/v1/kv/a", []string{"Cookie", cookie, "Origin", "http://example.com"}, 200},
		{"writes, no browser", "PUT", "/v1/kv/a", []string{"Cookie", cookie}, 403},
		{"writes, another site", "PUT", "/v1/kv/a", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 403},
		{"writes, another port", "PUT", "/v1/kv/a", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site"}, 403},
		{"reads with the smaller one", "GET", "/v1/status", []string{"Cookie", view}, 200},
		{"writes with the smaller one", "PUT", "/v1/kv/a", []string{"Cookie", view, "Sec-Fetch-Site", "same-origin"}, 403},
		{"cut short", "GET", "/v1/status", []string{"Cookie", cookie[:len(cookie)-1]}, 401},
		{"another time", "GET", "/v1/status", []string{"Cookie", strings.Replace(cookie, "=18", "=19", 1)}, 401},
		{"no signature", "GET", "/v1/status", []string{"Cookie", plainCookie + "=1900000000."}, 401},
		{"nothing", "GET", "/v1/status", []string{"Cookie", plainCookie + "="}, 401},
		{"another name", "GET", "/v1/status", []string{"Cookie", "x" + cookie}, 401},
		{"the name for TLS", "GET", "/v1/status", []string{"Cookie", "__Host-" + cookie}, 401},
	} {
		f.proposed = nil
		if w := call(h, c.method, "http://example.com"+c.path, "v", c.header...); w.Code != c.want || (len(f.proposed) > 0) != (c.want == 200 && c.method == "PUT") {
			t.Errorf("%s: status %d, want %d: %s; proposed %v", c.name, w.Code, c.want, w.Body, f.proposed)
		}
	}
	var who sessionBody
	if err := json.Unmarshal(call(h, "GET", "/v1/session", "", "Cookie", view).Body.Bytes(), &who); err != nil || who != (sessionBody{true, "read"}) {
		t.Errorf("%+v, %v", who, err)
	}
	now = now.Add(SessionLifetime - time.Second)
	if w := call(h, "GET", "/v1/status", "", "Cookie", cookie); w.Code != 200 {
		t.Errorf("a second before its end: status %d", w.Code)
	}
	now = now.Add(time.Second)
	if w := call(h, "GET", "/v1/status", "", "Cookie", cookie); w.Code != 401 {
		t.Errorf("at its end: status %d", w.Code)
	}
	if out := call(h, "DELETE", "/v1/session", "").Result().Cookies(); len(out) != 1 || out[0].Value != "" || out[0].Expires.After(now) {
		t.Errorf("logging out: %v", out)
	}
}

func TestSessionCookieOverTLS(t *testing.T) {
	h := serveWith(newFake(), newTestAccess())
	r := from("POST", "/v1/session", "10.0.0.1:1", true)
	r.Body = http.NoBody
	w := call(h, "POST", "https://10.0.0.1/v1/session", `{"token":"`+adminToken+`"}`)
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != secureCookie || !c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Path != "/" || c[0].Domain != "" {
		t.Errorf("%+v", c)
	}
	c = call(h, "POST", "http://127.0.0.1/v1/session", `{"token":"`+adminToken+`"}`).Result().Cookies()
	if len(c) != 1 || c[0].Name != plainCookie || c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Errorf("%+v", c)
	}
}

// Wrong tokens are told once for each source, and never themselves.
func TestRefusalsInTheLog(t *testing.T) {
	var log strings.Builder
	logger := hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})
	h := New(newFake(), NewGuard(newTestAccess(), logger), logger)
	for range 5 {
		call(h, "GET", "/v1/status", "", "Authorization", "Bearer guess-0123456789-guess-0123456789")
		call(h, "POST", "/v1/session", `{"token":"guess-0123456789-guess-0123456789"}`)
		call(h, "GET", "/v1/status", "")
	}
	if n := strings.Count(log.String(), "[WARN]"); n != 1 || !strings.Contains(log.String(), "from=192.0.2.1") {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	if found := leak.Find([]byte(log.String()), []byte("guess-0123456789-guess-0123456789")); found != "" {
		t.Error(found)
	}
}

func TestTokensValidate(t *testing.T) {
	good := Tokens{Admin: secrets(adminToken, admin2Token), Read: secrets(viewToken)}
	if err := good.Validate([]byte(cluster)); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]Tokens{
		"short":       {Admin: secrets("short")},
		"empty":       {Admin: secrets("")},
		"long":        {Read: secrets(strings.Repeat("a", MaxTokenLen+1))},
		"blank":       {Read: secrets(viewToken + " ")},
		"line break":  {Read: secrets(viewToken + "\nx")},
		"the secret":  {Admin: secrets(cluster)},
		"twice":       {Admin: secrets(adminToken), Read: secrets(adminToken)},
		"too many":    {Admin: secrets(adminToken, admin2Token, viewToken, adminToken+"2", adminToken+"3")},
		"not ASCII":   {Admin: secrets(adminToken + "ü")},
		"a quotation": {Admin: secrets(`"` + adminToken)},
	} {
		if err := bad.Validate([]byte(cluster)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if found := leak.Find([]byte(err.Error()), []byte(adminToken)); found != "" {
			t.Errorf("%s: %s", name, found)
		}
	}
}

func TestDerivedTokens(t *testing.T) {
	admin, read := DeriveTokens([]byte(cluster))
	again, _ := DeriveTokens([]byte(cluster))
	other, _ := DeriveTokens([]byte(cluster + "2"))
	if !admin.Equal(again) || admin.Equal(read) || admin.Equal(other) {
		t.Error("not a function of secret and scope")
	}
	if err := (Tokens{Admin: []protocol.Secret{admin}, Read: []protocol.Secret{read}}).Validate([]byte(cluster)); err != nil {
		t.Error(err)
	}
}
