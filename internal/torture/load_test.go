package torture

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestJudgeAnswer(t *testing.T) {
	lost := errors.New("connection reset")
	for _, tt := range []struct {
		name string
		a    answer
		sent bool
		err  error
		kind OpKind
		want Outcome
	}{
		{"done", answer{status: 200}, true, nil, OpPut, OK},
		{"no connection", answer{}, false, lost, OpPut, Refused},
		{"connection lost", answer{}, true, lost, OpPut, Unknown},
		{"nothing there", answer{status: 404, Code: "not_found"}, true, nil, OpGet, OK},
		{"not found is no answer to a write", answer{status: 404, Code: "not_found"}, true, nil, OpPut, Unknown},
		{"no quorum", answer{status: 503, Code: "no_quorum"}, true, nil, OpPut, Refused},
		{"another primary", answer{status: 503, Code: "not_primary"}, true, nil, OpPut, Refused},
		{"unknown", answer{status: 504, Code: "unknown_outcome"}, true, nil, OpPut, Unknown},
		{"a code of tomorrow", answer{status: 503, Code: "brand_new"}, true, nil, OpPut, Unknown},
		{"an internal error", answer{status: 500, Code: "internal"}, true, nil, OpPut, Unknown},
		{"another revision", answer{status: 409, Code: codeDiffers}, true, nil, OpCompare, Differs},
		{"another revision, not asked for", answer{status: 409, Code: codeDiffers}, true, nil, OpPut, Unknown},
	} {
		if got, _ := judgeAnswer(tt.a, tt.sent, tt.err, tt.kind); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// What a killed run has left is cleared away; what one keeps, and what one that
// still runs uses, is not.
func TestLeftoversAreCleared(t *testing.T) {
	temp := t.TempDir()
	place := func(name string, running bool) string {
		dir := filepath.Join(temp, tempPattern+name)
		if err := os.MkdirAll(filepath.Join(dir, "cluster"), 0o700); err != nil {
			t.Fatal(err)
		}
		if running {
			if err := os.WriteFile(filepath.Join(dir, runningName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dead, kept, alive := place("dead", true), place("kept", false), place("alive", true)
	lock, err := os.OpenFile(filepath.Join(alive, runningName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	clearLeftovers(temp)
	for dir, want := range map[string]bool{dead: false, kept: true, alive: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}
