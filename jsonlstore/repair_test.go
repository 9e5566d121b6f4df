package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

const memState = memDir + "/" + StateFile

var repairTime = time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)

const copyName = ".before-repair-20261122T170000Z"

// repairSample is a directory of 12 entries in 5 batches and 3 terms; 8 are
// committed, and the state file says so.
func repairSample(t testing.TB) map[string][]byte {
	t.Helper()
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetUint64([]byte(logstore.KeyCurrentTerm), 1))
	mustStore(t, s, someLogs(1, 1, 1))
	mustStore(t, s, someLogs(2, 5, 1))
	must(s.StageCommitIndex(8))
	mustStore(t, s, someLogs(6, 9, 2))
	mustStore(t, s, someLogs(10, 10, 3))
	mustStore(t, s, someLogs(11, 12, 3))
	must(s.SetUint64([]byte(logstore.KeyCurrentTerm), 4))
	must(s.SetUint64([]byte(logstore.KeyLastVoteTerm), 4))
	must(s.Set([]byte(logstore.KeyLastVoteCand), []byte("2@b")))
	must(s.Set([]byte("other"), []byte("value")))
	must(s.Close())
	return fs.Files()
}

// flipLine damages a line of a log, counted from 1.
func flipLine(log []byte, line int) []byte {
	log = bytes.Clone(log)
	at := 0
	for range line - 1 {
		at += bytes.IndexByte(log[at:], '\n') + 1
	}
	log[at+25] ^= 1
	return log
}

func lineEnd(log []byte, line int) int {
	at := 0
	for range line {
		at += bytes.IndexByte(log[at:], '\n') + 1
	}
	return at
}

func memWith(files map[string][]byte) *memfs.FS {
	fs := memfs.New()
	for name, data := range files {
		fs.Put(name, data)
	}
	return fs
}

// checkRepaired opens a repaired directory and wants the first n entries.
func checkRepaired(t *testing.T, what string, fs *memfs.FS, n uint64) *Store {
	t.Helper()
	s, err := Open(memDir, onMem(fs))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if first, _ := s.FirstIndex(); first != min(n, 1) {
		t.Fatalf("%s: it begins with %d", what, first)
	}
	if last, _ := s.LastIndex(); last != n {
		t.Fatalf("%s: it ends with %d, want %d", what, last, n)
	}
	if commit, err := s.GetCommitIndex(); err != nil || commit > n {
		t.Fatalf("%s: commit index %d, %v", what, commit, err)
	}
	return s
}

func TestRepairCutsAtTheFirstDamage(t *testing.T) {
	files := repairSample(t)
	for line := 1; line <= 12; line++ {
		what := fmt.Sprintf("line %d", line)
		log := flipLine(files[memLog], line)
		fs := memWith(files)
		fs.Put(memLog, log)
		before := fs.Files()
		plan, err := PlanRepair(memDir, RepairOptions{}, onMem(fs))
		if err != nil || !plan.Needed() || !plan.Log.Cut {
			t.Fatalf("%s: %+v, %v", what, plan, err)
		}
		if !maps.EqualFunc(before, fs.Files(), bytes.Equal) {
			t.Fatalf("%s: the plan changed something", what)
		}
		l, kept := plan.Log, uint64(line-1)
		if l.KeptLast != kept || l.KeptEntries != line-1 || l.KeptLines != line-1 || l.KeptBytes != int64(lineEnd(log, line-1)) ||
			l.DamageCount != 1 || l.Damage[0].Line != line || l.LostReadable != 12-line || l.LostFirst != uint64(line) || l.LostLast != 12 {
			t.Fatalf("%s: %+v", what, l)
		}
		// Entry 11 and 12 are one batch, the last: nobody knows.
		if wantAck := line <= 10; l.LostAcknowledged != wantAck || (l.LostCommitted == 8) != (line <= 8) {
			t.Fatalf("%s: %+v", what, l)
		}
		if lower := line <= 8; plan.State.LowerCommit != lower || lower && plan.State.CommitNow != kept {
			t.Fatalf("%s: %+v", what, plan.State)
		}
		res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
		if err != nil || !res.After.OK() || res.After.Last != kept {
			t.Fatalf("%s: %+v, %v", what, res, err)
		}
		after := fs.Files()
		if !bytes.Equal(after[memLog+copyName], log) || !bytes.Equal(after[memLog], log[:l.KeptBytes]) {
			t.Fatalf("%s: %s", what, show(fs))
		}
		if copied := after[memState+copyName]; (copied != nil) != (line <= 8) || copied != nil && !bytes.Equal(copied, files[memState]) {
			t.Fatalf("%s: %s", what, show(fs))
		}
		s := checkRepaired(t, what, fs.CrashClone(memfs.LoseEverything), kept)
		if term, err := s.GetUint64([]byte(logstore.KeyCurrentTerm)); err != nil || term != 4 {
			t.Fatalf("%s: term %d, %v", what, term, err)
		}
		if cand, err := s.Get([]byte(logstore.KeyLastVoteCand)); err != nil || string(cand) != "2@b" {
			t.Fatalf("%s: vote %q, %v", what, cand, err)
		}
		if val, err := s.Get([]byte("other")); err != nil || string(val) != "value" {
			t.Fatalf("%s: %q, %v", what, val, err)
		}
		again, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
		if err != nil || again.Needed() || len(again.Copies) > 0 || !maps.EqualFunc(after, fs.Files(), bytes.Equal) {
			t.Fatalf("%s, once more: %+v, %v", what, again, err)
		}
	}
}

func TestRepairOfNothing(t *testing.T) {
	files := repairSample(t)
	log := files[memLog]
	for what, cut := range map[string][]byte{
		"healthy": log,
		"torn":    bytes.TrimRight(log, " \n")[:len(bytes.TrimRight(log, " \n"))-5],
	} {
		fs := memWith(files)
		fs.Put(memLog, cut)
		before := fs.Files()
		res, err := Repair(memDir, RepairOptions{ResetState: true}, onMem(fs))
		if err != nil || res.Needed() || !maps.EqualFunc(before, fs.Files(), bytes.Equal) || (res.Torn != nil) != (what == "torn") {
			t.Fatalf("%s: %+v, %v", what, res, err)
		}
	}
	fs := memfs.New()
	fs.Put(memDir+"/something", nil)
	if _, err := Repair(memDir, RepairOptions{}, onMem(fs)); err == nil || !strings.Contains(err.Error(), "not a state directory") || len(fs.Files()) != 1 {
		t.Fatal(err)
	}
}

func TestRepairLogThatLostItsEnd(t *testing.T) {
	files := repairSample(t)
	fs := memWith(files)
	fs.Put(memLog, files[memLog][:lineEnd(files[memLog], 6)])
	if _, err := Open(memDir, onMem(fs)); !errors.Is(err, logstore.ErrCorrupt) {
		t.Fatal(err)
	}
	res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
	if err != nil || res.Log.Cut || !res.State.LowerCommit || res.Log.LostFirst != 7 || res.Log.LostLast != 8 || res.Log.LostCommitted != 8 ||
		!slices.Equal(res.Copies, []string{memState + copyName}) {
		t.Fatalf("%+v, %v", res, err)
	}
	checkRepaired(t, "lost its end", fs, 6)
}

func TestRepairRefusesWhileInUse(t *testing.T) {
	files := repairSample(t)
	fs := memWith(files)
	s := mustOpen(t, memDir, onMem(fs))
	defer s.Close()
	fs.Put(memLog, flipLine(files[memLog], 3))
	before := fs.Files()
	_, err := Repair(memDir, RepairOptions{}, onMem(fs))
	var inUse *logstore.InUseError
	if !errors.As(err, &inUse) || !maps.EqualFunc(before, fs.Files(), bytes.Equal) {
		t.Fatal(err)
	}
}

func TestRepairNeverMakesUpAState(t *testing.T) {
	files := repairSample(t)
	broken := bytes.Replace(files[memState], []byte(`"current_term": 4`), []byte(`"current_term": 5`), 1)
	for _, c := range []struct {
		what  string
		state []byte // nil: missing
		line  int    // damaged
		kept  uint64
		term  uint64
	}{
		{"state damaged", broken, 0, 12, 3},
		{"both damaged", broken, 4, 3, 3}, // not the term of what is left
		{"state missing, log damaged", nil, 4, 3, 3},
		{"state cut short", broken[:20], 12, 11, 3},
	} {
		given := maps.Clone(files)
		delete(given, memState)
		if c.state != nil {
			given[memState] = c.state
		}
		if c.line > 0 {
			given[memLog] = flipLine(files[memLog], c.line)
		}
		fs := memWith(given)
		plan, err := PlanRepair(memDir, RepairOptions{}, onMem(fs))
		if err != nil || !plan.Needed() || !plan.State.NeedsReset || plan.State.Reset || plan.State.Term != c.term {
			t.Fatalf("%s: %+v, %v", c.what, plan.State, err)
		}
		if _, err := Repair(memDir, RepairOptions{}, onMem(fs)); !errors.Is(err, ErrNeedsReset) {
			t.Fatalf("%s: %v", c.what, err)
		}
		if !maps.EqualFunc(given, fs.Files(), bytes.Equal) {
			t.Fatalf("%s: it changed something: %s", c.what, show(fs))
		}
		res, err := Repair(memDir, RepairOptions{ResetState: true, Now: repairTime}, onMem(fs))
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if got := fs.Files()[memState+copyName]; !bytes.Equal(got, c.state) {
			t.Fatalf("%s: copy %q of %v", c.what, got, res.Copies)
		}
		s := checkRepaired(t, c.what, fs, c.kept)
		if term, err := s.GetUint64([]byte(logstore.KeyCurrentTerm)); err != nil || term != c.term {
			t.Fatalf("%s: term %d, %v", c.what, term, err)
		}
		if term, err := s.GetUint64([]byte(logstore.KeyLastVoteTerm)); err != nil || term != c.term {
			t.Fatalf("%s: vote in term %d, %v", c.what, term, err)
		}
		if cand, err := s.Get([]byte(logstore.KeyLastVoteCand)); err != nil || len(cand) > 0 {
			t.Fatalf("%s: vote for %q, %v", c.what, cand, err)
		}
	}
}

// TestRepairRaisesAnOldTerm has a state of the original that is older than the
// log, of which the newest term is cut off.
func TestRepairRaisesAnOldTerm(t *testing.T) {
	files := repairSample(t)
	files[memState] = []byte(`{"current_term":2,"voted_for":1,"commit_index":4}`)
	files[memLog] = flipLine(files[memLog], 11)
	fs := memWith(files)
	res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
	if err != nil || !res.State.RaiseTerm || res.State.Term != 3 || res.State.LowerCommit {
		t.Fatalf("%+v, %v", res.State, err)
	}
	s := checkRepaired(t, "old term", fs, 10)
	if term, err := s.GetUint64([]byte(logstore.KeyCurrentTerm)); err != nil || term != 3 {
		t.Fatalf("term %d, %v", term, err)
	}
}

// TestCrashDuringRepair stops the machine at every operation of a repair, with
// many kinds of loss: either nothing has happened to the log or it is repaired,
// what was changed is there as a copy, and the repair can be made again.
func TestCrashDuringRepair(t *testing.T) {
	files := repairSample(t)
	files[memLog] = flipLine(files[memLog], 7)
	for _, broken := range []bool{false, true} {
		if broken {
			files[memState] = files[memState][:40]
		}
		probe := memWith(files)
		if _, err := Repair(memDir, RepairOptions{ResetState: true, Now: repairTime}, onMem(probe)); err != nil {
			t.Fatal(err)
		}
		images := 0
		for n := 1; n <= probe.Ops(); n++ {
			for _, short := range []float64{0, 0.5, 1} {
				fs := crashAt(n, short)
				for name, data := range files {
					fs.Put(name, data)
				}
				_, err := Repair(memDir, RepairOptions{ResetState: true, Now: repairTime}, onMem(fs))
				if !fs.Crashed() {
					t.Fatalf("operation %d: %v", n, err)
				}
				for seed := range uint64(8) {
					var loss memfs.Loss = memfs.LoseRandomly(seed)
					if seed == 0 {
						loss = memfs.LoseNothing
					} else if seed == 1 {
						loss = memfs.LoseEverything
					}
					checkCrashedRepair(t, fmt.Sprintf("operation %d, short %v, loss %d", n, short, seed), files, fs.CrashClone(loss))
					images++
				}
			}
		}
		t.Logf("%d operations, %d crash images", probe.Ops(), images)
	}
}

func checkCrashedRepair(t *testing.T, what string, files map[string][]byte, image *memfs.FS) {
	t.Helper()
	now := image.Files()
	for _, name := range []string{memLog, memState} {
		copied, there := now[name+copyName]
		if there && !bytes.Equal(copied, files[name]) {
			t.Fatalf("%s: the copy of %s is not what was there", what, name)
		}
		if !bytes.Equal(now[name], files[name]) && !there {
			t.Fatalf("%s: %s was changed, and there is no copy", what, name)
		}
	}
	cut := int64(lineEnd(files[memLog], 6))
	if !bytes.Equal(now[memLog], files[memLog]) && !bytes.Equal(now[memLog], files[memLog][:cut]) {
		t.Fatalf("%s: the log is neither the old nor the repaired one", what)
	}
	if s, err := Open(memDir, onMem(image)); err == nil {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		checkRepaired(t, what, image, 6).Close()
	} else if !errors.Is(err, logstore.ErrCorrupt) {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := Repair(memDir, RepairOptions{ResetState: true, Now: repairTime}, onMem(image)); err != nil {
		t.Fatalf("%s: repairing once more: %v", what, err)
	}
	s := checkRepaired(t, what, image, 6)
	defer s.Close()
	if term, err := s.GetUint64([]byte(logstore.KeyCurrentTerm)); err != nil || term < 3 {
		t.Fatalf("%s: term %d, %v", what, term, err)
	}
	if copied := image.Files()[memLog+copyName]; !bytes.Equal(copied, files[memLog]) {
		t.Fatalf("%s: the copy is gone", what)
	}
}

func TestRepairOnAFullDisk(t *testing.T) {
	files := repairSample(t)
	files[memLog] = flipLine(files[memLog], 7)
	fs := memWith(files)
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		if op.Kind == memfs.Write {
			return memfs.Verdict{Err: syscall.ENOSPC, Short: op.Len / 2}
		}
		return memfs.Verdict{}
	}
	if _, err := Repair(memDir, RepairOptions{}, onMem(fs)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "nothing was changed") {
		t.Fatal(err)
	}
	if !maps.EqualFunc(files, fs.Files(), bytes.Equal) {
		t.Fatal(show(fs))
	}
}

func TestRepairNeverReplacesACopy(t *testing.T) {
	files := repairSample(t)
	files[memLog] = flipLine(files[memLog], 10)
	fs := memWith(files)
	fs.Put(memLog+copyName, []byte("older"))
	res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
	if err != nil || len(res.Copies) != 1 || res.Copies[0] != memLog+copyName+"-2" || string(fs.Files()[memLog+copyName]) != "older" {
		t.Fatalf("%+v, %v", res.Copies, err)
	}
}

func TestStat(t *testing.T) {
	files := repairSample(t)
	fs := memWith(files)
	st, err := Stat(memDir, onMem(fs))
	if err != nil {
		t.Fatal(err)
	}
	room := len(files[memLog]) - lineEnd(files[memLog], 12)
	if st.Entries != 12 || st.First != 1 || st.Last != 12 || st.Batches != 5 || st.Commit != 8 || st.RoomBytes != int64(room) || room == 0 ||
		st.Types["command"] != 12 || st.Commands[OpaqueCommand] != 12 || st.DamageCount != 0 || st.Torn != nil ||
		!slices.Equal(st.Terms, []TermSpan{{1, 1, 5}, {2, 6, 9}, {3, 10, 12}}) || st.State.CurrentTerm != 4 || st.State.VotedFor != "2@b" {
		t.Fatalf("%+v", st)
	}
	v, err := Verify(memDir, onMem(fs))
	if err != nil || v.Entries != st.Entries || v.Bytes != st.Bytes || v.Lines != st.Lines || v.Commit != st.Commit {
		t.Fatalf("Verify says %+v, %v", v, err)
	}
	// The second half of the last batch is torn.
	torn := bytes.Clone(files[memLog][:lineEnd(files[memLog], 12)-4])
	fs.Put(memLog, torn)
	if st, err = Stat(memDir, onMem(fs)); err != nil || st.Entries != 11 || st.Torn == nil {
		t.Fatalf("%+v, %v", st, err)
	}
	fs.Put(memState, []byte("{"))
	if st, err = Stat(memDir, onMem(fs)); err != nil || st.DamageCount != 1 || st.StateError == nil || st.State.Missing {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := Stat("/none", onMem(fs)); err == nil || !strings.Contains(err.Error(), "not a state directory") {
		t.Fatal(err)
	}
}

// TestRepairOfAnyDamage damages a log in every way there is and wants what is
// left to open, and to be what was stored.
func TestRepairOfAnyDamage(t *testing.T) {
	files := repairSample(t)
	log := files[memLog][:lineEnd(files[memLog], 12)]
	rng := rand.New(rand.NewPCG(4, 2))
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	cuts := 0
	for range rounds {
		broken, what := anyDamage(rng, log)
		fs := memWith(files)
		fs.Put(memLog, broken)
		plan, err := PlanRepair(memDir, RepairOptions{}, onMem(fs))
		if err != nil {
			t.Fatalf("%s: %v\n%q", what, err, broken)
		}
		if s, err := Open(memDir, onMem(memWith(fs.Files()))); (err == nil) == plan.Needed() {
			t.Fatalf("%s: needed: %v, but Open: %v\n%q", what, plan.Needed(), err, broken)
		} else if err == nil {
			s.Close()
			continue
		}
		cuts++
		res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
		if err != nil {
			t.Fatalf("%s: %+v, %v\n%q", what, res, err, broken)
		}
		s, err := Open(memDir, onMem(fs))
		if err != nil {
			t.Fatalf("%s: %v\n%q", what, err, broken)
		}
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		if last != res.Log.KeptLast || first != res.Log.KeptFirst {
			t.Fatalf("%s: %d to %d, not as announced: %+v\n%q", what, first, last, res.Log, broken)
		}
		// Damage may splice a line so that it looks like one of the original's, which
		// have no checksum. Whoever opens it cannot know.
		kept := fs.Files()[memLog]
		if bytes.Count(kept, []byte(`"crc":"`)) != res.Log.KeptEntries {
			continue
		}
		for index := first; index > 0 && index <= last; index++ {
			var l raft.Log
			if err := s.GetLog(index, &l); err != nil || string(l.Data) != fmt.Sprintf("entry %d of term %d", index, l.Term) {
				t.Fatalf("%s: %+v, %v", what, l, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d logs were cut", cuts, rounds)
}

// anyDamage does a few things to a log that disks, people and programs do.
func anyDamage(rng *rand.Rand, log []byte) (broken []byte, what string) {
	broken = bytes.Clone(log)
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(broken))
		n := min(1+rng.IntN(400), len(broken)-at)
		kind := rng.IntN(6)
		switch kind {
		case 0:
			broken[at] ^= 1 << rng.IntN(8)
		case 1:
			clear(broken[at : at+n])
		case 2:
			copy(broken[at:at+n], blanks)
		case 3:
			broken = slices.Delete(broken, at, at+n)
		case 4:
			broken = slices.Insert(broken, at, broken[at:at+n]...)
		case 5:
			copy(broken[rng.IntN(len(broken)):], broken[at:at+n])
		}
		what += fmt.Sprintf("%d at %d of %d; ", kind, at, len(broken))
		if len(broken) == 0 {
			broken = []byte("x")
		}
	}
	return broken, what
}
