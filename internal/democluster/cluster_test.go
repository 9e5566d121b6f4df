package democluster

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

func newFake(t *testing.T, how string, cfg Config) *Cluster {
	t.Helper()
	cfg.Args = []string{}
	cfg.Env = append(cfg.Env, fakeEnv+"="+how)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Shutdown(false) })
	return c
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// gone waits until a process does not exist any more. A zombie whose parent
// has died too is waited for by init, which may take a moment.
func gone(t *testing.T, pid int) {
	t.Helper()
	ctx := deadline(t, 10*time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		if raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil {
			if _, after, ok := strings.Cut(string(raw), ") "); ok && strings.HasPrefix(after, "Z") {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestClusterLifecycle(t *testing.T) {
	t.Setenv("AIONDB_HA_NODE_ID", "77")
	t.Setenv("AIONDB_HA_STRAY", "inherited")
	c := newFake(t, "node", Config{})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t, 20*time.Second)
	primary, err := c.WaitPrimary(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if primary.NodeID != 1 || primary.Epoch != 3 {
		t.Errorf("primary %+v, want node 1 in epoch 3", primary)
	}
	for _, kv := range c.Environ(2) {
		if strings.HasPrefix(kv, "AIONDB_HA_STRAY") || kv == "AIONDB_HA_NODE_ID=77" {
			t.Errorf("%s was inherited", kv)
		}
	}
	if info, err := os.Stat(c.SecretPath()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secret file: %v, %v", info.Mode(), err)
	}

	if err := c.Start(2); err == nil {
		t.Error("a node that runs was started again")
	}
	first := c.PID(2)
	if err := c.Kill(2); err != nil {
		t.Fatal(err)
	}
	gone(t, first)
	if c.Running(2) || c.Exited() != nil {
		t.Errorf("after a kill: running %v, exited %v", c.Running(2), c.Exited())
	}
	if err := c.Start(2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitReplica(ctx, 2, 1); err != nil {
		t.Fatal(err)
	}
	if clean, err := c.Terminate(3, 10*time.Second); err != nil || !clean {
		t.Errorf("terminate: clean %v, %v", clean, err)
	}

	if err := c.Pause(2); err != nil {
		t.Fatal(err)
	}
	one, two, dir := c.PID(1), c.PID(2), c.Dir()
	c.Shutdown(false)
	gone(t, one)
	gone(t, two)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("temporary directory: %v", err)
	}
	if err := c.Start(1); !errors.Is(err, ErrClosed) {
		t.Errorf("start after shutdown: %v", err)
	}
	c.Shutdown(false)
}

func TestPausedNodeIsKilledByShutdownAndKeepsDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	c := newFake(t, "deaf", Config{Nodes: 1, Dir: dir})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	// It serves, so it has long made itself deaf: before, a signal would end it.
	if _, err := c.WaitPrimary(deadline(t, 20*time.Second), 0); err != nil {
		t.Fatal(err)
	}
	pid := c.PID(1)
	if err := c.Pause(1); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c.Shutdown(false)
	gone(t, pid)
	if took := time.Since(start); took > terminateGrace {
		t.Errorf("shutdown of a paused node took %v: it cannot hear a SIGTERM", took)
	}
	if _, err := os.Stat(filepath.Join(dir, "node-1.log")); err != nil {
		t.Errorf("the directory given was not kept: %v", err)
	}
	if _, err := New(Config{Dir: dir}); !errors.Is(err, ErrDirNotEmpty) {
		t.Errorf("a directory with something in it: %v", err)
	}
}

func TestBrokenNodeIsNamed(t *testing.T) {
	c := newFake(t, "broken", Config{})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	_, err := c.WaitPrimary(deadline(t, 20*time.Second), 0)
	var exited *ExitedError
	if !errors.As(err, &exited) {
		t.Fatalf("got %v, want an ExitedError", err)
	}
	if exited.Last != "aiondb-ha: this node is broken: mend it" || !strings.Contains(err.Error(), exited.Log) {
		t.Errorf("error %q does not say what the node said", err)
	}
}

func TestWaitSaysWhatIsMissing(t *testing.T) {
	c := newFake(t, "node", Config{})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitPrimary(deadline(t, 20*time.Second), 2); err != nil {
		t.Fatal(err)
	}
	_, err := c.WaitPrimary(deadline(t, 300*time.Millisecond), 3)
	if err == nil || !strings.Contains(err.Error(), "node 1 primary in epoch 3 at 3/10") {
		t.Errorf("got %v", err)
	}
}

func TestNodesDieWithTheirParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); len(pids) < DefaultNodes && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != DefaultNodes {
		t.Fatalf("the parent started %d nodes", len(pids))
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	t.Cleanup(func() {
		for _, pid := range pids {
			if t.Failed() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	for _, pid := range pids { // deaf ones, and one of them paused
		gone(t, pid)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{Nodes: MaxNodes}, ""},
		{Config{Nodes: -1}, "-1 nodes: want 1 to 9"},
		{Config{Nodes: MaxNodes + 1, Env: []string{"X"}}, "10 nodes: want 1 to 9\nenvironment \"X\": want NAME=value"},
	} {
		var got string
		if err := tt.cfg.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.cfg, got, tt.want)
		}
	}
}

func TestPortsAreApart(t *testing.T) {
	seen := map[int]bool{}
	for range 4 {
		set, err := choosePorts(MaxNodes * portsPerNode)
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		for _, p := range set.ports {
			if seen[p] {
				t.Errorf("port %d was given twice", p)
			}
			if p < lowestPort || p >= max(ephemeralLow(), ephemeralFrom) {
				t.Errorf("port %d is out of range", p)
			}
			seen[p] = true
		}
	}
}

func TestNodeStateDir(t *testing.T) {
	n := Node{ID: protocol.NodeID(2), DataDir: "/x/node-2"}
	if got := n.StateDir(); got != "/x/node-2/ha/node-2" {
		t.Error(got)
	}
}
