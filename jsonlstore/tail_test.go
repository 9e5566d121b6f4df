package jsonlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// tailing drives a follower one look at a time.
type tailing struct {
	t      *testing.T
	f      *follower
	events []string
}

func follow(t *testing.T, dir string, show int, opts ...Option) *tailing {
	t.Helper()
	o, err := collect(opts)
	if err != nil {
		t.Fatal(err)
	}
	tl := &tailing{t: t}
	tl.f = newFollower(o, dir, TailOptions{Last: show, Follow: true}, func(e TailEvent) error {
		tl.events = append(tl.events, eventText(e))
		return nil
	})
	return tl
}

func eventText(e TailEvent) string {
	switch e.Kind {
	case TailEntry:
		return fmt.Sprintf("%d/%d", e.Entry.Index, e.Entry.Term)
	case TailDamage:
		return fmt.Sprintf("damage line %d", e.Damage.Line)
	case TailCut:
		return fmt.Sprintf("cut %d-%d", e.First, e.Last)
	case TailFrontCut:
		return fmt.Sprintf("front %d", e.First)
	}
	return "?"
}

// look has it look once more and wants these events.
func (tl *tailing) look(want string) {
	tl.t.Helper()
	tl.events = nil
	if err := tl.f.look(); err != nil {
		tl.t.Fatal(err)
	}
	if g := strings.Join(tl.events, " "); g != want {
		tl.t.Fatalf("got %q, want %q", g, want)
	}
}

func someLogs(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return logs
}

func mustStore(t testing.TB, s *Store, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

func mustDelete(t testing.TB, s *Store, from, to uint64) {
	t.Helper()
	if err := s.DeleteRange(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestTailFollows(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustStore(t, s, someLogs(1, 5, 1))
	tl := follow(t, dir, 2)
	tl.look("4/1 5/1")
	tl.look("")
	mustStore(t, s, someLogs(6, 7, 1))
	tl.look("6/1 7/1")
	mustDelete(t, s, 6, 7)
	tl.look("cut 6-7")
	mustDelete(t, s, 5, 5)
	mustStore(t, s, someLogs(5, 8, 2))
	tl.look("cut 5-5 5/2 6/2 7/2 8/2")
	mustDelete(t, s, 7, 8) // the new ones as long as the old ones
	mustStore(t, s, someLogs(7, 8, 3))
	tl.look("cut 7-8 7/3 8/3")
	mustDelete(t, s, 1, 3)
	tl.look("front 4")
	mustStore(t, s, someLogs(9, 9, 3))
	tl.look("9/3")
	mustDelete(t, s, 1, 6) // front, tail and new entries between two looks
	mustDelete(t, s, 9, 9)
	mustStore(t, s, someLogs(9, 10, 4))
	tl.look("front 7 cut 9-9 9/4 10/4")
	mustDelete(t, s, 1, 10)
	tl.look("cut 7-10")
	mustStore(t, s, someLogs(100, 101, 5)) // as after a snapshot
	tl.look("100/5 101/5")
	mustDelete(t, s, 1, 101)
	mustStore(t, s, someLogs(200, 200, 6))
	tl.look("front 200 200/6")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	mustStore(t, s, someLogs(201, 201, 6))
	tl.look("201/6")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTailCutFurtherThanRemembered(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	defer s.Close()
	mustStore(t, s, someLogs(1, 10, 1))
	tl := follow(t, dir, 1)
	tl.look("10/1")
	const n = 3*tailMarks + 10
	mustStore(t, s, someLogs(11, n, 1))
	var want []string
	for i := 11; i <= n; i++ {
		want = append(want, fmt.Sprintf("%d/1", i))
	}
	tl.look(strings.Join(want, " "))
	mustDelete(t, s, 5, n)
	mustStore(t, s, someLogs(5, 6, 2))
	tl.look(fmt.Sprintf("cut 7-%d", n)) // 5 and 6 were too long ago
}

func TestTailWaitsForALog(t *testing.T) {
	dir := t.TempDir()
	tl := follow(t, dir, 3)
	tl.look("")
	s := mustOpen(t, dir)
	defer s.Close()
	tl.look("")
	mustStore(t, s, someLogs(1, 1, 1))
	tl.look("1/1")
	if _, err := collectTail(filepath.Join(dir, "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("no directory: %v", err)
	}
	if _, err := collectTail(t.TempDir(), 1); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("no log: %v", err)
	}
}

func TestTailEndsWhenTheDirectoryVanishes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node-1")
	s := mustOpen(t, dir)
	mustStore(t, s, someLogs(1, 1, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tl := follow(t, dir, 3)
	tl.look("1/1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := tl.f.look(); !errors.Is(err, ErrTailGone) || !strings.Contains(err.Error(), dir) {
		t.Fatal(err)
	}
}

// collectTail returns what a Tail shows that does not follow.
func collectTail(dir string, last int, opts ...Option) (events []string, err error) {
	for e, err := range Tail(context.Background(), dir, TailOptions{Last: last}, opts...) {
		if err != nil {
			return events, err
		}
		events = append(events, eventText(e))
	}
	return events, nil
}

func TestTailShowsTheLast(t *testing.T) {
	sm := makeSample(t)
	n := len(sm.lines)
	for last := range n + 3 {
		var want []string
		for i := max(1, n-last+1); i <= n; i++ {
			want = append(want, fmt.Sprintf("%d/%d", i, 1+i/4))
		}
		for _, tail := range []string{"", strings.Repeat(" ", 3000), "\n\n  \n", strings.Repeat("\x00", 700)} {
			fs := memfs.New()
			fs.Put(memLog, append(bytes.Clone(sm.log), tail...))
			got, err := collectTail(memDir, last, onMem(fs))
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("last %d, %.10q: %v, %v; want %v", last, tail, got, err, want)
			}
		}
	}
}

func TestTailNamesDamage(t *testing.T) {
	sm := makeSample(t)
	n := len(sm.lines)
	for i, line := range sm.lines {
		log := bytes.Clone(sm.log)
		log[line.from+20] ^= 1
		fs := memfs.New()
		fs.Put(memLog, log)
		for _, last := range []int{0, 3, n} {
			got, err := collectTail(memDir, last, onMem(fs))
			if err != nil {
				t.Fatal(err)
			}
			damage := fmt.Sprintf("damage line %d", i+1)
			if j := slices.Index(got, damage); j < 0 || len(got) > last+1 || len(got) < last {
				t.Fatalf("line %d, last %d: %v", i+1, last, got)
			}
		}
	}
}

// TestTailPassesDamage has a log damaged where the follower has not been yet.
func TestTailPassesDamage(t *testing.T) {
	sm := makeSample(t)
	fs := memfs.New()
	cut := sm.lines[3].to
	fs.Put(memLog, sm.log[:cut])
	tl := follow(t, memDir, 1, onMem(fs))
	tl.look("4/2")
	log := bytes.Clone(sm.log[:sm.lines[6].to])
	log[sm.lines[5].from+20] ^= 1
	fs.Put(memLog, log[:sm.lines[5].to-3]) // may still be a write in progress
	tl.look("5/2")
	fs.Put(memLog, log)
	tl.look("")
	tl.look("damage line 6 7/2")
	tl.look("")
	fs.Put(memLog, sm.log) // put right by somebody: what was read is still there
	tl.look("8/3 9/3 10/3 11/3 12/4 13/4")
}

// TestTailBesideAWriter follows a store at work, with its own looks between any
// two writes, and wants to end up with what the store holds.
func TestTailBesideAWriter(t *testing.T) {
	for _, bytes := range partSizes {
		t.Run(fmt.Sprint("parts of ", bytes), func(t *testing.T) { tailBesideAWriter(t, bytes) })
	}
}

// partsOf has the store seal parts of about that many bytes; 0: as long as usual.
func partsOf(bytes int64) Option {
	return func(o *options) {
		if bytes > 0 {
			o.partBytes, o.loadedParts = bytes, 2
		}
	}
}

func tailBesideAWriter(t *testing.T, bytes int64) {
	dir := t.TempDir()
	s := mustOpen(t, dir, partsOf(bytes))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ticks := make(chan time.Time)
	var model []string // what a reader of the events believes to be in the log
	first := uint64(1)
	done := make(chan error, 1)
	go func() {
		for e, err := range Tail(ctx, dir, TailOptions{Last: 1 << 20, Follow: true, Ticks: ticks}) {
			if err != nil {
				done <- err
				return
			}
			var problem error
			if model, first, problem = believe(model, first, e); problem != nil {
				done <- problem
				return
			}
		}
		done <- nil
	}()
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		write(t, s, 400/stride(4))
	}()
	tick := func() {
		select {
		case ticks <- time.Time{}:
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		}
	}
	for open := true; open; {
		tick()
		select {
		case <-ready:
			open = false
		default:
		}
	}
	for range 6 {
		tick()
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var want []string
	for l, err := range Cat(dir) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%d/%d", l.Index, l.Term))
	}
	if !slices.Equal(model, want) {
		t.Fatalf("believed\n%v\nis\n%v", model, want)
	}
}

// believe applies an event to what its reader believes.
func believe(model []string, first uint64, e TailEvent) ([]string, uint64, error) {
	switch e.Kind {
	case TailDamage:
		return model, first, e.Damage
	case TailCut:
		if e.First <= first {
			return nil, 0, nil
		}
		if at := e.First - first; at <= uint64(len(model)) {
			model = model[:at]
		}
	case TailFrontCut:
		n := e.First - first
		if n >= uint64(len(model)) {
			return nil, 0, nil
		}
		return model[n:], e.First, nil
	case TailEntry:
		if len(model) == 0 {
			first = e.Entry.Index
		}
		if e.Entry.Index != first+uint64(len(model)) {
			return nil, 0, fmt.Errorf("%s comes after %s", eventText(e), model[len(model)-1])
		}
		if want := fmt.Sprintf("entry %d of term %d", e.Entry.Index, e.Entry.Term); string(e.Entry.Data) != want {
			return nil, 0, fmt.Errorf("%q is not %q", e.Entry.Data, want)
		}
		model = append(model, eventText(e))
	}
	return model, first, nil
}

// write does n changes of every kind.
func write(t *testing.T, s *Store, n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	for term := range uint64(n) {
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		var err error
		switch k := rng.IntN(10); {
		case k == 0 && last > first+10:
			err = s.DeleteRange(first, first+rng.Uint64N(last-first))
		case k <= 2 && last > first:
			err = s.DeleteRange(last-rng.Uint64N(last-first), last)
		default:
			err = s.StoreLogs(someLogs(last+1, last+1+rng.Uint64N(5), term+1))
		}
		if err != nil && !errors.Is(err, logstore.ErrClosed) {
			t.Error(err)
			return
		}
	}
}

// TestTailAgreesWithCat reads logs with any damage in both ways. Tail may show a
// good line more, where Cat took it for part of a torn batch that was damage.
func TestTailAgreesWithCat(t *testing.T) {
	log := repairSample(t)[memLog]
	rng := rand.New(rand.NewPCG(8, 1))
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	for range rounds {
		broken, what := anyDamage(rng, log)
		fs := memfs.New()
		fs.Put(memLog, broken)
		var want []string
		for l, err := range Cat(memDir, onMem(fs)) {
			var damage *logstore.CorruptionError
			switch {
			case errors.As(err, &damage):
				want = append(want, fmt.Sprintf("damage line %d", damage.Line))
			case err != nil:
				t.Fatal(err)
			default:
				want = append(want, fmt.Sprintf("%d/%d", l.Index, l.Term))
			}
		}
		want = slices.Compact(want) // two things may be wrong with a line
		got, err := collectTail(memDir, 100, onMem(fs))
		at := 0
		for _, e := range got {
			if at < len(want) && e == want[at] {
				at++
			} else if strings.HasPrefix(e, "damage") {
				at = -1
				break
			}
		}
		if err != nil || at < len(want) {
			t.Fatalf("%s: %v\ngot  %v\nwant %v\n%q", what, err, got, want, broken)
		}
	}
}

// TestTailAfterEverythingWasCut has all that was seen deleted, and more parts than one
// written since.
func TestTailAfterEverythingWasCut(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, inParts(fs, 1))
	defer s.Close()
	for i := range uint64(4) {
		mustStore(t, s, someLogs(i+1, i+1, 1))
	}
	tl := follow(t, memDir, 2, onMem(fs))
	tl.look("3/1 4/1")
	mustDelete(t, s, 1, 4)
	for i := range uint64(4) {
		mustStore(t, s, someLogs(i+1, i+1, 2))
	}
	tl.look("cut 1-4 1/2 2/2 3/2 4/2")
}

// TestIndexKnowsTermsBeforeOpen: the highest term in a part that is sealed after the
// store was opened again. A term is taken from there if the state file is lost.
func TestIndexKnowsTermsBeforeOpen(t *testing.T) {
	fs := memfs.New()
	s := mustOpen(t, memDir, onMem(fs))
	mustStore(t, s, someLogs(1, 3, 7))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, memDir, inParts(fs, 1))
	mustStore(t, s, someLogs(4, 4, 7)) // seals 1 to 3
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	x, err := loadIndex(fs, memDir, 1)
	if err != nil || x.maxTerm != 7 {
		t.Fatalf("%+v, %v", x, err)
	}
	if r, err := Verify(memDir, onMem(fs)); err != nil || !r.OK() {
		t.Fatalf("%+v, %v", r, err)
	}
}
