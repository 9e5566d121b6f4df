package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// agree fails if the scanner for our lines takes a line that the general reader
// refuses or reads differently.
func agree(t *testing.T, text []byte) (taken bool) {
	t.Helper()
	p, ok := parseWritten(text)
	if !ok {
		return false
	}
	var a, b raft.Log
	if !p.entry(&a) {
		return false // the general reader decides
	}
	q, err := parseLine(text)
	if err != nil {
		t.Fatalf("%q is taken, the general reader says %v", text, err)
	}
	same := p.index == q.index && p.term == q.term && bytes.Equal(p.command, q.command) && p.typ == q.typ && p.plain == q.plain &&
		bytes.Equal(p.data, q.data) && (p.data == nil) == (q.data == nil) && bytes.Equal(p.ext, q.ext) && (p.ext == nil) == (q.ext == nil) &&
		bytes.Equal(p.at, q.at) && p.commit == q.commit && p.batch == q.batch && p.summed == q.summed
	if !same {
		t.Fatalf("%q is %+v, the general reader says %+v", text, p, q)
	}
	if err := q.fill(&b); err != nil {
		t.Fatalf("%q makes an entry, the general reader says %v", text, err)
	}
	if !storetest.Same(&a, &b) {
		t.Fatalf("%q is %+v, the general reader says %+v", text, a, b)
	}
	return true
}

// resum puts the right checksum to a line that was changed.
func resum(line []byte) []byte {
	if len(line) <= crcTailLen {
		return line
	}
	return append(appendCRC(bytes.Clone(line[:len(line)-crcTailLen-1]), 0), '\n')
}

func someEntry(rng *rand.Rand) *raft.Log {
	l := &raft.Log{Index: 1 + rng.Uint64()>>rng.IntN(64), Term: rng.Uint64() >> rng.IntN(64), Type: raft.LogType(rng.IntN(8))}
	if l.Index == 0 {
		l.Index = 1
	}
	raw := make([]byte, rng.IntN(70))
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	switch rng.IntN(6) {
	case 0:
		l.Data = raw
	case 1:
		l.Type, l.Data = 0, fmt.Appendf(nil, `{"KvWrite":{"key":%s,"value":%s}}`, list(raw[:len(raw)/2]), list(raw[len(raw)/2:]))
	case 2:
		l.Type, l.Data = 0, fmt.Appendf(nil, `{"KvWrite":{"key":%s,"value":null}}`, list(raw))
	case 3:
		l.Type, l.Data = 0, fmt.Appendf(nil, `{"UpdateConfig":{"key":%q,"value":"a}}b%s"}}`, `x",y\`, strings.Repeat(" ", rng.IntN(600)))
	case 4:
		l.Type, l.Data = 0, fmt.Appendf(nil, `{"RemoveNode":{"node_id":%d}}`, l.Term)
	}
	if rng.IntN(3) == 0 {
		l.Extensions = raw
	}
	switch rng.IntN(4) {
	case 0:
		l.AppendedAt = time.Unix(rng.Int64N(1<<33), rng.Int64N(1e9)).UTC()
	case 1:
		l.AppendedAt = time.Unix(rng.Int64()>>rng.IntN(40), 0).UTC()
	}
	return l
}

func list(b []byte) string { return strings.ReplaceAll(fmt.Sprint(ints(b)), " ", ",") }

func ints(b []byte) (n []int) {
	for _, c := range b {
		n = append(n, int(c))
	}
	return n
}

// TestBothReadersAgree has both read lines as they are written, lines changed
// in a few bytes, and such lines with a checksum that fits again.
func TestBothReadersAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	interesting := []byte(`"\/{}[],:0129aAzZ+-.TZ=` + "\n \x00\x7f\x80")
	taken := 0
	const rounds = 30_000
	for range rounds {
		l := someEntry(rng)
		line := appendLine(nil, l, rng.Uint64N(3)*7, rng.Uint64N(2)*rng.Uint64N(l.Index))
		if agree(t, line) {
			taken++
		}
		bad := bytes.Clone(line)
		for range 1 + rng.IntN(2) {
			i, c := rng.IntN(len(bad)-1), interesting[rng.IntN(len(interesting))]
			switch rng.IntN(3) {
			case 0:
				bad[i] = c
			case 1:
				bad = append(bad[:i], bad[i+1:]...)
			case 2:
				bad = bytes.Join([][]byte{bad[:i], bad[i:]}, []byte{c})
			}
		}
		agree(t, bad)
		// The inside of a byte string is left to the checksum.
		if !bytes.Contains(line, []byte("KvWrite")) {
			agree(t, resum(bad))
		}
	}
	if taken < rounds*3/4 {
		t.Errorf("only %d of %d lines are read quickly", taken, rounds)
	}
	for _, text := range []string{
		`{"index":1,"term":1,"command":"Noop","type":"noop"`, `{"index":1,"term":1,"command":"Noop","future":{"a":{"b":1}}`,
		`{"index":01,"term":1,"command":"Noop"`, `{"index":0,"term":1,"command":"Noop"`, `{"index":1,"term":1,"command":"Noop","data":"AA=="`,
		`{"index":1,"term":1,"command":{"Future":{"a":{"b":1}}}`, `{"index":1,"term":1,"command":{"RemoveNode":{"node_id":3}},"future":{"a":{}}`,
		`{"index":5,"term":1,"command":"Noop","batch":5`, `{"index":5,"term":1,"command":"Noop","batch":4,"commit":3`,
		`{"index":5,"term":1,"command":"Noop","type":"9"`, `{"index":5,"term":1,"command":"Noop","type":"0"`, `{"index":5,"term":1,"command":"Noop","type":"1","data":"AB=="`,
		`{"index":5,"term":1,"command":"Noop","at":"2026-02-30T00:00:00Z"`, `{"index":5,"term":1,"command":"Noop","at":"2026-02-28T00:00:00.120Z"`,
		`{"index":5,"term":1,"command":"Noop","at":"0000-01-01T00:00:00Z"`, `{"index":5,"term":1,"command":"Noop","at":"2024-02-29T23:59:59.1Z"`,
	} {
		agree(t, append(appendCRC([]byte(text), 0), '\n'))
	}
}

// TestReadAllocatesTheEntryAlone: one allocation for the bytes of an entry,
// none besides.
func TestReadAllocatesTheEntryAlone(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for i, data := range []string{"opaque bytes", `{"KvWrite":{"key":[1,2],"value":[3]}}`, `{"RemoveNode":{"node_id":3}}`} {
		if err := s.StoreLog(&raft.Log{Index: uint64(i) + 1, Term: 3, Data: []byte(data), AppendedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i <= 3; i++ {
		var l raft.Log
		allocs := testing.AllocsPerRun(200, func() {
			if err := s.GetLog(i, &l); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 1 && !raceEnabled {
			t.Errorf("entry %d: %v allocations", i, allocs)
		}
	}
}

// TestUnknownCommand: it is taken as it stands, but only if a checksum vouches for
// it: a line of the original that was damaged must not turn into data.
func TestUnknownCommand(t *testing.T) {
	const line = `{"index":9,"term":2,"command":"Noop47529"}`
	for _, summed := range []bool{false, true} {
		text := []byte(line)
		if summed {
			text = appendCRC([]byte(line[:len(line)-1]), 0)
		}
		fs := memWith(map[string][]byte{memLog: append(text, '\n')})
		s, err := Open(memDir, onMem(fs))
		report, verifyErr := Verify(memDir, onMem(fs))
		if verifyErr != nil || report.OK() != summed || (err == nil) != summed {
			t.Fatalf("summed %v: Open: %v, Verify: %+v, %v", summed, err, report, verifyErr)
		}
		events, tailErr := collectTail(memDir, 1, onMem(fs))
		if want := map[bool]string{false: "damage line 1", true: "9/2"}[summed]; tailErr != nil || !slices.Equal(events, []string{want}) {
			t.Fatalf("summed %v: Tail: %q, %v", summed, events, tailErr)
		}
		if !summed {
			if !errors.Is(err, logstore.ErrCorrupt) {
				t.Fatal(err)
			}
			continue
		}
		var l raft.Log
		if err := s.GetLog(9, &l); err != nil || string(l.Data) != `"Noop47529"` {
			t.Fatalf("%q, %v", l.Data, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
