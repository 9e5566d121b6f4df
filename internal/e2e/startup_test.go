package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
)

// tree is what a directory holds, down to the last byte: mode and hash by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sum := ""
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = fmt.Sprintf("%x", sha256.Sum256(raw))
		}
		found[path] = info.Mode().String() + " " + sum
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func sameTree(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := tree(t, dir)
	for path, what := range after {
		switch was, known := before[path]; {
		case !known:
			t.Errorf("%s was created", path)
		case was != what:
			t.Errorf("%s was changed: %s, was %s", path, what, was)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			t.Errorf("%s was removed", path)
		}
	}
}

// Every fault that keeps a node from starting is one line on standard error
// that says what to do, status 1, and no change on disk. Nodes 1 and 2 of the
// cluster run; node 3, which has run with them, does not.
func TestStartupFaults(t *testing.T) {
	c, _ := startCluster(t, 3)
	client := newClient(t, c)
	if err := client.WaitAcks(within(t, time.Minute), 50); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if clean, err := c.Terminate(3, 20*time.Second); err != nil || !clean {
		t.Fatalf("node 3 was asked to end: clean %v, %v", clean, err)
	}
	if _, err := c.WaitPrimary(within(t, time.Minute), 0); err != nil {
		t.Fatal(err)
	}
	three := c.Node(3)
	scratch := t.TempDir()

	secret := filepath.Join(scratch, "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("another!", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(scratch, "short")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(scratch, "file")
	if err := os.WriteFile(file, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	sealed := filepath.Join(scratch, "sealed")
	if err := os.Mkdir(sealed, 0o500); err != nil {
		t.Fatal(err)
	}
	damaged := func(name string, damage func([]byte) []byte) string {
		return damagedCopy(t, three, filepath.Join(scratch, "damaged-"+name), name, damage)
	}

	for _, tt := range []struct {
		name string
		env  []string
		says []string // what the line must hold, all of them
		dir  string   // must not change; node 3's data directory if empty
		hold func(*testing.T)
		skip string
	}{
		{name: "wrong token", env: []string{"AIONDB_HA_AUTH_TOKEN_FILE=" + secret}, says: []string{"secret"}},
		{name: "wrong token, nothing on disk yet", env: []string{"AIONDB_HA_AUTH_TOKEN_FILE=" + secret,
			"AIONDB_HA_DATA_DIR=" + filepath.Join(scratch, "fresh")}, says: []string{"secret"}, dir: scratch},
		{name: "short token", env: []string{"AIONDB_HA_AUTH_TOKEN_FILE=" + short}, says: []string{"32", "aiondb-ha token"}},
		{name: "short token in the environment", env: []string{"AIONDB_HA_AUTH_TOKEN_FILE=", "AIONDB_HA_AUTH_TOKEN=tooshort"},
			says: []string{"32", "aiondb-ha token"}},
		{name: "no token", env: []string{"AIONDB_HA_AUTH_TOKEN_FILE="}, says: []string{"aiondb-ha token"}},
		{name: "HA port taken, TCP", says: []string{three.Addr}, hold: holdTCP(three.Addr)},
		{name: "HA port taken, UDP", says: []string{three.Addr}, hold: holdUDP(three.Addr)},
		{name: "API port taken", says: []string{three.APIAddr}, hold: holdTCP(three.APIAddr)},
		{name: "data port taken", says: []string{three.WALAddr}, hold: holdTCP(three.WALAddr)},
		{name: "node ID 0", env: []string{"AIONDB_HA_NODE_ID=0"}, says: []string{"NODE_ID", "0"}},
		{name: "node ID past the end", env: []string{"AIONDB_HA_NODE_ID=4"}, says: []string{"NODE_ID", "4", "3"}},
		{name: "a file in place of the directory", env: []string{"AIONDB_HA_DATA_DIR=" + file}, says: []string{file, "choose another directory"}, dir: scratch},
		{name: "a file on the way to the directory", env: []string{"AIONDB_HA_DATA_DIR=" + filepath.Join(file, "data")}, says: []string{file, "choose another directory"}, dir: scratch},
		{name: "a directory that is read-only", env: []string{"AIONDB_HA_DATA_DIR=" + sealed}, says: []string{sealed}, dir: scratch,
			skip: rootWritesAnywhere()},
		{name: "a directory that cannot be made", env: []string{"AIONDB_HA_DATA_DIR=/proc/aiondb-ha"}, says: []string{"/proc/aiondb-ha"}, dir: scratch},
		{name: "corrupt raft_state.json", env: []string{"AIONDB_HA_DATA_DIR=" + damaged("raft_state.json", overwrite)},
			says: []string{"raft_state.json"}, dir: scratch},
		{name: "empty raft_state.json", env: []string{"AIONDB_HA_DATA_DIR=" + damaged("raft_state.json", empty)},
			says: []string{"raft_state.json"}, dir: scratch},
		{name: "corrupt fencing.json", env: []string{"AIONDB_HA_DATA_DIR=" + damaged("fencing.json", overwrite)},
			says: []string{"fencing.json"}, dir: scratch},
		{name: "empty fencing.json", env: []string{"AIONDB_HA_DATA_DIR=" + damaged("fencing.json", empty)},
			says: []string{"fencing.json"}, dir: scratch},
		{name: "corrupt raft_log.jsonl", env: []string{"AIONDB_HA_DATA_DIR=" + damaged("raft_log.jsonl", overwrite)},
			says: []string{"raft_log.jsonl"}, dir: scratch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.skip != "" {
				t.Skip(tt.skip)
			}
			if tt.hold != nil {
				tt.hold(t)
			}
			dir := tt.dir
			if dir == "" {
				dir = three.DataDir
			}
			before := tree(t, dir)
			line := run(t, append(c.Environ(3), tt.env...), "serve").oneLine(t)
			for _, word := range tt.says {
				if !strings.Contains(line, word) {
					t.Errorf("the line does not say %q: %s", word, line)
				}
			}
			t.Log(line)
			sameTree(t, dir, before)
		})
	}

	// After all that the node starts from its directory as if nothing had been.
	if err := c.Start(3); err != nil {
		t.Fatal(err)
	}
	settle(t, c)
}

// A directory that another process has open is refused, even while that one is
// stopped and answers nobody.
func TestDirectoryInUse(t *testing.T) {
	c, _ := startCluster(t, 3)
	other := newCluster(t, 3) // for its free ports
	if err := c.Pause(3); err != nil {
		t.Fatal(err)
	}
	dir := c.Node(3).DataDir
	before := tree(t, dir)
	env := append(other.Environ(3), "AIONDB_HA_DATA_DIR="+dir, "AIONDB_HA_AUTH_TOKEN_FILE="+c.SecretPath())
	line := run(t, env, "serve").oneLine(t)
	if !strings.Contains(line, "in use") || !strings.Contains(line, dir) {
		t.Errorf("the line does not say which directory is in use: %s", line)
	}
	t.Log(line)
	sameTree(t, dir, before)
}

func overwrite(raw []byte) []byte {
	out := bytes.Clone(raw)
	content := len(bytes.TrimRight(out, " \n")) // the log has room behind it, in which nothing is lost
	for i := range min(8, content) {
		out[min(content/3+i, content-1)] ^= 0x15
	}
	return out
}

func empty([]byte) []byte { return nil }

// damagedCopy copies a node's data directory to dir and damages the one file of
// that name in it.
func damagedCopy(t *testing.T, n democluster.Node, dir, name string, damage func([]byte) []byte) string {
	t.Helper()
	for i := 1; ; i++ { // one name may be damaged in several ways
		numbered := fmt.Sprintf("%s-%d", dir, i)
		if _, err := os.Stat(numbered); os.IsNotExist(err) {
			dir = numbered
			break
		}
	}
	if err := os.CopyFS(dir, os.DirFS(n.DataDir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ha", "node-"+n.ID.String(), name)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func holdTCP(addr string) func(*testing.T) {
	return func(t *testing.T) {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
	}
}

func holdUDP(addr string) func(*testing.T) {
	return func(t *testing.T) {
		conn, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

func rootWritesAnywhere() string {
	if os.Geteuid() == 0 {
		return "the superuser can write to a read-only directory"
	}
	return ""
}
