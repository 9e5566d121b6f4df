package command

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Other forms of the same command: they decode, and are not canonical.
func TestDecodeOtherForms(t *testing.T) {
	for _, test := range []struct {
		in   string
		want Command
	}{
		{" \t\r\n\"Noop\"\n", Noop{}},
		{`"\u004eoop"`, Noop{}},
		{`{"Noop":null}`, Noop{}},
		{`{ "AddNode" : { "address" : "a" , "node_id" : 1 } }`, AddNode{1, "a"}},
		{`{"Add\u004eode":{"node_\u0069d":1,"address":"\u0061\/\u00e9\ud834\udd1e\u2028"}}`, AddNode{1, "a/é𝄞\u2028"}},
		{`{"AddNode":{"node_id":1,"address":"\u0008\u000C\u007f"}}`, AddNode{1, "\b\f\x7f"}},
		{`{"RemoveNode":{"node_id":1,"since":[1.5e-3,{"a":{}},"\n",true,false,null,-0.0,[]]}}`, RemoveNode{1}},
		{`{"RemoveNode":{"x":"]}","node_id":1}}`, RemoveNode{1}},
		{`{"KvWrite":{"value":[ ],"key":[ 1 , 255 ]}}`, KvWrite{Key: []byte{1, 255}, Value: []byte{}}},
		{`{"KvWrite":{"value": null ,"key":[]}}`, KvWrite{Key: []byte{}, Delete: true}},
		{`{"UpdateConfig":{"key":"\u0000","value":"A"} }`, UpdateConfig{"\x00", "A"}},
	} {
		got, err := Decode([]byte(test.in))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s\n got %#v, %v\nwant %#v", test.in, got, err, test.want)
		}
		if IsCanonical([]byte(test.in)) {
			t.Errorf("%s is taken for canonical", test.in)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := func(n int) string {
		return `{"RemoveNode":{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `,"node_id":1}}`
	}
	if _, err := Decode([]byte(deep(MaxDepth - 2))); err != nil {
		t.Errorf("nested to the limit: %v", err)
	}
	for _, in := range []string{
		``, ` `, `null`, `true`, `1`, `[]`, `{}`, `"`, `"Noop`, `Noop`, `"noop"`, `"AddNode"`, `"Noop"x`, `"Noop""Noop"`, "\"Noop\"\x00",
		`{"Noop":{}}`, `{"Noop":nul}`, `{"Noop":null,"Noop":null}`, `{"Noop"}`, `{"Noop":null`, `{"Noop":null}}`,
		// fields: missing, twice, wrong
		`{"AddNode":{}}`, `{"AddNode":{"node_id":1}}`, `{"AddNode":{"address":"a"}}`, `{"AddNode":[1,"a"]}`, `{"AddNode":null}`,
		`{"AddNode":{"node_id":1,"address":"a","node_id":1}}`, `{"AddNode":{"node_id":1,"address":null}}`, `{"AddNode":{"node_id":1,"address":7}}`,
		`{"KvWrite":{"key":[]}}`, `{"KvWrite":{"key":null,"value":null}}`, `{"KvWrite":{"key":"k","value":null}}`, `{"KvWrite":{"value":null}}`,
		`{"KvWrite":{"key":[],"value":null,"value":[]}}`, `{"RemoveNode":{"node_id":1},"Noop":null}`, `{"RemoveNode":{"NODE_ID":1}}`,
		// commas and colons
		`{"AddNode":{"node_id":1,"address":"a",}}`, `{"AddNode":{,"node_id":1,"address":"a"}}`, `{"AddNode":{"node_id":1 "address":"a"}}`,
		`{"AddNode":{"node_id",1}}`, `{"RemoveNode":{"node_id":1},}`, `{"KvWrite":{"key":[1,],"value":null}}`, `{"KvWrite":{"key":[,1],"value":null}}`,
		`{"KvWrite":{"key":[1 2],"value":null}}`, `{"KvWrite":{"key":[1,2,"value":null}}`,
		// numbers
		`{"RemoveNode":{"node_id":-1}}`, `{"RemoveNode":{"node_id":-0}}`, `{"RemoveNode":{"node_id":+1}}`, `{"RemoveNode":{"node_id":01}}`, `{"RemoveNode":{"node_id":00}}`,
		`{"RemoveNode":{"node_id":1.0}}`, `{"RemoveNode":{"node_id":1e0}}`, `{"RemoveNode":{"node_id":1E2}}`, `{"RemoveNode":{"node_id":"1"}}`, `{"RemoveNode":{"node_id":0x1}}`,
		`{"RemoveNode":{"node_id":18446744073709551616}}`, `{"RemoveNode":{"node_id":184467440737095516150}}`, `{"RemoveNode":{"node_id":}}`,
		`{"AssignShard":{"table_id":1,"shard_id":4294967296,"node_id":1}}`, `{"KvWrite":{"key":[256],"value":null}}`, `{"KvWrite":{"key":[-1],"value":null}}`,
		`{"KvWrite":{"key":[1.0],"value":null}}`, `{"KvWrite":{"key":[[1]],"value":null}}`,
		// text
		`{"AddNode":{"node_id":1,"address":"\x"}}`, `{"AddNode":{"node_id":1,"address":"\u12"}}`, `{"AddNode":{"node_id":1,"address":"\u12g4"}}`,
		`{"AddNode":{"node_id":1,"address":"\ud834"}}`, `{"AddNode":{"node_id":1,"address":"\ud834x"}}`, `{"AddNode":{"node_id":1,"address":"\ud834\u0041"}}`,
		`{"AddNode":{"node_id":1,"address":"\udd1e\ud834"}}`, `{"AddNode":{"node_id":1,"address":"\ud834\ud834"}}`,
		"{\"AddNode\":{\"node_id\":1,\"address\":\"\n\"}}", "{\"AddNode\":{\"node_id\":1,\"address\":\"\\n\x1f\"}}",
		"{\"AddNode\":{\"node_id\":1,\"address\":\"\xff\"}}", "{\"AddNode\":{\"node_id\":1,\"address\":\"\\n\xc3\"}}",
		"{\"AddNode\":{\"node_id\":1,\"address\":\"\xed\xa0\x80\"}}", `{"AddNode":{"node_id":1,"address":"a`, `{"AddNode":{"node_id":1,"address":"\`,
		// what is ignored must be JSON all the same
		`{"RemoveNode":{"node_id":1,"x":}}`, `{"RemoveNode":{"node_id":1,"x":[}}`, `{"RemoveNode":{"node_id":1,"x":[1,]}}`, `{"RemoveNode":{"node_id":1,"x":{"a"}}}`,
		`{"RemoveNode":{"node_id":1,"x":01}}`, `{"RemoveNode":{"node_id":1,"x":1.}}`, `{"RemoveNode":{"node_id":1,"x":.5}}`, `{"RemoveNode":{"node_id":1,"x":1e}}`,
		`{"RemoveNode":{"node_id":1,"x":-}}`, `{"RemoveNode":{"node_id":1,"x":tru}}`, `{"RemoveNode":{"node_id":1,"x":NaN}}`, "{\"RemoveNode\":{\"node_id\":1,\"x\":\"\xff\"}}",
		`{"RemoveNode":{"node_id":1,"x":{"a":1,}}}`, `{"RemoveNode":{"node_id":1,"x`, `{"RemoveNode":{"node_id":1,"x":`,
		deep(MaxDepth - 1), `{"RemoveNode":{"x":` + strings.Repeat(`[`, 1<<20), `{"RemoveNode":{"x":` + strings.Repeat(`{"":`, 1<<18),
	} {
		shown := in[:min(len(in), 80)]
		c, err := Decode([]byte(in))
		if c != nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %#v, %v", shown, c, err)
		}
		if IsCanonical([]byte(in)) {
			t.Errorf("%q is taken for canonical", shown)
		}
	}
}

func TestDecodeUnknown(t *testing.T) {
	for in, unknown := range map[string]bool{
		`"Compact"`:                              true,
		`{"MergeShards":{"a":1}}`:                true,
		`{"` + strings.Repeat("x", 1e6):          false, // no name: it does not end
		`{"` + strings.Repeat("x", 1e6) + `":1}`: true,
		`{"AddNode":{"node_id":1}}`:              false,
		`"AddNode"`:                              false,
	} {
		_, err := Decode([]byte(in))
		if errors.Is(err, ErrUnknown) != unknown || !errors.Is(err, ErrMalformed) || len(err.Error()) > 300 {
			t.Errorf("%.60q: unknown should be %v: %.400v", in, unknown, err)
		}
	}
}

// A decoded command must not change when the buffer it came from is reused.
func TestDecodeCopies(t *testing.T) {
	for _, in := range []string{`{"AddNode":{"node_id":1,"address":"abc"}}`, `{"UpdateConfig":{"key":"abc","value":"\nabc"}}`, `{"KvWrite":{"key":[1,2],"value":[3]}}`} {
		buf := []byte(in)
		c, err := Decode(buf)
		if err != nil {
			t.Fatal(err)
		}
		for i := range buf {
			buf[i] = 'z'
		}
		if again, err := Encode(c); err != nil || string(again) != in {
			t.Errorf("%s became %s, %v", in, again, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, c := range map[string]Command{
		"nil":           nil,
		"pointer":       &AddNode{NodeID: 1, Address: "a"},
		"address":       AddNode{1, "\xff"},
		"setting key":   UpdateConfig{"\xc3", ""},
		"setting value": UpdateConfig{"", "\xed\xa0\x80"},
		"delete value":  KvWrite{Delete: true, Value: []byte{1}},
	} {
		out, err := Append([]byte("before"), c)
		if string(out) != "before" || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}

// MaxDataLen bytes of the worst kind fit, and MaxCommandLen is exact.
func TestLengthLimit(t *testing.T) {
	worst := bytes.Repeat([]byte{255}, MaxDataLen)
	for _, c := range []Command{
		KvWrite{Key: worst[:100], Value: worst[100:]},
		KvWrite{Key: worst, Value: nil},
		KvWrite{Key: worst, Delete: true},
	} {
		data, err := Encode(c)
		if err != nil {
			t.Fatalf("%d bytes of data: %v", MaxDataLen, err)
		}
		if _, err := Decode(data); err != nil || !IsCanonical(data) {
			t.Errorf("comes back with %v", err)
		}
	}
	frame := len(`{"UpdateConfig":{"key":"","value":""}}`)
	exact := UpdateConfig{Value: strings.Repeat("v", MaxCommandLen-frame)}
	data, err := Encode(exact)
	if err != nil || len(data) != MaxCommandLen || !IsCanonical(data) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if got, err := Decode(data); err != nil || got != exact {
		t.Errorf("at the limit: %v", err)
	}
	for name, c := range map[string]Command{
		"one more":   UpdateConfig{Key: "k", Value: exact.Value},
		"escapes":    UpdateConfig{Value: strings.Repeat("\x00", MaxCommandLen/6)},
		"much more":  UpdateConfig{Value: strings.Repeat("v", 3*MaxCommandLen)},
		"bytes":      KvWrite{Key: worst, Value: worst},
		"zero bytes": KvWrite{Key: make([]byte, 64<<20)},
	} {
		if out, err := Encode(c); out != nil || !errors.Is(err, ErrTooLong) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
	over := append(data, ' ')
	if _, err := Decode(over); !errors.Is(err, ErrTooLong) {
		t.Errorf("Decode over the limit: %v", err)
	}
	if IsCanonical([]byte(strings.Replace(string(data), "vv", "vvv", 1))) {
		t.Error("IsCanonical over the limit")
	}
}

func TestNames(t *testing.T) {
	for _, c := range []Command{Noop{}, AddNode{}, RemoveNode{}, AssignShard{}, TransferShard{}, UpdateConfig{}, KvWrite{}} {
		data, err := Encode(c)
		if err != nil || !strings.Contains(string(data), `"`+c.Name()+`"`) || reflect.TypeOf(c).Name() != c.Name() {
			t.Errorf("%T: name %s, encoding %s, %v", c, c.Name(), data, err)
		}
	}
}
