package command

import (
	"bytes"
	"os"
	"testing"
)

// What the original wrote must decode, encode to the same bytes and be known
// for canonical.
func TestInteropCommands(t *testing.T) {
	raw, err := os.ReadFile("testdata/interop/commands.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
	if len(lines) < 17 {
		t.Fatalf("%d vectors, want at least 17", len(lines))
	}
	for i, line := range lines {
		c, err := Decode(line)
		if err != nil {
			t.Errorf("line %d: %v", i+1, err)
			continue
		}
		again, err := Encode(c)
		if err != nil {
			t.Errorf("line %d: encode %#v: %v", i+1, c, err)
			continue
		}
		if !bytes.Equal(again, line) {
			t.Errorf("line %d\n got %s\nwant %s", i+1, again, line)
		}
		if !IsCanonical(line) {
			t.Errorf("line %d: IsCanonical is false for %s", i+1, line)
		}
	}
}
