package jsonlstore

import (
	"testing"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func mustOpen(t testing.TB, dir string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(dir, opts...)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store { return mustOpen(t, t.TempDir()) })
	storetest.RunPersistent(t, func(t testing.TB, dir string) logstore.Store { return mustOpen(t, dir) })
	storetest.RunCrash(t, func(testing.TB) storetest.Machine { return machine{memfs.New()} })
}

// machine is a storetest.Machine with a disk in memory.
type machine struct{ fs *memfs.FS }

func (m machine) Open() (logstore.Store, error) {
	s, err := Open(memDir, onMem(m.fs))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (m machine) Ops() int      { return m.fs.Ops() }
func (m machine) Crashed() bool { return m.fs.Crashed() }

func (m machine) CrashAt(n int) {
	at := m.fs.Ops() + n
	m.fs.Hook = func(op memfs.Op) memfs.Verdict { return memfs.Verdict{Crash: op.N == at, Short: op.Len / 2} }
}

func (m machine) AfterCrash(seed uint64) storetest.Machine {
	if seed == 0 {
		return machine{m.fs.CrashClone(memfs.LoseEverything)}
	}
	return machine{m.fs.CrashClone(memfs.LoseRandomly(seed))}
}

// testRoom is the room that stores on a memory file system write ahead: little,
// so that they often come to its end, and no whole number of sectors.
const testRoom = 1300

// onMem puts a store on a file system of tests, with little room.
func onMem(fs vfs.FS) Option {
	return func(o *options) { o.fs, o.room = fs, testRoom }
}

// inParts puts a store on a file system of tests with parts of about that many bytes,
// and has it keep few of them open; 0: parts as long as usual.
func inParts(fs vfs.FS, bytes int64) Option {
	return func(o *options) {
		onMem(fs)(o)
		if bytes > 0 {
			o.partBytes, o.loadedParts = bytes, 2
		}
	}
}

// partSizes are what tests that go through everything use: every batch in a part of
// its own, a few in one, all in one.
var partSizes = []int64{1, 700, 0}
