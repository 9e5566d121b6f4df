package jsonlstore

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps the package worth importing: the standard library,
// hashicorp/raft and what that brings, golang.org/x/sys, and the few leaves of
// this module.
func TestDependencies(t *testing.T) {
	list := func(pkg string) []string {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		return strings.Fields(string(out))
	}
	allowed := list("github.com/hashicorp/raft")
	const module = "github.com/aiondb/aiondb-ha/"
	for _, own := range []string{"protocol", "fsm/command", "logstore", "internal/vfs", "jsonlstore"} {
		allowed = append(allowed, module+own)
	}
	for _, dep := range list(".") {
		if !slices.Contains(allowed, dep) && !strings.HasPrefix(dep, "golang.org/x/sys/") {
			t.Errorf("depends on %s", dep)
		}
	}
}
