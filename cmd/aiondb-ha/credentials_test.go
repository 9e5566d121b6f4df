package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/leak"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	adminToken = "an-admin-token-0123456789-0123456789"
	viewToken  = "a-reading-token-0123456789-012345678"
)

func privateFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every way to give a token, and what is said when it is the wrong one.
func TestClientTokens(t *testing.T) {
	f := newFakeNode()
	server := httptest.NewServer(f.handler(httpapi.Tokens{Admin: []protocol.Secret{protocol.NewSecret(adminToken)}, Read: []protocol.Secret{protocol.NewSecret(viewToken)}}))
	t.Cleanup(server.Close)
	open := privateFile(t, adminToken)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		environ []string
		line    string
		code    int
		says    string
	}{
		{"none", nil, "status", 1, "wants a token: send it as Authorization: Bearer TOKEN: give --api-token-file FILE, or set AIONDB_HA_API_TOKEN_FILE"},
		{"in the environment", []string{"AIONDB_HA_API_TOKEN= " + adminToken + " and-another-one"}, "kv put a b", 0, "a is set"},
		{"in its file", []string{"AIONDB_HA_API_TOKEN_FILE=" + privateFile(t, adminToken+"\nand-another\n")}, "kv put a b", 0, "a is set"},
		{"reading", []string{"AIONDB_HA_API_READ_TOKEN=" + viewToken}, "status", 0, "primary"},
		{"reading only", []string{"AIONDB_HA_API_READ_TOKEN_FILE=" + privateFile(t, viewToken)}, "kv put a b", 1, "this token may read and change nothing"},
		{"admin before reading", []string{"AIONDB_HA_API_READ_TOKEN=" + viewToken, "AIONDB_HA_API_TOKEN=" + adminToken}, "kv put a b", 0, "a is set"},
		{"a flag's file", nil, "kv put a b --api-token-file " + privateFile(t, adminToken), 0, "a is set"},
		{"a flag's file, in front", nil, "--api-token-file " + privateFile(t, adminToken) + " kv put a b", 0, "a is set"},
		{"a flag", nil, "kv put a b --api-token " + adminToken, 0, "every user of this machine can read a command line: use --api-token-file"},
		{"two flags", nil, "status --api-token x --api-token-file y", 2, "one is enough"},
		{"a flag over the environment", []string{"AIONDB_HA_API_TOKEN=" + adminToken}, "status --api-token wrong", 1, "this token is not accepted here"},
		{"a file that is not there", nil, "status --api-token-file /nowhere", 1, "--api-token-file: "},
		{"a file for all", []string{"AIONDB_HA_API_TOKEN_FILE=" + open}, "status", 1, "every user of this machine may use"},
		{"the secret is no token", []string{"AIONDB_HA_API_TOKEN=" + testSecret}, "status", 1, "not accepted"},
		// In the clear, where another program may have taken the port, only what was asked for is sent.
		{"derived, not asked for", []string{"AIONDB_HA_AUTH_TOKEN=" + testSecret}, "status", 1, "wants a token"},
		{"derived", []string{"AIONDB_HA_AUTH_TOKEN=" + testSecret, "AIONDB_HA_API_REQUIRE_TOKEN=true"}, "kv put a b", 0, "a is set"},
		{"in the clear to another machine", []string{"AIONDB_HA_API_TOKEN=" + adminToken}, "status --api http://192.0.2.1:1", 1, "AIONDB_HA_API_TOKEN would cross the network in the clear to http://192.0.2.1:1: use https://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out lockedBuffer
			a := &app{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &out, environ: append([]string{apiEnv + "=" + server.URL}, c.environ...)}
			code := a.run(strings.Fields(c.line))
			if code != c.code || !strings.Contains(out.String(), c.says) {
				t.Errorf("exit %d, want %d: %s", code, c.code, out.String())
			}
			for _, secret := range []string{adminToken, viewToken, testSecret} {
				if found := leak.Find([]byte(out.String()), []byte(secret)); found != "" {
					t.Error(found)
				}
			}
		})
	}
}

// A node that other machines reach: TLS by its own certificate, tokens of the
// settings and of the secret, both followed while it runs.
func TestServeBeyondLoopback(t *testing.T) {
	tokens := privateFile(t, adminToken+"\n")
	s := startNode(t, filepath.Join(t.TempDir(), "data"), "AIONDB_HA_API_ADDR=0.0.0.0:0", "AIONDB_HA_API_TOKEN_FILE="+tokens)
	var api string
	select {
	case line := <-s.stdout.lines:
		m := regexp.MustCompile(`api (https)://\[::\]:(\d+),`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("ready line %q", line)
		}
		api = "localhost:" + m[2]
	case code := <-s.code:
		t.Fatalf("exit %d: %s", code, s.stderr)
	case <-time.After(30 * time.Second):
		t.Fatalf("not ready: %s", s.stderr)
	}
	run := func(environ []string, line string) (int, string) {
		var out lockedBuffer
		a := &app{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &out, environ: environ}
		return a.run(strings.Fields(line)), out.String()
	}
	expect := func(environ []string, line string, code int, says string) {
		t.Helper()
		if got, out := run(environ, line); got != code || !strings.Contains(out, says) {
			t.Errorf("%s: exit %d, want %d: %s", line, got, code, out)
		}
	}
	secret := "AIONDB_HA_AUTH_TOKEN=" + testSecret
	https := " --api https://" + api
	// With the cluster's environment nothing else is needed.
	expect([]string{secret}, "kv put a b --timeout 20s"+https, 0, "a is set")
	expect([]string{secret, "AIONDB_HA_API_TLS=on"}, "kv get a --api "+api, 0, "b")
	expect([]string{secret}, "status --api http://"+api, 1, "speaks TLS: use https://")
	expect(nil, "status"+https, 1, "signed by nobody trusted here (its authority's SHA-256 is ")
	expect([]string{secret}, "status --json"+https, 0, `"api_certificate": {`)
	// A client without the secret: a certificate and a token.
	ca, read := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "read")
	expect([]string{secret}, "token --api-ca -o "+ca, 0, "")
	expect([]string{secret}, "token --api-read -o "+read, 0, "")
	client := https + " --api-ca " + ca
	expect(nil, "status"+client, 1, "wants a token")
	expect(nil, "status --api-token-file "+read+client, 0, "primary")
	expect(nil, "kv put a c --api-token-file "+read+client, 1, "may read and change nothing")
	expect([]string{"AIONDB_HA_API_TOKEN=" + adminToken}, "kv put a c"+client, 0, "a is set")
	expect([]string{"AIONDB_HA_API_TOKEN=" + adminToken, "AIONDB_HA_API_CA=" + ca}, "kv get a"+https, 0, "c")
	expect([]string{"AIONDB_HA_AUTH_TOKEN=" + strings.Repeat("x", 32)}, "status"+https, 1, "signed by nobody trusted here")
	expect(nil, "status --api-ca "+read+https, 1, "there is no certificate in")
	if left := gaugeOf(t, ca, adminToken, "https://"+api, "aiondb_ha_api_certificate_expires_seconds"); left < 60*24*3600 || left > 91*24*3600 {
		t.Errorf("the API's certificate ends in %v s", left)
	}

	// The token is rotated: both count, then the new one alone.
	rotate := func(text, token string, accepted bool) {
		t.Helper()
		if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for {
			code, out := run([]string{"AIONDB_HA_API_TOKEN=" + token}, "status"+client)
			if (code == 0) == accepted {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the tokens did not change: %s\n%s", out, s.stderr)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	rotate(viewToken+"\n"+adminToken+"\n", viewToken, true)
	expect([]string{"AIONDB_HA_API_TOKEN=" + adminToken}, "status"+client, 0, "primary")
	rotate(viewToken+"\n", adminToken, false)
	// What is of no use changes nothing, and is told once.
	if err := os.WriteFile(tokens, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(s.stderr.String(), "the settings are of no use as they are now") {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is said of it:\n%s", s.stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
	expect([]string{"AIONDB_HA_API_TOKEN=" + viewToken}, "status"+client, 0, "primary")
	s.cancel()
	if code := s.ended(); code != 0 {
		t.Errorf("exit %d: %s", code, s.stderr)
	}
	for _, secret := range []string{adminToken, viewToken, testSecret} {
		if found := leak.Find([]byte(s.stderr.String()), []byte(secret)); found != "" {
			t.Error(found)
		}
	}
}

func TestTokensOfTheSecret(t *testing.T) {
	for _, c := range []struct {
		environ []string
		line    string
		code    int
		want    string
	}{
		{nil, "token --api", 1, "no cluster secret: set AIONDB_HA_AUTH_TOKEN_FILE"},
		{[]string{"AIONDB_HA_AUTH_TOKEN=short"}, "token --api", 1, "no cluster secret"},
		{[]string{"AIONDB_HA_AUTH_TOKEN=" + testSecret}, "token --api --api-read", 2, "one at a time"},
		{[]string{"AIONDB_HA_AUTH_TOKEN=" + testSecret}, "token --api-read --api-ca", 2, "one at a time"},
		{[]string{"AIONDB_HA_AUTH_TOKEN_FILE=" + privateFile(t, testSecret+"\n")}, "token --api-ca", 0, "BEGIN CERTIFICATE"},
	} {
		var out lockedBuffer
		a := &app{ctx: t.Context(), stdout: &out, stderr: &out, environ: c.environ}
		if code := a.run(strings.Fields(c.line)); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: exit %d, want %d: %s", c.line, code, c.code, out.String())
		}
	}
	var out lockedBuffer
	a := &app{ctx: t.Context(), stdout: &out, stderr: &out, environ: []string{"AIONDB_HA_AUTH_TOKEN=" + testSecret}}
	admin, read := httpapi.DeriveTokens([]byte(testSecret))
	if a.run([]string{"token", "--api"}) != 0 || a.run([]string{"token", "--api-read"}) != 0 || out.String() != string(admin.Bytes())+"\n"+string(read.Bytes())+"\n" {
		t.Errorf("%q", out.String())
	}
}

// gaugeOf returns a metric of the node at url.
func gaugeOf(t *testing.T, ca, token, url, name string) float64 {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in:\n%s", name, text)
	}
	value, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
