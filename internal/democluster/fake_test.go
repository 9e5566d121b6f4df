package democluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
)

const (
	fakeEnv   = "DEMOCLUSTER_TEST_FAKE"
	parentEnv = "DEMOCLUSTER_TEST_PARENT"
)

// TestMain runs the tests, or, in a process that a test has started, the part
// that process plays.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(fakeEnv) != "":
		os.Exit(fakeNode(os.Getenv(fakeEnv)))
	case os.Getenv(parentEnv) != "":
		os.Exit(fakeParent())
	}
	// Under the race detector a process rests for a second when it ends.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// fakeNode is a node whose role is decided by its ID: node 1 is primary.
func fakeNode(how string) int {
	if how == "broken" {
		fmt.Fprintln(os.Stderr, "aiondb-ha: this node is broken: mend it")
		return 1
	}
	id, err := strconv.Atoi(os.Getenv("AIONDB_HA_NODE_ID"))
	if err != nil {
		return 1
	}
	ln, err := net.Listen("tcp", os.Getenv("AIONDB_HA_API_ADDR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "aiondb-ha:", err)
		return 1
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		role := "replica"
		if id == 1 {
			role = "primary"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"node_id": id, "role": role, "state": "fake", "epoch": 3, "primary": 1,
			"position": map[string]int{"timeline": 3, "lsn": 10},
		})
	})
	var handler http.Handler = mux
	if how == "member" || how == "lossy" || how == "stubborn" {
		member, err := newFakeMember(id, how)
		if err != nil {
			return 1
		}
		handler = member.handler()
	}
	go func() { _ = http.Serve(ln, handler) }()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	gone := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(gone) }()
	if how == "deaf" {
		select {} // hears neither
	}
	select {
	case <-term:
		return 0
	case <-gone:
		return 3
	}
}

// fakeParent starts a cluster of deaf nodes, prints their process IDs and waits
// to be killed.
func fakeParent() int {
	c, err := New(Config{Dir: os.Getenv(parentEnv), Args: []string{}, Env: []string{fakeEnv + "=deaf", parentEnv + "="}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := c.StartAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = c.Pause(2)
	for _, n := range c.Nodes() {
		fmt.Println(c.PID(n.ID))
	}
	select {}
}
