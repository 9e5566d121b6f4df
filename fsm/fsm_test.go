package fsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/hashicorp/raft"
)

func entry(t testing.TB, index uint64, c command.Command) *raft.Log {
	t.Helper()
	data, err := command.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
}

func put(key string, value string) command.KvWrite {
	return command.KvWrite{Key: []byte(key), Value: []byte(value)}
}

func apply(t testing.TB, f *FSM, index uint64, c command.Command) Result {
	t.Helper()
	r, ok := f.Apply(entry(t, index, c)).(Result)
	if !ok || r.Index != index {
		t.Fatalf("entry %d: %+v", index, r)
	}
	return r
}

// sink is a raft.SnapshotSink in memory.
type sink struct {
	bytes.Buffer
	err               error // of the first Write
	closed, cancelled bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "sink" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

// source is a snapshot to restore from.
type source struct {
	io.Reader
	closed bool
}

func (s *source) Close() error { s.closed = true; return nil }

func dump(t testing.TB, f *FSM) string {
	t.Helper()
	var out string
	f.Read(func(s *State) { out = string(write(t, s)) })
	return out
}

func TestSnapshotRestore(t *testing.T) {
	f := New(nil)
	apply(t, f, 1, command.AddNode{NodeID: 1, Address: "a:1"})
	apply(t, f, 3, put("k", "v"))
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	before := dump(t, f)
	apply(t, f, 4, put("k", "later")) // must not show in the snapshot
	var out sink
	if err := snap.Persist(&out); err != nil || !out.closed || out.cancelled {
		t.Fatalf("persist: %v, closed %v, cancelled %v", err, out.closed, out.cancelled)
	}
	snap.Release()
	if out.String() != before {
		t.Fatalf("snapshot\n%s\nwant\n%s", out.String(), before)
	}

	g := New(nil)
	apply(t, g, 1, put("old", "state"))
	var told []Change
	g.OnApply(func(c Change) { told = append(told, c) })
	in := &source{Reader: strings.NewReader(before)}
	if err := g.Restore(in); err != nil || !in.closed {
		t.Fatalf("restore: %v, closed %v", err, in.closed)
	}
	if dump(t, g) != before {
		t.Errorf("restored\n%s\nwant\n%s", dump(t, g), before)
	}
	if len(told) != 1 || !told[0].Restored || told[0].Index != 3 || told[0].Term != 1 || told[0].Command != (command.Noop{}) {
		t.Errorf("told %+v", told)
	}
	if err := g.Wait(t.Context(), 3); err != nil {
		t.Errorf("wait for a restored index: %v", err)
	}

	// A bad snapshot changes nothing and tells nobody.
	for n := range before {
		in := &source{Reader: strings.NewReader(before[:n])}
		if err := g.Restore(in); !errors.Is(err, ErrBadSnapshot) || !in.closed {
			t.Fatalf("cut at %d: %v, closed %v", n, err, in.closed)
		}
	}
	if dump(t, g) != before || len(told) != 1 {
		t.Errorf("a refused snapshot changed something")
	}
	apply(t, g, 4, put("k", "goes on"))

	failing := sink{err: errors.New("disk full")}
	if err := snap.Persist(&failing); !errors.Is(err, failing.err) || failing.closed || !failing.cancelled {
		t.Errorf("persist to a full disk: %v, closed %v, cancelled %v", err, failing.closed, failing.cancelled)
	}
}

func TestHalt(t *testing.T) {
	for data, newer := range map[string]bool{`{"MergeShards":{}}`: true, `opaque`: false, ``: false, `{"AddNode":{"node_id":1}}`: false} {
		f := New(nil)
		var told int
		f.OnApply(func(Change) { told++ })
		apply(t, f, 1, put("k", "v"))
		snap, err := f.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		before := dump(t, f)
		if err := f.Halted(); err != nil {
			t.Fatalf("halted before: %v", err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- f.Wait(context.Background(), 3) }()

		err, _ = f.Apply(&raft.Log{Index: 2, Term: 1, Data: []byte(data)}).(error)
		var halted *HaltedError
		if !errors.Is(err, ErrHalted) || !errors.As(err, &halted) || halted.Index != 2 || halted.Term != 1 {
			t.Fatalf("%q: %v", data, err)
		}
		if errors.Is(err, command.ErrUnknown) != newer || strings.Contains(err.Error(), "upgrade") != newer {
			t.Errorf("%q: from a newer version? should be %v: %v", data, newer, err)
		}
		if err := <-waiting; !errors.Is(err, ErrHalted) {
			t.Errorf("%q: who waited got %v", data, err)
		}
		// For good: also for entries that could be applied.
		if err, _ := f.Apply(entry(t, 3, put("k", "w"))).(error); !errors.Is(err, ErrHalted) {
			t.Errorf("%q: the next entry: %v", data, err)
		}
		if s, err := f.Snapshot(); s != nil || !errors.Is(err, ErrHalted) {
			t.Errorf("%q: snapshot: %v, %v", data, s, err)
		}
		in := &source{Reader: strings.NewReader(before)}
		if err := f.Restore(in); !errors.Is(err, ErrHalted) || !in.closed {
			t.Errorf("%q: restore: %v, closed %v", data, err, in.closed)
		}
		if err := f.Wait(context.Background(), 2); !errors.Is(err, ErrHalted) {
			t.Errorf("%q: wait: %v", data, err)
		}
		if err := f.Wait(context.Background(), 1); err != nil {
			t.Errorf("%q: wait for what is applied: %v", data, err)
		}
		if !errors.Is(f.Halted(), ErrHalted) || dump(t, f) != before || told != 1 {
			t.Errorf("%q: halted %v, told %d times, state\n%s", data, f.Halted(), told, dump(t, f))
		}
		var out sink
		if err := snap.Persist(&out); err != nil || out.String() != before {
			t.Errorf("%q: a snapshot from before: %v", data, err)
		}
	}
}

func TestOnApply(t *testing.T) {
	f := New(nil)
	var first, second []Change
	f.OnApply(func(c Change) {
		first = append(first, c)
		f.Read(func(s *State) { // the state is there already, and no lock is held
			if index, _ := s.Applied(); index != c.Index {
				t.Errorf("told of %d at %d", c.Index, index)
			}
		})
		if err := f.Wait(context.Background(), c.Index); err != nil {
			t.Error(err)
		}
	})
	f.OnApply(func(c Change) { second = append(second, c) })
	results := []Result{
		apply(t, f, 5, command.Noop{}),
		apply(t, f, 7, command.RemoveNode{NodeID: 1}),
		apply(t, f, 8, put("k", "v")),
	}
	want := []Change{
		{Index: 5, Term: 1, Command: command.Noop{}, Result: results[0]},
		{Index: 7, Term: 1, Command: command.RemoveNode{NodeID: 1}, Result: results[1]},
		{Index: 8, Term: 1, Command: put("k", "v"), Result: results[2]},
	}
	if !reflect.DeepEqual(first, want) || !reflect.DeepEqual(second, want) {
		t.Errorf("told\n%+v\n%+v\nwant\n%+v", first, second, want)
	}
	if results[1].Refused == "" || !results[2].Changed {
		t.Errorf("results %+v", results)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(nil)
		cause := errors.New("gone home")
		got := map[uint64]error{}
		var mu sync.Mutex
		wait := func(ctx context.Context, key, index uint64) {
			go func() {
				err := f.Wait(ctx, index)
				mu.Lock()
				defer mu.Unlock()
				got[key] = err
			}()
			synctest.Wait()
		}
		look := func(when string, want map[uint64]error) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		short, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		wait(context.Background(), 0, 0)
		for _, index := range []uint64{9, 2, 5, 7} {
			wait(context.Background(), index, index)
		}
		wait(ctx, 100, 5)
		wait(short, 101, 6)
		look("at first", map[uint64]error{0: nil})
		apply(t, f, 3, command.Noop{})
		look("at 3", map[uint64]error{0: nil, 2: nil})
		cancel(cause)
		look("after the cancel", map[uint64]error{0: nil, 2: nil, 100: cause})
		time.Sleep(time.Second)
		look("a second later", map[uint64]error{0: nil, 2: nil, 100: cause, 101: context.DeadlineExceeded})
		apply(t, f, 7, command.Noop{})
		look("at 7", map[uint64]error{0: nil, 2: nil, 100: cause, 101: context.DeadlineExceeded, 5: nil, 7: nil})
		if n := len(f.waiters.queue); n != 1 {
			t.Errorf("%d still wait, want 1", n)
		}
		if err := f.Wait(ctx, 7); err != nil { // applied is applied, whatever ctx says
			t.Errorf("with a cancelled context: %v", err)
		}
		apply(t, f, 9, command.Noop{})
		synctest.Wait()
	})
}

// Readers, waiters and snapshots beside Apply, for the race detector. What a
// reader sees is of one moment: both keys are always equal.
func TestConcurrent(t *testing.T) {
	const last = 2000
	f := New(nil)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for index := uint64(0); index < last; {
				f.Read(func(s *State) {
					seen, _ := s.Applied()
					if seen < index {
						t.Errorf("at %d after %d", seen, index)
					}
					index = seen
					e, _ := s.KVGet([]byte("k"))
					c, _ := s.Config("k")
					// Entries alternate: the setting first, then the key.
					if n := (index - 1) / 2; index > 0 && c != fmt.Sprint(n) || index%2 == 0 && string(e.Value) != c {
						t.Errorf("at %d the setting is %s, the key %s", index, c, e.Value)
					}
				})
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for index := uint64(1); index <= last; index++ {
				if err := f.Wait(context.Background(), index); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for index := uint64(1); index <= last; index += 50 {
				ctx, cancel := context.WithCancel(context.Background())
				all.Go(cancel)
				if err := f.Wait(ctx, index+1000000); err != context.Canceled {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 100 {
			snap, err := f.Snapshot()
			if err != nil {
				t.Error(err)
				return
			}
			var out sink
			if err := snap.Persist(&out); err != nil {
				t.Error(err)
			}
			if _, err := ReadSnapshot(&out); err != nil {
				t.Error(err)
			}
		}
	})
	for index := uint64(1); index <= last; index++ {
		n := fmt.Sprint((index - 1) / 2)
		if index%2 == 1 {
			apply(t, f, index, command.UpdateConfig{Key: "k", Value: n})
		} else {
			apply(t, f, index, put("k", n))
		}
	}
	all.Wait()
	if n := len(f.waiters.queue); n != 0 {
		t.Errorf("%d are left in the queue", n)
	}
}
