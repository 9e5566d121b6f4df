package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// brokenParts is a damaged log in parts.
type brokenParts struct {
	what  string
	files map[string][]byte
	link  bool   // the open part has a second name
	kept  string // what Repair leaves, the first and the last as index/term
	also  string // what one that is called twice may leave as well
	first uint64 // entries below it are deleted
	last  uint64 // so are those above it
}

// lineOf counts the lines of a part up to that of an entry.
func lineOf(t testing.TB, text []byte, index uint64) int {
	t.Helper()
	n := bytes.Index(text, fmt.Appendf(nil, `{"index":%d,`, index))
	if n < 0 {
		t.Fatalf("there is no entry %d", index)
	}
	return bytes.Count(text[:n], []byte("\n")) + 1
}

// withState changes what the state file says.
func withState(t testing.TB, files map[string][]byte, change func(*stableState)) {
	t.Helper()
	st, err := decodeState(files[memState])
	if err != nil {
		t.Fatal(err)
	}
	change(st)
	files[memState] = encodeState(st)
}

// brokenSamples breaks a log of the entries 6 to 40 in every way that takes Repair
// other steps.
func brokenSamples(t testing.TB) []brokenParts {
	t.Helper()
	whole := partedSample(t, 700)
	var sealed []string
	for name := range whole {
		if _, ok := parsePartName(filepath.Base(name), partSuffix); ok {
			sealed = append(sealed, name)
		}
	}
	slices.Sort(sealed)
	firstOf := func(name string) uint64 {
		first, _ := parsePartName(filepath.Base(name), partSuffix)
		return first
	}
	middle, next := sealed[len(sealed)/2], sealed[len(sealed)/2+1]
	var open uint64 // index of the first entry of the open part
	if _, err := fmt.Sscanf(string(whole[memLog]), `{"index":%d,`, &open); err != nil {
		t.Fatal(err)
	}
	broken := func(name string, index uint64) map[string][]byte {
		files := maps.Clone(whole)
		files[name] = flipLine(files[name], lineOf(t, files[name], index))
		return files
	}
	until := func(last uint64) string { return fmt.Sprintf("6/1 %d/%d", last, (last-(1-last%2))/15+1) }
	all := []brokenParts{
		{what: "a line of a sealed part", files: broken(middle, firstOf(middle)+2), kept: until(firstOf(middle) + 1)},
		{what: "the first line of a sealed part", files: broken(middle, firstOf(middle)), kept: until(firstOf(middle) - 1)},
		{what: "a line of the open part", files: broken(memLog, open+1), kept: until(open)},
		{what: "the first line of the open part", files: broken(memLog, open), kept: until(open - 1)},
		{what: "the first entry", files: broken(sealed[0], 6), kept: ""},
		{what: "the open part under two names", files: broken(memLog, open+1), link: true, kept: until(open)},
		{what: "the open part under two names, from its first line on", files: broken(memLog, open), link: true, kept: until(open - 1)},
	}
	lost := maps.Clone(whole)
	delete(lost, middle)
	all = append(all, brokenParts{what: "a part that is not there", files: lost, kept: until(firstOf(middle) - 1)})
	lost = maps.Clone(whole)
	delete(lost, memLog)
	all = append(all, brokenParts{what: "the open part is not there", files: lost, kept: until(open - 1)})
	lost = broken(memLog, open)
	for _, name := range sealed {
		delete(lost, name)
		delete(lost, indexPath(memDir, firstOf(name)))
	}
	withState(t, lost, func(st *stableState) { st.first = open })
	all = append(all, brokenParts{what: "the only part under two names, from its first line on", files: lost, link: true, first: open})
	index := maps.Clone(whole)
	index[indexPath(memDir, firstOf(middle))] = []byte("none")
	all = append(all, brokenParts{what: "an index file", files: index, kept: until(40)})
	two := maps.Clone(whole)
	two[partPath(memDir, open)] = flipLine(two[memLog], 2)
	all = append(all, brokenParts{what: "two files that begin alike", files: two, kept: until(open - 1), also: until(open)})

	after := firstOf(next) + 1
	cutting := broken(middle, firstOf(middle)+2)
	withState(t, cutting, func(st *stableState) { st.cut = &after })
	all = append(all, brokenParts{what: "an unfinished cut", files: cutting, last: after, kept: until(firstOf(middle) + 1)})
	cutting = broken(next, after+1)
	withState(t, cutting, func(st *stableState) { st.cut = &after })
	all = append(all, brokenParts{what: "a line behind an unfinished cut", files: cutting, last: after, kept: until(after)})

	deleted := broken(memLog, open)
	withState(t, deleted, func(st *stableState) { st.first = open + 2 })
	all = append(all, brokenParts{what: "a deleted line of the open part", files: deleted, first: open + 2, kept: fmt.Sprintf("%d/3 40/3", open+2)})
	deleted = broken(memLog, open)
	deleted[memLog] = bytes.Replace(flipLine(deleted[memLog], 2), fmt.Appendf(nil, `"index":%d,`, open+1), []byte(`"index":XX,`), 1)
	withState(t, deleted, func(st *stableState) { st.first = open + 2 })
	all = append(all, brokenParts{what: "two deleted lines of the open part, parts before it", files: deleted, first: open + 2, kept: fmt.Sprintf("%d/3 40/3", open+2)})
	deleted = broken(memLog, open+1)
	deleted[memLog] = flipLine(deleted[memLog], lineOf(t, deleted[memLog], 40))
	withState(t, deleted, func(st *stableState) { st.first = open + 3 })
	all = append(all, brokenParts{what: "a deleted line and the last one", files: deleted, first: open + 3, kept: fmt.Sprintf("%d/3 39/3", open+3)})
	deleted = broken(middle, firstOf(middle))
	deleted[middle] = flipLine(deleted[middle], 4)
	withState(t, deleted, func(st *stableState) { st.first = firstOf(middle) + 1 })
	all = append(all, brokenParts{
		what: "a deleted line and one more of a sealed part", files: deleted, first: firstOf(middle) + 1,
		kept: fmt.Sprintf("%[1]d/%[3]d %[2]d/%[4]d", firstOf(middle)+1, firstOf(middle)+2, firstOf(middle)/15+1, (firstOf(middle)+2)/15+1),
	})
	for i := range all {
		b := &all[i]
		if b.first == 0 {
			b.first = 6
		}
		if b.last == 0 {
			b.last = 40
		}
		// What a repair does not need is not checked by it.
		delete(b.files, memState+tempSuffix)
		if b.link {
			b.files[indexPath(memDir, open)] = []byte("not yet whole")
		}
	}
	return all
}

// on puts the files on a file system, durably.
func (b *brokenParts) on(t testing.TB) *memfs.FS {
	t.Helper()
	fs := memWith(b.files)
	if b.link {
		var open uint64
		for index := b.last; index > 0; index-- {
			if bytes.Contains(b.files[memLog], fmt.Appendf(nil, `"index":%d,`, index)) {
				open = index
			}
		}
		if err := errors.Join(fs.Link(memLog, partPath(memDir, open)), fs.SyncDir(memDir)); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// ends is the first and the last entry that Cat yields.
func ends(t testing.TB, fs *memfs.FS) string {
	t.Helper()
	all := catText(t, fs)
	if len(all) == 0 {
		return ""
	}
	return all[0] + " " + all[len(all)-1]
}

// TestRepairOfParts: what stands before the damage is left, all of it.
func TestRepairOfParts(t *testing.T) {
	for _, b := range brokenSamples(t) {
		t.Run(b.what, func(t *testing.T) {
			fs := b.on(t)
			before := fs.Files()
			r, err := Verify(memDir, onMem(fs))
			if err != nil || r.OK() {
				t.Fatalf("Verify: %+v, %v", r, err)
			}
			plan, err := PlanRepair(memDir, RepairOptions{}, onMem(fs))
			if err != nil || !plan.Needed() || !sameFiles(before, fs.Files()) {
				t.Fatalf("PlanRepair: %+v, %v", plan, err)
			}
			res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
			if err != nil {
				t.Fatalf("%v\n%+v", err, plan)
			}
			b.check(t, "repaired", fs)
			if plan, err = PlanRepair(memDir, RepairOptions{}, onMem(fs)); err != nil || plan.Needed() {
				t.Fatalf("and yet, once more: %+v, %v", plan, err)
			}
			if strings.HasPrefix(b.what, "an index") != (len(res.Log.Indexes) > 0) || len(res.Copies) == 0 {
				t.Fatalf("%+v", res)
			}
		})
	}
}

// check wants the log to be repaired, with copies of what was changed, and fit for use.
func (b *brokenParts) check(t testing.TB, what string, fs *memfs.FS) {
	t.Helper()
	b.checkCopies(t, what, fs)
	if got := ends(t, fs); got != b.kept && (b.also == "" || got != b.also) {
		t.Fatalf("%s: %q is left, want %q", what, got, b.kept)
	}
	copies := fs.Files()
	s, err := Open(memDir, inParts(fs, 700))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	b.checkEntries(t, what, s, false)
	last, _ := s.LastIndex()
	for index := last + 1; index < last+8; index++ {
		if err := s.StoreLog(&raft.Log{Index: index, Term: 9, Data: make([]byte, 100)}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range fs.Files() {
		if before, ok := copies[name]; ok && strings.Contains(name, copySuffix) && !bytes.Equal(before, text) {
			t.Fatalf("%s: writing to the log changed %s", what, name)
		}
	}
}

// checkCopies wants everything that was there to be there still, under its name or
// that of a copy.
func (b *brokenParts) checkCopies(t testing.TB, what string, fs *memfs.FS) {
	t.Helper()
	now := fs.Files()
	for name, text := range b.files {
		if _, index := parsePartName(filepath.Base(name), indexSuffix); index || strings.HasSuffix(name, LockFile) || bytes.Equal(now[name], text) {
			continue
		}
		if first, ok := parsePartName(filepath.Base(name), partSuffix); ok && first < b.first && now[name] == nil && !strings.Contains(b.what, "one more") {
			continue // deleted, and gone by now
		}
		found := false
		for other, copied := range now {
			found = found || strings.HasPrefix(other, name+copySuffix) && bytes.Equal(copied, text)
		}
		if !found {
			t.Fatalf("%s: no copy of %s among %q", what, name, slices.Sorted(maps.Keys(now)))
		}
	}
}

// checkEntries reads everything. damaged: it may be that there is some.
func (b *brokenParts) checkEntries(t testing.TB, what string, s *Store, damaged bool) {
	t.Helper()
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if last > b.last || first > 0 && first < b.first {
		t.Fatalf("%s: it opens with the entries %d to %d, of which some are deleted", what, first, last)
	}
	for index := first; index > 0 && index <= last; index++ {
		var l raft.Log
		err := s.GetLog(index, &l)
		if damaged && errors.Is(err, logstore.ErrCorrupt) {
			continue
		}
		if err != nil || l.Index != index || string(l.Data) != fmt.Sprintf("entry %d of term %d", index, l.Term) {
			t.Fatalf("%s: entry %d: %q, %v", what, index, l.Data, err)
		}
	}
}

// checkHalfway looks at what an interrupted repair left: it is refused, or holds
// nothing that is wrong; and Repair, called again, finishes it.
func (b *brokenParts) checkHalfway(t testing.TB, what string, fs *memfs.FS) {
	t.Helper()
	b.checkCopies(t, what, fs)
	s, err := Open(memDir, onMem(memWith(fs.Files())))
	if err == nil {
		b.checkEntries(t, what, s, true)
		err = s.Close()
	}
	if err != nil && !errors.Is(err, logstore.ErrCorrupt) {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs)); err != nil {
		t.Fatalf("%s: repairing once more: %v\n%s", what, err, show(fs))
	}
	b.check(t, what, fs)
}

// TestCrashDuringRepairOfParts stops the machine at every operation of every repair,
// with many kinds of loss.
func TestCrashDuringRepairOfParts(t *testing.T) {
	for _, b := range brokenSamples(t) {
		t.Run(b.what, func(t *testing.T) {
			t.Parallel()
			images := 0
			losses := uint64(6)
			if raceEnabled {
				losses = 3
			}
			for n, done := 1, false; !done; n++ {
				for _, short := range []float64{0, 0.5, 1} {
					fs := b.on(t)
					start := fs.Ops()
					fs.Hook = func(op memfs.Op) memfs.Verdict {
						return memfs.Verdict{Crash: op.N == start+n, Short: int(short * float64(op.Len))}
					}
					_, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
					if done = !fs.Crashed(); done {
						if err != nil {
							t.Fatal(err)
						}
						break
					}
					for seed := range losses {
						var loss memfs.Loss = memfs.LoseRandomly(seed)
						switch seed {
						case 0:
							loss = memfs.LoseNothing
						case 1:
							loss = memfs.LoseEverything
						}
						b.checkHalfway(t, fmt.Sprintf("operation %d, short %v, loss %d", n, short, seed), fs.CrashClone(loss))
						images++
					}
				}
			}
			t.Logf("%d crash images", images)
		})
	}
}

// TestErrorsDuringRepairOfParts has every single operation of every repair fail, once
// for want of room and once because the disk does.
func TestErrorsDuringRepairOfParts(t *testing.T) {
	for _, b := range brokenSamples(t) {
		t.Run(b.what, func(t *testing.T) {
			t.Parallel()
			for n, done := 1, false; !done; n++ {
				for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
					fs := b.on(t)
					start, failed := fs.Ops(), false
					fs.Hook = func(op memfs.Op) memfs.Verdict {
						if op.N != start+n {
							return memfs.Verdict{}
						}
						failed = true
						return memfs.Verdict{Err: fault, Short: op.Len / 2}
					}
					_, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
					if done = !failed; done {
						break
					}
					what := fmt.Sprintf("operation %d fails with %v, and Repair with %v", n, fault, err)
					fs.Hook = nil
					if err != nil && !errors.Is(err, fault) {
						t.Fatal(what)
					}
					b.checkHalfway(t, what, fs)
				}
			}
		})
	}
}
