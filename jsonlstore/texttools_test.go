package jsonlstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// liveLog is a log that a goroutine appends to until the test ends.
type liveLog struct {
	t    *testing.T
	s    *Store
	path string
}

func startLiveLog(t *testing.T) *liveLog {
	t.Helper()
	dir := t.TempDir()
	l := &liveLog{t: t, s: mustOpen(t, dir), path: filepath.Join(dir, LogFile)}
	const already = 200 // so that the first tool has something to read
	l.store(1, already)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for index := uint64(already + 1); ; index++ {
			select {
			case <-stop:
				return
			default:
			}
			l.store(index, index)
		}
	})
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
		if err := l.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// store stores entries of every kind of line.
func (l *liveLog) store(from, to uint64) {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		e := &raft.Log{Index: i, Term: 3, Data: []byte("opaque \xff\n")}
		switch i % 3 {
		case 0:
			e.Type = raft.LogNoop
		case 1:
			data, err := command.Encode(command.UpdateConfig{Key: "motd", Value: "line\none \"quoted\"   "})
			if err != nil {
				l.t.Error(err)
			}
			e.Data = data
		}
		logs = append(logs, e)
	}
	if err := l.s.StoreLogs(logs); err != nil {
		l.t.Error(err)
	}
}

// last returns the index of the last entry.
func (l *liveLog) last() int {
	last, err := l.s.LastIndex()
	if err != nil {
		l.t.Fatal(err)
	}
	return int(last)
}

// toolAttempts is how often a tool is run before it counts as failed: it may read the
// bytes of a line in the very moment in which they are written.
const toolAttempts = 5

// TestTextToolsReadALiveLog runs what people use on text files on a log with
// room at its end, while it is appended to.
func TestTextToolsReadALiveLog(t *testing.T) {
	for _, tool := range []struct {
		line  string // what a person types, without the file
		count func(out []byte) (int, error)
	}{
		{"wc -l", firstNumber},
		{"grep -c \"term\":3", firstNumber},
		{"grep \"index\":", entriesIn},
		{"less", entriesIn},
		{"tail -n +1", entriesIn},
		{"jq -c .", entriesIn},
		{"jq -s length", firstNumber},
	} {
		args := strings.Fields(tool.line)
		t.Run(args[0], func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%s is not installed", args[0])
			}
			l := startLiveLog(t)
			for range 5 {
				for attempt := 1; ; attempt++ {
					err := l.readBy(args, tool.count)
					if err == nil {
						break
					}
					if attempt == toolAttempts {
						t.Fatalf("%s: %v", tool.line, err)
					}
				}
			}
		})
	}
}

// readBy runs a tool on the log: it must see all that was there before it began, and no more
// than what is there when it has ended.
func (l *liveLog) readBy(args []string, count func([]byte) (int, error)) error {
	before := l.last()
	cmd := exec.Command(args[0], append(args[1:len(args):len(args)], l.path)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		return fmt.Errorf("%w %s", err, stderr.String())
	}
	n, err := count(out)
	after := l.last() + 1 // one may be written and not yet be acknowledged
	if err == nil && (n < before || n > after) {
		err = fmt.Errorf("%d entries, there were %d to %d", n, before, after)
	}
	return err
}

func firstNumber(out []byte) (int, error) {
	fields := strings.Fields(string(out))
	if len(fields) == 0 {
		return 0, fmt.Errorf("no output")
	}
	return strconv.Atoi(fields[0])
}

// entriesIn counts lines of JSON, whose indexes must be 1, 2, 3 and so on. Room is
// no line.
func entriesIn(out []byte) (n int, err error) {
	for line := range bytes.Lines(out) {
		if isRoom(bytes.TrimRight(line, "\n")) {
			continue
		}
		var entry struct{ Index int }
		if err := json.Unmarshal(line, &entry); err != nil {
			return 0, fmt.Errorf("%.80q: %w", line, err)
		}
		if n++; entry.Index != n {
			return 0, fmt.Errorf("entry %d where %d should be", entry.Index, n)
		}
	}
	return n, nil
}
