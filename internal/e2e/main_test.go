package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
)

// binary is the program under test, built once by TestMain; under the race
// detector when the tests are.
var binary string

// logTail is how much of a node's log is shown when a test has failed, bytes.
const logTail = 12000

// runTimeout bounds a command that is expected to end by itself.
const runTimeout = 90 * time.Second

// TestMain runs the tests, or, in a process that a test has started, the part
// that process plays.
func TestMain(m *testing.M) {
	if path := os.Getenv(leaseReaderEnv); path != "" {
		os.Exit(readLease(path))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	// The race detector makes a process rest for a second at its end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	dir, err := os.MkdirTemp("", "aiondb-ha-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "aiondb-ha")
	args := []string{"build", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/aiondb/aiondb-ha/cmd/aiondb-ha")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program under test: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// within is the context of a test step that must be over in d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// patient are settings for tests in which there must be no failover, on
// machines so busy that a node may not run for a while.
var patient = []string{"AIONDB_HA_HEALTH_CHECK_TIMEOUT_MS=1500", "AIONDB_HA_ELECTION_TIMEOUT_MS=4000"}

// newCluster prepares a cluster of the program under test. When the test has
// failed the logs of the nodes are shown; a data race in a node fails it.
func newCluster(t *testing.T, nodes int) *democluster.Cluster {
	t.Helper()
	return newClusterWith(t, democluster.Config{Nodes: nodes})
}

func newClusterWith(t *testing.T, cfg democluster.Config) *democluster.Cluster {
	t.Helper()
	cfg.Binary, cfg.Dir = binary, filepath.Join(t.TempDir(), "cluster")
	c, err := democluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Shutdown(true)
		for _, n := range c.Nodes() {
			log, err := os.ReadFile(n.LogPath)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
				if at := bytes.Index(log, []byte(bad)); at >= 0 {
					t.Errorf("log of node %d:\n%s", n.ID, log[at:min(at+logTail, len(log))])
				}
			}
			if t.Failed() {
				t.Logf("log of node %d (its end):\n%s", n.ID, log[max(0, len(log)-logTail):])
			}
		}
	})
	return c
}

// startCluster starts all nodes and waits until one is primary and the others
// follow it.
func startCluster(t *testing.T, nodes int) (*democluster.Cluster, democluster.Status) {
	t.Helper()
	c := newCluster(t, nodes)
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	return c, settle(t, c)
}

// settle waits until every running node agrees on a primary and has caught up.
func settle(t *testing.T, c *democluster.Cluster) democluster.Status {
	t.Helper()
	ctx := within(t, time.Minute)
	for {
		primary, err := c.WaitPrimary(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		agreed := true
		for _, n := range c.Nodes() {
			if n.ID == primary.NodeID || !c.Running(n.ID) {
				continue
			}
			if _, err := c.WaitReplica(within(t, 20*time.Second), n.ID, primary.NodeID); err != nil {
				agreed = false // the primary may have changed meanwhile
			}
		}
		if agreed {
			return primary
		}
		if ctx.Err() != nil {
			t.Fatal("the nodes do not agree on a primary")
		}
	}
}

// newClient starts a measuring client that the test need not close.
func newClient(t *testing.T, c *democluster.Cluster) *democluster.Client {
	t.Helper()
	client, err := democluster.NewClient(democluster.ClientConfig{
		Nodes: c.Nodes(), Log: filepath.Join(c.Dir(), "client.jsonl")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// result is what a command that has ended has left.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// oneLine checks that the command failed with exactly one line that names the
// program, and returns it.
func (r result) oneLine(t *testing.T) string {
	t.Helper()
	line, found := strings.CutPrefix(r.stderr, "aiondb-ha: ")
	if r.code != 1 || !found || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("status %d, want 1; standard error, want one line that begins with \"aiondb-ha: \":\n%s", r.code, r.stderr)
	}
	return strings.TrimSpace(line)
}

// run runs the program under test until it ends.
func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(within(t, runTimeout), binary, args...)
	cmd.Env = env
	hold, err := cmd.StdinPipe() // held open: a node with AIONDB_HA_EXIT_WITH_STDIN must not take its end for a reason
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err = cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode(), took: time.Since(start)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	if t.Context().Err() == nil && r.took >= runTimeout {
		t.Fatalf("%v did not end within %v; it said:\n%s%s", args, runTimeout, r.stdout, r.stderr)
	}
	if strings.Contains(r.stderr, "DATA RACE") {
		t.Errorf("%v: data race:\n%s", args, r.stderr)
	}
	return r
}

// cli runs a command against the API of a node.
func cli(t *testing.T, n democluster.Node, args ...string) result {
	t.Helper()
	return run(t, append(os.Environ(), "NO_COLOR=1"), append(args, "--api", "http://"+n.APIAddr)...)
}
