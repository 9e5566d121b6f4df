package conformance

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltv1 "github.com/hashicorp/raft-boltdb"
	wal "github.com/hashicorp/raft-wal"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/boltstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
	"github.com/aiondb/aiondb-ha/logstore/walstore"
)

// The numbers are greater than a byte, so that their order of bytes shows.
const (
	someTerm = 1<<40 + 7
	voteTerm = 1<<40 + 5
	someVote = "2@10.0.0.2:7600"
	cutFront = 3 // entries
)

// fill writes what a node might: all samples, of which the first are cut off
// again, a tail that is replaced, and the stable values. No tail is replaced in
// raft-wal, which after that cannot be opened and read.
func fill(t testing.TB, s logstore.Raw, replaceTail bool) {
	t.Helper()
	samples := storetest.Samples()
	n := uint64(len(samples))
	tail := func() error {
		if !replaceTail {
			return nil
		}
		return errors.Join(s.StoreLogs([]*raft.Log{{Index: n - 4, Term: 1, Data: []byte("of a leader that lost")}}), s.DeleteRange(n-4, n-4))
	}
	err := errors.Join(
		s.StoreLogs(samples[:n-5]),
		tail(),
		s.StoreLogs(samples[n-5:]),
		s.DeleteRange(1, cutFront),
		s.SetUint64([]byte(logstore.KeyCurrentTerm), someTerm),
		s.SetUint64([]byte(logstore.KeyLastVoteTerm), voteTerm),
		s.Set([]byte(logstore.KeyLastVoteCand), []byte(someVote)),
		s.Set([]byte("other"), []byte{0, 255, '"'}),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// reader is what all of them can do.
type reader interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, log *raft.Log) error
	Get(key []byte) ([]byte, error)
}

// number reads a uint64 from a store that has GetUint64, or in big endian.
func number(t testing.TB, r reader, key string) uint64 {
	t.Helper()
	var n uint64
	var err error
	if s, ok := r.(raft.StableStore); ok {
		n, err = s.GetUint64([]byte(key))
	} else {
		var b []byte
		if b, err = r.Get([]byte(key)); err == nil {
			n, err = logstore.Uint64Value([]byte(key), b)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

// holds fails the test unless everything that fill wrote is there.
func holds(t testing.TB, r reader) {
	t.Helper()
	samples := storetest.Samples()
	first, err1 := r.FirstIndex()
	last, err2 := r.LastIndex()
	if err := errors.Join(err1, err2); err != nil || first != cutFront+1 || last != uint64(len(samples)) {
		t.Fatalf("it holds %d to %d (%v), want %d to %d", first, last, err, cutFront+1, len(samples))
	}
	for _, want := range samples[cutFront:] {
		var got raft.Log
		if err := r.GetLog(want.Index, &got); err != nil {
			t.Fatalf("GetLog(%d): %v", want.Index, err)
		}
		if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Errorf("entry %d is %.300v, want %.300v", want.Index, got, *want)
		}
	}
	if term, voted := number(t, r, logstore.KeyCurrentTerm), number(t, r, logstore.KeyLastVoteTerm); term != someTerm || voted != voteTerm {
		t.Errorf("term %d, vote in term %d", term, voted)
	}
	if who, err := r.Get([]byte(logstore.KeyLastVoteCand)); string(who) != someVote || err != nil {
		t.Errorf("vote for %q, %v", who, err)
	}
	if v, err := r.Get([]byte("other")); !bytes.Equal(v, []byte{0, 255, '"'}) || err != nil {
		t.Errorf("other: %q, %v", v, err)
	}
}

// format is a kind of file, as the real library and this module have it.
type format struct {
	name string
	real func(t testing.TB, path string) logstore.Raw
	ours func(t testing.TB, path string) logstore.Raw // for writing
	read func(t testing.TB, path string) logstore.Source
}

func boltV2(newTimes bool) func(t testing.TB, path string) logstore.Raw {
	return func(t testing.TB, path string) logstore.Raw { return bolt(t, filepath.Dir(path), newTimes) }
}

func formats() []format {
	ourBolt := func(t testing.TB, path string) logstore.Raw {
		return opened(boltstore.Open(path, boltstore.Options{}))(t)
	}
	readBolt := func(t testing.TB, path string) logstore.Source {
		return opened(boltstore.Open(path, boltstore.Options{ReadOnly: true}))(t)
	}
	return []format{
		{"raft-boltdb v2", boltV2(false), ourBolt, readBolt},
		{"raft-boltdb v2 with times of the new format", boltV2(true), ourBolt, readBolt},
		{
			"raft-boltdb v1",
			func(t testing.TB, path string) logstore.Raw { return opened(raftboltv1.NewBoltStore(path))(t) },
			ourBolt, readBolt,
		},
		{
			"raft-wal",
			func(t testing.TB, path string) logstore.Raw {
				return opened(wal.Open(filepath.Dir(path), wal.WithLogger(hclog.NewNullLogger())))(t)
			},
			func(t testing.TB, path string) logstore.Raw { return opened(walstore.Open(filepath.Dir(path)))(t) },
			func(t testing.TB, path string) logstore.Source {
				return opened(walstore.OpenSource(filepath.Dir(path)))(t)
			},
		},
	}
}

func shut(t testing.TB, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOursReadsTheirs has the real libraries write, and ours read.
func TestOursReadsTheirs(t *testing.T) {
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			path := boltPath(t.TempDir())
			w := f.real(t, path)
			fill(t, w, f.name != "raft-wal")
			holds(t, w)
			shut(t, w)
			if f.name == "raft-wal" {
				release(t, filepath.Dir(path))
			}
			r := f.read(t, path)
			holds(t, r)
			keys, err := r.Keys()
			if err != nil || len(keys) != 4 {
				t.Errorf("keys %q, %v", keys, err)
			}
			shut(t, r)
			s := f.ours(t, path)
			holds(t, s)
			shut(t, s)
		})
	}
}

// TestTheirsReadsOurs has ours write, and the real libraries read and go on.
func TestTheirsReadsOurs(t *testing.T) {
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			path := boltPath(t.TempDir())
			w := logstore.Checked(f.ours(t, path))
			fill(t, w, f.name != "raft-wal")
			shut(t, w)
			r := f.real(t, path)
			holds(t, r)
			next := uint64(len(storetest.Samples())) + 1
			if err := r.StoreLog(&raft.Log{Index: next, Term: someTerm, Data: []byte("theirs")}); err != nil {
				t.Fatal(err)
			}
			shut(t, r)
		})
	}
}
