package logstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

func filled(t testing.TB, first, last uint64) *logstore.Memory {
	t.Helper()
	m := logstore.NewMemory()
	for i := first; i <= last; i++ {
		l := &raft.Log{Index: i, Term: 1 + i/10, Type: raft.LogType(i % 3), Data: fmt.Appendf(nil, "entry %d", i)}
		if i%4 == 0 {
			l.Extensions, l.AppendedAt = []byte{byte(i)}, time.Unix(int64(i), 5)
		}
		if err := m.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(m.SetUint64([]byte(logstore.KeyCurrentTerm), 9), m.SetUint64([]byte(logstore.KeyLastVoteTerm), 8),
		m.Set([]byte(logstore.KeyLastVoteCand), []byte("a:1")), m.Set([]byte("own"), []byte{0}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCopyAndCompare(t *testing.T) {
	for _, c := range []struct {
		name        string
		src         *logstore.Memory
		o           logstore.CopyOptions
		first, last uint64
	}{
		{"all", filled(t, 5, 104), logstore.CopyOptions{}, 5, 104},
		{"in batches of one", filled(t, 1, 30), logstore.CopyOptions{BatchBytes: 1}, 1, 30},
		{"from the middle", filled(t, 1, 30), logstore.CopyOptions{From: 12}, 12, 30},
		{"from before the front", filled(t, 7, 30), logstore.CopyOptions{From: 2}, 7, 30},
		{"from behind the end", filled(t, 7, 30), logstore.CopyOptions{From: 31}, 0, 0},
		{"no entries", filled(t, 2, 1), logstore.CopyOptions{}, 0, 0},
	} {
		dst := logstore.NewMemory()
		var last logstore.CopyProgress
		c.o.Progress = func(p logstore.CopyProgress) { last = p }
		r, err := logstore.Copy(t.Context(), dst, c.src, c.o)
		if err != nil || r.First != c.first || r.Last != c.last || r.Keys != 4 || r.Resumed != 0 {
			t.Fatalf("%s: %+v, %v", c.name, r, err)
		}
		if c.last > 0 && (last.Done != last.Total || last.Done != c.last-c.first+1 || last.Bytes != r.Bytes) {
			t.Fatalf("%s: progress ends with %+v", c.name, last)
		}
		if _, err := logstore.Compare(t.Context(), dst, c.src, c.o); err != nil {
			t.Fatalf("%s: Compare: %v", c.name, err)
		}
	}
	if _, err := logstore.Copy(t.Context(), logstore.NewMemory(), filled(t, 1, 3), logstore.CopyOptions{From: 9}); err == nil {
		t.Fatal("a copy from beyond the end is made")
	}
}

// TestCopyResumes interrupts a copy after every batch and goes on.
func TestCopyResumes(t *testing.T) {
	src, dst := filled(t, 3, 60), logstore.NewMemory()
	for n := 0; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := logstore.Copy(ctx, dst, src, logstore.CopyOptions{BatchBytes: 40, Progress: func(logstore.CopyProgress) { cancel() }})
		cancel()
		if r.Resumed == 58 && err == nil {
			if n < 5 {
				t.Fatalf("the copy was complete after %d interruptions", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("interruption %d: %+v, %v", n, r, err)
		}
		if _, err := logstore.Compare(t.Context(), dst, src, logstore.CopyOptions{}); !errors.Is(err, logstore.ErrDiffers) {
			t.Fatalf("an unfinished copy passes for whole: %v", err)
		}
	}
	if _, err := logstore.Compare(t.Context(), dst, src, logstore.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestCopyRefusesAStrangersTarget(t *testing.T) {
	src := filled(t, 3, 60)
	for name, dst := range map[string]*logstore.Memory{
		"another front": filled(t, 1, 60),
		"a longer log":  filled(t, 3, 61),
	} {
		if _, err := logstore.Copy(t.Context(), dst, src, logstore.CopyOptions{}); !errors.Is(err, logstore.ErrDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dst := logstore.NewMemory()
	if err := dst.StoreLog(&raft.Log{Index: 3, Term: 5, Data: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	if _, err := logstore.Copy(t.Context(), dst, src, logstore.CopyOptions{}); !errors.Is(err, logstore.ErrDiffers) {
		t.Errorf("another entry: %v", err)
	}
}

// holed is a source that lacks an entry.
type holed struct {
	*logstore.Memory
	hole uint64
}

func (h holed) GetLog(i uint64, l *raft.Log) error {
	if i == h.hole {
		return raft.ErrLogNotFound
	}
	return h.Memory.GetLog(i, l)
}

func TestCopyNamesAHole(t *testing.T) {
	var hole *logstore.HoleError
	src := holed{filled(t, 1, 9), 4}
	if _, err := logstore.Copy(t.Context(), logstore.NewMemory(), src, logstore.CopyOptions{}); !errors.As(err, &hole) || hole.Missing != 4 {
		t.Fatalf("a source without entry 4: %v", err)
	}
	if r, err := logstore.Copy(t.Context(), logstore.NewMemory(), src, logstore.CopyOptions{From: 5}); err != nil || r.First != 5 {
		t.Fatalf("from behind the hole: %+v, %v", r, err)
	}
}

// TestCompareFindsEveryDifference changes one field of one entry, or one value,
// at a time.
func TestCompareFindsEveryDifference(t *testing.T) {
	src := filled(t, 1, 20)
	rng := rand.New(rand.NewPCG(3, 4))
	for name, change := range map[string]func(*raft.Log){
		"term": func(l *raft.Log) { l.Term++ }, "type": func(l *raft.Log) { l.Type++ }, "data": func(l *raft.Log) { l.Data[0]++ },
		"extensions": func(l *raft.Log) { l.Extensions = append(l.Extensions, 1) }, "time": func(l *raft.Log) { l.AppendedAt = time.Unix(99, 0) },
	} {
		at := 1 + rng.Uint64N(20)
		dst := logstore.NewMemory()
		for i := uint64(1); i <= 20; i++ {
			var l raft.Log
			if err := src.GetLog(i, &l); err != nil {
				t.Fatal(err)
			}
			if i == at {
				change(&l)
			}
			if err := dst.StoreLog(&l); err != nil {
				t.Fatal(err)
			}
		}
		var d *logstore.DifferenceError
		if _, err := logstore.Compare(t.Context(), dst, src, logstore.CopyOptions{}); !errors.As(err, &d) || d.Index != at {
			t.Errorf("%s of entry %d: %v", name, at, err)
		}
	}
	for name, change := range map[string]func(*logstore.Memory) error{
		"own":        func(m *logstore.Memory) error { return m.Set([]byte("own"), []byte{1}) },
		"additional": func(m *logstore.Memory) error { return m.Set([]byte("additional"), nil) },
	} {
		dst := src.Clone()
		if err := change(dst); err != nil {
			t.Fatal(err)
		}
		var d *logstore.DifferenceError
		if _, err := logstore.Compare(t.Context(), dst, src, logstore.CopyOptions{}); !errors.As(err, &d) || string(d.Key) != name {
			t.Errorf("value %s: %v", name, err)
		}
		if _, err := logstore.Compare(t.Context(), src, dst, logstore.CopyOptions{}); !errors.As(err, &d) || string(d.Key) != name {
			t.Errorf("value %s, the other way: %v", name, err)
		}
	}
}
