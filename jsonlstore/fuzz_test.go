package jsonlstore

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// fuzzMaxEntry keeps lines short, so that the bound is met.
const fuzzMaxEntry = 1 << 12

// FuzzOpen opens whatever a log file may hold. It either opens, and then is a
// contiguous log that works on and opens again the same; or it is refused with
// nothing changed.
func FuzzOpen(f *testing.F) {
	sm := makeSample(f)
	f.Add(sm.log)
	f.Add(sm.log[:len(sm.log)-20])
	f.Add(bytes.Replace(sm.log, []byte(`"term":1`), []byte(`"term":2`), 1))
	for _, name := range []string{"full", "trimmed_front"} {
		text, err := os.ReadFile(filepath.Join("testdata", "interop", name, LogFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("{\"index\":1,\"term\":1,\"command\":\"Noop\"}"))
	f.Add([]byte("\x00\x00\x00\n{\"index\":5"))
	f.Add(bytes.Repeat([]byte("["), 20_000))
	f.Fuzz(func(t *testing.T, log []byte) {
		fs := memfs.New()
		fs.Put(memLog, log)
		before := fs.Files()
		s, err := Open(memDir, onMem(fs), WithMaxEntrySize(fuzzMaxEntry))
		r, verifyErr := Verify(memDir, onMem(fs), WithMaxEntrySize(fuzzMaxEntry))
		if verifyErr != nil {
			t.Fatal(verifyErr)
		}
		if err != nil {
			if !errors.Is(err, logstore.ErrCorrupt) || r.OK() {
				t.Fatalf("Open: %v; Verify: %+v", err, r)
			}
			if !maps.EqualFunc(before, fs.Files(), bytes.Equal) {
				t.Fatal("the failing Open changed something")
			}
			return
		}
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		for i := first; i <= last && i > 0; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil && !errors.Is(err, logstore.ErrCorrupt) || err == nil && l.Index != i {
				t.Fatalf("GetLog(%d) = %+v, %v", i, l, err)
			}
		}
		if last < logstore.MaxIndex {
			if err := s.StoreLog(&raft.Log{Index: last + 1, Term: 3}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(memDir, onMem(fs.CrashClone(memfs.LoseEverything)), WithMaxEntrySize(fuzzMaxEntry))
		if err != nil {
			t.Fatalf("opening once more: %v", err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzState reads whatever a state file and its twin may hold. What is taken for a
// state comes back the same after it is written; the twin counts only where it may.
func FuzzState(f *testing.F) {
	for _, name := range []string{"full", "fresh_vote"} {
		text, err := os.ReadFile(filepath.Join("testdata", "interop", name, StateFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, stateText(9, 1))
	}
	st := &stableState{values: map[string][]byte{"a": []byte("b"), logstore.KeyLastVoteCand: []byte("1@a")}, commit: 4}
	f.Add(encodeState(st), []byte{})
	putUint64(st.values, logstore.KeyCurrentTerm, 0)
	putUint64(st.values, logstore.KeyLastVoteTerm, 3)
	f.Add(encodeState(st), []byte{})
	st.first, st.cut = 9, new(uint64)
	f.Add(encodeState(st), stateText(9, 1))
	old, next := stateText(7, 1), stateText(8, 1)
	f.Add(slices.Concat(next[:25], old[25:]), next)
	f.Fuzz(func(t *testing.T, text, twin []byte) {
		st := checkStateText(t, text)
		if other := checkStateText(t, twin); other != nil && !other.foreign && len(twin) == len(text) && (st == nil || st.foreign) {
			st = other
		}
		fs := memWith(map[string][]byte{memLog: nil, memState: text, memTwin: twin})
		before := fs.Files()
		s, err := Open(memDir, onMem(fs))
		if err != nil {
			// A state may claim more than the empty log beside it.
			if !errors.Is(err, logstore.ErrCorrupt) || st != nil && !st.foreign && st.commit == 0 && st.first == 0 && st.cut == nil {
				t.Fatalf("Open: %v", err)
			}
			if !maps.EqualFunc(before, fs.Files(), bytes.Equal) {
				t.Fatal("the failing Open changed something")
			}
			return
		}
		if st == nil {
			t.Fatal("it opens with a state that nobody wrote")
		}
		// It is on disk, also if the next change of it stops in the middle.
		if err := s.Set([]byte("after"), []byte("it")); err != nil {
			t.Fatal(err)
		}
		st.values["after"] = []byte("it")
		again := mustOpen(t, memDir, onMem(fs.CrashClone(memfs.LoseEverything)))
		if got := again.stable.Load().values; !maps.EqualFunc(got, st.values, bytes.Equal) {
			t.Fatalf("it opens with %q, want %q", got, st.values)
		}
		for _, s := range []*Store{s, again} {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// checkStateText reads a state, nil if the text is none.
func checkStateText(t *testing.T, text []byte) *stableState {
	t.Helper()
	st, err := decodeState(text)
	if err != nil {
		return nil
	}
	for _, key := range []string{logstore.KeyCurrentTerm, logstore.KeyLastVoteTerm} {
		if val, ok := st.values[key]; ok && len(val) != 8 {
			t.Fatalf("%s = %q", key, val)
		}
	}
	again, err := decodeState(encodeState(st))
	if err != nil {
		t.Fatalf("what was written does not read: %v", err)
	}
	sameCut := again.cut == nil && st.cut == nil || again.cut != nil && st.cut != nil && *again.cut == *st.cut
	if again.commit != st.commit || again.first != st.first || !sameCut || !maps.EqualFunc(again.values, st.values, bytes.Equal) {
		t.Fatalf("%+v came back as %+v", st, again)
	}
	return st
}

// FuzzLine reads whatever a line may hold. What is taken for an entry comes
// back the same after it is written.
func FuzzLine(f *testing.F) {
	for _, l := range storetest.Samples() {
		if len(l.Data) < 1000 {
			f.Add(appendLine(nil, l, 0, 0))
		}
	}
	f.Add(appendLine(nil, &raft.Log{Index: 9}, 3, 7))
	f.Add([]byte(`{"index":1,"term":1,"command":{"New":{}}}`))
	f.Add([]byte(` {"term" : 1, "command":"Noop" , "index": 12 } `))
	f.Fuzz(func(t *testing.T, text []byte) {
		agree(t, text)
		p, err := parseLine(text)
		if err != nil {
			return
		}
		var l, again raft.Log
		if err := p.fill(&l); err != nil {
			return
		}
		line := appendLine(nil, &l, p.commit, p.batch)
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("%q is not one line", line)
		}
		agree(t, line)
		q, err := parseLine(line)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, line, err)
		}
		if err := q.fill(&again); err != nil {
			t.Fatalf("%q was written as %q: %v", text, line, err)
		}
		if !storetest.Same(&l, &again) || q.commit != p.commit || q.batch != p.batch {
			t.Fatalf("%+v came back as %+v", l, again)
		}
	})
}

// FuzzOpenParts opens whatever two sealed parts, the index file of one, and the open
// part may hold, and whatever the state file says of where the log begins and of a cut.
// Open and Verify agree; what opens is read; what does not is as it was, until Repair
// makes it a log again.
func FuzzOpenParts(f *testing.F) {
	for _, size := range []int64{1, 300, 500} {
		var parts []string
		files, _ := sealedFiles(f, size, 8)
		for name := range files {
			if _, ok := parsePartName(filepath.Base(name), partSuffix); ok {
				parts = append(parts, name)
			}
		}
		slices.Sort(parts)
		if len(parts) < 2 {
			continue
		}
		second, _ := parsePartName(filepath.Base(parts[1]), partSuffix)
		open := files[memLog]
		if len(parts) > 2 {
			open = files[parts[2]]
		}
		index := files[indexPath(memDir, 1)]
		for _, first := range []uint64{0, 1, 2, second, second + 1, 7} {
			f.Add(files[parts[0]], index, files[parts[1]], uint8(second), open, first, uint64(0))
		}
		f.Add(files[parts[0]], index, files[parts[1]], uint8(second), open, uint64(1), uint64(2))
		f.Add(files[parts[0]], index, files[parts[1]], uint8(second), open, uint64(1), second+1)
		f.Add(files[parts[0]], index, open, uint8(second), open, uint64(2), uint64(0))
		f.Add(files[parts[0]], []byte(indexMagic), []byte{}, uint8(second), files[parts[1]], uint64(0), uint64(1))
	}
	f.Fuzz(checkParts)
}

func checkParts(t *testing.T, one, index, two []byte, second uint8, open []byte, first, cut uint64) {
	st := &stableState{values: map[string][]byte{}, first: first}
	if cut > 0 { // 1 stands for all
		cut--
		st.cut = &cut
	}
	text := encodeState(st)
	if _, err := decodeState(text); err != nil {
		return
	}
	files := map[string][]byte{memState: text, memLog: open, partPath(memDir, 1): one, indexPath(memDir, 1): index}
	if second > 1 && len(two) > 0 {
		files[partPath(memDir, uint64(second))] = two
	}
	limit := WithMaxEntrySize(fuzzMaxEntry)
	fs := memWith(files)
	r, err := Verify(memDir, onMem(fs), limit)
	if err != nil {
		t.Fatal(err)
	}
	before := fs.Files()
	if err := openAndRead(t, fs, r.OK(), limit); err != nil {
		if r.OK() {
			t.Fatalf("Verify finds nothing, and it does not open: %v", err)
		}
		if !maps.EqualFunc(before, fs.Files(), bytes.Equal) {
			t.Fatal("the failing Open changed something")
		}
	}
	if r.OK() {
		return
	}
	fs = memWith(files)
	res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs), limit)
	if errors.Is(err, ErrNotRepairable) {
		return
	}
	if err != nil {
		t.Fatalf("Repair: %v\n%+v\n%+v", err, r.Damage, res)
	}
	if err := openAndRead(t, fs, true, limit); err != nil {
		t.Fatalf("it does not open after the repair: %v\n%+v", err, res)
	}
}

// openAndRead opens a log and reads all of it, unless it is refused.
func openAndRead(t *testing.T, fs *memfs.FS, good bool, limit Option) error {
	t.Helper()
	s, err := Open(memDir, onMem(fs), limit)
	if err != nil {
		if !errors.Is(err, logstore.ErrCorrupt) {
			t.Fatalf("Open: %v", err)
		}
		return err
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	for i := first; i <= last && i > 0; i++ {
		var l raft.Log
		switch err := s.GetLog(i, &l); {
		case err != nil && (good || !errors.Is(err, logstore.ErrCorrupt)), err == nil && l.Index != i:
			t.Fatalf("GetLog(%d) = %+v, %v", i, l, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return nil
}
