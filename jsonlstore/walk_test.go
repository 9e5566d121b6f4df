package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// partedSample is a log of 40 entries, from 6 on, in several parts.
func partedSample(t testing.TB, partBytes int64) map[string][]byte {
	t.Helper()
	fs := memfs.New()
	s := mustOpen(t, memDir, inParts(fs, partBytes))
	if err := s.SetUint64([]byte(logstore.KeyCurrentTerm), 3); err != nil {
		t.Fatal(err)
	}
	for from := uint64(1); from <= 40; from += 2 {
		mustStore(t, s, someLogs(from, from+1, from/15+1))
	}
	mustDelete(t, s, 1, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs.Files()
}

// catText is what Cat yields: entries as index/term, damage as the file and line.
func catText(t testing.TB, fs *memfs.FS) (all []string) {
	t.Helper()
	for l, err := range Cat(memDir, onMem(fs)) {
		var damage *logstore.CorruptionError
		switch {
		case errors.As(err, &damage):
			all = append(all, fmt.Sprintf("damage %s:%d", filepath.Base(damage.File), damage.Line))
		case err != nil:
			t.Fatal(err)
		default:
			all = append(all, fmt.Sprintf("%d/%d", l.Index, l.Term))
		}
	}
	return all
}

// TestToolsReadAllParts: a log in parts is the same log.
func TestToolsReadAllParts(t *testing.T) {
	whole := catText(t, memWith(partedSample(t, 0)))
	if len(whole) != 35 || whole[0] != "6/1" || whole[34] != "40/3" {
		t.Fatal(whole)
	}
	for _, size := range []int64{1, 700} {
		fs := memWith(partedSample(t, size))
		if got := catText(t, fs); !slices.Equal(got, whole) {
			t.Errorf("Cat: %v, want %v", got, whole)
		}
		r, err := Verify(memDir, onMem(fs))
		if err != nil || !r.OK() || r.Sealed < 3 || r.First != 6 || r.Last != 40 || r.Entries != 35 {
			t.Errorf("Verify: %+v, %v", r, err)
		}
		st, err := Stat(memDir, onMem(fs))
		if err != nil || st.DamageCount != 0 || st.Sealed != r.Sealed || st.First != 6 || st.Entries != 35 || st.Batches != 18 {
			t.Errorf("Stat: %+v, %v", st, err)
		}
		got, err := collectTail(memDir, 100, onMem(fs))
		if err != nil || !slices.Equal(got, whole) {
			t.Errorf("Tail: %v, %v", got, err)
		}
		p, err := PlanRepair(memDir, RepairOptions{}, onMem(fs))
		if err != nil || p.Needed() {
			t.Errorf("PlanRepair: %+v, %v", p, err)
		}
	}
}

// TestDamageInAnyPart flips bytes in every part, removes parts and spoils indexes:
// Verify names the place, and Repair leaves what stands before it, once more whole and
// with a copy of everything that it touched.
func TestDamageInAnyPart(t *testing.T) {
	files := partedSample(t, 700)
	rng := rand.New(rand.NewPCG(5, 5))
	for name, text := range files {
		base := filepath.Base(name)
		if !strings.HasPrefix(base, "raft_log.") {
			continue
		}
		t.Run(base, func(t *testing.T) {
			written := len(bytes.TrimRight(text, " "))
			for range 12 {
				at := rng.IntN(written)
				broken := bytes.Clone(text)
				broken[at] ^= 1 << rng.IntN(8)
				repairParts(t, files, name, broken, at)
			}
			repairParts(t, files, name, nil, 0) // it is not there
			if !strings.HasSuffix(name, indexSuffix) {
				repairParts(t, files, name, text[:lineEnd(text, 1)], lineEnd(text, 1))
			}
		})
	}
}

func repairParts(t *testing.T, files map[string][]byte, name string, broken []byte, at int) {
	t.Helper()
	what := fmt.Sprintf("byte %d of %s", at, filepath.Base(name))
	changed := make(map[string][]byte)
	for n, text := range files {
		if n != name {
			changed[n] = text
		}
	}
	if broken != nil {
		changed[name] = broken
	}
	fs := memWith(changed)
	r, err := Verify(memDir, onMem(fs))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	opens := func(fs *memfs.FS) *Store {
		s, err := Open(memDir, onMem(memWith(fs.Files())))
		if err != nil {
			return nil
		}
		return s
	}
	if r.OK() { // a blank line, a last batch that ends early, or the entries deleted
		s := opens(fs)
		if s == nil {
			t.Fatalf("%s: it does not open, and Verify finds nothing", what)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	res, err := Repair(memDir, RepairOptions{Now: repairTime}, onMem(fs))
	if errors.Is(err, ErrNotRepairable) {
		if !sameFiles(changed, fs.Files()) {
			t.Fatalf("%s: not repairable, and yet changed", what)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v\n%+v", what, err, r.Damage)
	}
	// Everything that was there is there still, somewhere.
	after := fs.Files()
	for n, text := range changed {
		if bytes.Equal(after[n], text) || strings.HasSuffix(n, indexSuffix) || strings.HasSuffix(n, LockFile) {
			continue
		}
		if copied, ok := after[n+copyName]; !ok || !bytes.Equal(copied, text) {
			t.Fatalf("%s: no copy of %s", what, n)
		}
	}
	s := opens(fs)
	if s == nil {
		t.Fatalf("%s: it does not open after the repair", what)
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != res.Log.KeptFirst || last != res.Log.KeptLast {
		t.Fatalf("%s: %d to %d, announced were %+v", what, first, last, res.Log)
	}
	if strings.HasSuffix(name, indexSuffix) && (first != 6 || last != 40) {
		t.Fatalf("%s: %d to %d are left", what, first, last)
	}
	for index := first; index > 0 && index <= last; index++ {
		var l raft.Log
		if err := s.GetLog(index, &l); err != nil || string(l.Data) != fmt.Sprintf("entry %d of term %d", index, l.Term) {
			t.Fatalf("%s: entry %d: %q, %v", what, index, l.Data, err)
		}
	}
	if err := errors.Join(s.StoreLog(&raft.Log{Index: last + 1, Term: 9}), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestToolsBesideAWriter runs Verify, Cat and Stat beside a store that appends, seals
// and cuts both ends: none of it looks like damage.
func TestToolsBesideAWriter(t *testing.T) {
	for _, size := range partSizes {
		t.Run(fmt.Sprint("parts of ", size), func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, partsOf(size))
			defer s.Close()
			ready := make(chan struct{})
			go func() {
				defer close(ready)
				write(t, s, 250)
			}()
			for working := true; working; {
				select {
				case <-ready:
					working = false
				default:
				}
				if r, err := Verify(dir); err != nil && !errors.Is(err, errMoved) || !r.OK() {
					t.Fatalf("Verify: %+v, %v", r, err)
				}
				if st, err := Stat(dir); err != nil && !errors.Is(err, errMoved) || st.DamageCount > 0 {
					t.Fatalf("Stat: %+v, %v", st, err)
				}
				last := uint64(0)
				for l, err := range Cat(dir) {
					if errors.Is(err, errMoved) {
						break
					}
					if err != nil {
						t.Fatalf("Cat: %v", err)
					}
					if l.Index <= last {
						t.Fatalf("Cat: %d after %d", l.Index, last)
					}
					last = l.Index
				}
			}
		})
	}
}
