package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// small seals the open part once it has that many bytes.
func small(bytes int64) Option {
	return func(o *options) { o.partBytes, o.loadedParts = bytes, 3 }
}

func TestConformanceInParts(t *testing.T) {
	for _, size := range []int64{1, 3000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			storetest.Run(t, func(t testing.TB) logstore.Store { return mustOpen(t, memDir, inParts(memfs.New(), size)) })
			mem := memfs.New()
			storetest.RunPersistent(t, func(t testing.TB, dir string) logstore.Store { return mustOpen(t, dir, inParts(mem, size)) })
		})
	}
}

// TestRandomInParts compares a store with the reference through random operations and
// openings, with parts of ever another size.
func TestRandomInParts(t *testing.T) {
	seeds, steps := uint64(150), 120
	if testing.Short() || raceEnabled {
		seeds = 20
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 5))
		mem, ref, w := memfs.New(), logstore.NewMemory(), storetest.NewWorkload(seed)
		s := mustOpen(t, memDir, inParts(mem, 1+rng.Int64N(4000)))
		for step := range steps {
			op := w.Next(ref)
			if got, want := op.Do(s), op.Do(ref); (got == nil) != (want == nil) {
				t.Fatalf("seed %d, step %d, %s: %v, the reference says %v", seed, step, op.Name, got, want)
			}
			if rng.IntN(10) == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, memDir, inParts(mem, 1+rng.Int64N(4000)))
				ref.DropStaged()
			}
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatalf("seed %d, step %d, after %s: %s", seed, step, op.Name, d)
			}
			if n := len(s.shelf.loaded); n > s.shelf.limit {
				t.Fatalf("seed %d, step %d: %d parts are loaded", seed, step, n)
			}
		}
		checkFiles(t, s, mem, fmt.Sprint("seed ", seed))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// countingFS counts the files that are open.
type countingFS struct {
	vfs.FS
	open atomic.Int64
}

type countedFile struct {
	vfs.File
	fs *countingFS
}

func (c *countingFS) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedFile{f, c}, nil
}

func (c *countingFS) Open(name string) (vfs.File, error) { return c.count(c.FS.Open(name)) }
func (c *countingFS) OpenReadWrite(name string) (vfs.File, error) {
	return c.count(c.FS.OpenReadWrite(name))
}
func (c *countingFS) Create(name string, perm fs.FileMode) (vfs.File, error) {
	return c.count(c.FS.Create(name, perm))
}

func (f *countedFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// TestFewFilesAreOpen: however many parts there are, few of them are open, and none
// when the store is closed.
func TestFewFilesAreOpen(t *testing.T) {
	c := &countingFS{FS: memfs.New()}
	s := mustOpen(t, memDir, inParts(c, 1))
	const few = 2 + 1 + 2 // of the shelf, the open part, the state file and its twin
	check := func(what string) {
		t.Helper()
		if n := c.open.Load(); n > few {
			t.Fatalf("%s: %d files are open", what, n)
		}
	}
	for i := range uint64(30) {
		mustStore(t, s, []*raft.Log{{Index: i + 1, Term: 1}})
		check("storing")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var l raft.Log
		if err := s.GetLog(1+rng.Uint64N(30), &l); err != nil {
			t.Fatal(err)
		}
		check("reading")
	}
	mustDelete(t, s, 1, 4)
	mustDelete(t, s, 20, 30)
	s.freeing.Wait()
	check("deleting")
	mustDelete(t, s, 1, 30)
	mustStore(t, s, []*raft.Log{{Index: 7, Term: 1}})
	mustStore(t, s, []*raft.Log{{Index: 8, Term: 1}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := c.open.Load(); n != 0 {
		t.Fatalf("%d files are still open", n)
	}
	if s, err := Open(memDir, inParts(c, 1)); err != nil {
		t.Fatal(err)
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := c.open.Load(); n != 0 {
		t.Fatalf("%d files are still open", n)
	}
}

// TestReadersBesideCutsOfParts has readers ask for everything while parts are sealed,
// cut off the front, made the open one again, and all of them deleted. What they get
// is right or not there.
func TestReadersBesideCutsOfParts(t *testing.T) {
	s := mustOpen(t, memDir, inParts(memfs.New(), 300))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var read, missing atomic.Int64
	term := func(l *raft.Log) []byte { return fmt.Appendf(nil, "%d in term %d", l.Index, l.Term) }
	for r := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(r, 1))
			for at := uint64(1); ; at++ {
				select {
				case <-stop:
					return
				default:
				}
				if rng.IntN(20) == 0 {
					at = 1 + rng.Uint64N(400)
				}
				var l raft.Log
				switch err := s.GetLog(at, &l); {
				case err == raft.ErrLogNotFound: //nolint:errorlint // Raft compares by identity
					missing.Add(1)
					at = rng.Uint64N(400)
				case err != nil:
					t.Errorf("GetLog(%d): %v", at, err)
					return
				case l.Index != at || !bytes.Equal(l.Data, term(&l)):
					t.Errorf("GetLog(%d) = %+v", at, l)
					return
				default:
					read.Add(1)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(9, 1))
	steps := 1500
	if testing.Short() {
		steps = 300
	}
	for step := range uint64(steps) {
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		switch n := rng.IntN(40); {
		case n == 0:
			mustDelete(t, s, 0, last)
		case n < 3 && last > 0:
			mustDelete(t, s, 0, first+rng.Uint64N(last-first+1))
		case n < 6 && last > 0:
			mustDelete(t, s, first+rng.Uint64N(last-first+1), last)
		default:
			if last > 350 {
				mustDelete(t, s, 0, last)
				last = 0
			}
			var logs []*raft.Log
			for i := range 1 + rng.Uint64N(6) {
				l := &raft.Log{Index: last + 1 + i, Term: step + 1}
				l.Data = term(l)
				logs = append(logs, l)
			}
			mustStore(t, s, logs)
		}
	}
	close(stop)
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d read, %d not there", read.Load(), missing.Load())
	if read.Load() == 0 || missing.Load() == 0 {
		t.Error("the readers saw too little: the test proves nothing")
	}
}

// TestReaderOvertakenByUnlink removes the part just before a reader opens it, and just
// before it reads from it.
func TestReaderOvertakenByUnlink(t *testing.T) {
	for _, loaded := range []bool{false, true} {
		mem := memfs.New()
		s := mustOpen(t, memDir, inParts(mem, 1))
		for i := uint64(1); i < 8; i += 2 {
			mustStore(t, s, []*raft.Log{{Index: i, Data: []byte("data")}, {Index: i + 1, Data: []byte("data")}})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		hooked := &hookedFS{FS: mem}
		s = mustOpen(t, memDir, inParts(hooked, 1))
		var l raft.Log
		if loaded {
			if err := s.GetLog(3, &l); err != nil {
				t.Fatal(err)
			}
		}
		cut := func(name string) {
			if name != partPath(memDir, 3) {
				return
			}
			hooked.onOpen, hooked.onRead = nil, nil
			if loaded {
				mustDelete(t, s, 1, 4)
				return
			}
			done := make(chan struct{}) // the shelf is locked: the deletion goes on when it is not
			snap := s.snap.Load()
			go func() { defer close(done); mustDelete(t, s, 1, 4) }()
			for s.snap.Load() == snap {
				runtime.Gosched()
			}
			t.Cleanup(func() { <-done })
		}
		if loaded {
			hooked.onRead = cut
		} else {
			hooked.onOpen = cut
		}
		if err := s.GetLog(4, &l); err != nil && err != raft.ErrLogNotFound || err == nil && string(l.Data) != "data" { //nolint:errorlint // Raft compares by identity
			t.Errorf("loaded %t: GetLog = %+v, %v", loaded, l, err)
		}
		if hooked.onOpen != nil || hooked.onRead != nil {
			t.Errorf("loaded %t: nothing was removed meanwhile", loaded)
		}
		if err := s.GetLog(4, &l); err != raft.ErrLogNotFound { //nolint:errorlint // likewise
			t.Errorf("loaded %t: GetLog afterwards = %+v, %v", loaded, l, err)
		}
		if err := s.GetLog(5, &l); err != nil || string(l.Data) != "data" {
			t.Errorf("loaded %t: GetLog of the next one = %+v, %v", loaded, l, err)
		}
	}
}

// hookedFS calls before a file is opened for reading alone, or read.
type hookedFS struct {
	vfs.FS
	onOpen, onRead func(name string)
}

type hookedFile struct {
	vfs.File
	name string
	fs   *hookedFS
}

func (h *hookedFS) Open(name string) (vfs.File, error) {
	if h.onOpen != nil {
		h.onOpen(name)
	}
	f, err := h.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, name, h}, nil
}

func (h *hookedFS) OpenReadWrite(name string) (vfs.File, error) {
	f, err := h.FS.OpenReadWrite(name)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, name, h}, nil
}

func (f *hookedFile) ReadAt(p []byte, at int64) (int, error) {
	if f.fs.onRead != nil {
		f.fs.onRead(f.name)
	}
	return f.File.ReadAt(p, at)
}

// TestOriginalsLogIsSealed: a log without checksums, which the original wrote, becomes
// a sealed part, and the open part opens on its own.
func TestOriginalsLogIsSealed(t *testing.T) {
	dir := copyVectors(t, "full")
	s := mustOpen(t, dir, small(1))
	var before []raft.Log
	for i := range uint64(17) {
		var l raft.Log
		if err := s.GetLog(i+1, &l); err != nil {
			t.Fatal(err)
		}
		before = append(before, l)
	}
	mustStore(t, s, someLogs(18, 19, 4))
	mustStore(t, s, someLogs(20, 20, 4))
	for range 2 {
		for _, want := range before {
			var l raft.Log
			if err := s.GetLog(want.Index, &l); err != nil || !storetest.Same(&want, &l) {
				t.Fatalf("%+v, %v; want %+v", l, err, want)
			}
		}
		if n := len(s.snap.Load().parts); n != 2 {
			t.Fatalf("%d sealed parts", n)
		}
		if commit, _ := s.GetCommitIndex(); commit != 16 {
			t.Errorf("GetCommitIndex = %d", commit)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir, small(1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone")
	if err := os.Mkdir(alone, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(alone, LogFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, alone)
	defer s.Close()
	first, _ := s.FirstIndex()
	if last, _ := s.LastIndex(); first != 20 || last != 20 {
		t.Errorf("alone, it holds %d to %d", first, last)
	}
}

// TestSealingThatFails: where no file can have two names, the open part grows, and is
// sealed once that can be done.
func TestSealingThatFails(t *testing.T) {
	for _, kind := range []memfs.Kind{memfs.Create, memfs.Link, memfs.Rename} {
		mem := memfs.New()
		s := mustOpen(t, memDir, inParts(mem, 100))
		ref := logstore.NewMemory()
		failures := 0
		mem.Hook = func(op memfs.Op) memfs.Verdict {
			if op.Kind == kind && filepath.Base(op.Name) != StateFile && filepath.Base(op.Name) != StateFile+tempSuffix {
				failures++
				return memfs.Verdict{Err: syscall.EPERM}
			}
			return memfs.Verdict{}
		}
		for i := range uint64(20) {
			if i == 10 {
				if n := len(s.snap.Load().parts); n != 0 || failures < 2 {
					t.Fatalf("%s: %d parts, %d failures", kind, n, failures)
				}
				checkFiles(t, s, mem, kind.String())
				mem.Hook = nil
			}
			for _, store := range []logstore.Store{s, ref} {
				mustStoreIn(t, store, someLogs(i+1, i+1, 1))
			}
		}
		if n := len(s.snap.Load().parts); n < 5 {
			t.Fatalf("%s: %d parts", kind, n)
		}
		if d := storetest.Diff(ref, s); d != "" {
			t.Fatalf("%s: %s", kind, d)
		}
		checkFiles(t, s, mem, kind.String())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func mustStoreIn(t testing.TB, s logstore.Store, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

// TestUnknownFilesStay: names that are not the store's are none of its business.
func TestUnknownFilesStay(t *testing.T) {
	mem := memfs.New()
	foreign := map[string][]byte{}
	for _, name := range []string{"raft_log.old.jsonl", "raft_log.7.jsonl", "raft_log.00000000000000000000.jsonl", "raft_log.00000000000000000002.jsonl.bak", "raft_log.1.index"} {
		foreign[filepath.Join(memDir, name)] = []byte("whatever")
	}
	for name, text := range foreign {
		mem.Put(name, text)
	}
	for range 2 {
		s := mustOpen(t, memDir, inParts(mem, 1))
		mustStore(t, s, someLogs(1, 3, 1))
		mustStore(t, s, someLogs(4, 4, 1))
		mustDelete(t, s, 1, 3)
		mustDelete(t, s, 1, 10)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files := mem.Files()
	for name, text := range foreign {
		if !bytes.Equal(files[name], text) {
			t.Errorf("%s: %q", name, files[name])
		}
	}
}

// TestStateGrowsAtACut: the state file is replaced by a longer one in the middle of a
// cut; the process dies before its name is on disk, and the machine while the next
// one carries the cut out.
func TestStateGrowsAtACut(t *testing.T) {
	var h history
	var before int // operations before the cut
	run := func(fs *memfs.FS, pad int, from, to uint64) {
		h = history{acked: logstore.NewMemory(), parts: 1}
		s, err := Open(memDir, inParts(fs, 1))
		if err != nil {
			return
		}
		defer s.Close()
		ops := []storetest.Op{{Name: "pad", Do: func(s logstore.Store) error { return s.Set([]byte("other"), make([]byte, pad)) }}}
		for i := range uint64(5) {
			ops = append(ops, storeOp(2*i+1, 2*i+2, 10))
		}
		ops = append(ops, storetest.Op{Name: "cut", Do: func(s logstore.Store) error { return s.DeleteRange(from, to) }})
		for _, op := range ops {
			before = fs.Ops()
			if err := op.Do(s); err != nil {
				h.inFlight = &op
				return
			}
			if err := op.Do(h.acked); err != nil {
				t.Fatal(err)
			}
		}
	}
	images := 0
	for pad := 240; pad < 330; pad += 3 {
		for _, cut := range [][2]uint64{{1, 5}, {4, 10}, {1, 10}} {
			fs := memfs.New()
			grown := 0
			fs.Hook = func(op memfs.Op) memfs.Verdict {
				if op.Kind == memfs.Rename && op.Name == memDir+"/"+StateFile {
					grown = op.N
				}
				return memfs.Verdict{}
			}
			run(fs, pad, cut[0], cut[1])
			if grown <= before { // not at the cut
				continue
			}
			for at := 1; at < 12; at++ {
				for seed := range uint64(6) {
					same := crashAt(grown+1, 0)
					run(same, pad, cut[0], cut[1])
					same.Restart()
					what := fmt.Sprintf("pad %d, cut %v, then operation %d", pad, cut, at)
					checkImage(t, h, crashAgain(t, same, at, 1, what).CrashClone(memfs.LoseRandomly(seed)), what)
					images++
				}
			}
		}
	}
	if images == 0 {
		t.Error("the state never grew at a cut: the test proves nothing")
	}
}

// sealedFiles is a log of several parts, and what it holds.
func sealedFiles(t testing.TB, parts int64, n uint64) (map[string][]byte, *logstore.Memory) {
	t.Helper()
	mem, ref := memfs.New(), logstore.NewMemory()
	s := mustOpen(t, memDir, inParts(mem, parts))
	for i := uint64(1); i <= n; {
		var logs []*raft.Log
		for range 1 + i%3 {
			logs = append(logs, &raft.Log{Index: i, Term: 1 + i/5, Type: raft.LogBarrier, Data: bytes.Repeat([]byte{byte(i)}, int(i*13%150))})
			i++
		}
		mustStoreIn(t, s, logs)
		mustStoreIn(t, ref, logs)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return mem.Files(), ref
}

func memWithout(files map[string][]byte, gone ...string) *memfs.FS {
	files = maps.Clone(files)
	for _, name := range gone {
		delete(files, name)
	}
	mem := memfs.New()
	for name, text := range files {
		mem.Put(name, text)
	}
	return mem
}

// readAll reads every entry and returns the damage that is found. What is read must
// be right.
func readAll(t *testing.T, what string, s *Store, ref *logstore.Memory) (found []*logstore.CorruptionError) {
	t.Helper()
	first, _ := ref.FirstIndex()
	last, _ := ref.LastIndex()
	if f, _ := s.FirstIndex(); f != first {
		t.Fatalf("%s: begins with %d", what, f)
	}
	if l, _ := s.LastIndex(); l != last {
		t.Fatalf("%s: ends with %d", what, l)
	}
	for i := first; i <= last; i++ {
		var got, want raft.Log
		if err := ref.GetLog(i, &want); err != nil {
			t.Fatal(err)
		}
		err := s.GetLog(i, &got)
		var damage *logstore.CorruptionError
		switch {
		case errors.As(err, &damage):
			if damage.Index != i {
				t.Fatalf("%s: GetLog(%d): %+v", what, i, damage)
			}
			found = append(found, damage)
		case err != nil:
			t.Fatalf("%s: GetLog(%d): %v", what, i, err)
		case !storetest.Same(&got, &want):
			t.Fatalf("%s: GetLog(%d) = %+v, want %+v", what, i, got, want)
		}
	}
	return found
}

// TestEveryDamagedByteOfASealedPartIsFound changes every byte of a sealed part: it is
// found by whoever reads it, and by an Open that has to.
func TestEveryDamagedByteOfASealedPartIsFound(t *testing.T) {
	files, ref := sealedFiles(t, 600, 24)
	path := partPath(memDir, 1)
	name := indexPath(memDir, 1)
	good := files[path]
	head := bytes.Count(good, []byte("\n"))
	if head < 4 || files[name] == nil {
		t.Fatalf("%d entries in the first part", head)
	}
	for at := 0; at < len(good); at += stride(7) {
		change := []byte{good[at] ^ 1, good[at] ^ 0x20, 0, ' ', '\n'}[at%5]
		if change == good[at] {
			continue
		}
		bad := slices.Clone(good)
		bad[at] = change
		what := fmt.Sprintf("byte %d from %q to %q", at, good[at], change)
		harmless := good[at] == '\n' && (change == ' ' || change == '\t' || change == '\r')
		line := bytes.Count(good[:at], []byte("\n"))
		from := bytes.LastIndexByte(good[:at], '\n') + 1

		mem := memWithout(files)
		mem.Put(path, bad)
		s := mustOpen(t, memDir, inParts(mem, 600))
		found := readAll(t, what, s, ref)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 && harmless {
			continue
		}
		if len(found) != 1 || found[0].File != path || found[0].Line != line+1 || found[0].Offset != int64(from) || found[0].Index != uint64(line+1) {
			t.Fatalf("%s in line %d at %d: found %+v", what, line+1, from, found)
		}

		mem = memWithout(files, name)
		mem.Put(path, bad)
		before := mem.Files()
		_, err := Open(memDir, inParts(mem, 600))
		var damage *logstore.CorruptionError
		if err == nil && at == len(good)-1 && change == 0 { // as if the newline was never written
			continue
		}
		if !errors.As(err, &damage) || damage.File != path || damage.Line < line+1 || damage.Line > line+2 {
			t.Fatalf("%s, without the index: %v", what, err)
		}
		if !sameFiles(before, mem.Files()) {
			t.Fatalf("%s: the failing Open changed something", what)
		}
	}
}

// TestDamagedSealedPart drops, repeats and exchanges lines, sectors and whole parts.
// Nothing is served that was not stored under that index, and nothing is missing
// without an error that says what.
func TestDamagedSealedPart(t *testing.T) {
	files, ref := sealedFiles(t, 1500, 60)
	first := partPath(memDir, 1)
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, ok := parsePartName(filepath.Base(name), partSuffix); ok {
			paths = append(paths, name)
		}
	}
	if len(paths) < 4 || paths[0] != first {
		t.Fatalf("parts %q", paths)
	}
	try := func(what, path string, bad []byte, wantOpen bool) {
		t.Helper()
		for _, gone := range []string{"", indexPath(memDir, mustNumber(t, path))} {
			mem := memWithout(files, gone)
			if bad == nil {
				mem = memWithout(files, gone, path)
			} else {
				mem.Put(path, bad)
			}
			before := mem.Files()
			s, err := Open(memDir, inParts(mem, 1500))
			if err != nil {
				var damage *logstore.CorruptionError
				if !errors.As(err, &damage) || damage.File == "" || damage.Index == 0 || damage.Advice == "" || damage.Line == 0 && bad != nil && damage.File == path {
					t.Fatalf("%s: %v", what, err)
				}
				if !sameFiles(before, mem.Files()) {
					t.Fatalf("%s: the failing Open changed something", what)
				}
				if wantOpen {
					t.Fatalf("%s: %v", what, err)
				}
				continue
			}
			if found := readAll(t, what, s, ref); len(found) == 0 && !wantOpen {
				t.Fatalf("%s: not found", what)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, path := range paths {
		good := files[path]
		what := filepath.Base(path)
		try(what+" as it is", path, good, true)
		try(what+" with room", path, slices.Concat(good, blanks[:700]), true)
		try(what+" is not there", path, nil, false)
		try(what+" in the place of the next one", paths[(i+1)%len(paths)], good, false)
		lines := bytes.SplitAfter(good, []byte("\n"))
		lines = lines[:len(lines)-1]
		for n := range lines {
			with := func(middle ...[]byte) []byte {
				return slices.Concat(slices.Concat(lines[:n]...), slices.Concat(middle...), slices.Concat(lines[min(n+2, len(lines)):]...))
			}
			here, next := lines[n], []byte(nil)
			if n+1 < len(lines) {
				next = lines[n+1]
				try(fmt.Sprint(what, " lines exchanged at ", n), path, with(next, here), false)
			}
			try(fmt.Sprint(what, " dropped line ", n), path, with(next), false)
			try(fmt.Sprint(what, " repeated line ", n), path, with(here, here, next), false)
		}
		for size := len(path) % 5; size < len(good); size += 5 * stride(7) {
			// Without its last newline a line is whole.
			try(fmt.Sprint(what, " cut to ", size), path, slices.Clone(good[:size]), size == len(good)-1)
		}
		for from := 0; from < len(good); from += vfs.SectorSize {
			to := min(from+vfs.SectorSize, len(good))
			for _, blank := range []byte{0, ' '} {
				bad := slices.Clone(good)
				copy(bad[from:to], bytes.Repeat([]byte{blank}, vfs.SectorSize))
				try(fmt.Sprintf("%s sector at %d set to %q", what, from, blank), path, bad, false)
			}
			if from > 0 && to-from == vfs.SectorSize {
				bad := slices.Clone(good)
				copy(bad[from:to], good[:vfs.SectorSize])
				try(fmt.Sprint(what, " repeated sector at ", from), path, bad, false)
				copy(bad[:vfs.SectorSize], good[from:to])
				try(fmt.Sprint(what, " exchanged sectors at ", from), path, bad, false)
			}
		}
	}
}

func mustNumber(t *testing.T, path string) uint64 {
	t.Helper()
	n, ok := parsePartName(filepath.Base(path), partSuffix)
	if !ok {
		t.Fatal(path)
	}
	return n
}

// TestIndexThatLies: whatever is in an index file, every entry is read, and the next
// Open but one finds a good one.
func TestIndexThatLies(t *testing.T) {
	files, ref := sealedFiles(t, 600, 24)
	name := indexPath(memDir, 1)
	good := files[name]
	x, err := loadIndex(memWithout(files), memDir, 1)
	if err != nil {
		t.Fatal(err)
	}
	lies := map[string][]byte{"gone": nil, "empty": {}, "of another part": files[indexPath(memDir, mustNumber(t, secondPart(t, files)))]}
	for at := range good {
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		lies[fmt.Sprint("byte ", at)] = bad
	}
	y := *x // under right checksums
	y.starts = starts{short: slices.Clone(x.starts.short)}
	y.starts.short[2] += 3
	lies["another offset"] = encodeIndex(&y)
	y = *x
	y.count--
	lies["an entry less"] = encodeIndex(&y)
	y = *x
	y.bytes--
	lies["a byte less"] = encodeIndex(&y)
	y.bytes += 2
	lies["a byte more"] = encodeIndex(&y)
	for what, bad := range lies {
		mem := memWithout(files, name)
		if bad != nil {
			mem.Put(name, bad)
		}
		for range 2 {
			s := mustOpen(t, memDir, inParts(mem, 600))
			if found := readAll(t, what, s, ref); len(found) > 0 {
				t.Fatalf("%s: %+v", what, found)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// One that Open can tell is written again.
	for _, bad := range [][]byte{nil, {}, append([]byte("x"), good[1:]...)} {
		mem := memWithout(files, name)
		if bad != nil {
			mem.Put(name, bad)
		}
		if err := mustOpen(t, memDir, inParts(mem, 600)).Close(); err != nil {
			t.Fatal(err)
		}
		if got := mem.CrashClone(memfs.LoseEverything).Files()[name]; !bytes.Equal(got, good) {
			t.Errorf("%.10q was replaced by %.10q", bad, got)
		}
	}
}

func secondPart(t *testing.T, files map[string][]byte) string {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if n, ok := parsePartName(filepath.Base(name), partSuffix); ok && n > 1 {
			return name
		}
	}
	t.Fatal("there is one part")
	return ""
}

// TestPartsThatContradictEachOther: what no crash leaves is refused, by name.
func TestPartsThatContradictEachOther(t *testing.T) {
	files, _ := sealedFiles(t, 600, 24)
	open := files[memLog]
	base := uint64(0)
	for i := range uint64(30) {
		if bytes.HasPrefix(open, fmt.Appendf(nil, `{"index":%d,`, i)) {
			base = i
		}
	}
	second := mustNumber(t, secondPart(t, files))
	line := func(index uint64) []byte { return appendLine(nil, &raft.Log{Index: index, Term: 9}, 0, 0) }
	for what, c := range map[string]struct {
		path string
		text []byte // nil: removed
		file string // that the error names
	}{
		"no open part":                 {memLog, nil, memLog},
		"an empty open part":           {memLog, []byte{}, memLog},
		"a blank open part":            {memLog, []byte("   \n  "), memLog},
		"an unwritten open part":       {memLog, make([]byte, 600), memLog},
		"an open part that stops":      {memLog, open[:30], memLog},
		"a gap before the open part":   {memLog, line(base + 1), partPath(memDir, base)},
		"an open part from the past":   {memLog, line(second + 1), ""},
		"an open part from far behind": {memLog, line(1), ""},
		"the first part is gone":       {partPath(memDir, 1), nil, partPath(memDir, 1)},
		"the second part is gone":      {partPath(memDir, second), nil, partPath(memDir, second)},
		"another file begins as the open part": {partPath(memDir, base), append(line(base), line(base+1)...),
			partPath(memDir, base)},
		"a part behind the open one": {partPath(memDir, base+1), line(base + 1), partPath(memDir, base+1)},
		"a part within another":      {partPath(memDir, second+1), line(second + 1), partPath(memDir, second)},
	} {
		mem := memWithout(files, c.path)
		if c.text != nil {
			mem.Put(c.path, c.text)
		}
		before := mem.Files()
		_, err := Open(memDir, inParts(mem, 600))
		var damage *logstore.CorruptionError
		if !errors.As(err, &damage) || damage.Advice == "" || c.file != "" && damage.File != c.file {
			t.Errorf("%s: %v", what, err)
		}
		if !sameFiles(before, mem.Files()) {
			t.Errorf("%s: the failing Open changed something", what)
		}
	}
	// The second name of the open part, which a crash leaves, is no contradiction.
	mem := memWithout(files)
	mem.Put(partPath(memDir, base), bytes.TrimRight(open, " "))
	s := mustOpen(t, memDir, inParts(mem, 600))
	checkFiles(t, s, mem, "link")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
