package command

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/aiondb/aiondb-ha/protocol"
)

// randomCommand makes commands of all kinds with unpleasant contents.
func randomCommand(rng *rand.Rand) Command {
	number := func() uint64 { return rng.Uint64() >> rng.IntN(64) }
	node := func() protocol.NodeID { return protocol.NodeID(number()) }
	alphabet := []rune("ab\"\\/\x00\x01\b\t\n\v\f\r\x1f \x7f\u0080é\u2028\u2029\ufeff\ufffd𝄞\U0010ffff")
	text := func() string {
		var s []rune
		for range rng.IntN(12) {
			s = append(s, alphabet[rng.IntN(len(alphabet))])
		}
		return string(s)
	}
	data := func() []byte {
		b := make([]byte, rng.IntN(20))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	switch rng.IntN(8) {
	case 0:
		return Noop{}
	case 1:
		return AddNode{node(), text()}
	case 2:
		return RemoveNode{node()}
	case 3:
		return AssignShard{number(), rng.Uint32(), node()}
	case 4:
		return TransferShard{number(), rng.Uint32(), node(), node()}
	case 5:
		return UpdateConfig{text(), text()}
	case 6:
		return KvWrite{Key: data(), Delete: true}
	default:
		return KvWrite{Key: data(), Value: data()}
	}
}

// fields is what the library's decoder makes of a command, whichever it is.
type fields struct {
	NodeID   protocol.NodeID `json:"node_id"`
	Address  string          `json:"address"`
	TableID  uint64          `json:"table_id"`
	ShardID  uint32          `json:"shard_id"`
	FromNode protocol.NodeID `json:"from_node"`
	ToNode   protocol.NodeID `json:"to_node"`
	Key      any             `json:"key"`
	Value    any             `json:"value"`
}

func fieldsOf(c Command) fields {
	numbers := func(b []byte) any {
		all := make([]any, len(b))
		for i := range b {
			all[i] = float64(b[i])
		}
		return all
	}
	switch c := c.(type) {
	case AddNode:
		return fields{NodeID: c.NodeID, Address: c.Address}
	case RemoveNode:
		return fields{NodeID: c.NodeID}
	case AssignShard:
		return fields{TableID: c.TableID, ShardID: c.ShardID, NodeID: c.NodeID}
	case TransferShard:
		return fields{TableID: c.TableID, ShardID: c.ShardID, FromNode: c.FromNode, ToNode: c.ToNode}
	case UpdateConfig:
		return fields{Key: c.Key, Value: c.Value}
	case KvWrite:
		f := fields{Key: numbers(c.Key)}
		if !c.Delete {
			f.Value = numbers(c.Value)
		}
		return f
	}
	return fields{}
}

// What is encoded means the same to the library's JSON decoder, is canonical, and
// comes back.
func TestEncodeAgainstLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for range 20_000 {
		c := randomCommand(rng)
		data, err := Encode(c)
		if err != nil {
			t.Fatalf("%#v: %v", c, err)
		}
		if !utf8.Valid(data) || !IsCanonical(data) {
			t.Fatalf("%#v: %s is not canonical", c, data)
		}
		if got, err := Decode(data); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%#v: %s decodes to %#v, %v", c, data, got, err)
		}
		if _, ok := c.(Noop); ok {
			continue
		}
		var twin map[string]fields
		if err := json.Unmarshal(data, &twin); err != nil || len(twin) != 1 || !reflect.DeepEqual(twin[c.Name()], fieldsOf(c)) {
			t.Fatalf("%s is %+v to the library (%v), want %+v", data, twin, err, fieldsOf(c))
		}
	}
}

// Change one byte of a canonical text: IsCanonical must agree with the way
// round by Decode and Encode.
func TestCanonicalUnderMutation(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	interesting := []byte(`"\/bfnrtu0189aAeE-+.,:{}[] ` + "\n\x00\x1f\x7f\x80\xff")
	for range 200_000 {
		data, err := Encode(randomCommand(rng))
		if err != nil {
			t.Fatal(err)
		}
		i, b := rng.IntN(len(data)), interesting[rng.IntN(len(interesting))]
		switch rng.IntN(3) {
		case 0:
			data[i] = b
		case 1:
			data = append(data[:i], data[i+1:]...)
		case 2:
			data = bytes.Join([][]byte{data[:i], data[i:]}, []byte{b})
		}
		checkCanonical(t, data)
	}
}

// checkCanonical compares IsCanonical with its definition.
func checkCanonical(t *testing.T, data []byte) {
	t.Helper()
	want := false
	if c, err := Decode(data); err == nil {
		again, err := Encode(c)
		if err != nil {
			t.Fatalf("%q decodes to %#v, which does not encode: %v", data, c, err)
		}
		if len(again) > len(data) {
			t.Fatalf("%q is shorter than its canonical form %q", data, again)
		}
		want = bytes.Equal(again, data)
		if back, err := Decode(again); err != nil || !reflect.DeepEqual(back, c) {
			t.Fatalf("%q: %#v comes back as %#v, %v", data, c, back, err)
		}
	}
	if got := IsCanonical(data); got != want {
		t.Fatalf("IsCanonical(%q) is %v, want %v", data, got, want)
	}
}

func TestIsCanonicalAllocatesNothing(t *testing.T) {
	raw, err := os.ReadFile("testdata/interop/commands.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	canonical := 0
	allocs := testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			if IsCanonical(line) {
				canonical++
			}
		}
	})
	if allocs != 0 || canonical != 101*len(lines) {
		t.Errorf("%v allocations, %d of %d canonical", allocs, canonical, 101*len(lines))
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := os.ReadFile("testdata/interop/commands.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		f.Add(line) // with its newline: good, not canonical
		f.Add(bytes.TrimSpace(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkCanonical(t, data) })
}

func BenchmarkIsCanonical(b *testing.B) {
	data, err := Encode(KvWrite{Key: []byte("some/key"), Value: make([]byte, 1024)})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if !IsCanonical(data) {
			b.Fatal("not canonical")
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data, err := Encode(KvWrite{Key: []byte("some/key"), Value: make([]byte, 1024)})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
