package e2e

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

// With two nodes of three gone, killed or stopped, whichever they are, writes
// fail in time and say why, a current read does too, a stale one answers and
// says how old it is; and as soon as one node is back all goes on.
func TestTwoOfThreeGone(t *testing.T) {
	for _, tt := range []struct {
		name     string
		survivor protocol.NodeRole
		away     func(*democluster.Cluster, protocol.NodeID) error
		back     func(*democluster.Cluster, protocol.NodeID) error
	}{
		{"killed, the primary is left", protocol.RolePrimary, (*democluster.Cluster).Kill, (*democluster.Cluster).Start},
		{"killed, a replica is left", protocol.RoleReplica, (*democluster.Cluster).Kill, (*democluster.Cluster).Start},
		{"stopped, the primary is left", protocol.RolePrimary, (*democluster.Cluster).Pause, (*democluster.Cluster).Resume},
		{"stopped, a replica is left", protocol.RoleReplica, (*democluster.Cluster).Pause, (*democluster.Cluster).Resume},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, primary := startCluster(t, 3)
			left := primary.NodeID
			if tt.survivor == protocol.RoleReplica {
				left = primary.NodeID%3 + 1
			}
			n := c.Node(left)
			if r := cli(t, n, "kv", "put", "colour", "green"); r.code != 0 {
				t.Fatalf("put before: %+v", r)
			}
			waitStale(t, n, "colour", "green")
			var away []protocol.NodeID
			for _, other := range c.Nodes() {
				if other.ID != left {
					away = append(away, other.ID)
				}
			}
			for _, id := range away {
				if err := tt.away(c, id); err != nil {
					t.Fatal(err)
				}
			}

			const timeout, slack = 2 * time.Second, 1500 * time.Millisecond
			for _, args := range [][]string{
				{"kv", "put", "colour", "red", "--timeout", timeout.String()},
				{"kv", "get", "colour", "--timeout", timeout.String()},
			} {
				r := cli(t, n, args...)
				if line := r.oneLine(t); !strings.Contains(line, "no quorum") {
					t.Errorf("%v: the line does not say \"no quorum\": %s", args, line)
				} else {
					t.Logf("%v: %v: %s", args, r.took.Round(time.Millisecond), line)
				}
				if r.took > timeout+slack {
					t.Errorf("%v took %v", args, r.took)
				}
			}
			r := cli(t, n, "kv", "get", "colour", "--stale", "--json")
			if r.code != 0 || !strings.Contains(r.stdout, `"stale"`) || !strings.Contains(r.stdout, `"age_ms"`) {
				t.Errorf("stale read: %+v", r)
			}
			if r := cli(t, n, "kv", "get", "colour", "--stale"); r.code != 0 || !strings.Contains(r.stdout, "green") {
				t.Errorf("stale read for people: %+v", r)
			} else {
				t.Logf("stale read: %q %q", r.stdout, r.stderr)
			}
			putData(t, n, timeout+slack)

			if err := tt.back(c, away[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := c.WaitPrimary(within(t, time.Minute), 0); err != nil {
				t.Fatal(err)
			}
			client := newClient(t, c)
			if err := client.WaitAcks(within(t, time.Minute), 20); err != nil {
				t.Fatal(err)
			}
			if r := cli(t, n, "kv", "put", "colour", "blue", "--timeout", "20s"); r.code != 0 {
				t.Errorf("put afterwards: %+v", r)
			}
			if r := cli(t, n, "kv", "get", "colour", "--timeout", "20s"); r.code != 0 || !strings.Contains(r.stdout, "blue") {
				t.Errorf("get afterwards: %+v", r)
			}
			if err := tt.back(c, away[1]); err != nil {
				t.Fatal(err)
			}
			now := settle(t, c)
			if err := client.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := c.Dump(within(t, time.Minute), now.NodeID)
			if err != nil {
				t.Fatal(err)
			}
			checkRecord(t, client.Acks(), data)
		})
	}
}

// putData checks that a write to the data plane of a node without a quorum is
// refused, or left open, within its time, and never acknowledged.
func putData(t *testing.T, n democluster.Node, bound time.Duration) {
	t.Helper()
	start := time.Now()
	req, err := http.NewRequestWithContext(within(t, bound), http.MethodPut,
		"http://"+n.APIAddr+"/v1/data/colour?timeout=2s", bytes.NewReader([]byte("red")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("write to the data plane: %v", err)
		return
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, _ = body.ReadFrom(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("write to the data plane without a quorum: status %d: %s", resp.StatusCode, body.String())
	}
	t.Logf("write to the data plane: status %d after %v: %s", resp.StatusCode, time.Since(start).Round(time.Millisecond), body.String())
}

// waitStale waits until a node itself holds a value: what is committed reaches
// a follower a moment later than the client.
func waitStale(t *testing.T, n democluster.Node, key, value string) {
	t.Helper()
	ctx := within(t, time.Minute)
	for {
		r := cli(t, n, "kv", "get", key, "--stale")
		if r.code == 0 && strings.Contains(r.stdout, value) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("node %d does not hold %s: %+v", n.ID, key, r)
		}
	}
}
