package jsonlstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

const memTemp = memLog + tempSuffix

// indexesIn returns what somebody sees who has raft_log.jsonl and a JSON reader.
func indexesIn(t testing.TB, text []byte) (indexes []uint64) {
	t.Helper()
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var entry struct{ Index uint64 }
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		indexes = append(indexes, entry.Index)
	}
	return indexes
}

func upTo(from, to uint64) (indexes []uint64) {
	for ; from <= to; from++ {
		indexes = append(indexes, from)
	}
	return indexes
}

// TestFrontCutShowsInTheFile: behind every cut that falls into the open part,
// raft_log.jsonl alone holds what the log does, in the same batches, and goes on.
func TestFrontCutShowsInTheFile(t *testing.T) {
	const last = 12
	for _, parts := range partSizes {
		for cut := uint64(1); cut < last; cut++ {
			what := fmt.Sprintf("parts of %d bytes, cut %d", parts, cut)
			mem, ref := memfs.New(), logstore.NewMemory()
			s := mustOpen(t, memDir, inParts(mem, parts))
			for i := uint64(1); i <= last; i += 3 {
				for _, store := range []logstore.Store{s, ref} {
					mustStoreIn(t, store, someLogs(i, i+2, i))
				}
			}
			base := s.snap.Load().base
			for _, store := range []logstore.Store{s, ref} {
				if err := store.DeleteRange(1, cut); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			text := mem.Files()[memLog]
			if got, want := indexesIn(t, text), upTo(max(base, cut+1), last); !slices.Equal(got, want) {
				t.Fatalf("%s: the file shows %v, want %v", what, got, want)
			}
			if room := len(text) - int(s.snap.Load().end); cut >= base && room != testRoom {
				t.Fatalf("%s: %d bytes of room", what, room)
			}
			alone := memfs.New()
			alone.Put(memLog, text)
			a := mustOpen(t, memDir, onMem(alone))
			if first, _ := a.FirstIndex(); first != max(base, cut+1) {
				t.Fatalf("%s: alone, it begins with %d", what, first)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			for i := range uint64(6) { // sealing included, with an index that fits
				for _, store := range []logstore.Store{s, ref} {
					mustStoreIn(t, store, someLogs(last+1+i, last+1+i, last))
				}
			}
			for range 2 {
				if d := storetest.Diff(ref, s); d != "" {
					t.Fatalf("%s: %s", what, d)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, memDir, inParts(mem, parts))
			}
			checkFiles(t, s, mem, what)
			if report, err := Verify(memDir, onMem(mem)); err != nil || len(report.Damage) > 0 {
				t.Fatalf("%s: %+v, %v", what, report.Damage, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCommitIndexOutlivesItsLine: the line that carries the commit index is cut off
// the front, and later the rest is sealed.
func TestCommitIndexOutlivesItsLine(t *testing.T) {
	mem := memfs.New()
	s := mustOpen(t, memDir, inParts(mem, 2000))
	mustStore(t, s, someLogs(1, 4, 1))
	if err := s.StageCommitIndex(5); err != nil {
		t.Fatal(err)
	}
	mustStore(t, s, someLogs(5, 5, 1))
	mustStore(t, s, someLogs(6, 8, 1))
	mustDelete(t, s, 1, 6)
	if bytes.Contains(mem.Files()[memLog], []byte(`"commit"`)) {
		t.Fatal("the line is still there: the test proves nothing")
	}
	for i := uint64(9); len(s.snap.Load().parts) == 0; i++ {
		mustStore(t, s, someLogs(i, i, 1))
	}
	for range 2 {
		if commit, err := s.GetCommitIndex(); err != nil || commit != 5 {
			t.Errorf("the commit index is %d, %v", commit, err)
		}
		if x, err := loadIndex(mem, memDir, 7); err != nil || x.mark != (commitMark{}) {
			t.Errorf("the index of the sealed part: %+v, %v", x, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, memDir, inParts(mem, 2000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// failTrims has everything of that kind fail that is done to the next open part.
func failTrims(mem *memfs.FS, kind memfs.Kind) {
	mem.Hook = func(op memfs.Op) memfs.Verdict {
		if op.Kind == kind && (op.Name == memTemp || kind == memfs.Rename && op.Name == memLog) {
			return memfs.Verdict{Err: syscall.ENOSPC, Short: op.Len / 2}
		}
		return memfs.Verdict{}
	}
}

// untrimmed is a log of the entries 4 to 9 whose file shows 1 to 9.
func untrimmed(t testing.TB, kind memfs.Kind, opts func(vfs.FS) Option) (*memfs.FS, *Store, *logstore.Memory) {
	t.Helper()
	mem, ref := memfs.New(), logstore.NewMemory()
	s := mustOpen(t, memDir, opts(mem))
	for _, store := range []logstore.Store{s, ref} {
		mustStoreIn(t, store, someLogs(1, 5, 1))
		mustStoreIn(t, store, someLogs(6, 9, 2))
	}
	failTrims(mem, kind)
	for _, store := range []logstore.Store{s, ref} {
		if err := store.DeleteRange(1, 3); err != nil {
			t.Fatalf("a cut that cannot %s: %v", kind, err)
		}
	}
	if got := indexesIn(t, mem.Files()[memLog]); !slices.Equal(got, upTo(1, 9)) {
		t.Fatalf("%s did not fail: %v", kind, got)
	}
	if _, ok := mem.Files()[memTemp]; ok {
		t.Fatalf("%s failed and left %s", kind, memTemp)
	}
	return mem, s, ref
}

var trimKinds = []memfs.Kind{memfs.Create, memfs.Write, memfs.Rename}

// TestTrimThatFails: where there is no room to write the rest of the open part anew,
// the cut counts all the same, and the next one makes good for it.
func TestTrimThatFails(t *testing.T) {
	for _, kind := range trimKinds {
		for next, cut := range map[string]func(logstore.Store) error{
			"front": func(s logstore.Store) error { return s.DeleteRange(4, 4) },
			"tail":  func(s logstore.Store) error { return s.DeleteRange(10, 10) },
		} {
			what := fmt.Sprintf("%s, then a cut of the %s", kind, next)
			mem, s, ref := untrimmed(t, kind, onMemOption)
			for _, store := range []logstore.Store{s, ref} {
				mustStoreIn(t, store, someLogs(10, 11, 2))
			}
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatalf("%s: %s", what, d)
			}
			mem.Hook = nil
			for _, store := range []logstore.Store{s, ref} {
				if next == "tail" {
					err := store.DeleteRange(11, 11)
					if err != nil {
						t.Fatal(err)
					}
				}
				if err := cut(store); err != nil {
					t.Fatal(err)
				}
			}
			checkFiles(t, s, mem, what)
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatalf("%s: %s", what, d)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			checkImage(t, history{acked: ref}, mem.CrashClone(memfs.LoseEverything), what)
		}
	}
}

func onMemOption(fsys vfs.FS) Option { return onMem(fsys) }

// TestOpenTrims: so does Open, unless it fails likewise, which is no reason not to open.
func TestOpenTrims(t *testing.T) {
	for _, kind := range trimKinds {
		mem, s, ref := untrimmed(t, kind, onMemOption)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		ref.DropStaged()
		for _, fails := range []bool{true, false} {
			if !fails {
				mem.Hook = nil
			}
			s = mustOpen(t, memDir, onMem(mem))
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatalf("%s: %s", kind, d)
			}
			want := upTo(4, 9)
			if fails {
				want = upTo(1, 9)
			}
			if got := indexesIn(t, mem.Files()[memLog]); !slices.Equal(got, want) {
				t.Fatalf("%s: the file shows %v, want %v", kind, got, want)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCrashWhileOpenTrims stops the machine, or fails the sync, at every operation of
// an Open that trims.
func TestCrashWhileOpenTrims(t *testing.T) {
	prepare := func() (*memfs.FS, history) {
		mem, s, ref := untrimmed(t, memfs.Create, onMemOption)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		mem.Hook = nil
		ref.DropStaged()
		return mem, history{acked: ref}
	}
	images, temp, failed := 0, 0, 0
	for n, stopped := 1, true; stopped; n++ {
		for _, short := range []float64{0, 0.5, 1} {
			mem, h := prepare()
			at := mem.Ops() + n
			mem.Hook = func(op memfs.Op) memfs.Verdict {
				return memfs.Verdict{Crash: op.N == at, Short: int(short * float64(op.Len))}
			}
			if s, err := Open(memDir, onMem(mem)); err == nil {
				_ = s.Close() // may come too late
			}
			if stopped = mem.Crashed(); !stopped {
				break
			}
			if _, ok := mem.Files()[memTemp]; ok {
				temp++
			}
			images += checkLosses(t, h, mem, fmt.Sprintf("crash at operation %d of Open, %.0f %% written", n, 100*short))
		}
		mem, h := prepare()
		at := mem.Ops() + n
		hit := false
		mem.Hook = func(op memfs.Op) memfs.Verdict {
			if hit = hit || op.N == at && (op.Kind == memfs.Sync || op.Kind == memfs.SyncDir); op.N == at && hit {
				return memfs.Verdict{Err: syscall.EIO, Forget: op.Kind == memfs.Sync}
			}
			return memfs.Verdict{}
		}
		s, err := Open(memDir, onMem(mem))
		if hit && !errors.Is(err, syscall.EIO) || !hit && err != nil {
			t.Fatalf("operation %d, failed %t: %v", n, hit, err)
		}
		if hit {
			failed++
		}
		mem.Hook = nil
		if err == nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		checkImage(t, h, mem.CrashClone(memfs.LoseEverything), fmt.Sprintf("sync failed at operation %d of Open", n))
		checkImage(t, h, mem, fmt.Sprintf("sync failed at operation %d of Open, opened again", n))
	}
	t.Logf("%d crash images, %d with the next open part; %d failed syncs", images, temp, failed)
	if temp == 0 || failed < 4 {
		t.Error("that is too few: the test proves nothing")
	}
}

// TestReaderOvertakenByTrim has the open part written anew just before a reader reads
// from it: an entry that is left is read all the same, one that is not is not there.
func TestReaderOvertakenByTrim(t *testing.T) {
	for _, index := range []uint64{3, 5} {
		for _, close := range []bool{false, true} { // the old file, first
			hooked := &hookedFS{FS: memfs.New()}
			s := mustOpen(t, memDir, onMem(hooked))
			mustStore(t, s, someLogs(1, 6, 1))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, memDir, onMem(hooked))
			cut := false
			hooked.onRead = func(name string) {
				if name == memLog && !cut {
					cut = true
					mustDelete(t, s, 1, 4)
					if close {
						s.freeing.Wait()
					}
				}
			}
			var l, want raft.Log
			err := s.GetLog(index, &l)
			if !cut {
				t.Fatal("nothing was cut meanwhile")
			}
			want = *someLogs(index, index, 1)[0]
			switch {
			case index == 3 && err == raft.ErrLogNotFound: //nolint:errorlint // Raft compares by identity
			case err != nil || !storetest.Same(&l, &want):
				t.Errorf("closed %t: GetLog(%d) = %+v, %v", close, index, l, err)
			}
			hooked.onRead = nil
			if err := s.GetLog(3, &l); err != raft.ErrLogNotFound { //nolint:errorlint // likewise
				t.Errorf("closed %t: afterwards GetLog(3) = %+v, %v", close, l, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// heldFS fails the test if a file of the log loses its last name while nobody has it
// open: its blocks would be given back there and then.
type heldFS struct {
	vfs.FS
	t *testing.T

	mu    sync.Mutex
	open  map[*heldFile]string // by the name they have now
	freed int                  // how many lost their names
	gate  chan struct{}        // who closes a file without a name waits for that
}

type heldFile struct {
	vfs.File
	fs *heldFS
}

func (h *heldFS) add(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	held := &heldFile{f, h}
	h.open[held] = name
	return held, nil
}

func (h *heldFS) Open(name string) (vfs.File, error) {
	f, err := h.FS.Open(name)
	return h.add(name, f, err)
}

func (h *heldFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := h.FS.OpenReadWrite(name)
	return h.add(name, f, err)
}

func (h *heldFS) Create(name string, perm fs.FileMode) (vfs.File, error) {
	f, err := h.FS.Create(name, perm)
	return h.add(name, f, err)
}

func (f *heldFile) Close() error {
	f.fs.mu.Lock()
	name, gate := f.fs.open[f], f.fs.gate
	delete(f.fs.open, f)
	f.fs.mu.Unlock()
	if name == "" {
		<-gate
	}
	return f.File.Close()
}

func (h *heldFS) losesName(name string) {
	if !strings.HasSuffix(name, partSuffix) {
		return
	}
	h.freed++
	if !slices.Contains(slices.Collect(maps.Values(h.open)), name) {
		h.t.Errorf("%s goes, and nobody has it open", name)
	}
}

func (h *heldFS) rename(from, to string) {
	for f, name := range h.open {
		switch name {
		case from:
			h.open[f] = to
		case to:
			h.open[f] = ""
		}
	}
}

func (h *heldFS) Rename(from, to string) error {
	h.mu.Lock()
	h.losesName(to)
	h.rename(from, to)
	h.mu.Unlock()
	return h.FS.Rename(from, to)
}

func (h *heldFS) Remove(name string) error {
	h.mu.Lock()
	if _, err := h.FS.Stat(name); err == nil {
		h.losesName(name)
	}
	h.rename("", name)
	h.mu.Unlock()
	return h.FS.Remove(name)
}

// TestBlocksAreGivenBackAside: whatever takes a file its name, somebody has it open,
// so that the file system gives its blocks back when that is closed, which no cut
// waits for.
func TestBlocksAreGivenBackAside(t *testing.T) {
	h := &heldFS{FS: memfs.New(), t: t, open: map[*heldFile]string{}, gate: make(chan struct{})}
	s := mustOpen(t, memDir, inParts(h, 300))
	freed := func(what string, want int) {
		t.Helper()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.freed < want {
			t.Errorf("%s: %d files lost their names, want %d", what, h.freed, want)
		}
		h.freed = 0
	}
	cut := func(from, to uint64) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- s.DeleteRange(from, to) }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("DeleteRange(%d, %d) waits for the blocks of a file without a name", from, to)
		}
	}
	for i := range uint64(12) {
		mustStore(t, s, someLogs(3*i+1, 3*i+3, 1))
	}
	parts := s.snap.Load().parts
	if len(parts) < 6 {
		t.Fatalf("%d parts", len(parts))
	}
	freed("sealing", 6)
	cut(1, parts[2].first)
	freed("a cut of the front", 2)
	cut(parts[4].first+2, 36)
	freed("a cut of the tail into a sealed part", 2)
	last, _ := s.LastIndex()
	if base := s.snap.Load().base; base == last {
		t.Fatal("the open part has one entry")
	}
	cut(1, last-1)
	freed("a cut of the front into the open part", 3)
	mustStore(t, s, someLogs(last+1, last+3, 1))
	cut(1, last+3)
	close(h.gate)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(h.open) > 0 {
		t.Errorf("%d files are still open", len(h.open))
	}
}

// TestTailSeesTrims: a follower tells a cut of the front once, whether the lines go at
// once, later, or between two looks, and misses and repeats nothing.
func TestTailSeesTrims(t *testing.T) {
	mem := memfs.New()
	s := mustOpen(t, memDir, onMem(mem))
	mustStore(t, s, someLogs(1, 5, 1))
	tl := follow(t, memDir, 2, onMem(mem))
	tl.look("4/1 5/1")
	mustDelete(t, s, 1, 1)
	tl.look("front 2")
	tl.look("")
	failTrims(mem, memfs.Create)
	mustDelete(t, s, 1, 2) // the lines stay
	tl.look("front 3")
	mustStore(t, s, someLogs(6, 6, 1))
	tl.look("6/1")
	mem.Hook = nil
	mustDelete(t, s, 6, 6) // and go with this
	mustStore(t, s, someLogs(6, 7, 2))
	tl.look("cut 6-6 6/2 7/2")
	failTrims(mem, memfs.Write)
	mustDelete(t, s, 1, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tl.look("front 4")
	mem.Hook = nil
	s = mustOpen(t, memDir, onMem(mem)) // Open trims
	tl.look("")
	mustStore(t, s, someLogs(8, 8, 2))
	mustDelete(t, s, 1, 7)
	tl.look("front 8 8/2")
	mustStore(t, s, someLogs(9, 12, 2))
	mustDelete(t, s, 1, 10) // everything that was passed, too
	tl.look("front 11 11/2 12/2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTailOvertakenByTrim cuts the front, and stores more, at each moment at which a
// follower opens a file, at its first look and later.
func TestTailOvertakenByTrim(t *testing.T) {
	for _, parts := range partSizes {
		for _, first := range []bool{true, false} {
			hit := true
			for n := 1; hit; n++ {
				hooked := &hookedFS{FS: memfs.New()}
				s := mustOpen(t, memDir, inParts(hooked.FS, parts))
				for i := uint64(1); i < 10; i += 3 {
					mustStore(t, s, someLogs(i, i+2, i))
				}
				tl := follow(t, memDir, 100, inParts(hooked, parts))
				var model []string
				from := uint64(1)
				tl.f.tell = func(e TailEvent) (err error) {
					model, from, err = believe(model, from, e)
					return err
				}
				look := func() {
					if err := tl.f.look(); err != nil {
						t.Fatalf("parts of %d bytes, first %t, overtaken at %d: %v", parts, first, n, err)
					}
				}
				if !first {
					look()
				}
				opened := 0
				hit = false
				hooked.onOpen = func(string) {
					if opened++; opened == n {
						hit = true
						mustStore(t, s, someLogs(10, 11, 10))
						mustDelete(t, s, 1, 10)
						mustStore(t, s, someLogs(12, 13, 11))
					}
				}
				for range 3 {
					look()
				}
				hooked.onOpen = nil
				for range 3 {
					look()
				}
				if want := []string{"11/10", "12/11", "13/11"}; hit && !slices.Equal(model, want) {
					t.Errorf("parts of %d bytes, first %t, overtaken at %d: %v, want %v", parts, first, n, model, want)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestTailOnceOvertakenByTrim: one that does not follow shows the end of the log as it
// was or as it became.
func TestTailOnceOvertakenByTrim(t *testing.T) {
	for hit, n := true, 1; hit; n++ {
		hooked := &hookedFS{FS: memfs.New()}
		s := mustOpen(t, memDir, onMem(hooked.FS))
		mustStore(t, s, someLogs(1, 9, 1))
		opened := 0
		hit = false
		hooked.onOpen = func(string) {
			if opened++; opened == n {
				hit = true
				mustDelete(t, s, 1, 4)
			}
		}
		got, err := collectTail(memDir, 3, onMem(hooked))
		if got = slices.DeleteFunc(got, func(e string) bool { return strings.HasPrefix(e, "front") }); err != nil || !slices.Equal(got, []string{"7/1", "8/1", "9/1"}) {
			t.Errorf("overtaken at %d: %v, %v", n, got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// firstLine returns the index that raft_log.jsonl begins with; 0: it has no entry.
func firstLine(t testing.TB, files map[string][]byte) uint64 {
	t.Helper()
	line, _, _ := bytes.Cut(bytes.TrimLeft(files[filepath.Join(memDir, LogFile)], unwrittenOrBlank), []byte("\n"))
	if indexes := indexesIn(t, line); len(indexes) > 0 {
		return indexes[0]
	}
	return 0
}
