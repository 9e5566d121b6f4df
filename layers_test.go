package ha_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/aiondb/aiondb-ha"

// layers lists, for each room, which of our packages and which other modules
// its code may import. "std" is always allowed. docs/adr/0001-layout.md says why.
var layers = map[string][]string{
	"protocol":           {},
	"health":             {"protocol"},
	"election":           {"protocol"},
	"fencing":            {"protocol"},
	"fencing/leasefile":  {"protocol", "fencing", "internal/clock"},
	"fsm/command":        {"protocol"},
	"failover":           {"protocol", "health", "election", "fencing", "github.com/hashicorp/go-hclog"},
	"fsm":                {"protocol", "fsm/command", "github.com/hashicorp/raft", "github.com/hashicorp/go-hclog"},
	"failover/raftshim":  {"protocol", "failover", "fencing", "fsm", "fsm/command", "github.com/hashicorp/raft", "github.com/hashicorp/go-hclog"},
	"logstore":           {"github.com/hashicorp/raft"},
	"logstore/storetest": {"logstore", "github.com/hashicorp/raft"},
	"logstore/boltstore": {"logstore", "github.com/hashicorp/raft", "github.com/hashicorp/go-msgpack", "go.etcd.io/bbolt"},
	"logstore/kinds":     {"logstore", "logstore/boltstore", "logstore/walstore", "jsonlstore", "github.com/hashicorp/raft-wal"},
	"logstore/walstore":  {"logstore", "logstore/boltstore", "github.com/hashicorp/raft", "github.com/hashicorp/raft-wal", "github.com/hashicorp/go-hclog"},
	"jsonlstore":         {"protocol", "fsm/command", "logstore", "internal/vfs", "github.com/hashicorp/raft", "github.com/hashicorp/go-hclog", "github.com/hashicorp/go-metrics", "golang.org/x/sys"},
	"gossip":             {"protocol", "health", "github.com/hashicorp/memberlist", "github.com/hashicorp/go-hclog"},
	"internal/vfs":       {"golang.org/x/sys"},
}

// belowRoot are the internal packages that the root package wires. The others
// may import the root package, as cmd and examples do.
var belowRoot = []string{"internal/clock", "internal/quiet", "internal/vfs", "internal/transport", "internal/httpapi", "internal/walplane", "internal/logview", "internal/term"}

type listedPackage struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// TestImportsPointDown fails on an import that the layout does not allow.
func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, strict := layers[room]
		for _, imp := range p.Imports {
			ours := strings.TrimPrefix(imp, module+"/")
			switch {
			case imp == module && (slices.Contains(belowRoot, room) || strict):
				t.Errorf("%s imports the root package: only cmd, examples, and what stands above the root may", room)
			case !strict || !strings.Contains(imp, "."):
			case !slices.ContainsFunc(allowed, func(a string) bool { return ours == a || strings.HasPrefix(imp, a+"/") || imp == a }):
				t.Errorf("%s imports %s: docs/adr/0001-layout.md does not allow it", room, imp)
			}
		}
	}
}

// TestSmallDependencies fails when a package that is meant to be imported alone
// begins to bring more modules than it should.
func TestSmallDependencies(t *testing.T) {
	raft := []string{"github.com/hashicorp/raft", "github.com/hashicorp/go-hclog", "github.com/hashicorp/go-metrics",
		"github.com/hashicorp/go-msgpack", "github.com/hashicorp/go-immutable-radix", "github.com/hashicorp/golang-lru",
		"github.com/fatih/color", "github.com/mattn", "golang.org/x/sys"}
	for pkg, allowed := range map[string][]string{"fencing": nil, "fencing/leasefile": {"golang.org/x/sys"}, "protocol": nil, "election": nil, "health": nil, "fsm/command": nil, "logstore": raft, "jsonlstore": raft} {
		for _, dep := range list(t, "-deps", "./"+pkg) {
			if dep.Standard || strings.HasPrefix(dep.ImportPath, module) {
				continue
			}
			if !slices.ContainsFunc(allowed, func(a string) bool { return dep.ImportPath == a || strings.HasPrefix(dep.ImportPath, a+"/") }) {
				t.Errorf("%s now depends on %s", path.Join(module, pkg), dep.ImportPath)
			}
		}
	}
}

func list(t *testing.T, args ...string) []listedPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Standard"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listedPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
