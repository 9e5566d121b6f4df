package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	raftcommand "github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// logDir is a state directory that a script works on as DIR.
type logDir struct {
	t    *testing.T
	path string
}

func newLogDir(t *testing.T) *logDir {
	t.Helper()
	d := &logDir{t, filepath.Join(t.TempDir(), "node-1")}
	s, err := jsonlstore.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := func(c raftcommand.Command) []byte {
		raw, err := raftcommand.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	kv := func(index, term uint64, value string) *raft.Log {
		return &raft.Log{Index: index, Term: term, Data: data(raftcommand.KvWrite{Key: []byte("k"), Value: []byte(value)})}
	}
	err = errors.Join(
		s.SetUint64([]byte("CurrentTerm"), 1),
		s.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "1", Address: "a:1"}}})}),
		s.StoreLogs([]*raft.Log{{Index: 2, Term: 1, Type: raft.LogNoop}, kv(3, 1, "three"), kv(4, 1, "four")}),
		s.StageCommitIndex(4),
		s.StoreLogs([]*raft.Log{{Index: 5, Term: 2, Data: data(raftcommand.AddNode{NodeID: 2, Address: "b:1"})}}),
		s.StoreLogs([]*raft.Log{kv(6, 2, "six"), {Index: 7, Term: 2, Data: []byte{0xff}}}),
		s.SetUint64([]byte("CurrentTerm"), 3),
		s.SetUint64([]byte("LastVoteTerm"), 3),
		s.Set([]byte("LastVoteCand"), []byte("2@b:1")),
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// change changes a file of the directory.
func (d *logDir) change(name string, f func([]byte) []byte) {
	d.t.Helper()
	path := filepath.Join(d.path, name)
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, f(raw), 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// split has the log lie in parts, of which those after the first begin with the
// indexes given.
func (d *logDir) split(begins ...uint64) {
	d.t.Helper()
	path := filepath.Join(d.path, jsonlstore.LogFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	begin := uint64(1)
	for _, next := range begins {
		at := bytes.Index(raw, fmt.Appendf(nil, `{"index":%d,`, next))
		part := filepath.Join(d.path, fmt.Sprintf("raft_log.%020d.jsonl", begin))
		if err := errors.Join(os.WriteFile(part, raw[:at], 0o600), os.WriteFile(path, raw[at:], 0o600)); err != nil {
			d.t.Fatal(err)
		}
		raw, begin = raw[at:], next
	}
	d.reopen(func(*jsonlstore.Store) error { return nil }) // which makes the index files
}

// reopen does something with the store.
func (d *logDir) reopen(do func(*jsonlstore.Store) error) {
	d.t.Helper()
	s, err := jsonlstore.Open(d.path)
	if err == nil {
		err = errors.Join(do(s), s.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func replacing(old, with string) func([]byte) []byte {
	return func(raw []byte) []byte { return bytes.Replace(raw, []byte(old), []byte(with), 1) }
}

func (d *logDir) run(stdin string, args ...string) (int, string, string) {
	d.t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", d.path)
	}
	code, stdout, stderr := (&cli{d.t, "http://127.0.0.1:1"}).run(stdin, args...)
	for _, s := range []*string{&stdout, &stderr} {
		*s = strings.ReplaceAll(*s, d.path, "DIR")
		*s = regexp.MustCompile(`\d{8}T\d{6}Z`).ReplaceAllString(*s, "TIME")
		*s = regexp.MustCompile(`\d+ bytes, written ahead`).ReplaceAllString(*s, "N bytes, written ahead")
		*s = regexp.MustCompile(`"room_bytes": \d+`).ReplaceAllString(*s, `"room_bytes": N`)
	}
	return code, stdout, stderr
}

func TestLogTools(t *testing.T) {
	script := func(name, lines string, damage ...func(*logDir)) {
		t.Helper()
		d := newLogDir(t)
		for _, f := range damage {
			f(d)
		}
		transcript(t, name, lines, d.run, "http://127.0.0.1:1")
	}
	flip := func(d *logDir) { d.change(jsonlstore.LogFile, replacing("b:1", "c:1")) }
	flipLast := func(d *logDir) { d.change(jsonlstore.LogFile, replacing(`"/w=="`, `"/g=="`)) }
	flipEarly := func(d *logDir) { d.change(jsonlstore.LogFile, replacing("[102,111", "[102,112")) }
	breakState := func(d *logDir) {
		d.change(jsonlstore.StateFile, replacing(`"current_term": 3`, `"current_term": 4`))
	}
	tear := func(d *logDir) {
		d.change(jsonlstore.LogFile, func(raw []byte) []byte { return bytes.TrimRight(raw, " \n\"}") })
	}
	script("log_healthy", "log stat DIR\nlog stat DIR --json\nlog tail DIR -n 3\nlog tail DIR -n 2 --json\nlog tail DIR\nlog tail DIR -n 0\nlog tail DIR -n -1\n"+
		"log repair DIR\nlog repair DIR --yes\nlog repair DIR --json\nlog tail\nlog repair DIR --force\nlog tail DIR/none\nlog stat DIR/none\nlog repair DIR/none --yes\n")
	script("log_torn", "log stat DIR\nlog tail DIR -n 1\nlog repair DIR --yes\n", tear)
	script("log_damaged", "log stat DIR\nlog tail DIR -n 2\nlog repair DIR\nlog repair DIR --json\nlog repair DIR --yes\nlog verify DIR\nlog tail DIR -n 1\nlog repair DIR --yes\n", flip)
	script("log_damaged_last", "log repair DIR\nlog repair DIR --yes --json\n", flipLast)
	script("log_damaged_committed", "log repair DIR\nlog repair DIR --yes\nlog stat DIR\n", flipEarly)
	script("log_state_damaged", "log stat DIR\nlog repair DIR\nlog repair DIR --yes\nlog repair DIR --reset-state\nlog repair DIR --yes --reset-state\nlog stat DIR\n", breakState)
	script("log_both_damaged", "log verify DIR\nlog repair DIR\nlog repair DIR --yes\nlog repair DIR --yes --reset-state\nlog verify DIR\nlog stat DIR\n", flip, breakState)
	script("log_state_missing", "log stat DIR\nlog verify DIR\nlog repair DIR\n", func(d *logDir) {
		if err := os.Remove(filepath.Join(d.path, jsonlstore.StateFile)); err != nil {
			t.Fatal(err)
		}
	})
	script("log_lost_end", "log repair DIR\nlog repair DIR --yes\nlog verify DIR\n", func(d *logDir) {
		d.change(jsonlstore.LogFile, func(raw []byte) []byte { return raw[:bytes.Index(raw, []byte(`{"index":4`))] })
	})
	script("log_lost", "log stat DIR\nlog repair DIR\nlog repair DIR --yes\nlog verify DIR\n", func(d *logDir) {
		if err := os.Remove(filepath.Join(d.path, jsonlstore.LogFile)); err != nil {
			t.Fatal(err)
		}
	})
	parts := func(d *logDir) { d.split(2, 5) }
	script("log_parts", "log cat DIR\nlog verify DIR\nlog verify DIR --json\nlog tail DIR -n 6\nlog stat DIR\nlog stat DIR --json\nlog repair DIR\n", parts)
	second := "raft_log.00000000000000000002"
	script("log_parts_damaged", "log verify DIR\nlog cat DIR\nlog tail DIR -n 9\nlog stat DIR\nlog repair DIR\nlog repair DIR --json\nlog repair DIR --yes\nlog verify DIR\nlog cat DIR\n",
		parts, func(d *logDir) { d.change(second+".jsonl", replacing("[102,111", "[102,112")) })
	script("log_parts_index", "log verify DIR\nlog cat DIR\nlog stat DIR\nlog repair DIR\nlog repair DIR --yes\nlog verify DIR\n",
		parts, func(d *logDir) { d.change(second+".index", func([]byte) []byte { return []byte("rlindex1") }) })
	script("log_parts_missing", "log verify DIR\nlog cat DIR\nlog tail DIR -n 9\nlog repair DIR\nlog repair DIR --yes\nlog verify DIR\n", parts, func(d *logDir) {
		if err := os.Remove(filepath.Join(d.path, second+".jsonl")); err != nil {
			t.Fatal(err)
		}
	})
	script("log_parts_deleted", "log verify DIR\nlog cat DIR\nlog stat DIR\nlog repair DIR\nlog repair DIR --json\nlog repair DIR --yes\nlog verify DIR\nlog cat DIR\n", parts, func(d *logDir) {
		// As a crash in the middle of a cut of the front leaves it.
		before := map[string][]byte{}
		d.change(jsonlstore.LogFile, func(raw []byte) []byte { before[jsonlstore.LogFile] = raw; return raw })
		d.reopen(func(s *jsonlstore.Store) error { return s.DeleteRange(1, 5) })
		d.change(jsonlstore.LogFile, func([]byte) []byte { return before[jsonlstore.LogFile] })
	}, flip)
	script("log_help", "help log\nhelp log verify\nhelp log tail\nhelp log stat\nhelp log repair\n")
}

func TestLogRepairOfARunningNode(t *testing.T) {
	d := newLogDir(t)
	s, err := jsonlstore.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d.change(jsonlstore.LogFile, replacing("b:1", "c:1"))
	if code, stdout, stderr := d.run("", "log", "repair", "DIR", "--yes"); code != 1 || stdout != "" || !strings.Contains(stderr, "the state directory DIR is in use by") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if names, err := filepath.Glob(filepath.Join(d.path, "*before-repair*")); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestLogAdvice holds what errors advise against what there is.
func TestLogAdvice(t *testing.T) {
	advised := regexp.MustCompile("`(aiondb-ha [^`]*)`")
	for name, damage := range map[string]func(*logDir){
		"log":   func(d *logDir) { d.change(jsonlstore.LogFile, replacing("b:1", "c:1")) },
		"state": func(d *logDir) { d.change(jsonlstore.StateFile, replacing("3", "4")) },
		"end":   func(d *logDir) { d.change(jsonlstore.LogFile, func(raw []byte) []byte { return raw[:0] }) },
	} {
		d := newLogDir(t)
		damage(d)
		var texts []string
		for _, line := range []string{"log verify DIR", "log cat DIR", "log stat DIR", "log tail DIR", "log repair DIR", "log repair DIR --yes"} {
			_, stdout, stderr := d.run("", strings.Fields(line)...)
			if line == "log verify DIR" {
				_, err := jsonlstore.Open(d.path)
				if err == nil {
					t.Fatalf("%s: it opens", name)
				}
				stderr += err.Error()
			}
			texts = append(texts, stdout, stderr)
		}
		for _, m := range advised.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
			cmd, rest, err := find(strings.Fields(m[1])[1:])
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			if _, _, err := parse(cmd, rest); err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
			}
		}
	}
}

func TestLogTailFollows(t *testing.T) {
	d := newLogDir(t)
	s, err := jsonlstore.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, asJSON := range []bool{false, true} {
		ctx, cancel := context.WithCancel(ctx)
		out := &lineWriter{lines: make(chan string, 64)}
		var errs bytes.Buffer
		a := &app{ctx: ctx, stdout: out, stderr: &errs}
		args := []string{"log", "tail", "-f", "-n", "1", d.path}
		if asJSON {
			args = append(args, "--json")
		}
		code := make(chan int, 1)
		go func() { code <- a.run(args) }()
		want := func(text string) {
			t.Helper()
			select {
			case got := <-out.lines:
				if !strings.Contains(got, text) || asJSON != json.Valid([]byte(got)) {
					t.Fatalf("got %q, want %q", got, text)
				}
			case <-ctx.Done():
				t.Fatalf("no %q: %s", text, errs.String())
			}
		}
		last, err := s.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		if asJSON {
			want(`"index":8,"term":4`)
		} else {
			want("         7  term 2")
		}
		if err := s.DeleteRange(last, last); err != nil {
			t.Fatal(err)
		}
		if asJSON {
			want(`{"event":"cut","first":8,"last":8}`)
		} else {
			want("-- the end of the log was cut off: entry 7 is gone")
		}
		if err := s.StoreLogs([]*raft.Log{{Index: last, Term: 4, Type: raft.LogNoop}, {Index: last + 1, Term: 4, Type: raft.LogNoop}}); err != nil {
			t.Fatal(err)
		}
		want("noop")
		want("noop")
		cancel()
		if got := <-code; got != 0 {
			t.Errorf("exit %d: %s", got, errs.String())
		}
	}
}

func TestLogTailOfAVanishingDirectory(t *testing.T) {
	d := newLogDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out := &lineWriter{lines: make(chan string, 64)}
	var errs bytes.Buffer
	a := &app{ctx: ctx, stdout: out, stderr: &errs}
	code := make(chan int, 1)
	go func() { code <- a.run([]string{"log", "tail", "-f", "-n", "1", d.path}) }()
	<-out.lines
	if err := os.RemoveAll(d.path); err != nil {
		t.Fatal(err)
	}
	want := "aiondb-ha: " + d.path + ": the state directory is gone: there is nothing more to follow\n"
	if got := <-code; got != 1 || errs.String() != want {
		t.Errorf("exit %d: %q", got, errs.String())
	}
}
