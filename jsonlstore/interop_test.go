package jsonlstore

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// copyVectors copies a directory that the original wrote to a temporary place.
func copyVectors(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "interop", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// commandLines returns the commands as the original encodes each.
func commandLines(t *testing.T) [][]byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "interop", "commands.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

func getTerm(t *testing.T, s *Store) uint64 {
	t.Helper()
	n, err := s.GetUint64([]byte(logstore.KeyCurrentTerm))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOriginalFull(t *testing.T) {
	dir := copyVectors(t, "full")
	before, err := os.ReadFile(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir)
	if first, _ := s.FirstIndex(); first != 1 {
		t.Errorf("FirstIndex = %d", first)
	}
	if last, _ := s.LastIndex(); last != 17 {
		t.Errorf("LastIndex = %d", last)
	}
	if commit, err := s.GetCommitIndex(); commit != 16 || err != nil {
		t.Errorf("GetCommitIndex = %d, %v", commit, err)
	}
	if term := getTerm(t, s); term != 3 {
		t.Errorf("CurrentTerm = %d", term)
	}
	// A vote of the original is a vote: nobody else gets one in that term.
	if term, err := s.GetUint64([]byte(logstore.KeyLastVoteTerm)); term != 3 || err != nil {
		t.Errorf("LastVoteTerm = %d, %v", term, err)
	}
	if cand, err := s.Get([]byte(logstore.KeyLastVoteCand)); string(cand) != "2" || err != nil {
		t.Errorf("LastVoteCand = %q, %v", cand, err)
	}
	scan := bufio.NewScanner(bytes.NewReader(before))
	for index := uint64(1); scan.Scan(); index++ {
		var want struct {
			Index, Term uint64
			Command     json.RawMessage
		}
		if err := json.Unmarshal(scan.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		var l raft.Log
		if err := s.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
		if l.Index != want.Index || l.Term != want.Term || l.Type != raft.LogCommand || !bytes.Equal(l.Data, want.Command) || l.Extensions != nil || !l.AppendedAt.IsZero() {
			t.Errorf("entry %d = %+v, the line says %s", index, l, scan.Bytes())
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, LogFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("opening changed the log: %v", err)
	}
	// And it goes on, in one file with the original's lines.
	s = mustOpen(t, dir)
	if err := s.StoreLog(&raft.Log{Index: 18, Term: 4, Data: []byte(`"Noop"`)}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte(logstore.KeyCurrentTerm), 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st := originalState(t, dir); st.CurrentTerm != 4 || st.VotedFor != nil || st.CommitIndex != 16 {
		t.Errorf("the original reads %+v", st)
	}
	if r, err := Verify(dir); err != nil || !r.OK() || r.Entries != 18 || r.Last != 18 || len(r.Terms) != 3 {
		t.Errorf("Verify: %+v, %v", r, err)
	}
}

func TestOriginalFreshVote(t *testing.T) {
	s := mustOpen(t, copyVectors(t, "fresh_vote"))
	defer s.Close()
	if term := getTerm(t, s); term != 8 {
		t.Errorf("CurrentTerm = %d", term)
	}
	if last, err := s.LastIndex(); last != 0 || err != nil {
		t.Errorf("LastIndex = %d, %v", last, err)
	}
	for _, key := range []string{logstore.KeyLastVoteTerm, logstore.KeyLastVoteCand} {
		if val, err := s.Get([]byte(key)); val != nil || err != logstore.ErrKeyNotFound { //nolint:errorlint // the bare value
			t.Errorf("Get(%s) = %q, %v", key, val, err)
		}
	}
}

func TestOriginalTrimmedFront(t *testing.T) {
	dir := copyVectors(t, "trimmed_front")
	for range 2 { // derived the first time, written the second
		s := mustOpen(t, dir)
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		if first != 3000 || last != 3004 {
			t.Errorf("the log holds %d to %d", first, last)
		}
		// Without a state file the term does not start from zero, and its vote
		// counts as used up.
		if term := getTerm(t, s); term != 3 {
			t.Errorf("CurrentTerm = %d", term)
		}
		if term, err := s.GetUint64([]byte(logstore.KeyLastVoteTerm)); term != 3 || err != nil {
			t.Errorf("LastVoteTerm = %d, %v", term, err)
		}
		if cand, err := s.Get([]byte(logstore.KeyLastVoteCand)); cand == nil || len(cand) != 0 || err != nil {
			t.Errorf("LastVoteCand = %v, %v", cand, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if st := originalState(t, dir); st.CurrentTerm != 3 || st.VotedFor == nil || *st.VotedFor != 0 {
		t.Errorf("the original reads %+v", st)
	}
}

// original is what the original's reader takes from raft_state.json; it ignores all else.
type original struct {
	CurrentTerm uint64  `json:"current_term"`
	VotedFor    *uint64 `json:"voted_for"`
	CommitIndex uint64  `json:"commit_index"`
}

func originalState(t *testing.T, dir string) (st original) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, StateFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return st
}

// TestOriginalReadsOurLines holds every line that is written here against what
// the original's reader needs: index, term and a command it can decode, with
// the payload in it where the payload is a command.
func TestOriginalReadsOurLines(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if err := s.StageCommitIndex(3); err != nil {
		t.Fatal(err)
	}
	logs := storetest.Samples()
	for _, data := range commandLines(t) {
		logs = append(logs, &raft.Log{Index: uint64(len(logs)) + 1, Term: 9, Data: data})
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) != len(logs) {
		t.Fatalf("%d lines for %d entries", len(lines), len(logs))
	}
	for i, line := range lines {
		var got struct {
			Index, Term *uint64
			Command     json.RawMessage
		}
		if err := json.Unmarshal(line, &got); err != nil || got.Index == nil || got.Term == nil {
			t.Fatalf("line %d: %v: %.200s", i+1, err, line)
		}
		if *got.Index != logs[i].Index || *got.Term != logs[i].Term {
			t.Errorf("line %d: index %d, term %d", i+1, *got.Index, *got.Term)
		}
		c, err := command.Decode(got.Command)
		if err != nil {
			t.Fatalf("line %d: the original cannot decode its command: %v: %.200s", i+1, err, line)
		}
		again, err := command.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		want := logs[i].Data
		if logs[i].Type != raft.LogCommand || !command.IsCanonical(want) {
			want = []byte(`"Noop"`)
		}
		if !bytes.Equal(again, want) {
			t.Errorf("line %d holds the command %.200s, want %.200s", i+1, again, want)
		}
	}
}

// TestCommandsStandInTheLineAsTheyAre: the line of a command is the original's
// line with further fields behind it.
func TestCommandsStandInTheLineAsTheyAre(t *testing.T) {
	for i, data := range commandLines(t) {
		line := appendLine(nil, &raft.Log{Index: uint64(i) + 1, Term: 2, Data: data}, 0, 0)
		want := append([]byte(`{"index":`+itoa(i+1)+`,"term":2,"command":`), data...)
		if !bytes.HasPrefix(line, append(want, `,"crc":"`...)) {
			t.Errorf("got %s\nwant %s…", line, want)
		}
	}
}

// TestVotesOfOurStateAsTheOriginalReadsThem covers voted_for in all its forms.
func TestVotesOfOurStateAsTheOriginalReadsThem(t *testing.T) {
	id := func(n uint64) *uint64 { return &n }
	for _, c := range []struct {
		name           string
		term, voteTerm uint64
		cand           string
		want           *uint64
	}{
		{"ID and address", 5, 5, "2@10.0.0.2:7600", id(2)},
		{"ID alone", 5, 5, "3", id(3)},
		{"largest ID", 5, 5, "18446744073709551615@h", id(1<<64 - 1)},
		{"not an ID", 5, 5, "10.0.0.2:7600", id(0)},
		{"too large for an ID", 5, 5, "18446744073709551616", id(0)},
		{"nothing", 5, 5, "", id(0)},
		{"vote of an older term", 6, 5, "2@10.0.0.2:7600", nil},
	} {
		dir := t.TempDir()
		s := mustOpen(t, dir)
		for _, err := range []error{
			s.SetUint64([]byte(logstore.KeyCurrentTerm), c.term),
			s.SetUint64([]byte(logstore.KeyLastVoteTerm), c.voteTerm),
			s.Set([]byte(logstore.KeyLastVoteCand), []byte(c.cand)),
			s.Close(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		st := originalState(t, dir)
		if st.CurrentTerm != c.term || (st.VotedFor == nil) != (c.want == nil) || (c.want != nil && *st.VotedFor != *c.want) {
			t.Errorf("%s: the original reads %+v", c.name, st)
		}
		s = mustOpen(t, dir)
		if cand, err := s.Get([]byte(logstore.KeyLastVoteCand)); string(cand) != c.cand || err != nil {
			t.Errorf("%s: came back as %q, %v", c.name, cand, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
