package httpapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
)

// FuzzRequest sends any request there can be, with a token of each kind. None
// makes the handler panic, every error is a document with a code, without an
// admin token nothing is proposed, and the cluster's own keys are written by the routes that own them.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/v1/status?timeout=1s", ""}, {"PUT", "/v1/kv/a%2Fb?timeout=1ms", "value"}, {"DELETE", "/v1/kv/ha/x", ""}, {"PUT", "/v1/kv/a?if_revision=0", "v"}, {"DELETE", "/v1/kv/ha/x?if_revision=7", ""}, {"GET", "/v1/kv?prefix=a&limit=3&all&stale", ""},
		{"PUT", "/v1/config/%ff", "\xff"}, {"POST", "/v1/nodes", `{"node_id":4,"address":"a:1"}`}, {"DELETE", "/v1/nodes/2", ""}, {"POST", "/v1/shards/assign", `{"table_id":1,"shard_id":0,"node_id":2}`},
		{"POST", "/v1/shards/transfer", `{"table_id":1,"shard_id":0,"from_node":1,"to_node":2}`}, {"POST", "/v1/switchover", `{"to":2}`}, {"POST", "/v1/pause", `{}`}, {"POST", "/v1/failover", `{}`},
		{"GET", "/v1/events?follow=false&after=1", ""}, {"POST", "/v1/session", `{"token":"x"}`}, {"OPTIONS", "/health", ""}, {"GET", "//v1/../metrics", ""}, {"CONNECT", "*", ""},
	} {
		for kind := range uint8(4) {
			f.Add(seed[0], seed[1], seed[2], kind)
		}
	}
	f.Fuzz(func(t *testing.T, method, target, body string, kind uint8) {
		u, err := url.ParseRequestURI(target)
		if err != nil || strings.ContainsAny(method, " \r\n") || method == "" {
			return
		}
		node := newFake()
		close(node.live)
		var log strings.Builder
		logger := hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})
		h := New(node, NewGuard(newTestAccess(), logger), logger)
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		admin := false
		switch kind % 4 {
		case 1:
			r.Header.Set("Authorization", "Bearer "+viewToken)
		case 2:
			r.Header.Set("Authorization", "Bearer "+adminToken)
			admin = true
		case 3:
			r.Header.Set("Authorization", body)
			admin = strings.Contains(body, adminToken)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if strings.Contains(log.String(), "panic") && !strings.Contains(target+body+method, "panic") {
			t.Fatalf("%s %q: %s", method, target, log.String())
		}
		if !admin && (len(node.proposed) > 0 || len(node.switchedTo) > 0) {
			t.Fatalf("%s %q without an admin token: %v", method, target, node.proposed)
		}
		for _, c := range node.proposed {
			if strings.HasPrefix(u.Path, "/v1/pause") || strings.HasPrefix(u.Path, "/v1/failover") {
				break // they keep what they are told under ha/rules
			}
			if kv, ok := c.(command.KvWrite); ok && strings.HasPrefix(string(kv.Key), fsm.ReservedPrefix) {
				t.Fatalf("%s %q writes %q", method, target, kv.Key)
			}
		}
		if w.Code >= 400 && method != http.MethodHead && !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			t.Fatalf("%s %q: status %d, %s: %s", method, target, w.Code, w.Header(), w.Body)
		}
		var document errorBody
		if w.Code >= 400 && w.Body.Len() > 0 && !strings.HasPrefix(w.Body.String(), `{"ok":`) && (json.Unmarshal(w.Body.Bytes(), &document) != nil || document.Error == "" || document.Code == "") {
			t.Fatalf("%s %q: status %d without an error: %s", method, target, w.Code, w.Body)
		}
	})
}

// FuzzCredentials gives the guard any header, cookie, host and event position:
// nobody gets in without a token.
func FuzzCredentials(f *testing.F) {
	access := newTestAccess()
	value, _ := access.newSession(access.token(adminToken))
	f.Add("Bearer "+adminToken[:30], "", "localhost", "x-1")
	f.Add("", plainCookie+"="+value[:len(value)-2], "[::1]:80", "")
	f.Add("", plainCookie+"=1.", "evil.test", "-")
	f.Fuzz(func(t *testing.T, authorization, cookie, host, last string) {
		if strings.Contains(authorization, adminToken) || strings.Contains(authorization, admin2Token) || strings.Contains(authorization, viewToken) {
			return
		}
		r := from(http.MethodGet, "/v1/events?follow=false", "127.0.0.1:1", false)
		r.Host = host
		r.Header = http.Header{"Authorization": {authorization}, "Cookie": {cookie}, "Last-Event-Id": {last}}
		w := httptest.NewRecorder()
		serveWith(newFake(), access).ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized && w.Code != http.StatusForbidden {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}
