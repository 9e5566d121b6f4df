package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

const memTwin = memState + tempSuffix

// stateText is a state file of ours of some whole number of sectors.
func stateText(term uint64, sectors int) []byte {
	st := &stableState{values: map[string][]byte{"other": bytes.Repeat([]byte{byte(term)}, (sectors-1)*vfs.SectorSize*3/4)}}
	putUint64(st.values, logstore.KeyCurrentTerm, term)
	return padState(encodeState(st), sectors*vfs.SectorSize)
}

// checkTerm opens the state files and wants that term, or 0: damage. What Verify and Stat say must agree.
func checkTerm(t *testing.T, what string, state, twin []byte, want uint64) {
	t.Helper()
	files := map[string][]byte{memLog: nil}
	for name, text := range map[string][]byte{memState: state, memTwin: twin} {
		if text != nil {
			files[name] = text
		}
	}
	fs := memWith(files)
	before := fs.Files()
	report, err := Verify(memDir, onMem(fs))
	if err != nil {
		t.Fatalf("%s: Verify: %v", what, err)
	}
	stat, err := Stat(memDir, onMem(fs))
	if err != nil || stat.State != report.State || (stat.StateError != nil) != report.State.Damaged {
		t.Fatalf("%s: Stat: %+v, %v; Verify: %+v", what, stat, err, report)
	}
	s, err := Open(memDir, onMem(fs))
	if want == 0 {
		if !errors.Is(err, logstore.ErrCorrupt) || !report.State.Damaged || report.State.Missing || report.OK() {
			t.Fatalf("%s: Open: %v; Verify: %+v", what, err, report.State)
		}
		if !sameFiles(before, fs.Files()) {
			t.Fatalf("%s: the failing Open changed something", what)
		}
		return
	}
	if err != nil || !report.OK() || report.State.CurrentTerm != want {
		t.Fatalf("%s: Open: %v; Verify: %+v", what, err, report)
	}
	if got := getTerm(t, s); got != want {
		t.Fatalf("%s: term %d, want %d", what, got, want)
	}
	// It is in the state file now, whatever becomes of the twin.
	after, err := decodeState(fs.CrashClone(memfs.LoseEverything).Files()[memState])
	if err != nil || !bytes.Equal(after.values[logstore.KeyCurrentTerm], s.stable.Load().values[logstore.KeyCurrentTerm]) {
		t.Fatalf("%s: afterwards %+v, %v", what, after, err)
	}
	if err := s.SetUint64([]byte(logstore.KeyCurrentTerm), want+1); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, left := fs.Files()[memTwin]; left {
		t.Fatalf("%s: Close left a twin", what)
	}
}

func sameFiles(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name, text := range a {
		if other, ok := b[name]; !ok || !bytes.Equal(text, other) {
			return false
		}
	}
	return true
}

// TestTornStateFile tears the second write of a change at every byte, and loses
// every subset of its sectors: the twin has the new state.
func TestTornStateFile(t *testing.T) {
	old, twin := stateText(7, 1), stateText(8, 1)
	for at := range old {
		want := uint64(8)
		torn := slices.Concat(twin[:at], old[at:])
		if bytes.Equal(torn, old) {
			want = 7 // nothing was written yet: the state file counts
		}
		checkTerm(t, fmt.Sprint("torn at byte ", at), torn, twin, want)
	}
	const sectors = 4
	old, twin = stateText(7, sectors), stateText(8, sectors)
	for bits := range 1 << sectors {
		torn := slices.Clone(old)
		for i := range sectors {
			if bits>>i&1 == 1 {
				copy(torn[i*vfs.SectorSize:(i+1)*vfs.SectorSize], twin[i*vfs.SectorSize:])
			}
		}
		want := uint64(8)
		if bits == 0 {
			want = 7
		}
		checkTerm(t, fmt.Sprintf("sectors %b", bits), torn, twin, want)
	}
}

// TestTwinStandsInForNothingElse: a state file that is whole counts, whoever
// wrote it, and a damaged one is not taken from a twin that cannot be its own.
func TestTwinStandsInForNothingElse(t *testing.T) {
	ours, newer := stateText(7, 1), stateText(8, 1)
	foreign := []byte("{\n  \"current_term\": 5,\n  \"voted_for\": 2,\n  \"commit_index\": 0\n}")
	flipped := slices.Clone(ours)
	flipped[25] ^= 1
	torn := slices.Concat(newer[:40], ours[40:])
	for _, c := range []struct {
		what        string
		state, twin []byte
		want        uint64
	}{
		{"no twin", ours, nil, 7},
		{"the process died between the two writes", ours, newer, 7},
		{"a torn twin", ours, torn, 7},
		{"an empty twin", ours, []byte{}, 7},
		{"a copy was put back, longer", stateText(3, 2), newer, 3},
		{"a copy was put back, of the same length", stateText(3, 1), newer, 3},
		{"the original wrote it", foreign, newer, 5},
		{"the original wrote half of it", foreign[:30], newer, 0},
		{"the original began to write it", []byte{}, newer, 0},
		{"zeros of the original", make([]byte, len(foreign)), newer, 0},
		{"damaged, no twin", flipped, nil, 0},
		{"damaged, and so is the twin", flipped, torn, 0},
		{"damaged, and the twin is the original's", flipped, foreign, 0},
		{"damaged, and the twin is the original's and as long", flipped, padState(append(slices.Clone(foreign), '\n'), vfs.SectorSize), 0},
		{"damaged, and the twin is of another length", flipped, stateText(8, 2), 0},
		{"damaged, the twin is the same state", flipped, ours, 7},
		{"damaged, the twin is newer", flipped, newer, 8},
	} {
		checkTerm(t, c.what, c.state, c.twin, c.want)
	}
}

// TestTornStateThatLooksForeign: what is left of two states of ours can pass for
// one of the original's, with another vote than either. It is not taken for one beside a twin.
func TestTornStateThatLooksForeign(t *testing.T) {
	st := &stableState{values: map[string][]byte{}}
	putUint64(st.values, logstore.KeyCurrentTerm, 1)
	old := padState(encodeState(st), 0)
	// Its first three fields are longer by as much as a crc takes.
	const term, candidate = 100_000, "18446744073709551615@a"
	putUint64(st.values, logstore.KeyCurrentTerm, term)
	putUint64(st.values, logstore.KeyLastVoteTerm, term)
	st.values[logstore.KeyLastVoteCand] = []byte(candidate)
	twin := padState(encodeState(st), 0)
	found := false
	for at := range old {
		torn := slices.Concat(twin[:at], old[at:])
		if got, err := decodeState(torn); err == nil && got.foreign {
			found = true
		}
		if bytes.Equal(torn, old) {
			continue
		}
		what := fmt.Sprint("torn at byte ", at)
		checkTerm(t, what, torn, twin, term)
		s := mustOpen(t, memDir, onMem(memWith(map[string][]byte{memLog: nil, memState: torn, memTwin: twin})))
		if got, err := s.Get([]byte(logstore.KeyLastVoteCand)); err != nil || string(got) != candidate {
			t.Fatalf("%s: the vote is %q, %v", what, got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Error("no torn state looks like the original's: the test proves nothing")
	}
}

// TestCrashWhileTheStateIsWritten stops the machine at every operation of a
// series of changes, by every tenth of a write, with every loss: of states that
// grow over one sector and more.
func TestCrashWhileTheStateIsWritten(t *testing.T) {
	var changes []storetest.Op
	for i := range 12 {
		value := bytes.Repeat([]byte{byte(i)}, 40*i*i)
		changes = append(changes, storetest.Op{Name: fmt.Sprint("change ", i), Do: func(s logstore.Store) error {
			return s.Set([]byte("other"), value)
		}}, storetest.Op{Name: fmt.Sprint("term ", i), Do: func(s logstore.Store) error {
			return s.SetUint64([]byte(logstore.KeyCurrentTerm), uint64(i+1))
		}})
	}
	images, torn := 0, 0
	for n := 1; ; n += stride(5) {
		stopped := false
		for tenth := n % stride(3); tenth < 11; tenth += stride(3) {
			fs := crashAt(n, float64(tenth)/10)
			h := history{acked: logstore.NewMemory()}
			if s, err := Open(memDir, onMem(fs)); err == nil {
				for _, op := range changes {
					if err := op.Do(s); err != nil {
						h.inFlight = &op
						break
					}
					if err := op.Do(h.acked); err != nil {
						t.Fatal(err)
					}
				}
			}
			if stopped = fs.Crashed(); !stopped {
				break
			}
			what := fmt.Sprintf("crash at operation %d, %d tenths written", n, tenth)
			if _, err := decodeState(fs.CrashClone(memfs.LoseNothing).Files()[memState]); err != nil && h.inFlight != nil {
				torn++
			}
			images += checkLosses(t, h, fs, what)
			// And once more while it is recovered from that.
			rng := rand.New(rand.NewPCG(uint64(n), uint64(tenth)))
			for range 4 {
				again := crashAgain(t, fs.CrashClone(memfs.LoseRandomly(rng.Uint64())), 1+rng.IntN(6), 0, what)
				images += checkLosses(t, h, again, what+", and again")
			}
		}
		if !stopped {
			break
		}
	}
	t.Logf("%d crash images; the process left a torn state file %d times", images, torn)
	if torn == 0 {
		t.Error("no write tore the state file: the test proves nothing")
	}
}

// TestFullDiskWhileTheStateIsWritten has every single write of a state fail in the
// middle: the error says that nothing has changed, and so it is after power loss.
func TestFullDiskWhileTheStateIsWritten(t *testing.T) {
	for n, failed := 1, true; failed; n++ {
		failed = false
		fs := memfs.New()
		s := mustOpen(t, memDir, onMem(fs))
		writes := 0
		fs.Hook = func(op memfs.Op) memfs.Verdict {
			if op.Kind != memfs.Write {
				return memfs.Verdict{}
			}
			if writes++; writes != n {
				return memfs.Verdict{}
			}
			failed = true
			return memfs.Verdict{Err: syscall.ENOSPC, Short: op.Len / 8}
		}
		ref := logstore.NewMemory()
		for i := range 5 {
			key, value := []byte("other"), bytes.Repeat([]byte{byte(i)}, 700)
			err := s.Set(key, value)
			if err != nil {
				what := fmt.Sprintf("write %d failed", n)
				if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, logstore.ErrFailed) {
					t.Fatalf("%s: %v", what, err)
				}
				checkLosses(t, history{acked: ref}, fs, what)
				err = s.Set(key, value)
			}
			if err = errors.Join(err, ref.Set(key, value)); err != nil {
				t.Fatal(err)
			}
			checkLosses(t, history{acked: ref}, fs, fmt.Sprintf("write %d failed, value %d", n, i))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
