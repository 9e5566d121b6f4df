package fsm

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

var update = flag.Bool("update", false, "write the transcripts anew; review the difference")

// The transcript is a script and what came of it: an entry a line, "TERM
// COMMAND", or a question to the state. What is indented is the answer, and is
// written anew with -update.
func TestTranscript(t *testing.T) {
	const path = "testdata/transcript.txt"
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	state := NewState()
	for line := range strings.Lines(string(want)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&got, line)
		if line == "" || line[0] == '#' {
			continue
		}
		answer, err := tell(&state, line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for l := range strings.Lines(answer) {
			fmt.Fprintf(&got, "    %s\n", strings.TrimSuffix(l, "\n"))
		}
	}
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("what came of %s is now (write it with -update if it is right):\n%s", path, got.Bytes())
	}
}

// tell carries out one line of a transcript.
func tell(state **State, line string) (string, error) {
	show := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}
	switch word, rest, _ := strings.Cut(line, " "); word {
	case "members":
		return show((*state).Members())
	case "shards":
		return show((*state).Shards())
	case "settings":
		return show((*state).Settings())
	case "history":
		return show((*state).History())
	case "applied":
		index, term := (*state).Applied()
		return fmt.Sprintf("index %d, term %d", index, term), nil
	case "kv":
		var b strings.Builder
		for _, e := range (*state).KVList([]byte(rest), 0) {
			fmt.Fprintf(&b, "%s = %q, revision %d\n", e.Key, e.Value, e.Revision)
		}
		return b.String(), nil
	case "snapshot":
		var b bytes.Buffer
		err := (*state).WriteSnapshot(&b)
		return b.String(), err
	case "restore":
		var b bytes.Buffer
		if err := (*state).WriteSnapshot(&b); err != nil {
			return "", err
		}
		s, err := ReadSnapshot(&b)
		*state = s
		return "", err
	default:
		term, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return "", err
		}
		c, err := command.Decode([]byte(rest))
		if err != nil {
			return "", err
		}
		index, _ := (*state).Applied()
		return show((*state).Apply(index+1, term, c))
	}
}
