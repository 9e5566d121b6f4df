package jsonlstore

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// TestStateThatGrows: a state that outgrows its sectors gets a file of its own, and a
// crash leaves no less.
func TestStateThatGrows(t *testing.T) {
	mem := memfs.New()
	s := mustOpen(t, memDir, onMem(mem))
	ref := logstore.NewMemory()
	for i := range 8 {
		for _, store := range []logstore.Store{s, ref} {
			if err := store.Set([]byte("other"), make([]byte, i*200)); err != nil {
				t.Fatal(err)
			}
		}
		checkImage(t, history{acked: ref.Clone()}, mem.CrashClone(memfs.LoseEverything), fmt.Sprint("length ", i*200))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStateIsWrittenOver: from the third change on no file is made and none
// changes its length, until the state outgrows its sectors.
func TestStateIsWrittenOver(t *testing.T) {
	mem := memfs.New()
	s := mustOpen(t, memDir, onMem(mem))
	defer s.Close()
	ref := logstore.NewMemory()
	kinds := make(map[memfs.Kind]int)
	mem.Hook = func(op memfs.Op) memfs.Verdict {
		kinds[op.Kind]++
		return memfs.Verdict{}
	}
	for term := range uint64(20) {
		if term == 3 {
			clear(kinds)
		}
		for _, store := range []logstore.Store{s, ref} {
			if err := errors.Join(store.SetUint64([]byte(logstore.KeyCurrentTerm), term+1), store.SetUint64([]byte(logstore.KeyLastVoteTerm), term+1),
				store.Set([]byte(logstore.KeyLastVoteCand), []byte("2@10.0.0.2:7600"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	const n = 17 * 3
	if len(kinds) != 2 || kinds[memfs.Write] != 2*n || kinds[memfs.Sync] != 2*n {
		t.Errorf("%v", kinds)
	}
	if d := storetest.DiffStable(ref, s); d != "" {
		t.Error(d)
	}
}
