package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

func itoa(n int) string { return strconv.Itoa(n) }

// tree returns every file below dir with its bytes, mode and time.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[path] = info.Mode().String()
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[path] += info.ModTime().String() + string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkRefused fails unless Open fails as wanted, in one line, and changes
// nothing below root.
func checkRefused(t *testing.T, root, dir string, is error, says ...string) {
	t.Helper()
	before := tree(t, root)
	s, err := Open(dir)
	if err == nil {
		s.Close()
		t.Fatal("Open succeeded")
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("Open: %v; want %v", err, is)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if after := tree(t, root); !maps.Equal(before, after) {
		t.Errorf("the failing Open changed\n%q\nto\n%q", before, after)
	}
}

func TestOpenMakesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "node-1")
	s := mustOpen(t, dir)
	if err := s.StoreLog(&raft.Log{Index: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 1); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if want := []string{LockFile, LogFile, StateFile, StateFile + tempSuffix}; !slices.Equal(names, slices.Sorted(slices.Values(want))) {
		t.Errorf("files %q", names)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if err := s.StoreLog(&raft.Log{Index: 1}); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, dir, dir, logstore.ErrInUse, dir, fmt.Sprintf("pid %d", os.Getpid()), "stop that first")
	var inUse *logstore.InUseError
	if _, err := Open(dir); !errors.As(err, &inUse) || inUse.Dir != dir || inUse.Holder != fmt.Sprintf("pid %d", os.Getpid()) {
		t.Errorf("Open: %v", err)
	}
	if err := s.StoreLog(&raft.Log{Index: 2}); err != nil {
		t.Errorf("the holder was disturbed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryThatCannotBeUsed(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, root, file, nil, file, "not a directory")
	checkRefused(t, root, filepath.Join(file, "below"), nil, "below")
	if _, err := Open(""); err == nil {
		t.Error("a directory without a name was opened")
	}
	// A log that is a directory: refused after the directories were made.
	dir := filepath.Join(root, "dir")
	if err := os.MkdirAll(filepath.Join(dir, LogFile), 0o700); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, root, dir, nil, "cannot be written")
	if os.Getuid() == 0 {
		return // nothing is forbidden to root
	}
	locked := filepath.Join(root, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	checkRefused(t, root, locked, fs.ErrPermission, locked, "cannot be written")
	checkRefused(t, root, filepath.Join(locked, "new"), fs.ErrPermission, "cannot be written")
}

func TestCorruptStateIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                  "",
		"zeros":                  "\x00\x00\x00\x00",
		"cut off":                `{"current_term": 3, "voted_`,
		"not an object":          `[3]`,
		"no term":                `{"voted_for": 2, "commit_index": 1}`,
		"no commit index":        `{"current_term": 3, "voted_for": 2}`,
		"term is text":           `{"current_term": "3", "voted_for": 2, "commit_index": 1}`,
		"term is null":           `{"current_term": null, "voted_for": 2, "commit_index": 1}`,
		"term is negative":       `{"current_term": -3, "voted_for": 2, "commit_index": 1}`,
		"term is a fraction":     `{"current_term": 3.5, "voted_for": 2, "commit_index": 1}`,
		"term is too large":      `{"current_term": 18446744073709551616, "voted_for": 2, "commit_index": 1}`,
		"vote is text":           `{"current_term": 3, "voted_for": "2", "commit_index": 1}`,
		"term stands twice":      `{"current_term": 3, "current_term": 4, "voted_for": 2, "commit_index": 1}`,
		"further fields, no crc": `{"current_term": 3, "voted_for": 2, "commit_index": 1, "last_vote_term": 3}`,
		"wrong crc":              "{\n  \"current_term\": 3,\n  \"voted_for\": 2,\n  \"commit_index\": 1,\n  \"crc\": \"00000000\"\n}\n",
		"two objects":            `{"current_term": 3, "voted_for": 2, "commit_index": 1}{}`,
		"not UTF-8":              "{\"current_term\": 3, \"voted_for\": 2, \"commit_index\": 1, \"\xff\": 1}",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, StateFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			checkRefused(t, dir, dir, logstore.ErrCorrupt, path, "is damaged", "put a good copy")
		})
	}
}

// TestEveryDamagedByteOfTheStateIsFound: no term or vote is ever made up.
func TestEveryDamagedByteOfTheStateIsFound(t *testing.T) {
	st := &stableState{values: map[string][]byte{"other": []byte("value"), logstore.KeyLastVoteCand: []byte("1@a")}, commit: 4, first: 3, cut: new(uint64)}
	putUint64(st.values, logstore.KeyCurrentTerm, 12)
	putUint64(st.values, logstore.KeyLastVoteTerm, 12)
	text := encodeState(st)
	for at := range text {
		for _, change := range []byte{1, 0x20, 0x80} {
			bad := slices.Clone(text)
			bad[at] ^= change
			got, err := decodeState(bad)
			if err == nil && (got.foreign || !maps.EqualFunc(got.values, st.values, slices.Equal[[]byte]) || got.commit != 4 || got.first != 3 || got.cut == nil || *got.cut != 0) {
				t.Fatalf("byte %d from %q to %q was taken for %q", at, text[at], bad[at], got.values)
			}
		}
		if at < len(text)-1 { // without its newline it is whole
			if _, err := decodeState(text[:at]); err == nil {
				t.Fatalf("the first %d bytes were taken for a state", at)
			}
		}
	}
}

func TestStateFormat(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	for _, err := range []error{
		s.StageCommitIndex(1),
		s.StoreLog(&raft.Log{Index: 1, Term: 1}),
		s.SetUint64([]byte("CurrentTerm"), 7),
		s.SetUint64([]byte("LastVoteTerm"), 7),
		s.Set([]byte("LastVoteCand"), []byte("2@10.0.0.2:7600")),
		s.Set([]byte("key"), []byte("value")),
		s.Set([]byte("a"), nil),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, StateFile))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "current_term": 7,
  "voted_for": 2,
  "commit_index": 1,
  "last_vote_term": 7,
  "last_vote_cand": "MkAxMC4wLjAuMjo3NjAw",
  "stable": {
    "YQ==": "",
    "a2V5": "dmFsdWU="
  },
  "crc": "42dc0a03"
}
`
	if string(text) != string(padState([]byte(want), 0)) || len(text) != statePad {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

// TestEqualValueIsNotWritten: what is there already costs no sync.
func TestEqualValueIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	defer s.Close()
	if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(dir, StateFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(dir, StateFile))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
}

func TestTooLargeEntryIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, WithMaxEntrySize(1000))
	fits := &raft.Log{Index: 1, Data: make([]byte, 600), Extensions: make([]byte, 400)}
	if err := s.StoreLog(fits); err != nil {
		t.Fatal(err)
	}
	err := s.StoreLogs([]*raft.Log{{Index: 2}, {Index: 3, Data: make([]byte, 1001)}})
	var large *logstore.TooLargeError
	if !errors.Is(err, logstore.ErrTooLarge) || !errors.As(err, &large) || large.SizeBytes != 1001 || large.Limit != 1000 {
		t.Fatalf("StoreLogs: %v", err)
	}
	if last, _ := s.LastIndex(); last != 1 {
		t.Fatalf("LastIndex = %d", last)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, WithMaxEntrySize(1000))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, WithMaxEntrySize(-1)); err == nil {
		t.Error("a negative bound was taken")
	}
}

// TestBlanks: room between, before and behind the lines is no part of the log.
func TestBlanks(t *testing.T) {
	dir := t.TempDir()
	var text string
	for i := range 3 {
		text += "\n  \t\r\n" + strings.TrimSuffix(string(appendLine(nil, &raft.Log{Index: uint64(i) + 5, Term: 1}, 0, 0)), "\n") + " \t \r\n" + strings.Repeat(" ", 600)
	}
	if err := os.WriteFile(filepath.Join(dir, LogFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := mustOpen(t, dir)
		last, err := s.LastIndex()
		if err != nil || last < 7 {
			t.Fatal(last, err)
		}
		for i := uint64(5); i <= last; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || l.Index != i {
				t.Fatalf("GetLog(%d) = %+v, %v", i, l, err)
			}
		}
		if err := s.StoreLog(&raft.Log{Index: last + 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerifyAndCat(t *testing.T) {
	dir := t.TempDir()
	if _, err := Verify(dir); err == nil {
		t.Error("Verify of an empty directory")
	}
	s := mustOpen(t, dir)
	for _, logs := range [][]*raft.Log{{{Index: 3, Term: 1}, {Index: 4, Term: 1}}, {{Index: 5, Term: 2, Data: []byte(`"Noop"`)}}} {
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 2); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(dir) // beside the open store
	if err != nil || !r.OK() || r.Entries != 3 || r.First != 3 || r.Last != 5 || r.Torn != nil || r.State.CurrentTerm != 2 || r.Lines != 3 ||
		!slices.Equal(r.Terms, []TermSpan{{1, 3, 4}, {2, 5, 5}}) {
		t.Errorf("Verify: %+v, %v", r, err)
	}
	path := filepath.Join(dir, LogFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A torn tail behind, damage within.
	bad := bytes.TrimRight(text, " ")
	bad[strings.Index(string(text), "\n")+30] ^= 1
	bad = append(bad, `{"index":6,"te`...)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	r, err = Verify(dir)
	if err != nil || r.OK() || r.DamageCount != 1 || r.Damage[0].Line != 2 || r.Damage[0].Index != 4 || r.Torn == nil || r.Torn.Line != 4 || r.Torn.Bytes != 14 {
		t.Errorf("Verify: %+v, %v", r, err)
	}
	var got []uint64
	var errs int
	for l, err := range Cat(dir) {
		if err != nil {
			if !errors.Is(err, logstore.ErrCorrupt) {
				t.Error(err)
			}
			errs++
			continue
		}
		got = append(got, l.Index)
	}
	if !slices.Equal(got, []uint64{3, 5}) || errs != 1 {
		t.Errorf("Cat: %v, %d errors", got, errs)
	}
	for range Cat(dir) {
		break
	}
	for _, err := range Cat(filepath.Join(dir, "nowhere")) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Cat: %v", err)
		}
	}
	if after := tree(t, dir); !maps.Equal(before, after) {
		t.Error("Verify or Cat changed something")
	}
}
