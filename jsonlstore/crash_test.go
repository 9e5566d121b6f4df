package jsonlstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

const memDir = "/data/ha/node-1"

// history is what was done to a store on a file system that stops, or fails,
// somewhere on the way.
type history struct {
	acked    *logstore.Memory // what was acknowledged
	inFlight *storetest.Op    // what the crash interrupted; nil: nothing, or Open
	parts    int64            // about how many bytes a part has; 0: the usual
}

// play does n operations of a workload until the machine stops. scripted
// operations come before the random ones.
func play(t testing.TB, fs *memfs.FS, seed uint64, n int, parts int64) history {
	t.Helper()
	h := history{acked: logstore.NewMemory(), parts: parts}
	s, err := Open(memDir, inParts(fs, parts))
	if err != nil {
		if !fs.Crashed() {
			t.Fatalf("Open: %v", err)
		}
		return h
	}
	w := storetest.NewWorkload(seed)
	for i := range n {
		op := w.Next(h.acked)
		if i < len(script) && seed == scripted {
			op = script[i]
		}
		err := op.Do(s)
		if fs.Crashed() {
			if err == nil { // it stopped while something was tidied up, so this must be there
				if err := op.Do(h.acked); err != nil {
					t.Fatalf("%s was acknowledged, the reference says %v", op.Name, err)
				}
				return h
			}
			h.inFlight = &op
			return h
		}
		if want := op.Do(h.acked); (err == nil) != (want == nil) {
			t.Fatalf("%s: %v, the reference says %v", op.Name, err, want)
		}
	}
	if err := s.Close(); err != nil && !fs.Crashed() {
		t.Fatal(err)
	}
	return h
}

// scripted is the seed under which play does the script instead.
const scripted = 0

func storeOp(from, to uint64, size int) storetest.Op {
	return storetest.Op{Name: fmt.Sprintf("StoreLogs(%d to %d)", from, to), Do: func(s logstore.Store) error {
		var logs []*raft.Log
		for i := from; i <= to; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: i/5 + 1, Data: make([]byte, size)})
		}
		return s.StoreLogs(logs)
	}}
}

// script goes through everything that writes, with batches that fill, share
// and straddle sectors.
var script = []storetest.Op{
	storeOp(1, 1, 10),
	storeOp(2, 4, 300),
	{Name: "term", Do: func(s logstore.Store) error { return s.SetUint64([]byte("CurrentTerm"), 2) }},
	storeOp(5, 5, 2000),
	{Name: "stage", Do: func(s logstore.Store) error { return s.StageCommitIndex(4) }},
	storeOp(6, 9, 100),
	{Name: "vote term", Do: func(s logstore.Store) error { return s.SetUint64([]byte("LastVoteTerm"), 2) }},
	{Name: "vote", Do: func(s logstore.Store) error { return s.Set([]byte("LastVoteCand"), []byte("1@a")) }},
	{Name: "cut tail", Do: func(s logstore.Store) error { return s.DeleteRange(8, 9) }},
	storeOp(8, 12, 5),
	{Name: "cut front", Do: func(s logstore.Store) error { return s.DeleteRange(1, 9) }},
	storeOp(13, 13, 700),
	{Name: "cut tail below the commit index", Do: func(s logstore.Store) error { return s.DeleteRange(11, 13) }},
	{Name: "cut all", Do: func(s logstore.Store) error { return s.DeleteRange(0, 100) }},
	storeOp(50, 52, 200),
	storeOp(53, 55, 400),
	storeOp(56, 56, 400),
	{Name: "term again", Do: func(s logstore.Store) error { return s.SetUint64([]byte("CurrentTerm"), 3) }},
	storeOp(57, 60, 20),
	{Name: "cut front within a batch", Do: func(s logstore.Store) error { return s.DeleteRange(50, 53) }},
	{Name: "stage", Do: func(s logstore.Store) error { return s.StageCommitIndex(58) }},
	storeOp(61, 62, 300),
	{Name: "cut tail between batches", Do: func(s logstore.Store) error { return s.DeleteRange(57, 62) }},
	storeOp(57, 58, 300),
	storeOp(59, 59, 800),
	{Name: "cut tail within a batch", Do: func(s logstore.Store) error { return s.DeleteRange(55, 59) }},
	storeOp(55, 57, 100),
	{Name: "cut all of several parts", Do: func(s logstore.Store) error { return s.DeleteRange(0, 57) }},
	storeOp(3, 4, 900),
	storeOp(5, 5, 900),
}

// checkImage opens a crashed file system and compares it with what may be
// there; then it works on, to see that the store is fit for it.
func checkImage(t testing.TB, h history, image *memfs.FS, what string) {
	t.Helper()
	s, err := Open(memDir, inParts(image, h.parts))
	if err != nil {
		t.Fatalf("%s: Open: %v\n%s", what, err, show(image))
	}
	matched := checkPossible(t, h, s, what, image)
	checkFiles(t, s, image, what)
	w := storetest.NewWorkload(99)
	for range 3 {
		op := w.Next(matched)
		if got, want := op.Do(s), op.Do(matched); (got == nil) != (want == nil) {
			t.Fatalf("%s: afterwards %s: %v, the reference says %v", what, op.Name, got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("%s: Close: %v", what, err)
	}
	again, err := Open(memDir, inParts(image.CrashClone(memfs.LoseEverything), h.parts))
	if err != nil {
		t.Fatalf("%s: opening once more: %v", what, err)
	}
	if d := storetest.DiffLog(matched, again) + storetest.DiffStable(matched, again); d != "" {
		t.Fatalf("%s: opened once more: %s", what, d)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkFiles wants what belongs to the log, and nothing else, deleted entries in
// the open part included.
func checkFiles(t testing.TB, s *Store, image *memfs.FS, what string) {
	t.Helper()
	want := []string{memLog, memDir + "/" + LockFile, memDir + "/" + StateFile}
	for _, p := range s.snap.Load().parts {
		want = append(want, p.path, indexPath(memDir, p.first))
	}
	files := image.Files()
	delete(files, memDir+"/"+StateFile+tempSuffix)
	if first, snap := firstLine(t, files), s.snap.Load(); first != snap.base || first < snap.first {
		t.Fatalf("%s: the open part begins with %d, the log with %d", what, first, snap.first)
	}
	for _, name := range want {
		if _, ok := files[name]; !ok {
			t.Fatalf("%s: there is no %s in %q", what, name, slices.Sorted(maps.Keys(files)))
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Fatalf("%s: left over: %q", what, slices.Sorted(maps.Keys(files)))
	}
}

// checkPossible returns the state that the store is in.
func checkPossible(t testing.TB, h history, s *Store, what string, image *memfs.FS) *logstore.Memory {
	t.Helper()
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	commit, err := s.GetCommitIndex()
	if err != nil || commit > last {
		t.Fatalf("%s: commit index %d of a log that ends with %d, %v", what, commit, last, err)
	}
	state, differences := storetest.History{Acked: h.acked, InFlight: h.inFlight}.Match(s)
	if state == nil {
		t.Fatalf("%s, %s\n%s", what, differences, show(image))
	}
	return state
}

func show(fs *memfs.FS) string {
	text := ""
	for name, data := range fs.Files() {
		text += fmt.Sprintf("%s: %.3000q\n", name, data)
	}
	return text
}

// crashAt makes a file system that stops at its n-th operation, having written
// some of it.
func crashAt(n int, short float64) *memfs.FS {
	fs := memfs.New()
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		return memfs.Verdict{Crash: op.N == n, Short: int(short * float64(op.Len))}
	}
	return fs
}

// stride is how far the places lie apart at which tests look that would look at every
// one: under the race detector, which makes them many times slower and of which most have
// no goroutines to race, n of them.
func stride(n int) int {
	if raceEnabled {
		return n
	}
	return 1
}

// countOps returns how many operations the whole history takes.
func countOps(t testing.TB, seed uint64, n int, parts int64) int {
	fs := memfs.New()
	play(t, fs, seed, n, parts)
	return fs.Ops()
}

// TestCrashAtEveryOperation stops the machine at every operation of a script,
// with several parts of a write done, and with every kind of loss: all subsets
// where there are few, random ones elsewhere.
func TestCrashAtEveryOperation(t *testing.T) {
	images := 0
	for _, parts := range partSizes {
		ops := countOps(t, scripted, len(script), parts)
		for n := 1; n <= ops; n += stride(13) {
			for _, short := range []float64{0, 0.3, 0.99, 1} {
				fs := crashAt(n, short)
				h := play(t, fs, scripted, len(script), parts)
				if !fs.Crashed() {
					t.Fatalf("only %d operations", fs.Ops())
				}
				images += checkLosses(t, h, fs, fmt.Sprintf("parts of %d bytes, crash at operation %d of %d, %.0f %% written", parts, n, ops, short*100))
			}
		}
	}
	t.Logf("%d crash images", images)
}

func checkLosses(t testing.TB, h history, fs *memfs.FS, what string) (images int) {
	t.Helper()
	probe := &memfs.Subset{}
	fs.CrashClone(probe)
	if probe.N <= 5 {
		for bits := range uint64(1) << probe.N {
			checkImage(t, h, fs.CrashClone(&memfs.Subset{Bits: bits}), fmt.Sprintf("%s, keeping %b", what, bits))
			images++
		}
		return images
	}
	checkImage(t, h, fs.CrashClone(memfs.LoseNothing), what+", losing nothing")
	checkImage(t, h, fs.CrashClone(memfs.LoseEverything), what+", losing everything")
	for seed := range uint64(6) {
		checkImage(t, h, fs.CrashClone(memfs.LoseRandomly(seed)), fmt.Sprintf("%s, losing at random %d", what, seed))
	}
	return images + 8
}

// crashImages is how many images TestCrashInRandomWorkloads makes, unless the
// environment says otherwise (CRASH_IMAGES=1000000).
const crashImages = 100_000

func wantedImages(t *testing.T) int {
	if text, ok := os.LookupEnv("CRASH_IMAGES"); ok {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("CRASH_IMAGES: %v", err)
		}
		return n
	}
	if testing.Short() || raceEnabled {
		return crashImages / 50
	}
	return crashImages
}

// TestCrashInRandomWorkloads does the same at several places of many random
// histories, and once more while the store recovers.
func TestCrashInRandomWorkloads(t *testing.T) {
	const points, losses = 4, 24 // places in a history, images of each
	seeds := uint64(wantedImages(t)+points*losses-1) / (points * losses)
	var images atomic.Int64
	t.Run("all", func(t *testing.T) {
		const shards = 8
		for shard := range uint64(shards) {
			t.Run(strconv.FormatUint(shard, 10), func(t *testing.T) {
				t.Parallel()
				for seed := shard + 1; seed <= seeds; seed += shards {
					images.Add(crashSomewhere(t, seed, points, losses))
				}
			})
		}
	})
	t.Logf("%d crash images of %d histories", images.Load(), seeds)
}

// crashSomewhere stops the history of a seed at some of its operations.
func crashSomewhere(t *testing.T, seed uint64, points, losses int) (images int64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	const length = 25
	parts := partSizes[seed%3]
	if parts > 1 {
		parts = rng.Int64N(3000)
	}
	ops := countOps(t, seed, length, parts)
	for range points {
		n := 1 + rng.IntN(ops)
		short := rng.Float64()
		fs := crashAt(n, short)
		h := play(t, fs, seed, length, parts)
		what := fmt.Sprintf("seed %d, parts of %d bytes, crash at operation %d", seed, parts, n)
		for i := range losses {
			loss := memfs.Loss(memfs.LoseRandomly(rng.Uint64()))
			switch i {
			case 0:
				loss = memfs.LoseNothing
			case 1:
				loss = memfs.LoseEverything
			}
			image := fs.CrashClone(loss)
			how := what
			switch i % 4 {
			case 2:
				how += ", and again"
				image = crashAgain(t, image, 1+rng.IntN(12), parts, how).CrashClone(memfs.LoseRandomly(rng.Uint64()))
			case 3:
				// First the process dies, and the next one has not got far when the power goes.
				how += " of the process, then of the machine"
				same := crashAt(n, short)
				play(t, same, seed, length, parts)
				same.Restart()
				image = crashAgain(t, same, 1+rng.IntN(12), parts, how).CrashClone(memfs.LoseRandomly(rng.Uint64()))
			}
			checkImage(t, h, image, how)
			images++
		}
	}
	return images
}

// crashAgain stops the machine while the store recovers.
func crashAgain(t *testing.T, image *memfs.FS, at int, parts int64, what string) *memfs.FS {
	t.Helper()
	image.Hook = func(op memfs.Op) memfs.Verdict {
		return memfs.Verdict{Crash: op.N == at, Short: op.Len / 2}
	}
	s, err := Open(memDir, inParts(image, parts))
	if err != nil {
		if !errors.Is(err, memfs.ErrCrashed) {
			t.Fatalf("%s: Open: %v\n%s", what, err, show(image))
		}
		return image
	}
	image.Hook = nil
	if err := s.Close(); err != nil && !image.Crashed() {
		t.Fatal(err)
	}
	return image
}

// TestFullDiskAtEveryOperation has every single operation fail for want of
// room: the store stays as it was and goes on, unless it says that it cannot.
func TestFullDiskAtEveryOperation(t *testing.T) {
	for _, parts := range partSizes {
		for n := 1; n <= countOps(t, scripted, len(script), parts); n += stride(5) {
			fullDiskAt(t, n, parts)
		}
	}
}

func fullDiskAt(t *testing.T, n int, parts int64) {
	t.Helper()
	fs := memfs.New()
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		if op.N == n && op.Kind != memfs.Sync && op.Kind != memfs.SyncDir {
			return memfs.Verdict{Err: syscall.ENOSPC, Short: op.Len / 2}
		}
		return memfs.Verdict{}
	}
	s, err := Open(memDir, inParts(fs, parts))
	if err != nil {
		if len(fs.Files()) > 0 {
			t.Errorf("operation %d: the failing Open left %s", n, show(fs))
		}
		if s, err = Open(memDir, inParts(fs, parts)); err != nil {
			t.Fatalf("operation %d: Open with room again: %v", n, err)
		}
	}
	ref := logstore.NewMemory()
	for _, op := range script {
		err := op.Do(s)
		if err != nil && op.Do(ref.Clone()) == nil {
			if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, logstore.ErrFailed) {
				t.Fatalf("operation %d: %s: %v", n, op.Name, err)
			}
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatalf("operation %d: after the failing %s: %s", n, op.Name, d)
			}
			if !isRoom(fs.Files()[memLog][s.snap.Load().end:]) {
				t.Fatalf("operation %d: the failing %s left something behind the log", n, op.Name)
			}
			err = op.Do(s) // there is room again
		}
		if want := op.Do(ref); (err == nil) != (want == nil) {
			t.Fatalf("operation %d: %s: %v, the reference says %v", n, op.Name, err, want)
		}
		if d := storetest.Diff(ref, s); d != "" {
			t.Fatalf("operation %d: after %s: %s", n, op.Name, d)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkImage(t, history{acked: ref, parts: parts}, fs.CrashClone(memfs.LoseEverything), fmt.Sprintf("parts of %d bytes, full at operation %d", parts, n))
}

// TestFailedSyncLatches has every single sync fail, and the kernel forget what
// it did not write.
func TestFailedSyncLatches(t *testing.T) {
	for _, parts := range partSizes {
		for n := 1; n <= countOps(t, scripted, len(script), parts); n += stride(5) {
			failedSyncAt(t, n, parts)
		}
	}
}

func failedSyncAt(t *testing.T, n int, parts int64) {
	t.Helper()
	fs := memfs.New()
	failed := false
	fs.Hook = func(op memfs.Op) memfs.Verdict {
		if op.N == n && (op.Kind == memfs.Sync || op.Kind == memfs.SyncDir) {
			failed = true
			return memfs.Verdict{Err: syscall.EIO, Forget: op.Kind == memfs.Sync}
		}
		return memfs.Verdict{}
	}
	s, err := Open(memDir, inParts(fs, parts))
	if err != nil {
		return // Open tells; there is nothing to lose yet
	}
	h := history{acked: logstore.NewMemory(), parts: parts}
	for _, op := range script {
		if err := op.Do(s); failed {
			if !errors.Is(err, logstore.ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d: %s after a failed sync: %v", n, op.Name, err)
			}
			h.inFlight = &op
			break
		}
		if want := op.Do(h.acked); want != nil {
			t.Fatal(want)
		}
	}
	if !failed {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	checkLatched(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Opened again on the same machine: what is served now must not vanish
	// with the power.
	s = mustOpen(t, memDir, inParts(fs, parts))
	state := checkPossible(t, h, s, fmt.Sprintf("sync failed at operation %d", n), fs)
	checkImage(t, history{acked: state, parts: parts}, fs.CrashClone(memfs.LoseEverything), fmt.Sprintf("sync failed at operation %d, then power loss", n))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func checkLatched(t *testing.T, s *Store) {
	t.Helper()
	last, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"StoreLog":    s.StoreLog(&raft.Log{Index: last + 1}),
		"DeleteRange": s.DeleteRange(0, last),
		"Set":         s.Set([]byte("k"), []byte("v")),
		"SetUint64":   s.SetUint64([]byte("k"), 1),
	} {
		if !errors.Is(err, logstore.ErrFailed) {
			t.Fatalf("%s of a latched store: %v", name, err)
		}
	}
	if last > 0 {
		var l raft.Log
		if err := s.GetLog(last, &l); err != nil {
			t.Fatalf("a latched store does not read: %v", err)
		}
	}
}
