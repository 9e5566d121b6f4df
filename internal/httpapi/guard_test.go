package httpapi

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOtherSitesMayNotWrite(t *testing.T) {
	f := newFake()
	h := open(f)
	for _, c := range []struct {
		name    string
		method  string
		header  []string
		allowed bool
	}{
		{"a program", "PUT", nil, true},
		{"our page", "PUT", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, true},
		{"typed by hand", "PUT", []string{"Sec-Fetch-Site", "none"}, true},
		{"another site", "PUT", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.test"}, false},
		{"another port", "PUT", []string{"Sec-Fetch-Site", "same-site"}, false},
		{"an old browser, our page", "PUT", []string{"Origin", "http://example.com"}, true},
		{"an old browser, another site", "PUT", []string{"Origin", "http://evil.test"}, false},
		{"an old browser, a sandboxed page", "PUT", []string{"Origin", "null"}, false},
		{"another site deletes", "DELETE", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"another site reads", "GET", []string{"Sec-Fetch-Site", "cross-site"}, true}, // it cannot see the answer
	} {
		t.Run(c.name, func(t *testing.T) {
			f.proposed = nil
			w := call(h, c.method, "http://example.com/v1/kv/a", "v", c.header...)
			if (w.Code != http.StatusForbidden) != c.allowed {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
			if !c.allowed && (len(f.proposed) > 0 || errorCode(t, w) != CodeForbidden) {
				t.Errorf("proposed %v: %s", f.proposed, w.Body)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("other sites may read: %v", w.Header())
			}
		})
	}
}

func TestHostOnLoopback(t *testing.T) {
	h := open(newFake())
	for _, c := range []struct {
		local, host string
		allowed     bool
	}{
		{"127.0.0.1:7700", "127.0.0.1:7700", true},
		{"127.0.0.1:7700", "localhost:7700", true},
		{"127.0.0.1:7700", "LOCALHOST.", true},
		{"127.0.0.1:7700", "node1.localhost:80", true},
		{"127.0.0.1:7700", "[::1]:7700", true},
		{"[::1]:7700", "[::1]", true},
		{"127.0.0.1:7700", "", true},
		{"127.0.0.1:7700", "evil.test:7700", false},
		{"127.0.0.1:7700", "127.0.0.1.evil.test", false},
		{"127.0.0.1:7700", "10.0.0.1:7700", false},
		{"[::1]:7700", "evil.test", false},
		{"[::ffff:127.0.0.1]:7700", "evil.test", false},
		{"10.0.0.1:7700", "db1.example.com:7700", false}, // without a token, nobody from elsewhere
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.local)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/v1/status", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
		r.Host = c.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if (w.Code == 200) != c.allowed {
			t.Errorf("host %q on %s: status %d", c.host, c.local, w.Code)
		}
	}
}

func TestDashboard(t *testing.T) {
	w := call(open(newFake()), "GET", "/", "")
	html, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(html, "</html>") {
		t.Fatalf("status %d, %d bytes", w.Code, len(html))
	}
	if strings.Contains(html, "/*STYLE*/") || strings.Contains(html, "/*SCRIPT*/") || !strings.Contains(html, "EventSource") {
		t.Error("style or script is missing")
	}
	for _, part := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %s", policy, part)
		}
	}
	// Nothing from elsewhere: the only absolute URLs are the name of SVG and the links to other nodes.
	rest := strings.NewReplacer("http://www.w3.org/2000/svg", "", `"http://" + address`, "").Replace(html)
	if strings.Contains(rest, "http://") || strings.Contains(rest, "https://") || strings.Contains(rest, " src=") {
		t.Error("the page asks for something from elsewhere")
	}
	// The page's policy forbids style attributes and inline handlers; data must never become markup.
	for _, bad := range []string{"innerHTML", " style=", " onclick=", "document.write"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page uses %s", bad)
		}
	}
	if w := call(open(newFake()), "GET", "/index.html", ""); w.Code != 404 {
		t.Errorf("/index.html: status %d", w.Code)
	}
}
