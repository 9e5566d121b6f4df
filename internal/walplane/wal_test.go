package walplane

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aiondb/aiondb-ha/protocol"
)

func mustOpenWAL(t testing.TB, dir string) *wal {
	t.Helper()
	w, _, err := openWAL(dir, realDisk)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// logOf makes records: for every epoch a begin record and n-1 puts.
func logOf(from protocol.LSN, epochs ...protocol.Epoch) []record {
	var recs []record
	for i, e := range epochs {
		r := record{epoch: e, lsn: from + protocol.LSN(i), kind: kindPut, key: fmt.Appendf(nil, "k%d", i%5), value: fmt.Appendf(nil, "v%d.%d", e, i)}
		if i == 0 || epochs[i-1] != e {
			r.kind, r.key, r.value = kindBegin, nil, nil
		}
		recs = append(recs, r)
	}
	return recs
}

func readAll(t testing.TB, w *wal) []record {
	t.Helper()
	var all []record
	var c cursor
	for {
		recs, err := w.read(&c, protocol.MaxLSN, 64)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return all
		}
		for _, r := range recs {
			r.key, r.value, r.synced = bytes.Clone(r.key), bytes.Clone(r.value), 0
			all = append(all, r)
		}
	}
}

func sameRecords(a, b []record) bool {
	return slices.EqualFunc(a, b, func(a, b record) bool {
		return a.epoch == b.epoch && a.lsn == b.lsn && a.kind == b.kind && bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value)
	})
}

func TestModesOfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "wal")
	w := mustOpenWAL(t, dir)
	defer w.close()
	for path, want := range map[string]os.FileMode{dir: 0o700, w.path: 0o600, filepath.Join(dir, lockName): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	inUse := (*InUseError)(nil)
	if _, _, err := openWAL(dir, realDisk); !errors.As(err, &inUse) || inUse.Dir != dir {
		t.Errorf("a second one: %v", err)
	}
}

// A log cut at any byte opens with the longest whole beginning, and takes
// records again from there.
func TestRecoverAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	w := mustOpenWAL(t, dir)
	all := logOf(1, 1, 1, 1, 3, 3, 4, 4, 4)
	var ends []int64 // ends[n]: where n records end
	ends = append(ends, w.end)
	for _, r := range all {
		if err := w.append([]record{r}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, w.end)
	}
	w.close()
	whole, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(whole); cut++ {
		if err := os.WriteFile(w.path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w, torn, err := openWAL(dir, realDisk)
		if cut < headerBytes {
			if !errors.Is(err, ErrDamaged) { // cannot come from a crash: the file appears whole
				t.Fatalf("cut at %d: %v", cut, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		n := 0
		for n < len(all) && ends[n+1] <= int64(cut) {
			n++
		}
		if got := readAll(t, w); !sameRecords(got, all[:n]) || torn != int64(cut)-ends[n] {
			t.Fatalf("cut at %d: %d records, %d bytes torn; want %d, %d", cut, len(got), torn, n, int64(cut)-ends[n])
		}
		if n < len(all) {
			if err := w.append(all[n:]); err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
		if got := readAll(t, w); !sameRecords(got, all) {
			t.Fatalf("cut at %d, continued: %v", cut, got)
		}
		w.close()
	}
}

// A flipped bit in a record is damage if something was written after that
// record was flushed, a torn tail if it was in the last write; the file is
// left alone in the first case.
func TestDamageInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	w := mustOpenWAL(t, dir)
	all := logOf(1, 1, 1, 1, 1, 1, 1, 1, 1)
	var begins []int64
	for _, group := range [][]record{all[:1], all[1:3], all[3:5], all[5:]} { // one flush each
		off := w.end
		for _, r := range group {
			begins = append(begins, off)
			off += int64(r.size())
		}
		if err := w.append(group); err != nil {
			t.Fatal(err)
		}
	}
	w.close()
	whole, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	for at := headerBytes; at < len(whole); at++ {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		if err := os.WriteFile(w.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		hit := 0
		for hit+1 < len(begins) && begins[hit+1] <= int64(at) {
			hit++
		}
		w, _, err := openWAL(dir, realDisk)
		if hit >= 5 { // in the last write, which may have reached the disk in any order
			if err != nil {
				t.Fatalf("byte %d, record %d: %v", at, hit, err)
			}
			if got := readAll(t, w); !sameRecords(got, all[:hit]) {
				t.Fatalf("byte %d: %d records, want %d", at, len(got), hit)
			}
			w.close()
			continue
		}
		damage := (*DamageError)(nil)
		if !errors.As(err, &damage) || !errors.Is(err, ErrDamaged) || damage.Offset != begins[hit] ||
			damage.LSN != protocol.LSN(hit+1) || damage.File != filepath.Join(dir, logName) {
			t.Fatalf("byte %d, record %d at %d: %v", at, hit, begins[hit], err)
		}
		if now, err := os.ReadFile(damage.File); err != nil || !bytes.Equal(now, bad) {
			t.Fatalf("byte %d: the file was changed", at)
		}
	}
	for at := range headerBytes / 2 {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		if err := os.WriteFile(w.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := openWAL(dir, realDisk); !errors.Is(err, ErrDamaged) {
			t.Fatalf("magic, byte %d: %v", at, err)
		}
	}
}

// A tail of zeros, as a power cut leaves it, is torn, also a long one; and a
// value that holds a whole record of some other log fools nobody.
func TestOddTails(t *testing.T) {
	dir := t.TempDir()
	w := mustOpenWAL(t, dir)
	all := logOf(1, 1, 1)
	if err := w.append(all); err != nil {
		t.Fatal(err)
	}
	end := w.end
	forged := appendRecord(nil, 0, record{epoch: 1, lsn: 4, synced: 3, kind: kindPut, key: []byte("k")})
	if err := w.append([]record{{epoch: 1, lsn: 3, kind: kindPut, key: []byte("k"), value: append(forged, make([]byte, 200)...)}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(w.path, w.end-50); err != nil {
		t.Fatal(err)
	}
	w.close()
	w = mustOpenWAL(t, dir)
	if got := readAll(t, w); !sameRecords(got, all) || w.end != end {
		t.Fatalf("forged: %v", got)
	}
	w.close()
	if err := os.Truncate(w.path, 9<<20); err != nil {
		t.Fatal(err)
	}
	w = mustOpenWAL(t, dir)
	defer w.close()
	if got := readAll(t, w); !sameRecords(got, all) || w.end != end {
		t.Fatalf("zeros: %v", got)
	}
}

// Records that are whole but do not fit where they stand are damage.
func TestRecordsThatDoNotFollow(t *testing.T) {
	for name, wrong := range map[string]record{
		"gap":             {epoch: 1, lsn: 5, kind: kindPut, key: []byte("k")},
		"again":           {epoch: 1, lsn: 3, kind: kindPut, key: []byte("k")},
		"no begin":        {epoch: 2, lsn: 4, kind: kindPut, key: []byte("k")},
		"begin again":     {epoch: 1, lsn: 4, kind: kindBegin},
		"epoch goes back": {epoch: 1, lsn: 4, kind: kindPut, key: []byte("k")},
	} {
		dir := t.TempDir()
		w := mustOpenWAL(t, dir)
		epochs := []protocol.Epoch{1, 1, 1}
		if name == "epoch goes back" {
			epochs[2] = 2
		}
		if err := w.append(logOf(1, epochs...)); err != nil {
			t.Fatal(err)
		}
		if err := w.append([]record{wrong}); err == nil {
			t.Errorf("%s: appended", name)
		}
		raw := appendRecord(nil, w.salt, wrong)
		if _, err := w.f.WriteAt(raw, w.end); err != nil {
			t.Fatal(err)
		}
		w.close()
		if _, _, err := openWAL(dir, realDisk); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A random walk of appends, cuts, reads and reopenings against a slice.
func TestLogAgainstSlice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	w := mustOpenWAL(t, dir)
	defer func() { w.close() }()
	var model []record
	epoch := protocol.Epoch(0)
	for step := range 400 {
		switch rng.IntN(6) {
		case 0, 1, 2:
			var group []record
			for range 1 + rng.IntN(20) {
				r := record{lsn: protocol.LSN(len(model) + len(group) + 1), kind: kindPut, key: []byte("k"), value: make([]byte, rng.IntN(3000))}
				if epoch == 0 || rng.IntN(20) == 0 {
					epoch++
					r.kind, r.key, r.value = kindBegin, nil, nil
				}
				r.epoch = epoch
				group = append(group, r)
			}
			if err := w.append(group); err != nil {
				t.Fatal(err)
			}
			model = append(model, group...)
		case 3:
			to := rng.IntN(len(model) + 1)
			if err := w.truncate(protocol.LSN(to)); err != nil {
				t.Fatal(err)
			}
			model = model[:to]
			epoch = 0
			if to > 0 {
				epoch = model[to-1].epoch
			}
		case 4:
			w.close()
			w = mustOpenWAL(t, dir)
		case 5:
			from := 1 + rng.IntN(len(model)+1)
			var c cursor
			if err := w.seek(&c, protocol.LSN(from)); err != nil {
				t.Fatal(err)
			}
			got, err := w.read(&c, protocol.MaxLSN, rng.IntN(10000))
			if err != nil || len(got) == 0 && from <= len(model) || !sameRecords(got, model[from-1:from-1+len(got)]) {
				t.Fatalf("step %d: read from %d: %d records, %v", step, from, len(got), err)
			}
		}
		var want protocol.Position
		var lineage protocol.Lineage
		for _, r := range model {
			if want.Timeline != r.epoch {
				lineage = append(lineage, protocol.Segment{Epoch: r.epoch})
			}
			want = r.position()
			lineage[len(lineage)-1].End = r.lsn
		}
		if got, err := w.position(); err != nil || got != want || !slices.Equal(w.ownLineage(), lineage) {
			t.Fatalf("step %d: %v %v, want %v; %v, want %v", step, got, err, want, w.ownLineage(), lineage)
		}
	}
	if got := readAll(t, w); !sameRecords(got, model) {
		t.Fatal("the log is not what was written")
	}
}

func TestFailedFlushLatches(t *testing.T) {
	dir := t.TempDir()
	broken := false
	d := realDisk
	d.sync = func(f *os.File) error {
		if broken {
			return errors.New("I/O error")
		}
		return f.Sync()
	}
	w, _, err := openWAL(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := w.append(logOf(1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	broken = true
	if err := w.append([]record{{epoch: 1, lsn: 3, kind: kindPut, key: []byte("k")}}); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	broken = false // too late: the kernel may have dropped the pages
	if err := w.append([]record{{epoch: 1, lsn: 3, kind: kindPut, key: []byte("k")}}); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if _, err := w.position(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if err := w.truncate(1); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
}

func TestFailedWriteIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	full := false
	d := realDisk
	d.write = func(f *os.File, b []byte, off int64) (int, error) {
		if full {
			n, _ := f.WriteAt(b[:len(b)-5], off) // whole records among it
			return n, errors.New("no space left on device")
		}
		return f.WriteAt(b, off)
	}
	w, _, err := openWAL(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	all := logOf(1, 1, 1, 1, 1, 1)
	if err := w.append(all[:2]); err != nil {
		t.Fatal(err)
	}
	full = true
	if err := w.append(all[2:]); err == nil || errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	full = false
	if err := w.append(all[2:3]); err != nil {
		t.Fatal(err)
	}
	w.close()
	w = mustOpenWAL(t, dir)
	defer w.close()
	if got := readAll(t, w); !sameRecords(got, all[:3]) {
		t.Fatalf("%v", got)
	}
}
