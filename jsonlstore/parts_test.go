package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

func TestPartNames(t *testing.T) {
	for name, want := range map[string]uint64{
		"raft_log.00000000000000000007.jsonl": 7,
		"raft_log.18446744073709551614.jsonl": logstore.MaxIndex,
		"raft_log.18446744073709551615.jsonl": 0,
		"raft_log.18446744073709551616.jsonl": 0,
		"raft_log.00000000000000000000.jsonl": 0,
		"raft_log.0000000000000000007.jsonl":  0,
		"raft_log.+0000000000000000007.jsonl": 0,
		"raft_log.-0000000000000000007.jsonl": 0,
		"raft_log.0000000000000000_007.jsonl": 0,
		"raft_log.000000000000000000007.json": 0,
		"raft_log.00000000000000000007.index": 0,
		"raft_log.jsonl":                      0,
		"raft_log.jsonl.before-repair-x":      0,
		"Raft_log.00000000000000000007.jsonl": 0,
	} {
		got, ok := parsePartName(name, partSuffix)
		if ok != (want > 0) || ok && got != want {
			t.Errorf("%s: %d, %t", name, got, ok)
		}
		if ok && filepath.Base(partPath("d", got)) != name {
			t.Errorf("%s: made as %s", name, partPath("d", got))
		}
	}
}

func TestListParts(t *testing.T) {
	mem := memfs.New()
	if _, err := listParts(mem, memDir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, name := range []string{"raft_log.jsonl", "raft_log.old.jsonl", "raft_log.00000000000000000010.jsonl", "raft_log.00000000000000000009.jsonl",
		"raft_log.00000000000000000009.index", "raft_log.00000000000000000003.index", "raft_state.json", "raft_log.jsonl.tmp"} {
		mem.Put(filepath.Join(memDir, name), nil)
	}
	parts, err := listParts(mem, memDir)
	want := []part{{partPath(memDir, 9), 9, true}, {partPath(memDir, 10), 10, true}, {memLog, 0, false}}
	if err != nil || !slices.Equal(parts, want) {
		t.Errorf("%v, %v; want %v", parts, err, want)
	}
	if got, err := listIndexes(mem, memDir); err != nil || !slices.Equal(got, []uint64{3, 9}) {
		t.Errorf("%v, %v", got, err)
	}
}

// sealedSample is a file with entries first to first+n-1 as a sealed part has them.
func sealedSample(first uint64, n int) []byte {
	text := []byte("\n  ") // as another writer might have left it
	for i := range n {
		index := first + uint64(i)
		commit := uint64(0)
		if i%3 == 1 {
			commit = index - 1
		}
		text = appendLine(text, &raft.Log{Index: index, Term: 1 + uint64(i)/4, Data: bytes.Repeat([]byte{'x'}, i*7)}, commit, 0)
	}
	return append(text, "    "...)
}

func TestIndexComesBackTheSame(t *testing.T) {
	mem := memfs.New()
	const first, n = 70, 12
	text := sealedSample(first, n)
	p := part{partPath(memDir, first), first, true}
	mem.Put(p.path, text)
	x, err := scanPart(mem, p, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	want := partHead{first: first, count: n, bytes: int64(len(text) - 4), maxTerm: 3, mark: commitMark{80, 79}}
	if x.partHead != want || x.last() != 81 {
		t.Fatalf("%+v, want %+v", x.partHead, want)
	}
	for i := range uint64(n) {
		from, to := x.span(first + i)
		var l raft.Log
		if err := parseEntry(text[from:to], first+i, &l); err != nil {
			t.Fatalf("entry %d: %q: %v", first+i, text[from:to], err)
		}
	}
	for range 2 { // the second in the place of the first
		if made, err := writeIndex(mem, memDir, x); !made || err != nil {
			t.Fatal(made, err)
		}
	}
	h, err := loadHead(mem, memDir, first)
	if err != nil || h != want {
		t.Fatalf("%+v, %v", h, err)
	}
	y, err := loadIndex(mem, memDir, first)
	if err != nil || y.partHead != want || !slices.Equal(x.starts.short, y.starts.short) {
		t.Fatalf("%+v, %v; want %+v", y, err, x)
	}
	if _, err := loadIndex(mem, memDir, first+1); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// Every damaged byte is found, and every other length.
	good := mem.Files()[indexPath(memDir, first)]
	for at := range good {
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		mem.Put(indexPath(memDir, first), bad)
		if _, err := loadIndex(mem, memDir, first); !errors.Is(err, errBadIndex) {
			t.Fatalf("byte %d: %v", at, err)
		}
		mem.Put(indexPath(memDir, first), good[:at])
		if _, err := loadHead(mem, memDir, first); !errors.Is(err, errBadIndex) {
			t.Fatalf("%d bytes: %v", at, err)
		}
	}
	mem.Put(indexPath(memDir, first), append(slices.Clone(good), 0))
	if _, err := loadHead(mem, memDir, first); !errors.Is(err, errBadIndex) {
		t.Fatal(err)
	}
	mem.Put(indexPath(memDir, first+1), good)
	if _, err := loadHead(mem, memDir, first+1); !errors.Is(err, errBadIndex) {
		t.Fatalf("the index of another part: %v", err)
	}
}

// TestIndexOfAHugePart has offsets that four bytes do not hold.
func TestIndexOfAHugePart(t *testing.T) {
	x := &partIndex{partHead: partHead{first: 5, count: 3, bytes: 1 << 33}, starts: newStarts(3, 1<<33)}
	for _, at := range []int64{0, 1 << 32, 1<<32 + 1} {
		x.starts.add(at)
	}
	text := encodeIndex(x)
	h, sum, err := decodeHead(text[:indexHeadLen], int64(len(text)))
	if err != nil || h != x.partHead {
		t.Fatalf("%+v, %v", h, err)
	}
	y, err := decodeStarts(h, text[indexHeadLen:], sum)
	if err != nil || !slices.Equal(x.starts.long, y.starts.long) {
		t.Fatalf("%+v, %v", y, err)
	}
}

// TestScanPartFindsDamage: what a crash would explain in the open part is damage
// in a sealed one.
func TestScanPartFindsDamage(t *testing.T) {
	text := sealedSample(70, 12)
	lines := bytes.SplitAfter(text, []byte("\n"))
	for name, bad := range map[string][]byte{
		"empty":            {},
		"blank":            []byte("   \n  "),
		"cut off":          text[:len(text)-20],
		"zeros behind":     append(slices.Clone(text), 0, 0),
		"a line less":      slices.Concat(append(slices.Clone(lines[:4]), lines[5:]...)...),
		"another first":    slices.Concat(lines[2:]...),
		"a bit":            slices.Concat(lines[0], lines[1], bytes.Replace(lines[2], []byte("term"), []byte("tern"), 1), lines[3]),
		"a line torn":      slices.Concat(lines[0], lines[1][:10]),
		"text behind":      append(slices.Clone(text), "x\n"...),
		"begins too early": sealedSample(69, 2),
	} {
		mem := memfs.New()
		p := part{partPath(memDir, 70), 70, true}
		mem.Put(p.path, bad)
		_, err := scanPart(mem, p, 1<<20)
		var damage *logstore.CorruptionError
		if !errors.As(err, &damage) || damage.File != p.path || damage.Line == 0 || damage.Index == 0 || damage.Advice == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzIndex reads whatever an index file may hold. What is taken for one comes back
// the same.
func FuzzIndex(f *testing.F) {
	x := &partIndex{partHead: partHead{first: 1, count: 2, bytes: 100, maxTerm: 3, mark: commitMark{2, 1}}, starts: starts{short: []uint32{0, 60}}}
	f.Add(encodeIndex(x))
	x = &partIndex{partHead: partHead{first: logstore.MaxIndex, count: 1, bytes: 1 << 40}, starts: starts{long: []uint64{7}}}
	f.Add(encodeIndex(x))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, text []byte) {
		mem := memfs.New()
		for _, first := range []uint64{1, logstore.MaxIndex} {
			mem.Put(indexPath(memDir, first), text)
			x, err := loadIndex(mem, memDir, first)
			if err != nil {
				if !errors.Is(err, errBadIndex) {
					t.Fatal(err)
				}
				continue
			}
			if x.first != first || x.count < 1 {
				t.Fatal(fmt.Sprint(x.partHead))
			}
			for i := range x.count {
				if from, to := x.span(first + uint64(i)); from < 0 || from >= to || to > x.bytes {
					t.Fatalf("entry %d lies at %d to %d", i, from, to)
				}
			}
			if !bytes.Equal(encodeIndex(x), text) {
				t.Fatal("it comes back as another")
			}
		}
	})
}
