package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// sample returns a state with some of everything.
func sample(t testing.TB) *State {
	s := NewState()
	fork, err := ForkCommand(protocol.Fork{Epoch: 3, NodeID: 2, Parent: 1, LSN: 9})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []command.Command{
		command.AddNode{NodeID: 1, Address: "a:1"}, command.AddNode{NodeID: 2, Address: "é\n:1"},
		command.AssignShard{TableID: 7, ShardID: 1, NodeID: 2}, command.UpdateConfig{Key: "k", Value: "v"}, fork,
		command.KvWrite{Key: []byte("k\n\xff"), Value: []byte{0, '\n'}}, command.Noop{},
	} {
		if r := s.Apply(uint64(i+1), 3, c); r.Refused != "" {
			t.Fatalf("%+v", r)
		}
	}
	return s
}

func write(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteSnapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sealed gives a snapshot's lines the last line they need.
func sealed(lines ...string) string {
	body := strings.Join(lines, "\n") + "\n"
	return fmt.Sprintf("%send %d crc %08x\n", body, len(lines)-1, crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
}

func TestSnapshotRoundTrip(t *testing.T) {
	for name, s := range map[string]*State{"empty": NewState(), "sample": sample(t)} {
		data := write(t, s)
		got, err := ReadSnapshot(iotest.OneByteReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(write(t, got), data) || !got.equal(s) {
			t.Errorf("%s: comes back as\n%s\nwant\n%s", name, write(t, got), data)
		}
		// The two go on alike.
		fork, err := ForkCommand(protocol.Fork{Epoch: 4, NodeID: 1, Parent: 3, LSN: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, state := range []*State{s, got} {
			if r := state.Apply(100, 4, fork); !r.Changed {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if !got.equal(s) || len(got.History()) != len(s.History()) || got.dataSize != s.dataSize {
			t.Errorf("%s: they part", name)
		}
	}
	if !strings.HasPrefix(sealed("aiondb-ha state 1 index 0 term 0"), string(write(t, NewState()))) {
		t.Error("sealed and WriteSnapshot disagree")
	}
}

// Change any byte, cut anywhere, add anything: refused.
func TestSnapshotDamaged(t *testing.T) {
	data := write(t, sample(t))
	refused := func(how string, data []byte) {
		t.Helper()
		s, err := ReadSnapshot(bytes.NewReader(data))
		if s != nil || !errors.Is(err, ErrBadSnapshot) && !errors.Is(err, ErrSnapshotVersion) {
			t.Errorf("%s: %v, %v", how, s, err)
		}
	}
	for i := range data {
		for _, flip := range []byte{1, 0x10, 0x80} {
			bad := bytes.Clone(data)
			bad[i] ^= flip
			refused(fmt.Sprintf("byte %d of %d changed by %#x", i, len(data), flip), bad)
		}
		refused(fmt.Sprintf("cut at %d", i), data[:i])
	}
	refused("a byte behind", append(bytes.Clone(data), '\n'))
	refused("twice", bytes.Repeat(data, 2))
	refused("endless", bytes.Repeat([]byte{'x'}, maxSnapshotLine+1))
	refused("endless record", append([]byte("aiondb-ha state 1 index 5 term 1\n0 "), bytes.Repeat([]byte{'['}, maxSnapshotLine)...))
}

// A checksum that fits does not make a snapshot good.
func TestSnapshotAgainstTheRules(t *testing.T) {
	const (
		head  = "aiondb-ha state 1 index 5 term 3"
		node1 = `0 {"AddNode":{"node_id":1,"address":"a"}}`
		node2 = `0 {"AddNode":{"node_id":2,"address":"a"}}`
		shard = `0 {"AssignShard":{"table_id":1,"shard_id":1,"node_id":1}}`
		conf  = `0 {"UpdateConfig":{"key":"k","value":"v"}}`
		kvA   = `4 {"KvWrite":{"key":[97],"value":[]}}`
		kvB   = `5 {"KvWrite":{"key":[98],"value":[]}}`
	)
	if _, err := ReadSnapshot(strings.NewReader(sealed(head, node1, node2, shard, conf, kvA, kvB))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	fork := func(key, value string, revision int) string {
		data, err := command.Encode(command.KvWrite{Key: []byte(key), Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s", revision, data)
	}
	const key3 = "ha/timeline/00000000000000000003"
	if _, err := ReadSnapshot(strings.NewReader(sealed(head, fork(key3, `{"epoch":3,"node_id":1}`, 2)))); err != nil {
		t.Fatalf("the good fork: %v", err)
	}
	for name, lines := range map[string][]string{
		"no header":            {node1},
		"header with more":     {head + " "},
		"header with a sign":   {"aiondb-ha state 1 index +5 term 3"},
		"header with zeros":    {"aiondb-ha state 1 index 05 term 3"},
		"out of order":         {head, node2, node1},
		"kinds out of order":   {head, conf, node1},
		"keys out of order":    {head, kvB, kvA},
		"twice":                {head, kvA, kvA},
		"changed later":        {head, `0 {"UpdateConfig":{"key":"k","value":"u"}}`, conf},
		"shard of a stranger":  {head, node2, shard},
		"removed":              {head, node1, `0 {"RemoveNode":{"node_id":1}}`},
		"noop":                 {head, `0 "Noop"`},
		"delete":               {head, `4 {"KvWrite":{"key":[97],"value":null}}`},
		"unknown command":      {head, `0 {"Compact":{}}`},
		"not canonical":        {head, `4 {"KvWrite":{"key":[ 97],"value":[]}}`},
		"another field":        {head, `0 {"AddNode":{"node_id":1,"address":"a","x":1}}`},
		"no revision":          {head, `{"AddNode":{"node_id":1,"address":"a"}}`},
		"negative revision":    {head, `-1 {"AddNode":{"node_id":1,"address":"a"}}`},
		"member with revision": {head, `1 {"AddNode":{"node_id":1,"address":"a"}}`},
		"revision too high":    {head, `6 {"KvWrite":{"key":[97],"value":[]}}`},
		"blank line":           {head, ""},
		"fork of the future":   {head, fork("ha/timeline/00000000000000000004", `{"epoch":4,"node_id":1}`, 2)},
		"fork that is none":    {head, fork(key3, `{}`, 2)},
		"fork elsewhere":       {head, fork(key3, `{"epoch":2,"node_id":1}`, 2)},
		"fork at no number":    {head, fork("ha/timeline/x", `{"epoch":2,"node_id":1}`, 2)},
	} {
		s, err := ReadSnapshot(strings.NewReader(sealed(lines...)))
		if s != nil || !errors.Is(err, ErrBadSnapshot) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	s, err := ReadSnapshot(strings.NewReader(sealed("aiondb-ha state 2 index 5 term 3")))
	if s != nil || !errors.Is(err, ErrSnapshotVersion) || errors.Is(err, ErrBadSnapshot) {
		t.Errorf("version 2: %v, %v", s, err)
	}
}

func TestSnapshotIOErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	data := write(t, sample(t))
	for _, n := range []int{0, 10, 60, len(data)} {
		r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken))
		if s, err := ReadSnapshot(r); s != nil || !errors.Is(err, broken) || errors.Is(err, ErrBadSnapshot) {
			t.Errorf("after %d bytes: %v, %v", n, s, err)
		}
	}
	if err := sample(t).WriteSnapshot(failingWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// countingWriter looks at the size of the pieces it is given.
type countingWriter struct{ total, largest int }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.total += len(p)
	w.largest = max(w.largest, len(p))
	return len(p), nil
}

// A large state streams: what writing it takes beside the state is small.
func TestSnapshotStreams(t *testing.T) {
	s := NewState()
	value := bytes.Repeat([]byte{200}, 4<<10)
	for i := range 2000 { // 8 MB, 32 MB as text
		if r := s.Apply(uint64(i+1), 1, command.KvWrite{Key: fmt.Appendf(nil, "%d", i), Value: value}); !r.Changed {
			t.Fatalf("%+v", r)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var w countingWriter
	if err := s.WriteSnapshot(&w); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 || w.total < 30e6 || w.largest > 128<<10 {
		t.Errorf("%d bytes in pieces up to %d took %d bytes of memory", w.total, w.largest, took)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(write(f, NewState()))
	f.Add(write(f, sample(f)))
	f.Fuzz(func(t *testing.T, body []byte) {
		// Give it the last line it needs, so that the fuzzer gets past it.
		for _, data := range [][]byte{body, []byte(sealed(strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")...))} {
			s, err := ReadSnapshot(bytes.NewReader(data))
			if err != nil {
				if s != nil {
					t.Fatal("a state and an error")
				}
				continue
			}
			if again := write(t, s); !bytes.Equal(again, data) {
				t.Fatalf("accepted\n%q\nwrites\n%q", data, again)
			}
		}
	})
}
