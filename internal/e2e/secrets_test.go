package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/leak"
)

// What must never be seen again, beside the cluster's own secret.
const (
	oldSecret  = "the-secret-that-went-before-Qz7Kd93LmXw2"
	adminToken = "admin-token-Vb6Nh41TfRe8-Yc5Gj27PsUa9Wo3"
	viewToken  = "reading-token-Ld2Xk85MqZt6-Hn1Bv74CfJy0Er"
	guess      = "a-guessed-token-Ug3Sw96DaIo1-Pm8Fk52ZxTc4"
)

// evidence is everything a cluster has said, by where it said it.
type evidence map[string][]byte

func (e evidence) add(where string, said []byte) { e[where] = append(e[where], said...) }

// TestSecretsNeverShow runs a cluster that logs all it can, has good and bad
// clients and peers, is asked everything, and dies with a dump of its
// goroutines; then looks for the secret and the tokens in all that came out,
// and in what stays on disk.
func TestSecretsNeverShow(t *testing.T) {
	c, err := democluster.New(democluster.Config{Nodes: 3, Binary: binary, Dir: filepath.Join(t.TempDir(), "cluster"), Env: []string{
		"AIONDB_HA_LOG_LEVEL=trace", "GOTRACEBACK=all", "AIONDB_HA_AUTH_TOKEN_PREVIOUS=" + oldSecret,
		"AIONDB_HA_API_TOKEN=" + adminToken, "AIONDB_HA_API_READ_TOKEN=" + viewToken,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(true)
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	secretFile, err := os.ReadFile(c.SecretPath())
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.TrimSpace(secretFile)
	said := evidence{}
	for _, n := range c.Nodes() {
		awaitReady(t, n)
		if raw, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID(n.ID)) + "/cmdline"); err == nil {
			said.add("the arguments of node "+n.ID.String(), raw)
		} else if runtime.GOOS == "linux" {
			t.Error(err)
		}
		goodAndBadRequests(t, said, n)
		hostilePeer(n.Addr)
	}
	commands(t, said, c, string(secret))

	// A dump of all goroutines, with their arguments.
	c.Excuse(2)
	if err := syscall.Kill(c.PID(2), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitExit(within(t, 30*time.Second), 2); err == nil {
		t.Error("a dump leaves no status 0")
	}
	startupFailures(t, said, c, string(secret))
	if clean, err := c.Terminate(1, 20*time.Second); err != nil || !clean {
		t.Errorf("node 1 did not end well: %v, %v", clean, err)
	}

	for _, n := range c.Nodes() {
		log, err := os.ReadFile(n.LogPath)
		if err != nil {
			t.Fatal(err)
		}
		said.add("the log of node "+n.ID.String(), log)
		if !bytes.Contains(log, []byte("[TRACE]")) && !bytes.Contains(log, []byte("[DEBUG]")) {
			t.Error("the log is not as talkative as it can be")
		}
		onDisk(t, said, n)
	}
	if !bytes.Contains(said["the log of node 2"], []byte("SIGQUIT: quit")) || bytes.Count(said["the log of node 2"], []byte("\ngoroutine ")) < 10 {
		t.Error("node 2 left no dump")
	}

	admin, read := httpapi.DeriveTokens(secret)
	oldAdmin, oldRead := httpapi.DeriveTokens([]byte(oldSecret))
	total := 0
	for where, text := range said {
		total += len(text)
		for what, hidden := range map[string][]byte{
			"the secret": secret, "the old secret": []byte(oldSecret), "the admin token": []byte(adminToken), "the read token": []byte(viewToken), "a guess": []byte(guess),
			"the derived admin token": admin.Bytes(), "the derived read token": read.Bytes(), "the old derived admin token": oldAdmin.Bytes(), "the old derived read token": oldRead.Bytes(),
		} {
			if found := leak.Find(text, hidden); found != "" {
				t.Errorf("%s is in %s, %s", what, where, found)
			}
		}
	}
	if leak.Find(secretFile, secret) == "" {
		t.Error("the secret is not even found in its own file")
	}
	t.Logf("%d bytes of %d origins searched", total, len(said))
}

// awaitReady waits for a node without telling it who asks.
func awaitReady(t *testing.T, n democluster.Node) {
	t.Helper()
	ctx := within(t, time.Minute)
	for {
		if status, _ := ask(ctx, n, "GET", "/ready", "", ""); status == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(n.LogPath)
			t.Fatalf("node %d is not ready:\n%s", n.ID, log[max(0, len(log)-logTail):])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask makes one request and returns all of the answer, header included.
func ask(ctx context.Context, n democluster.Node, method, path, authorization, body string) (int, []byte) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.APIAddr+path, strings.NewReader(body))
	if err != nil {
		return 0, []byte(err.Error())
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	answer := &bytes.Buffer{}
	_ = resp.Header.Write(answer)
	_, _ = io.Copy(answer, resp.Body)
	return resp.StatusCode, answer.Bytes()
}

func goodAndBadRequests(t *testing.T, said evidence, n democluster.Node) {
	t.Helper()
	for _, c := range []struct {
		method, path, authorization, body string
		want                              int // 0: whatever
	}{
		{"GET", "/v1/status", "Bearer " + adminToken, "", 200},
		{"GET", "/v1/status", "Bearer " + viewToken, "", 200},
		{"PUT", "/v1/kv/some-key", "Bearer " + adminToken, "some-value", 200},
		{"GET", "/v1/kv?all", "Bearer " + viewToken, "", 200},
		{"GET", "/v1/kv/some-key", "Bearer " + viewToken, "", 200},
		{"PUT", "/v1/config/some-name", "Bearer " + adminToken, "x", 200},
		{"GET", "/v1/config", "Bearer " + viewToken, "", 200},
		{"GET", "/v1/nodes", "Bearer " + viewToken, "", 200},
		{"GET", "/v1/shards", "Bearer " + viewToken, "", 200},
		{"GET", "/v1/pause", "Bearer " + viewToken, "", 200},
		{"GET", "/v1/events?follow=false", "Bearer " + viewToken, "", 200},
		{"GET", "/metrics", "Bearer " + viewToken, "", 200},
		{"GET", "/", "", "", 200},
		{"GET", "/v1/data", "Bearer " + adminToken, "", 0},
		{"PUT", "/v1/data/k", "Bearer " + adminToken, "v", 0},
		{"GET", "/v1/session", "Bearer " + viewToken, "", 200},
		{"POST", "/v1/session", "", `{"token":"` + adminToken + `"}`, 200},
		{"POST", "/v1/switchover", "Bearer " + viewToken, "", 403},
		{"PUT", "/v1/data/k", "Bearer " + viewToken, "v", 403},
		{"GET", "/v1/status", "", "", 401},
		{"GET", "/v1/data", "", "", 401},
		{"GET", "/v1/status", "Bearer " + guess, "", 401},
		{"GET", "/v1/status", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+adminToken)), "", 401},
		{"GET", "/v1/status", adminToken, "", 401},
		{"GET", "/v1/status?token=" + adminToken, "", "", 401},
		{"GET", "/v1/status?token=" + adminToken, "Bearer " + adminToken, "", 400},
		{"POST", "/v1/session", "", `{"token":"` + guess + `"}`, 401},
		{"POST", "/v1/session", "", `{"token":"` + adminToken, 400},
		{"POST", "/v1/session", "", `{"token":["` + adminToken + `"]}`, 400},
		{"POST", "/v1/session", "", `{"` + adminToken + `":1}`, 0},
		{"POST", "/v1/nodes", "Bearer " + adminToken, `{"node_id":"x"}`, 400},
		{"GET", "/nowhere", "Bearer " + adminToken, "", 404},
	} {
		status, answer := ask(t.Context(), n, c.method, c.path, c.authorization, c.body)
		if c.want != 0 && status != c.want {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, status, c.want, answer)
		}
		said.add("the answers of node "+n.ID.String(), answer)
	}
}

// hostilePeer knocks at the HA port with garbage, and with TLS that proves nothing.
func hostilePeer(addr string) {
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nAuthorization: Bearer " + guess + "\r\n\r\n"))
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"aiondb-ha/raft"}}}
	if conn, err := dialer.Dial("tcp", addr); err == nil {
		_ = conn.Close()
	}
}

// commands runs the client against node 1, with a token of each origin.
func commands(t *testing.T, said evidence, c *democluster.Cluster, secret string) {
	t.Helper()
	base := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AIONDB_HA_API_ADDR=" + c.Node(1).APIAddr, "AIONDB_HA_AUTH_TOKEN=" + secret}
	for _, call := range []struct {
		env  string
		args string
		code int
	}{
		{"AIONDB_HA_API_TOKEN=" + adminToken, "status --json", 0},
		{"AIONDB_HA_API_TOKEN=" + adminToken, "kv list --all", 0},
		{"AIONDB_HA_API_TOKEN=" + adminToken, "switchover --timeout 20s", 0},
		{"AIONDB_HA_API_READ_TOKEN=" + viewToken, "events", 0},
		{"AIONDB_HA_API_READ_TOKEN=" + viewToken, "kv put a b", 1},
		{"AIONDB_HA_API_TOKEN=" + guess, "status", 1},
		{"AIONDB_HA_API_TOKEN=" + adminToken, "status --api http://192.0.2.1:1", 1},
		{"AIONDB_HA_API_TOKEN=" + adminToken, "status --api https://" + c.Node(1).APIAddr, 1},
		{"AIONDB_HA_API_REQUIRE_TOKEN=true", "nodes", 0},
		{"AIONDB_HA_X=1", "token --api-ca", 0},
		{"AIONDB_HA_X=1", "status --api-token " + adminToken, 0},
	} {
		r := run(t, append(base[:len(base):len(base)], call.env), strings.Fields(call.args)...)
		if r.code != call.code {
			t.Errorf("%s: status %d, want %d: %s", strings.Fields(call.args)[:2], r.code, call.code, r.stderr)
		}
		said.add("the output of aiondb-ha "+strings.Fields(call.args)[0], []byte(r.stdout+r.stderr))
	}
}

// startupFailures starts node 2, which does not run, with settings that are
// wrong beside a secret, or in it.
func startupFailures(t *testing.T, said evidence, c *democluster.Cluster, secret string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.json")
	broken := filepath.Join(t.TempDir(), "broken.json")
	for path, text := range map[string]string{
		config: `{"auth_token": "` + secret + `", "api_token": "` + adminToken + `", "node_id": 99, "auth_tokens": "` + secret + `"}`,
		broken: `{"auth_token": "` + secret + `" "api_token": "` + adminToken + `"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range [][]string{
		{"AIONDB_HA_AUTH_TOKEN_FILE=", "AIONDB_HA_AUTH_TOKEN=" + guess},       // not that of the others
		{"AIONDB_HA_AUTH_TOKEN_FILE=", "AIONDB_HA_AUTH_TOKEN=" + secret[:31]}, // too short
		{"AIONDB_HA_AUTH_TOKEN=" + secret},                                    // twice
		{"AIONDB_HA_AUTH_TOKEN_FILE=" + secret},                               // text for a file
		{"AIONDB_HA_API_TOKEN=" + secret},                                     // the secret for a token
		{"AIONDB_HA_API_TOKEN=" + adminToken[:20]},                            // too short
		{"AIONDB_HA_API_READ_TOKEN=" + adminToken},                            // twice
		{"AIONDB_HA_AUTH_TOKEN_FILE=", "AIONDB_HA_CONFIG=" + config, "AIONDB_HA_NODE_ID="},
		{"AIONDB_HA_AUTH_TOKEN_FILE=", "AIONDB_HA_CONFIG=" + broken},
	} {
		r := run(t, append(c.Environ(2), change...), "serve")
		if r.code == 0 {
			t.Errorf("%.25s: started", change)
		}
		said.add("the output of serve", []byte(r.stdout+r.stderr))
	}
	r := run(t, c.Environ(2), "serve", "--auth-token", secret)
	if r.code != 2 {
		t.Errorf("a secret as a flag: status %d", r.code)
	}
	said.add("the output of serve", []byte(r.stdout+r.stderr))
}

// onDisk reads everything in a node's directory: whoever steals the disk finds
// no key to the cluster there.
func onDisk(t *testing.T, said evidence, n democluster.Node) {
	t.Helper()
	err := filepath.WalkDir(n.DataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		said.add("the files of node "+n.ID.String(), raw)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if len(said["the files of node "+n.ID.String()]) == 0 {
		t.Errorf("node %d has no files", n.ID)
	}
}
