package kv_test

import (
	"bytes"
	"context"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/logstore/kinds"
)

// runner runs a step and returns what it prints; it must succeed and say nothing
// on the side: a trial would tell there what differs.
type runner func(name, dir string, args ...string) string

// programs builds all the steps, once for all tests.
func programs(t *testing.T) (run runner, exec func(name, dir string, args ...string) (out, side string, err error)) {
	t.Helper()
	bin := t.TempDir()
	if out, err := command("go", "build", "-o", bin+string(filepath.Separator), "./...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	exec = func(name, dir string, args ...string) (string, string, error) {
		var side bytes.Buffer
		cmd := command(filepath.Join(bin, name), append([]string{dir}, args...)...)
		cmd.Stderr = &side
		out, err := cmd.Output()
		return string(out), side.String(), err
	}
	return func(name, dir string, args ...string) string {
		t.Helper()
		out, side, err := exec(name, dir, args...)
		if err != nil || side != "" {
			t.Fatalf("%s %v: %v\n%s", name, args, err, side)
		}
		return out
	}, exec
}

func command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// migrate is aiondb-ha log migrate.
func migrate(t *testing.T, from, to string) {
	t.Helper()
	source, err := kinds.All().Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	target, err := kinds.All().Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	report, err := kinds.Migrate(context.Background(), source, target, kinds.MigrateOptions{})
	if err != nil || report.Last == 0 || report.Keys < 3 {
		t.Fatalf("migrating %s to %s: %+v, %v", from, to, report, err)
	}
}

// copyWithoutTrial copies a directory as it is, but for the log on trial.
func copyWithoutTrial(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(to, "raft")); err != nil {
		t.Fatal(err)
	}
	return to
}

func want(t *testing.T, got string, lines ...string) {
	t.Helper()
	if w := strings.Join(lines, "\n") + "\n"; got != w {
		t.Fatalf("it holds:\n%swant:\n%s", got, w)
	}
}

// TestSteps goes from raft-boltdb and from raft-wal to jsonlstore and back, with
// a snapshot in between, which stays where it is.
func TestSteps(t *testing.T) {
	run, exec := programs(t)
	t.Run("raft-boltdb", func(t *testing.T) {
		dir := t.TempDir()
		db, readable := filepath.Join(dir, "raft.db"), filepath.Join(dir, "raft")
		run("1-raft-boltdb", dir, "put", "a", "1")
		run("1-raft-boltdb", dir, "snapshot")
		run("1-raft-boltdb", dir, "put", "b", "2")

		migrate(t, "boltdb:"+db, "jsonl:"+readable)
		run("2-trial", dir, "put", "c", "3")
		if _, side, _ := exec("2-trial", copyWithoutTrial(t, dir), "list"); !strings.Contains(side, "the trial differs") {
			t.Errorf("a trial that lacks the log is silent: %s", side)
		}
		want(t, run("2-trial", dir, "list"), "a=1", "b=2", "c=3")

		// What was on trial has everything, and no copy is needed any more.
		run("3-jsonlstore", dir, "put", "d", "4")
		run("3-jsonlstore", dir, "snapshot")
		run("3-jsonlstore", dir, "put", "e", "5")
		want(t, run("3-jsonlstore", dir, "list"), "a=1", "b=2", "c=3", "d=4", "e=5")

		// And back: the old file is out of date, and out of the way.
		if err := os.Rename(db, db+".old"); err != nil {
			t.Fatal(err)
		}
		migrate(t, "jsonl:"+readable, "boltdb:"+db)
		run("1-raft-boltdb", dir, "put", "f", "6")
		want(t, run("1-raft-boltdb", dir, "list"), "a=1", "b=2", "c=3", "d=4", "e=5", "f=6")
	})
	t.Run("raft-boltdb without a trial", func(t *testing.T) {
		dir := t.TempDir()
		run("1-raft-boltdb", dir, "put", "a", "1")
		migrate(t, "boltdb:"+filepath.Join(dir, "raft.db"), "jsonl:"+filepath.Join(dir, "raft"))
		run("3-jsonlstore", dir, "put", "b", "2")
		want(t, run("3-jsonlstore", dir, "get", "a"), "1")
		want(t, run("3-jsonlstore", dir, "list"), "a=1", "b=2")
	})
	t.Run("raft-wal", func(t *testing.T) {
		dir := t.TempDir()
		run("wal-before", dir, "put", "a", "1")
		run("wal-before", dir, "snapshot")
		run("wal-before", dir, "put", "b", "2")
		readable := filepath.Join(dir, "raft")
		migrate(t, "wal:"+dir, "jsonl:"+readable)
		run("wal-after", dir, "put", "c", "3")
		want(t, run("wal-after", dir, "list"), "a=1", "b=2", "c=3")

		// Back, into a directory beside the old one, whose snapshots are taken along.
		back := filepath.Join(t.TempDir(), "back")
		migrate(t, "jsonl:"+readable, "wal:"+back)
		if err := os.CopyFS(filepath.Join(back, "snapshots"), os.DirFS(filepath.Join(dir, "snapshots"))); err != nil {
			t.Fatal(err)
		}
		run("wal-before", back, "put", "d", "4")
		want(t, run("wal-before", back, "list"), "a=1", "b=2", "c=3", "d=4")
	})
}

// maxChanged is in how many lines of code, besides imports, a program changes
// that moves to another store.
const maxChanged = 5

func TestFewLinesChange(t *testing.T) {
	for _, step := range [][2]string{{"1-raft-boltdb", "3-jsonlstore"}, {"wal-before", "wal-after"}} {
		before, after := code(t, step[0]), code(t, step[1])
		if len(before) < 10 {
			t.Fatalf("%s has only %d lines of code", step[0], len(before))
		}
		kept := common(before, after)
		changed := max(len(before), len(after)) - kept
		t.Logf("%s to %s: %d of %d lines", step[0], step[1], changed, len(before))
		if changed == 0 || changed > maxChanged {
			t.Errorf("%s to %s: %d lines change, want 1 to %d\n%s\n---\n%s", step[0], step[1], changed, maxChanged,
				strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	}
}

// code returns the lines of a program from the first function on, without comments.
func code(t *testing.T, dir string) []string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	var s scanner.Scanner
	files := token.NewFileSet()
	file := files.AddFile(dir, files.Base(), len(src))
	s.Init(file, src, nil, 0)
	var lines []string
	started, last := false, 0
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return lines
		}
		started = started || tok == token.FUNC
		if !started || tok == token.SEMICOLON && text == "\n" {
			continue
		}
		if text == "" {
			text = tok.String()
		}
		if line := file.Line(pos); line == last {
			lines[len(lines)-1] += " " + text
		} else {
			lines, last = append(lines, text), line
		}
	}
}

// common is the length of the longest common subsequence.
func common(a, b []string) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(above, row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}
