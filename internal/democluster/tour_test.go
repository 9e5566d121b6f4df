package democluster

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
)

func fakeTour(how string, out *bytes.Buffer) TourConfig {
	return TourConfig{
		Cluster: Config{Args: []string{}, Env: []string{fakeEnv + "=" + how}},
		Out:     out, Program: "aiondb-ha", Version: "test",
	}
}

// temporaries lists the clusters' directories in a temporary directory that is
// this test's alone.
func temporaries(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
}

func TestTour(t *testing.T) {
	left := temporaries(t)
	var out bytes.Buffer
	v, err := Tour(deadline(t, 60*time.Second), fakeTour("member", &out))
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !v.OK || v.Nodes != 3 || v.LostWrites != 0 || v.DualPrimaryAcks != 0 || v.AckedWrites < writesBefore || v.Version != "test" || v.DurationMS <= 0 {
		t.Errorf("verdict %+v", v)
	}
	if len(v.Failovers) != 2 || v.Failovers[0].Fault != FaultKill || v.Failovers[1].Fault != FaultSwitchover {
		t.Fatalf("failovers %+v", v.Failovers)
	}
	for _, f := range v.Failovers {
		if f.OldPrimary == f.NewPrimary || f.Node != f.OldPrimary || f.Epoch < 2 || f.FailoverMS <= 0 {
			t.Errorf("failover %+v", f)
		}
	}
	if v.Failovers[1].NewPrimary != v.Failovers[0].OldPrimary {
		t.Errorf("the switchover did not hand back: %+v", v.Failovers)
	}
	for _, word := range []string{"elect", "kill -9", "promoted", "rejoin", "switchover", "proof", "0 lost"} {
		if !strings.Contains(out.String(), word) {
			t.Errorf("the tour does not say %q:\n%s", word, out.String())
		}
	}
	if strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("escapes in what is not for a terminal: %q", out.String())
	}
	if files := left(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestTourTellsWhatWasLost(t *testing.T) {
	left := temporaries(t)
	var out bytes.Buffer
	v, err := Tour(deadline(t, 60*time.Second), fakeTour("lossy", &out))
	if err == nil || v.OK || v.LostWrites == 0 || !strings.Contains(v.Reason, "acknowledged writes are lost, the first is w") {
		t.Fatalf("a cluster that loses writes got %+v, %v\n%s", v, err, out.String())
	}
	if files := left(); len(files) != 1 || v.Dir != files[0] {
		t.Errorf("kept %v, the verdict says %q", files, v.Dir)
	}
	if _, err := os.Stat(filepath.Join(v.Dir, "client.jsonl")); err != nil {
		t.Error(err)
	}
}

// A switchover that is refused is told, and no reason to fail: nothing is lost.
func TestTourGoesOnWithoutSwitchover(t *testing.T) {
	temporaries(t)
	var out bytes.Buffer
	v, err := Tour(deadline(t, 60*time.Second), fakeTour("stubborn", &out))
	if err != nil || !v.OK || len(v.Failovers) != 1 {
		t.Fatalf("got %+v, %v\n%s", v, err, out.String())
	}
	if len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "not today") || !strings.Contains(out.String(), "not today") {
		t.Errorf("notes %q\n%s", v.Notes, out.String())
	}
}

func TestTourNamesABrokenNode(t *testing.T) {
	temporaries(t)
	var out bytes.Buffer
	v, err := Tour(deadline(t, 60*time.Second), fakeTour("broken", &out))
	if err == nil || v.OK || !strings.Contains(v.Reason, "this node is broken: mend it") {
		t.Fatalf("got %+v, %v", v, err)
	}
}

// An interruption at any step ends the tour at once and leaves nothing.
func TestTourInterrupted(t *testing.T) {
	for _, word := range []string{"dashboard", "elect", "acknowledged,", "kill -9", "promoted", "rejoin"} {
		t.Run(word, func(t *testing.T) {
			left := temporaries(t)
			ctx, cancel := context.WithCancel(deadline(t, 60*time.Second))
			defer cancel()
			cfg := fakeTour("member", nil)
			cfg.Out, cfg.Style, cfg.Live = &cancelAt{word: word, cancel: cancel}, term.Colored(), true
			v, err := Tour(ctx, cfg)
			if !errors.Is(err, ErrInterrupted) || v.OK {
				t.Errorf("got %+v, %v", v, err)
			}
			if files := left(); len(files) > 0 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}

// cancelAt cancels when a word is written.
type cancelAt struct {
	word   string
	cancel func()
}

func (c *cancelAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.word)) {
		c.cancel()
	}
	return len(p), nil
}

// After the tour the cluster runs on: what is killed comes back, a new primary
// is told of, and the end is proven again.
func TestTourStay(t *testing.T) {
	left := temporaries(t)
	ctx, cancel := context.WithCancel(deadline(t, 60*time.Second))
	defer cancel()
	cfg := fakeTour("member", nil)
	out := &killWhenInvited{cancel: cancel}
	cfg.Out, cfg.Stay = out, true
	v, err := Tour(ctx, cfg)
	if err != nil || !v.OK {
		t.Fatalf("got %+v, %v\n%s", v, err, out.text.String())
	}
	for _, word := range []string{"your turn", "is gone", "is primary in epoch 4", "starts again from its directory", "0 lost"} {
		if !strings.Contains(out.text.String()[out.invited:], word) {
			t.Errorf("not told: %q\n%s", word, out.text.String()[out.invited:])
		}
	}
	if files := left(); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestTourValidate(t *testing.T) {
	for nodes, ok := range map[int]bool{0: true, 1: false, 2: false, 3: true, 9: true, 10: false} {
		if err := (TourConfig{Cluster: Config{Nodes: nodes}}).Validate(); (err == nil) != ok {
			t.Errorf("%d nodes: %v", nodes, err)
		}
	}
}

func TestChart(t *testing.T) {
	acks := []Ack{at("a", 1, 0), at("b", 1, 1*ms), at("c", 1, 2*ms), at("d", 1, 21*ms), at("e", 2, 99*ms)}
	bars, marks := chart(acks, []event{{at: 30 * ms, name: "kill"}, {at: 40 * ms, name: "x"}, {at: time.Second, name: "never"}}, 0, 100*ms, 10)
	if bars != "█·▃······▃" {
		t.Errorf("bars %q", bars)
	}
	if marks != "   ↑kill ↑x" {
		t.Errorf("marks %q", marks)
	}
	if bars, _ := chart(nil, nil, 0, 0, 10); bars != "" {
		t.Errorf("nothing drew %q", bars)
	}
}

func TestCutRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.log")
	before := "[WARN]  cutting what the primary's timeline does not have: x: epoch=2 from=1/99 to=1\n"
	text := before + "[INFO]  primary: epoch=3\n" +
		"[WARN]  cutting what the primary's timeline does not have: it was never acknowledged: epoch=3 from=2/120 to=117\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cutRecords(path, int64(len(before))); got != 3 {
		t.Errorf("%d records cut, want 3", got)
	}
	if got := cutRecords(path+"x", 0); got != 0 {
		t.Errorf("%d records cut in no log", got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for got, want := range map[string]string{
		term.Count(0): "0", term.Count(999): "999", term.Count(1000): "1 000", term.Count(1234567): "1 234 567",
		term.Millis(1234 * time.Microsecond): "1.2 ms", term.Millis(612 * ms): "612 ms", term.Millis(12 * time.Second): "12.0 s",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// killWhenInvited does what the hints suggest: it kills the primary with the
// command that it is told, waits until that node starts again, and ends the tour.
type killWhenInvited struct {
	text    strings.Builder
	invited int
	killed  bool
	cancel  func()
}

func (k *killWhenInvited) Write(p []byte) (int, error) {
	k.text.Write(p)
	line := string(p)
	switch _, after, hint := strings.Cut(line, "    kill -9 "); {
	case strings.Contains(line, "your turn"):
		k.invited = k.text.Len() - len(p)
	case hint && k.invited > 0 && !k.killed:
		pid, err := strconv.Atoi(strings.Fields(after)[0])
		if err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			k.killed = true
		}
	case k.killed && strings.Contains(line, "starts again from"):
		k.cancel()
	}
	return len(p), nil
}
