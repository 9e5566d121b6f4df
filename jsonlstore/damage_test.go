package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

const memLog = memDir + "/" + LogFile

// damageSample is a log of several batches, every byte of which was acknowledged.
type damageSample struct {
	ref   *logstore.Memory
	files map[string][]byte
	log   []byte
	lines []sampleLine
}

type sampleLine struct {
	index    uint64
	batch    uint64 // first index of its batch
	from, to int    // bytes, newline included
}

func makeSample(t testing.TB) *damageSample {
	t.Helper()
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	sm := &damageSample{ref: logstore.NewMemory()}
	next := uint64(1)
	for _, batch := range [][]int{{0}, {40, 300}, {3}, {500}, {10, 20}, {80}, {90, 60, 300, 500, 20}} {
		var logs []*raft.Log
		first := next
		for _, size := range batch {
			l := &raft.Log{Index: next, Term: 1 + next/4, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{byte(next), 'z'}, size/2)}
			if size == 3 {
				l = &raft.Log{Index: next, Term: 1 + next/4, Data: []byte(`{"UpdateConfig":{"key":"k","value":"some words"}}`)}
			}
			logs = append(logs, l)
			sm.lines = append(sm.lines, sampleLine{index: next, batch: first})
			next++
		}
		for _, store := range []logstore.Store{s, sm.ref} {
			if err := store.StoreLogs(logs); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sm.files = fs.Files()
	sm.log = bytes.TrimRight(sm.files[memLog], " ") // every other test adds the room again
	at := 0
	for i := range sm.lines {
		sm.lines[i].from = at
		at += bytes.IndexByte(sm.log[at:], '\n') + 1
		sm.lines[i].to = at
	}
	return sm
}

// lastBatch returns where the last batch begins.
func (sm *damageSample) lastBatch() sampleLine {
	last := sm.lines[len(sm.lines)-1]
	return sm.lines[last.batch-1]
}

// open opens the directory with the log replaced.
func (sm *damageSample) open(log []byte) (*Store, *memfs.FS, error) {
	fs := memfs.New()
	for name, data := range sm.files {
		fs.Put(name, data)
	}
	fs.Put(memLog, log)
	s, err := Open(memDir, onMem(fs))
	return s, fs, err
}

// outcome is what became of a damaged log.
type outcome struct {
	err  *logstore.CorruptionError
	last uint64 // if it opened: what is left
}

// try opens a damaged log. If that fails, nothing may have changed; if not,
// what is left must be what was stored.
func (sm *damageSample) try(t *testing.T, what string, log []byte) outcome {
	t.Helper()
	s, fs, err := sm.open(log)
	if err != nil {
		var o outcome
		if !errors.As(err, &o.err) || !errors.Is(err, logstore.ErrCorrupt) {
			t.Fatalf("%s: %v", what, err)
		}
		if o.err.File != memLog || o.err.Line == 0 || o.err.Advice == "" {
			t.Fatalf("%s: the error does not name the place: %+v", what, o.err)
		}
		files := fs.Files()
		if !bytes.Equal(files[memLog], log) || len(files) != len(sm.files) {
			t.Fatalf("%s: the failing Open changed something", what)
		}
		checkVerifyAgrees(t, what, fs, o.err)
		return o
	}
	defer s.Close()
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	want := sm.ref.Clone()
	if err := want.DeleteRange(last+1, 1<<40); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.FirstIndex(); first > 1 {
		if err := want.DeleteRange(0, first-1); err != nil {
			t.Fatal(err)
		}
	}
	if d := storetest.DiffLog(want, s); d != "" {
		t.Fatalf("%s: %s", what, d)
	}
	return outcome{last: last}
}

// checkVerifyAgrees has Verify find the same damage first.
func checkVerifyAgrees(t *testing.T, what string, fs *memfs.FS, e *logstore.CorruptionError) {
	t.Helper()
	r, err := Verify(memDir, onMem(fs))
	if err != nil {
		t.Fatalf("%s: Verify: %v", what, err)
	}
	if r.OK() || *r.Damage[0] != *e {
		t.Fatalf("%s: Open says %+v, Verify %+v", what, e, r.Damage)
	}
}

// named fails unless the damage was found in the line that holds the byte at,
// or in the next one, where a missing newline shows.
func (sm *damageSample) named(t *testing.T, what string, o outcome, at int) {
	t.Helper()
	if o.err == nil {
		t.Fatalf("%s: not found; the log ends with %d", what, o.last)
	}
	for i, l := range sm.lines {
		if at >= l.from && at < l.to {
			indexed := o.err.Index == l.index || i == 0 // nothing before it tells the first line's index
			if indexed && o.err.Line == i+1 && o.err.Offset == int64(l.from) {
				return
			}
			if indexed && at == l.from && o.err.Line == i+2 && o.err.Offset == int64(l.from)+1 {
				return // the byte became a newline
			}
			t.Fatalf("%s in line %d at %d: named as %+v", what, i+1, l.from, o.err)
		}
	}
}

// TestEveryDamagedByteIsFound changes every single byte of an acknowledged log.
func TestEveryDamagedByteIsFound(t *testing.T) {
	sm := makeSample(t)
	changes := []func(byte) byte{
		func(b byte) byte { return b ^ 1 },
		func(b byte) byte { return b ^ 0x20 },
		func(byte) byte { return 0 },
		func(byte) byte { return ' ' },
		func(byte) byte { return '\n' },
	}
	kept, cut := 0, 0
	for at := range sm.log {
		if at%stride(5) != 0 && sm.log[at] != '\n' {
			continue
		}
		for c, change := range changes {
			if c > 0 && (at+c)%6 != 0 && sm.log[at] != '\n' {
				continue
			}
			log := slices.Clone(sm.log)
			log[at] = change(log[at])
			if log[at] == sm.log[at] {
				continue
			}
			what := fmt.Sprintf("byte %d from %q to %q", at, sm.log[at], log[at])
			o := sm.try(t, what, append(log, blanks[:at%2*testRoom]...))
			switch {
			case o.err == nil && o.last == uint64(len(sm.lines)):
				// Harmless: the newline of the last line became another blank.
				if at != len(sm.log)-1 {
					t.Fatalf("%s was not noticed", what)
				}
				kept++
			case o.err == nil:
				// Nothing but this may be cut off: a sector of the last batch
				// that holds one byte of it, and that byte is blank now.
				if !blankSectorOf(log, sm.lastBatch().from, at) {
					t.Fatalf("%s: cut off behind %d", what, o.last)
				}
				cut++
			default:
				sm.named(t, what, o, at)
			}
		}
	}
	t.Logf("%d bytes; harmless %d, cut off %d", len(sm.log), kept, cut)
}

// blankSectorOf is the dumb twin of the store's own test: is the sector that
// holds the byte at, as far as it lies behind from, all zeros and blanks?
func blankSectorOf(log []byte, from, at int) bool {
	sector := at / vfs.SectorSize * vfs.SectorSize
	for i := max(sector, from); i < min(sector+vfs.SectorSize, len(log)); i++ {
		if log[i] != 0 && log[i] != ' ' {
			return false
		}
	}
	return at >= from
}

// TestDamagedLines drops, repeats and exchanges whole lines.
func TestDamagedLines(t *testing.T) {
	sm := makeSample(t)
	line := func(i int) []byte { return sm.log[sm.lines[i].from:sm.lines[i].to] }
	for i, l := range sm.lines {
		rest := sm.log[l.to:]
		what := fmt.Sprintf("line %d dropped", i+1)
		o := sm.try(t, what, slices.Concat(sm.log[:l.from], rest))
		switch {
		case i == len(sm.lines)-1: // the end is not there
			if o.err != nil || o.last != l.index-1 {
				t.Fatalf("%s: %+v", what, o)
			}
		case i == 0: // looks like a log whose front was cut
			if o.err != nil || o.last != uint64(len(sm.lines)) {
				t.Fatalf("%s: %+v", what, o)
			}
		case o.err == nil || o.err.Line != i+1 || o.err.Index != l.index:
			t.Fatalf("%s: %+v", what, o)
		}
		what = fmt.Sprintf("line %d repeated", i+1)
		if o := sm.try(t, what, slices.Concat(sm.log[:l.to], line(i), rest)); o.err == nil || o.err.Line != i+2 || o.err.Index != l.index+1 {
			t.Fatalf("%s: %+v", what, o)
		}
		if i > 0 {
			what = fmt.Sprintf("lines %d and %d exchanged", i, i+1)
			o := sm.try(t, what, slices.Concat(sm.log[:sm.lines[i-1].from], line(i), line(i-1), rest))
			if o.err == nil || (o.err.Line != i && o.err.Line != i+1) {
				t.Fatalf("%s: %+v", what, o)
			}
		}
	}
}

// TestDamagedSectors blanks, repeats and exchanges whole sectors. Blank ones at
// the end cannot be told from a write that never finished; everywhere else they
// are damage.
func TestDamagedSectors(t *testing.T) {
	sm := makeSample(t)
	const size = vfs.SectorSize
	cut := 0
	for from := 0; from < len(sm.log); from += size {
		to := min(from+size, len(sm.log))
		for _, blank := range []byte{0, ' '} {
			log := slices.Clone(sm.log)
			copy(log[from:to], bytes.Repeat([]byte{blank}, size))
			what := fmt.Sprintf("sector at %d set to %q", from, blank)
			o := sm.try(t, what, log)
			if o.err != nil {
				sm.named(t, what, o, from)
				continue
			}
			sm.checkCut(t, what, o, from, to)
			cut++
		}
		for other := 0; other+size <= len(sm.log); other += size {
			if to-from < size || other == from || bytes.Equal(sm.log[other:other+size], sm.log[from:to]) {
				continue
			}
			log := slices.Clone(sm.log)
			copy(log[from:to], sm.log[other:other+size])
			what := fmt.Sprintf("sector at %d overwritten with the one at %d", from, other)
			if o := sm.try(t, what, log); o.err == nil {
				t.Fatalf("%s: not found", what)
			}
			copy(log[other:other+size], sm.log[from:to])
			if o := sm.try(t, what+" and back", log); o.err == nil {
				t.Fatalf("%s and back: not found", what)
			}
		}
	}
	if cut == 0 {
		t.Fatal("no blank sector was taken for an unwritten one")
	}
}

// checkCut fails unless cutting is all that can be told: no line that is whole
// and behind the blank sector belongs to a later batch than the first line it hits.
func (sm *damageSample) checkCut(t *testing.T, what string, o outcome, from, to int) {
	t.Helper()
	hit := slices.IndexFunc(sm.lines, func(l sampleLine) bool { return l.to > from })
	for _, l := range sm.lines[hit:] {
		if l.from >= to && l.batch > sm.lines[hit].batch {
			t.Fatalf("%s: cut off behind %d, though line %d of a later batch is whole", what, o.last, l.index)
		}
	}
	if first := sm.lines[hit]; o.last >= first.index || o.last+1 < first.batch {
		t.Fatalf("%s: cut off behind %d, want between %d and %d", what, o.last, first.batch-1, first.index-1)
	}
}

// TestCutAnywhere shortens the log to every length: what is left whole is kept.
func TestCutAnywhere(t *testing.T) {
	sm := makeSample(t)
	for size := range len(sm.log) {
		whole := uint64(0)
		for _, l := range sm.lines {
			if l.to-1 <= size { // the newline may be missing
				whole = l.index
			}
		}
		for i, tail := range []string{"", "\x00\x00\x00", "   "} {
			if (size+i)%5 != 0 {
				continue // each tail at every fifth length
			}
			what := fmt.Sprintf("cut to %d bytes, then %q", size, tail)
			if o := sm.try(t, what, append(slices.Clone(sm.log[:size]), tail...)); o.err != nil || o.last != whole {
				t.Fatalf("%s: %+v, want %d entries", what, o, whole)
			}
		}
	}
}

// TestWholeUnfinishedBatchGoes: when a line behind the gap proves it, the lines
// before it go as well.
func TestWholeUnfinishedBatchGoes(t *testing.T) {
	sm := makeSample(t)
	first := sm.lastBatch()
	// A sector wholly inside the batch, behind its first line and before its last.
	from := (sm.lines[first.index].to/vfs.SectorSize + 1) * vfs.SectorSize
	if from+vfs.SectorSize > sm.lines[len(sm.lines)-1].from {
		t.Fatal("the sample's last batch is too short")
	}
	log := slices.Clone(sm.log)
	clear(log[from : from+vfs.SectorSize])
	if o := sm.try(t, "gap", log); o.err != nil || o.last != first.index-1 {
		t.Fatalf("%+v, want the log to end with %d", o, first.index-1)
	}
}

// TestLastLineWithWrongChecksum is the case that a person must decide.
func TestLastLineWithWrongChecksum(t *testing.T) {
	sm := makeSample(t)
	last := sm.lines[len(sm.lines)-1]
	log := slices.Clone(sm.log)
	log[last.from+60] ^= 4
	o := sm.try(t, "last line", log)
	want := logstore.CorruptionError{
		File: memLog, Line: len(sm.lines), Offset: int64(last.from), Index: last.index,
		Reason: errChecksum.Error(), Advice: logAdvice,
	}
	if o.err == nil || *o.err != want {
		t.Fatalf("%+v, want %+v", o.err, want)
	}
}

// TestLongBlanksAreNotTakenForUnwritten: a payload that is all blanks over a
// whole sector does not make damage look like a torn write.
func TestLongBlanksAreNotTakenForUnwritten(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	data := fmt.Appendf(nil, `{"UpdateConfig":{"key":"k","value":"%5000s"}}`, "")
	if err := s.StoreLog(&raft.Log{Index: 1, Data: data}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log := fs.Files()[memLog]
	log[20] ^= 1
	fs.Put(memLog, log)
	if _, err := Open(memDir, onMem(fs)); !errors.Is(err, logstore.ErrCorrupt) {
		t.Fatalf("Open: %v", err)
	}
}

// TestLostTailBelowCommitIndex: the state file knows that there was more.
func TestLostTailBelowCommitIndex(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	if err := s.StageCommitIndex(2); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLogs([]*raft.Log{{Index: 1}, {Index: 2}}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUint64([]byte(logstore.KeyCurrentTerm), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	log := fs.Files()[memLog]
	fs.Put(memLog, log[:bytes.IndexByte(log, '\n')+1])
	var damage *logstore.CorruptionError
	if _, err := Open(memDir, onMem(fs)); !errors.As(err, &damage) || damage.Index != 2 || damage.Line != 2 {
		t.Fatalf("Open: %v", err)
	}
	checkVerifyAgrees(t, "lost tail", fs, damage)
}

// TestDamageFoundByGetLog: a disk that cannot be read is neither damage
// nor the end of the store.
func TestDamageFoundByGetLog(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	defer s.Close()
	for i := range uint64(4) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Data: []byte("some data")}); err != nil {
			t.Fatal(err)
		}
	}
	bad := errors.New("bad sector")
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		if op.Kind == memfs.Read {
			return memfs.Verdict{Err: bad}
		}
		return memfs.Verdict{}
	}
	var l raft.Log
	if err := s.GetLog(2, &l); !errors.Is(err, bad) || errors.Is(err, logstore.ErrCorrupt) {
		t.Fatalf("GetLog with a bad disk: %v", err)
	}
	fs.Hook = nil
	if err := s.GetLog(2, &l); err != nil {
		t.Fatalf("GetLog with the disk well again: %v", err)
	}
	// Damage that comes while the store is open.
	f, err := fs.OpenReadWrite(memLog)
	if err != nil {
		t.Fatal(err)
	}
	from, _ := s.snap.Load().span(3)
	if _, err := f.WriteAt([]byte("?"), from+20); err != nil {
		t.Fatal(err)
	}
	var damage *logstore.CorruptionError
	if err := s.GetLog(3, &l); !errors.As(err, &damage) || damage.Line != 3 || damage.Offset != from || damage.Index != 3 {
		t.Fatalf("GetLog of a damaged line: %v", err)
	}
}
