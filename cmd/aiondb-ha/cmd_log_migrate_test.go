package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/logstore/kinds"
)

func TestLogMigrate(t *testing.T) {
	d := newLogDir(t)
	base := filepath.Dir(d.path)
	bolt, back := filepath.Join(base, "raft.db"), filepath.Join(base, "back")
	code, out, errs := d.run("", "log", "migrate", "--from", "jsonl:"+d.path, "--to", "boltdb:"+bolt)
	if code != 0 || !strings.Contains(out, "entries 1 to 7, 3 stable values") || !strings.Contains(out, `raftboltdb.NewBoltStore("`+bolt+`")`) {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	code, out, errs = d.run("", "log", "migrate", "--json", "--from", bolt, "--to", "jsonl:"+back)
	var body migratedBody
	if err := json.Unmarshal([]byte(out), &body); code != 0 || err != nil || body.Entries != 7 || !body.Verified || body.Keys != 3 {
		t.Fatalf("%d\n%s\n%s", code, out, errs)
	}
	code, out, errs = d.run("", "log", "cat", "--json", back)
	_, want, _ := d.run("", "log", "cat", "--json", d.path)
	if code != 0 || out != want {
		t.Fatalf("the log came back as\n%s\n%s, want\n%s", out, errs, want)
	}
}

func TestLogMigrateRefuses(t *testing.T) {
	d := newLogDir(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--to", "jsonl:/x"}, 2, "--from is missing"},
		{[]string{"--from", "jsonl:" + d.path}, 2, "--to is missing"},
		{[]string{"--from", "jsonl:" + d.path, "--to", "/x"}, 2, "want KIND:PATH"},
		{[]string{"--from", "bolt:/x", "--to", "jsonl:/y"}, 2, "no such kind of store"},
		{[]string{"--from", "memory:", "--to", "jsonl:/y"}, 2, "keeps nothing on disk"},
		{[]string{"--from", "boltdb:" + d.path, "--to", "jsonl:" + d.path + "x"}, 1, "no regular file"},
		{[]string{"--from", "jsonl:" + d.path, "--to", "jsonl:" + d.path}, 1, "the target exists"},
		{[]string{"--from", filepath.Dir(d.path), "--to", "jsonl:" + d.path + "x"}, 2, "no log that can be recognised"},
		{[]string{"--from", "wal:" + d.path + "none", "--to", "jsonl:" + d.path + "x"}, 1, "no such file"},
	} {
		code, out, errs := d.run("", append([]string{"log", "migrate"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" || strings.Count(strings.TrimSpace(errs), "\n") > 1 {
			t.Errorf("%q: %d, %q, %q; want %d, %q", c.args, code, out, errs, c.code, c.want)
		}
	}
	held, err := jsonlstore.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if code, _, errs := d.run("", "log", "migrate", "--from", "jsonl:"+d.path, "--to", "wal:"+d.path+"x"); code != 1 || !strings.Contains(errs, "in use by pid") {
		t.Errorf("a source in use: %d, %s", code, errs)
	}
}

// TestLogMigrateKnowsPrograms lays out data directories as other programs do.
func TestLogMigrateKnowsPrograms(t *testing.T) {
	for name, c := range map[string]struct{ files, kind, log string }{
		"Consul": {"node-id serf/local.snapshot raft/peers.info", "boltdb", "raft/raft.db"},
		"Nomad":  {"server/node-id client/state.db", "wal", "server/raft/wal"},
		"Vault":  {"vault.db node-id raft/snapshots/x", "boltdb", "raft/raft.db"},
		"rqlite": {"db.sqlite", "boltdb", "raft.db"},
	} {
		dir := t.TempDir()
		for _, f := range append(strings.Fields(c.files), c.log) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o700); err != nil {
				t.Fatal(err)
			}
			if f == c.log {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d := newLogDir(t)
		if code, _, errs := d.run("", "log", "migrate", "--from", "jsonl:"+d.path, "--to", c.kind+":"+filepath.Join(dir, c.log)); code != 0 {
			t.Fatal(errs)
		}
		p, ok := kinds.RecogniseProgram(dir)
		if !ok || p.Name != name || p.Log.Kind.Name != c.kind {
			t.Errorf("the directory of %s is taken for that of %q", name, p.Name)
		}
		code, out, errs := d.run("", "log", "migrate", "--from", dir, "--to", "jsonl:"+filepath.Join(dir, "readable"))
		if code != 0 || !strings.Contains(errs, "data directory of "+name) || !strings.Contains(errs, "would have to be built with jsonlstore") || !strings.Contains(out, "every entry") {
			t.Errorf("%s: %d\n%s\n%s", name, code, out, errs)
		}
	}
}
