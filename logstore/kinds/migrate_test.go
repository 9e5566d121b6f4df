package kinds_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/kinds"
)

func onDisk() []logstore.Kind {
	return []logstore.Kind{kinds.JSONL(), kinds.WAL(), kinds.BoltDB()}
}

// fill makes a store of a kind, with entries from first to last, and closes it.
func fill(t testing.TB, k logstore.Kind, path string, first, last uint64) logstore.Location {
	t.Helper()
	s, err := k.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	for i := first; i <= last; i++ {
		l := &raft.Log{Index: i, Term: 1 + i/9, Type: raft.LogType(i % 2), Data: bytes.Repeat([]byte{byte(i)}, int(i%40)+1)}
		if i%3 == 0 {
			l.Extensions, l.AppendedAt = []byte("ext"), time.Unix(int64(i), 9)
		}
		if logs = append(logs, l); len(logs) == 7 || i == last {
			if err := s.StoreLogs(logs); err != nil {
				t.Fatal(err)
			}
			logs = nil
		}
	}
	err = errors.Join(s.SetUint64([]byte(logstore.KeyCurrentTerm), 300), s.SetUint64([]byte(logstore.KeyLastVoteTerm), 299),
		s.Set([]byte(logstore.KeyLastVoteCand), []byte("10.0.0.1:7600")), s.Set([]byte("own"), []byte("value")), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	return logstore.Location{Kind: k, Path: path}
}

// tree returns every file under path with its content.
func tree(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s %x\n", p, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestMigrateEachToEach(t *testing.T) {
	for _, a := range onDisk() {
		for _, b := range onDisk() {
			t.Run(a.Name+" to "+b.Name, func(t *testing.T) {
				dir := t.TempDir()
				from := fill(t, a, filepath.Join(dir, "source"), 11, 250)
				to := logstore.Location{Kind: b, Path: filepath.Join(dir, "target")}
				before := tree(t, from.Path)
				phases := make(map[kinds.Phase]int)
				report, err := kinds.Migrate(t.Context(), from, to, kinds.MigrateOptions{
					Progress: func(p kinds.Phase, c logstore.CopyProgress) { phases[p]++ },
				})
				if err != nil || report.First != 11 || report.Last != 250 || report.Keys != 4 {
					t.Fatalf("%+v, %v", report, err)
				}
				if phases[kinds.Copying] == 0 || phases[kinds.Comparing] == 0 {
					t.Fatalf("progress: %v", phases)
				}
				if tree(t, from.Path) != before {
					t.Fatal("the source has changed")
				}
				if _, err := os.Stat(to.Path + kinds.PartialSuffix); err == nil {
					t.Fatal("a partial target is left")
				}
				// And it works as a store.
				s, err := b.Open(to.Path)
				if err != nil {
					t.Fatal(err)
				}
				var l raft.Log
				term, termErr := s.GetUint64([]byte(logstore.KeyCurrentTerm))
				cand, candErr := s.Get([]byte(logstore.KeyLastVoteCand))
				if err := errors.Join(s.GetLog(12, &l), termErr, candErr, s.StoreLog(&raft.Log{Index: 251, Term: 300}), s.Close()); err != nil {
					t.Fatal(err)
				}
				if l.Term != 2 || !l.AppendedAt.Equal(time.Unix(12, 9)) || term != 300 || string(cand) != "10.0.0.1:7600" {
					t.Fatalf("%+v, term %d, candidate %q", l, term, cand)
				}
			})
		}
	}
}

// TestMigrateResumes interrupts a migration at every report of progress.
func TestMigrateResumes(t *testing.T) {
	for _, k := range onDisk() {
		t.Run(k.Name, func(t *testing.T) {
			dir := t.TempDir()
			from := fill(t, kinds.BoltDB(), filepath.Join(dir, "raft.db"), 1, 2000)
			to := logstore.Location{Kind: k, Path: filepath.Join(dir, "target")}
			for stopAt := 1; ; stopAt++ {
				if stopAt > 20 {
					t.Fatal("the migration makes no headway")
				}
				ctx, cancel := context.WithCancel(t.Context())
				n := 0
				_, err := kinds.Migrate(ctx, from, to, kinds.MigrateOptions{BatchBytes: 8 << 10, Progress: func(kinds.Phase, logstore.CopyProgress) {
					if n++; n == stopAt {
						cancel()
					}
				}})
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if _, err := os.Stat(to.Path); err == nil {
					t.Fatal("an interrupted migration left a target")
				}
			}
			s, err := k.OpenSource(to.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if last, err := s.LastIndex(); last != 2000 || err != nil {
				t.Fatalf("last index %d, %v", last, err)
			}
		})
	}
}

// TestMigrateStartsAnew finds partial targets that are of no use.
func TestMigrateStartsAnew(t *testing.T) {
	for _, k := range onDisk() {
		t.Run(k.Name, func(t *testing.T) {
			dir := t.TempDir()
			from := fill(t, kinds.JSONL(), filepath.Join(dir, "source"), 5, 90)
			to := logstore.Location{Kind: k, Path: filepath.Join(dir, "target")}
			fill(t, k, to.Path+kinds.PartialSuffix, 1, 20) // of some other source
			if _, err := kinds.Migrate(t.Context(), from, to, kinds.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	dir := t.TempDir()
	from := fill(t, kinds.JSONL(), filepath.Join(dir, "source"), 5, 90)
	to := logstore.Location{Kind: kinds.BoltDB(), Path: filepath.Join(dir, "target")}
	if err := os.WriteFile(to.Path+kinds.PartialSuffix, bytes.Repeat([]byte{1}, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kinds.Migrate(t.Context(), from, to, kinds.MigrateOptions{}); err != nil {
		t.Fatalf("a file of garbage in the way: %v", err)
	}
}

func TestMigrateRefuses(t *testing.T) {
	for _, k := range onDisk() {
		t.Run(k.Name, func(t *testing.T) {
			dir := t.TempDir()
			from := fill(t, k, filepath.Join(dir, "source"), 1, 30)
			to := logstore.Location{Kind: kinds.JSONL(), Path: filepath.Join(dir, "target")}
			check := func(what string, want error) {
				t.Helper()
				if _, err := kinds.Migrate(t.Context(), from, to, kinds.MigrateOptions{}); !errors.Is(err, want) {
					t.Errorf("%s: %v", what, err)
				}
				if _, err := os.Stat(to.Path + kinds.PartialSuffix); err == nil {
					t.Errorf("%s: a partial target is left", what)
				}
			}
			held, err := k.Open(from.Path)
			if err != nil {
				t.Fatal(err)
			}
			check("a source in use", logstore.ErrInUse)
			if err := held.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(to.Path, "something"), 0o700); err != nil {
				t.Fatal(err)
			}
			check("a target that exists", kinds.ErrTargetExists)
			os.RemoveAll(to.Path)
			damage(t, from.Path)
			check("a damaged source", logstore.ErrCorrupt)
			from.Path = filepath.Join(dir, "none")
			check("no source", fs.ErrNotExist)
		})
	}
	m := logstore.Location{Kind: kinds.Memory()}
	if _, err := kinds.Migrate(t.Context(), m, m, kinds.MigrateOptions{}); err == nil {
		t.Error("memory is migrated")
	}
}

// damage spoils the log at path: a file loses its end, a directory the middle of
// its log.
func damage(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() {
		if err := os.Truncate(path, info.Size()/4); err != nil {
			t.Fatal(err)
		}
		return
	}
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".wal") || strings.HasSuffix(e.Name(), "log.jsonl") {
			f, err := os.OpenFile(filepath.Join(path, e.Name()), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("#"), 300); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
}

func TestRegistry(t *testing.T) {
	r := kinds.All()
	if got := fmt.Sprint(r.Names()); got != "[jsonl wal boltdb memory]" {
		t.Fatalf("kinds: %s", got)
	}
	dir := t.TempDir()
	for _, k := range onDisk() {
		path := filepath.Join(dir, k.Name)
		s, err := r.Open(k.Name + ":" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.StoreLog(&raft.Log{Index: 1, Term: 1}), s.SetUint64([]byte("n"), 7), s.Close()); err != nil {
			t.Fatal(err)
		}
		found := r.Recognise(path)
		if len(found) != 1 || found[0].Name != k.Name {
			t.Errorf("%s is taken for %v", k.Name, found)
		}
		if !strings.Contains(k.Program(path), path) {
			t.Errorf("%s: the program does not name the path", k.Name)
		}
	}
	for text, want := range map[string]string{
		"bolt:/x": "there are jsonl, wal, boltdb, memory", "jsonl": "want KIND:PATH", "wal:": "the path is missing",
	} {
		if _, err := r.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
	if l, err := r.Parse("jsonl:C:/a:b"); err != nil || l.Path != "C:/a:b" {
		t.Errorf("a path with colons: %v, %v", l, err)
	}
	if _, err := r.Parse("no:x"); !errors.Is(err, logstore.ErrUnknownKind) {
		t.Errorf("an unknown kind: %v", err)
	}
}
