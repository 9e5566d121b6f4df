package jsonlstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
)

// damagedParts is how many directories TestDamagedParts makes, unless the
// environment says otherwise (DAMAGED_PARTS=1000000).
const damagedParts = 6000

// TestDamagedParts makes directories of whole lines: parts that overlap, leave
// something out, begin elsewhere than they say, with lines dropped, doubled, blank,
// damaged and torn. What FuzzOpenParts asks of a directory is asked of them; that one
// damages bytes, and seldom gets beyond the first bad checksum.
func TestDamagedParts(t *testing.T) {
	count := damagedParts
	if text, ok := os.LookupEnv("DAMAGED_PARTS"); ok {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatalf("DAMAGED_PARTS: %v", err)
		}
	} else if testing.Short() || raceEnabled {
		count /= 20
	}
	var lines [][]byte
	for seed := range uint64(count) {
		if seed%50 == 0 {
			lines = someLines(t, seed)
		}
		d := damageParts(rand.New(rand.NewPCG(seed, 1)), lines)
		if !t.Run(fmt.Sprint(seed), d.check) {
			t.Fatalf("seed %d: %v", seed, d)
		}
	}
}

// damagedDir is what checkParts is given.
type damagedDir struct {
	one, index, two, open []byte
	second                uint8
	first, cut            uint64
}

func (d damagedDir) check(t *testing.T) {
	checkParts(t, d.one, d.index, d.two, d.second, d.open, d.first, d.cut)
}

// String shows the lines, shortened.
func (d damagedDir) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "first_index %d, cut_after+1 %d", d.first, d.cut)
	for _, p := range []struct {
		name string
		text []byte
	}{{"part 1", d.one}, {fmt.Sprintf("part %d", d.second), d.two}, {"open part", d.open}} {
		fmt.Fprintf(&b, "\n%s:", p.name)
		for line := range bytes.Lines(p.text) {
			if n := len(line); n > 80 {
				fmt.Fprintf(&b, "\n  %q..%q %d bytes", line[:45], line[n-25:], n)
			} else {
				fmt.Fprintf(&b, "\n  %q", line)
			}
		}
	}
	return b.String()
}

// someLines returns the lines of a small log, of batches and entries of any size.
func someLines(t *testing.T, seed uint64) [][]byte {
	t.Helper()
	const entries = 12
	r := rand.New(rand.NewPCG(seed, 2))
	fs := memfs.New()
	s, err := Open(memDir, inParts(fs, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= entries; {
		var logs []*raft.Log
		for range 1 + r.IntN(3) {
			logs = append(logs, &raft.Log{Index: i, Term: 1 + i/5, Type: raft.LogBarrier, Data: bytes.Repeat([]byte{byte(i)}, r.IntN(700))})
			i++
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(bytes.Lines(bytes.TrimRight(fs.Files()[memLog], " \x00")))
}

// damageParts makes two sealed parts and an open one of lines, as a store would leave
// them in about one case of ten.
func damageParts(r *rand.Rand, lines [][]byte) (d damagedDir) {
	rare := func(n int) bool { return r.IntN(n) == 0 }
	anywhere := func() int { return r.IntN(len(lines)) }
	from := 0
	if rare(4) {
		from = r.IntN(7)
	}
	to := from + r.IntN(6)
	if rare(8) {
		from, to = 0, 0
	}
	end := min(to+r.IntN(6), len(lines))
	d.one = damageLines(r, lines, from, to)
	if rare(3) {
		to = max(1, to)
		d.one = slices.Concat(lines[:to]...)
	}
	d.index = []byte(indexMagic)
	if !rare(6) {
		d.index = indexOf(d.one, d.index)
	}
	two, last := to, end
	if rare(6) {
		two = r.IntN(end + 1)
	}
	if rare(6) {
		last = anywhere()
	}
	d.two = damageLines(r, lines, min(two, last), max(two, last))
	if d.second = uint8(two + 1); rare(6) {
		d.second = uint8(r.IntN(10))
	}
	if rare(5) {
		end = anywhere()
	}
	d.open = damageLines(r, lines, end, min(end+r.IntN(7), len(lines)))
	switch r.IntN(8) {
	case 0:
		d.open = slices.Concat(d.two, d.open)
	case 1:
		d.open = slices.Concat(d.one, d.open)
	}
	if !rare(3) {
		d.first = uint64(r.IntN(len(lines) + 1))
	}
	if rare(3) {
		d.cut = uint64(r.IntN(len(lines) + 2))
	}
	return d
}

// indexOf returns the index file of the first part; bad, if the part is none.
func indexOf(one, bad []byte) []byte {
	path := partPath(memDir, 1)
	x, err := scanPart(memWith(map[string][]byte{path: one}), part{path: path, first: 1, sealed: true}, maxLineLen(fuzzMaxEntry))
	if err != nil {
		return bad
	}
	return encodeIndex(x)
}

// damageLines returns some of the lines as a file, in one case of three damaged.
func damageLines(r *rand.Rand, lines [][]byte, from, to int) []byte {
	some := slices.Clone(lines[from:to])
	for k := r.IntN(3) * r.IntN(2); k > 0 && len(some) > 0; k-- {
		some = damageLine(r, some, r.IntN(len(some)), lines)
	}
	out := slices.Concat(some...)
	room := r.IntN(1100)
	switch r.IntN(12) {
	case 0:
		out = append(out, bytes.Repeat([]byte(" "), room)...)
	case 1:
		out = append(out, make([]byte, room)...)
	case 2:
		out = out[:r.IntN(len(out)+1)]
	case 3: // a sector that was never written
		if n := len(out) / vfs.SectorSize; n > 0 {
			at := r.IntN(n) * vfs.SectorSize
			copy(out[at:], bytes.Repeat([]byte(" "), vfs.SectorSize))
		}
	case 4:
		if len(out) > 0 {
			out[r.IntN(len(out))] ^= 1
		}
	}
	return out
}

func damageLine(r *rand.Rand, some [][]byte, i int, lines [][]byte) [][]byte {
	line := slices.Clone(some[i])
	switch r.IntN(9) {
	case 0:
		return slices.Delete(some, i, i+1)
	case 1:
		return slices.Insert(some, i, some[r.IntN(len(some))])
	case 2:
		return slices.Insert(some, i, lines[r.IntN(len(lines))])
	case 3:
		some[i] = []byte("\n")
	case 4:
		line = append(line, '\n')
		line[r.IntN(len(line))] ^= 1 << r.IntN(8)
		some[i] = line
	case 5:
		some[i] = line[:r.IntN(len(line)+1)]
	case 6:
		some[i] = append(line[:r.IntN(len(line)+1)], '\n')
	case 7:
		some[i] = bytes.Repeat([]byte{" \x00"[r.IntN(2)]}, len(line))
	case 8:
		some[i] = append(line, bytes.Repeat([]byte(" "), r.IntN(1100))...)
	}
	return some
}
