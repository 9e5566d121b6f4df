package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// The stores are what this raft takes, whatever else they are.
var (
	_ raft.LogStore          = logstore.Store(nil)
	_ raft.StableStore       = logstore.Store(nil)
	_ raft.MonotonicLogStore = logstore.Store(nil)
)

func TestRaftIsTheOlderOne(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{with .Replace}}{{.Version}}{{end}}", "github.com/hashicorp/raft").Output()
	if version := strings.TrimSpace(string(out)); err != nil || !strings.HasPrefix(version, "v1.7.") {
		t.Fatalf("raft %q, %v: want v1.7", version, err)
	}
}

func TestCountSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct {
		commands []string
		want     string
	}{{[]string{"a", "b", "c"}, "3"}, {[]string{"d", "snapshot", "e"}, "5"}, {nil, "5"}} {
		var out strings.Builder
		if err := run(dir, step.commands, &out); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != step.want {
			t.Fatalf("after %v the count is %s, want %s", step.commands, got, step.want)
		}
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store {
		s, err := jsonlstore.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
