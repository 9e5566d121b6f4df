package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover"
	raftcommand "github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// session is a conversation with one node, one command after the other. A line
// beginning with < is the standard input of the command after it.
const session = `
status
status --json
nodes
nodes -o json
node add 1 127.0.0.1:7800
node add 2 127.0.0.1:7801 --json
node add two 127.0.0.1:7801
shard assign 7 0 2
--json shards
shards --json
shard transfer 7 0 1 2
shard transfer 7 0 2 1
shards
shard assign 7 x 2
node remove 1
events --failover
pause --reason maintenance_of_the_switch
pause --node 2 --json
resume --node 2
resume
failover
failover --to 2 --reason burnt
kv put greeting hello
< from standard input
kv put --json piped -
kv put -- -5 --dashed--
kv get greeting
kv --json get greeting
kv get --json greeting
-o=json kv --timeout 2s get greeting
kv get greeting --json --stale
kv get greeting --stale
kv get missing
kv get missing --json
kv list
kv list pi --limit 5 --json
kv
kv put ha/timeline/1 x
kv put greeting hi --if-revision 0
kv put greeting hi --if-revision 7
kv put greeting hi --if-revision 12 --json
kv put greeting hi --if-revision 12 --json
kv put lock me --if-revision 0
kv del lock --if-revision 14
kv del none --if-revision 14
kv del lock --if-revision 16
kv del greeting
kv del greeting
config set mode fast
config set mode fast
config get mode
config get other
config list
config --json
events
events --after 2 --json
switchover --to 2
switchover --json
status
`

// mistakes are command lines that are wrong; none reaches a node.
const mistakes = `

--json
--frob status
statsu
shrad assign 1 2 3
frobnicate
kv
kv gte a
node
node frob 1
log
status extra
kv get
kv get a b
kv put a
kv get a --stal
kv get a --if-revision 1
kv put a b --if-revision
kv put a b --if-revision x
kv del a --if-revision -1
kv get a -o yaml
kv get a --timeout 2
kv get a --timeout 61s
kv get a --api ftp://example.com
kv list --limit 0
kv list --limit x
serve --auth-token geheim
serve --auth-token=geheim
serve --node-id
serve --enabled=perhaps
serve --node-idd 1
serve now
token extra
help frobnicate
help kv gte
`

func TestSession(t *testing.T) {
	c := newCLI(t, newFakeNode())
	transcript(t, "session", session, c.run, c.url)
}

func TestMistakes(t *testing.T) {
	c := &cli{t, "http://127.0.0.1:1"} // where nothing listens
	transcript(t, "mistakes", mistakes, c.run, c.url)
}

func TestNoQuorum(t *testing.T) {
	f := newFakeNode()
	f.err = failover.ErrNoQuorum
	c := newCLI(t, f)
	transcript(t, "noquorum", "kv put a b\nkv get a\nkv get a --stale\nkv list --stale\nconfig set a b\nswitchover\n", c.run, c.url)
}

func TestHelp(t *testing.T) {
	c := &cli{t, "http://127.0.0.1:1"}
	transcript(t, "help", "help\n--help\nhelp kv\nhelp kv put\nkv put --help\nhelp kv del\nkv --help\nhelp serve\nhelp status\nhelp log cat\nhelp demo\n", c.run, c.url)
}

// transcript runs the lines of a script and compares the whole conversation
// with testdata/NAME.txt.
func transcript(t *testing.T, name, script string, run func(string, ...string) (int, string, string), url string) {
	t.Helper()
	var got strings.Builder
	stdin := ""
	for line := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(script, "\n"), "\n"), "\n") {
		if text, ok := strings.CutPrefix(line, "< "); ok {
			stdin = text
			continue
		}
		code, stdout, stderr := run(stdin, strings.Fields(line)...)
		stdin = ""
		fmt.Fprintf(&got, "%s\n", strings.TrimRight("$ aiondb-ha "+line, " "))
		for _, text := range []string{stdout, stderr} {
			got.WriteString(text)
			if text != "" && !strings.HasSuffix(text, "\n") {
				got.WriteString("<no line break>\n")
			}
		}
		if code != 0 {
			fmt.Fprintf(&got, "exit %d\n", code)
		}
		got.WriteString("\n")
	}
	text := strings.ReplaceAll(got.String(), url, "http://API")
	text = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{3}  `).ReplaceAllString(text, "HH:MM:SS.mmm  ")
	text = regexp.MustCompile(`\(\d+ms\)`).ReplaceAllString(text, "(Nms)")
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g, w := strings.Split(text, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s:%d: the conversation changed (go test -update, then read the diff)\ngot  %q\nwant %q",
				path, i+1, strings.Join(g[min(i, len(g)):min(i+5, len(g))], "\n"), strings.Join(w[min(i, len(w)):min(i+5, len(w))], "\n"))
		}
	}
}

func TestValuesComeBackByteForByte(t *testing.T) {
	c := newCLI(t, newFakeNode())
	for _, value := range []string{"", "\n", "a\nb", "\x00\xff\xfe", "ü", strings.Repeat("x", httpapi.MaxValueLen)} {
		for _, key := range []string{"k", "a//b/../c", "..", ".", "/", "%2F", "\xff\x00", "ü?#&=", "\x1b[2J"} {
			if code, _, stderr := c.run(value, "kv", "put", key, "-"); code != 0 {
				t.Fatalf("put %q: exit %d: %s", key, code, stderr)
			}
			if code, stdout, stderr := c.run("", "kv", "get", key); code != 0 || stdout != value {
				t.Fatalf("get %q: exit %d, %d bytes for %d: %s", key, code, len(stdout), len(value), stderr)
			}
		}
	}
	if code, _, stderr := c.run(strings.Repeat("x", httpapi.MaxValueLen+1), "kv", "put", "k", "-"); code != 1 || !strings.Contains(stderr, "too large") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for _, name := range []string{"..", ".", "a//b", "/", "ü?#"} { // a ServeMux tidies such paths
		if code, _, stderr := c.run("", "config", "set", name, "v"); code != 0 {
			t.Errorf("config set %q: exit %d: %s", name, code, stderr)
		}
		if code, stdout, stderr := c.run("", "config", "get", name); code != 0 || stdout != "v\n" {
			t.Errorf("config get %q: exit %d: %s%s", name, code, stdout, stderr)
		}
	}
	if _, stdout, _ := c.run("", "kv", "list"); strings.Contains(stdout, "\x1b") {
		t.Errorf("a key reaches the terminal as it is: %q", stdout)
	}
}

func TestJSONIsOneDocument(t *testing.T) {
	c := newCLI(t, newFakeNode())
	for _, line := range []string{"status", "nodes", "shards", "config list", "kv list", "kv put a b", "kv get a", "version", "node add 1 a:1", "switchover"} {
		code, stdout, stderr := c.run("", append(strings.Fields(line), "--json")...)
		var document map[string]any
		if err := json.Unmarshal([]byte(stdout), &document); code != 0 || err != nil || stderr != "" {
			t.Errorf("%s --json: exit %d, %v, stderr %q: %q", line, code, err, stderr, stdout)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	c := &cli{t, url}
	for _, line := range []string{"status", "nodes", "kv get a", "kv put a b", "events", "events --follow", "switchover"} {
		code, stdout, stderr := c.run("", strings.Fields(line)...)
		want := "aiondb-ha: nothing listens at " + url + ": start a node with aiondb-ha serve, or name another with --api URL\n"
		if code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d, %q, %q", line, code, stdout, stderr)
		}
	}
	if code, _, stderr := (&cli{t, ""}).run("", "status", "--api", "http://name.invalid:1"); code != 1 || !strings.Contains(stderr, "cannot reach http://name.invalid:1") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestSomebodyElseThere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/kv") {
			http.Error(w, "<html>nothing here</html>", 404)
			return
		}
		fmt.Fprint(w, "<html>hello</html>")
	}))
	defer server.Close()
	c := &cli{t, server.URL}
	for _, line := range []string{"status", "kv get a"} {
		code, _, stderr := c.run("", strings.Fields(line)...)
		if code != 1 || !strings.Contains(stderr, "is no aiondb-ha node") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", line, code, stderr)
		}
	}
}

func TestAPIAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:7700":        "http://127.0.0.1:7700",
		":7700":                 "https://127.0.0.1:7700",
		"0.0.0.0:7700":          "https://127.0.0.1:7700",
		"[::]:7700":             "https://[::1]:7700",
		"localhost:7700":        "http://localhost:7700",
		"10.0.0.1:7700":         "https://10.0.0.1:7700",
		"https://db.example/ha": "https://db.example/ha",
		"http://db.example:1/":  "http://db.example:1",
	} {
		u, err := (&app{}).apiURL(text)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, u, err, want)
		}
	}
	for _, text := range []string{"ftp://a", "http://", "http://a?b", "http://a b", "%"} {
		if u, err := (&app{}).apiURL(text); err == nil {
			t.Errorf("%s: %v", text, u)
		}
	}
}

func TestFollow(t *testing.T) {
	f := newFakeNode()
	server := httptest.NewServer(f.handler(httpapi.Tokens{}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := &lineWriter{lines: make(chan string, 16)}
	var errs bytes.Buffer
	a := &app{ctx: ctx, stdout: out, stderr: &errs}
	code := make(chan int, 1)
	go func() { code <- a.run([]string{"events", "--follow", "--api", server.URL, "--after", "2", "--json"}) }()
	for seq := uint64(3); seq <= 5; seq++ {
		var record failover.Record
		if err := json.Unmarshal([]byte(<-out.lines), &record); err != nil || record.Seq != seq {
			t.Fatalf("event %d: %+v, %v", seq, record, err)
		}
		if seq < 5 {
			f.live <- failover.Record{Seq: seq + 1, Event: "ElectionWon"}
		}
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit %d: %s", got, errs.String())
	}
}

// lineWriter hands on each write.
type lineWriter struct{ lines chan string }

func (w *lineWriter) Write(b []byte) (int, error) {
	w.lines <- string(b)
	return len(b), nil
}

func TestToken(t *testing.T) {
	c := &cli{t, ""}
	seen := map[string]bool{}
	for range 3 {
		code, stdout, stderr := c.run("", "token")
		if code != 0 || !regexp.MustCompile(`^[A-Za-z0-9_-]{43}\n$`).MatchString(stdout) || stderr != "" || seen[stdout] {
			t.Fatalf("exit %d: %q %q", code, stdout, stderr)
		}
		seen[stdout] = true
	}
	path := filepath.Join(t.TempDir(), "secret")
	if code, stdout, stderr := c.run("", "token", "-o", path); code != 0 || stdout != "" || stderr != "" {
		t.Fatalf("exit %d: %q %q", code, stdout, stderr)
	}
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) != 44 {
		t.Fatalf("%q, %v", raw, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("mode %v", info.Mode())
	}
	if code, _, stderr := c.run("", "token", "-o", path); code != 1 || !strings.Contains(stderr, "is there already") {
		t.Errorf("exit %d: %q", code, stderr)
	}
	if again, _ := os.ReadFile(path); !bytes.Equal(raw, again) {
		t.Error("the old secret is gone")
	}
}

func TestServeTellsEveryFault(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	a := &app{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
		environ: []string{"AIONDB_HA_NODE_ID=9", "AIONDB_HA_CLUSTER_NODES=127.0.0.1:7600", "AIONDB_HA_AUTH_TOKEN=short", "AIONDB_HA_DATA_DIR=" + dir}}
	if code := a.run([]string{"serve"}); code != 1 {
		t.Errorf("exit %d", code)
	}
	want := "aiondb-ha: AIONDB_HA_NODE_ID: there is no node 9 among 1: give this node's position in the list, 1 to 1\n" +
		"aiondb-ha: AIONDB_HA_AUTH_TOKEN: the secret has 5 bytes, it needs 32: make one with `aiondb-ha token`\n"
	if errs.String() != want || out.String() != "" {
		t.Errorf("got\n%s%swant\n%s", out.String(), errs.String(), want)
	}
	a.environ, out, errs = []string{"AIONDB_HA_ENABLED=false"}, bytes.Buffer{}, bytes.Buffer{}
	if code := a.run([]string{"serve"}); code != 1 || !strings.Contains(errs.String(), "switched off: set AIONDB_HA_ENABLED to true") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node-1")
	store, err := jsonlstore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := func(c raftcommand.Command) []byte {
		raw, err := raftcommand.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	err = store.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
			{ID: "1", Address: "a:1"}, {ID: "2", Address: "b:1", Suffrage: raft.Nonvoter}}})},
		{Index: 2, Term: 1, Type: raft.LogCommand, Data: data(raftcommand.AddNode{NodeID: 2, Address: "b:1"})},
		{Index: 3, Term: 2, Type: raft.LogCommand, Data: data(raftcommand.KvWrite{Key: []byte("greeting"), Value: []byte("hello\x1b[2J")})},
		{Index: 4, Term: 2, Type: raft.LogCommand, Data: data(raftcommand.KvWrite{Key: []byte("greeting"), Delete: true})},
		{Index: 5, Term: 2, Type: raft.LogCommand, Data: []byte{0xff}},
	})
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	c := &cli{t, "http://127.0.0.1:1"}
	good := "log cat DIR\nlog cat DIR --from 3 --to 4 --json\nlog verify DIR\n"
	run := func(stdin string, args ...string) (int, string, string) {
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "DIR", dir)
		}
		code, stdout, stderr := c.run(stdin, args...)
		return code, strings.ReplaceAll(stdout, dir, "DIR"), strings.ReplaceAll(stderr, dir, "DIR")
	}
	transcript(t, "log", good, run, c.url)
	code, stdout, _ := run("", "log", "verify", "DIR", "--json")
	var v verdict
	if err := json.Unmarshal([]byte(stdout), &v); code != 0 || err != nil || !v.OK || v.Entries != 5 || v.First != 1 || v.Last != 5 {
		t.Errorf("exit %d, %v: %s", code, err, stdout)
	}

	path := filepath.Join(dir, jsonlstore.LogFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.Index(raw, []byte("b:1"))] = 'c'
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	offset := bytes.IndexByte(raw, '\n') + 1
	place := fmt.Sprintf("%s: line 2, byte offset %d", filepath.Join("DIR", jsonlstore.LogFile), offset)
	code, stdout, stderr := run("", "log", "verify", "DIR", "--json")
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.OK || v.DamageCount != 1 || v.Damage[0].Line != 2 || v.Damage[0].Offset != int64(offset) {
		t.Errorf("%v: %s", err, stdout)
	}
	if code != 1 || !strings.Contains(stderr, place) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, want %q in %q", code, place, stderr)
	}
	if code, stdout, stderr = run("", "log", "verify", "DIR"); code != 1 || !strings.Contains(stdout, "damaged, places: 1") || !strings.Contains(stderr, place) {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = run("", "log", "cat", "DIR"); code != 1 || strings.Count(stdout, "\n") != 4 || !strings.Contains(stderr, place) {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	for _, verb := range []string{"cat", "verify"} {
		if code, _, stderr := run("", "log", verb, filepath.Join("DIR", "none")); code != 1 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("log %s of nothing: exit %d: %s", verb, code, stderr)
		}
	}
}
