package raftshim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/hashicorp/raft"
)

func TestKeepTerms(t *testing.T) {
	mark := func(term uint64) []byte { return binary.LittleEndian.AppendUint64([]byte(termMark), term) }
	for _, c := range []struct {
		name string
		logs []*raft.Log
		want bool
	}{
		{"nothing", nil, true},
		{"its term", []*raft.Log{{Term: 7, Extensions: mark(7)}}, true},
		{"an earlier term", []*raft.Log{{Term: 8, Extensions: mark(7)}}, false},
		{"a later term", []*raft.Log{{Term: 6, Extensions: mark(7)}}, false},
		{"unmarked", []*raft.Log{{Term: 8}, {Term: 8, Extensions: []byte("other")}}, true},
		{"one of several", []*raft.Log{{Term: 8, Extensions: mark(8)}, {Term: 8}, {Term: 8, Extensions: mark(7)}}, false},
		{"a mark cut short", []*raft.Log{{Term: 7, Extensions: mark(7)[:len(termMark)+7]}}, false},
	} {
		var before [][]byte
		for _, l := range c.logs {
			before = append(before, l.Extensions)
		}
		err := KeepTerms(c.logs...)
		if (err == nil) != c.want || err != nil && !errors.Is(err, errOtherTerm) {
			t.Errorf("%s: %v", c.name, err)
		}
		for i, l := range c.logs {
			want := before[i]
			if c.want && bytes.HasPrefix(want, []byte(termMark)) {
				want = nil
			}
			if !bytes.Equal(l.Extensions, want) {
				t.Errorf("%s: entry %d has extensions %q, want %q", c.name, i, l.Extensions, want)
			}
		}
	}
}

var errDiffers = errors.New("another revision")

func put(t *testing.T, value string) []byte {
	t.Helper()
	data, err := command.Encode(command.KvWrite{Key: []byte("k"), Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (m *machine) revision() (rev uint64) {
	m.fsm.Read(func(s *fsm.State) { rev = s.KVRevision([]byte("k")) })
	return rev
}

// putIf writes the key if it has the revision.
func (m *machine) putIf(ctx context.Context, data []byte, revision uint64) (uint64, error) {
	_, index, err := m.cons.ProposeIf(ctx, data, func() error {
		if m.revision() != revision {
			return errDiffers
		}
		return nil
	})
	return index, err
}

func TestProposeIf(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader := all[0]
		first, err := leader.putIf(bounded(t, time.Second), put(t, "a"), 0)
		if err != nil || first == 0 || leader.revision() != first {
			t.Fatalf("index %d, revision %d, %v", first, leader.revision(), err)
		}
		if _, err := leader.putIf(bounded(t, time.Second), put(t, "b"), 0); !errors.Is(err, errDiffers) {
			t.Errorf("over what is there: %v", err)
		}
		if second, err := leader.putIf(bounded(t, time.Second), put(t, "b"), first); err != nil || second <= first {
			t.Errorf("index %d, %v", second, err)
		}
		if _, err := all[1].putIf(bounded(t, time.Second), put(t, "c"), 0); !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("on a follower: %v", err)
		}
		noop, _ := command.Encode(command.Noop{})
		last := leader.raft.LastIndex()
		for _, data := range [][]byte{noop, []byte("x"), nil} {
			if _, err := leader.putIf(bounded(t, time.Second), data, 0); err == nil || errors.Is(err, errDiffers) {
				t.Errorf("%q: %v", data, err)
			}
		}
		if _, _, err := leader.cons.Propose(bounded(t, time.Second), []byte("x")); err == nil || !errors.Is(err, command.ErrMalformed) {
			t.Errorf("what every state machine halts at was proposed: %v", err)
		}
		if now := leader.raft.LastIndex(); now != last {
			t.Errorf("%d entries of what cannot be proposed", now-last)
		}
		if len(leader.cons.keys.keys) != 0 {
			t.Error("a key is held for nothing")
		}
	})
}

// What was checked in one term is not appended in another, though this node leads
// again: somebody else has led between them, and has written.
func TestCheckOfAnEarlierTerm(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, other := all[0], all[1]
		_, _, err := leader.cons.ProposeIf(bounded(t, time.Minute), put(t, "late"), func() error {
			if err := leader.cons.Transfer(bounded(t, 10*time.Second), other.trans.local); err != nil {
				t.Fatal(err)
			}
			for other.raft.State() != raft.Leader {
				time.Sleep(time.Millisecond)
			}
			if _, err := other.putIf(bounded(t, 10*time.Second), put(t, "theirs"), 0); err != nil {
				t.Fatal(err)
			}
			if err := other.cons.Transfer(bounded(t, 10*time.Second), leader.trans.local); err != nil {
				t.Fatal(err)
			}
			for leader.raft.State() != raft.Leader {
				time.Sleep(time.Millisecond)
			}
			return nil // it was so when it was looked at
		})
		if !errors.Is(err, failover.ErrNotLeader) || errors.Is(err, failover.ErrOutcomeUnknown) {
			t.Errorf("got %v, want that nothing was done", err)
		}
		time.Sleep(5 * time.Second)
		for _, m := range all {
			m.fsm.Read(func(s *fsm.State) {
				if e, _ := s.KVGet([]byte("k")); string(e.Value) != "theirs" {
					t.Errorf("the key is %q", e.Value)
				}
			})
		}
		// And the cluster goes on, with nothing of the mark in any log.
		for _, m := range all {
			if m.raft.State() != raft.Leader {
				continue
			}
			if _, err := m.putIf(bounded(t, time.Second), put(t, "next"), m.revision()); err != nil {
				t.Error(err)
			}
		}
	})
}

// The lock of a write whose caller has left stays until the outcome is known.
func TestUnknownOutcomeKeepsTheKey(t *testing.T) {
	for _, plain := range []bool{false, true} {
		inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
			leader := all[0]
			if _, err := leader.cons.CommitNoop(bounded(t, time.Second)); err != nil {
				t.Fatal(err)
			}
			held := make(chan struct{})
			leader.valve.held.Store(&held) // the others have it, and this node does not hear of it
			var err error
			if plain {
				_, _, err = leader.cons.Propose(bounded(t, 20*time.Millisecond), put(t, "first"))
			} else {
				_, err = leader.putIf(bounded(t, 20*time.Millisecond), put(t, "first"), 0)
			}
			if !errors.Is(err, failover.ErrOutcomeUnknown) {
				t.Fatalf("got %v", err)
			}
			looked := false
			_, _, err = leader.cons.ProposeIf(bounded(t, 20*time.Millisecond), put(t, "second"), func() error { looked = true; return nil })
			if looked || !errors.Is(err, failover.ErrNoQuorum) || !strings.Contains(err.Error(), "not decided") {
				t.Errorf("another one meanwhile: looked %v, %v", looked, err)
			}
			answer := make(chan error, 1)
			go func() {
				_, err := leader.putIf(bounded(t, time.Second), put(t, "third"), 0)
				answer <- err
			}()
			synctest.Wait()
			leader.valve.held.Store(nil)
			close(held)
			if err := <-answer; !errors.Is(err, errDiffers) {
				t.Errorf("one that waited: %v", err)
			}
		})
	}
}

// A leader that was deposed and does not know says no to nobody: the key may have
// become what is asked for.
func TestNoFromADeposedLeader(t *testing.T) {
	inClusterOf(t, 3, true, func(t *testing.T, all []*machine) {
		leader, other := all[0], all[1]
		if _, err := leader.cons.CommitNoop(bounded(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _, err := leader.cons.ProposeIf(bounded(t, 10*time.Second), put(t, "x"), func() error {
			if err := leader.cons.Transfer(bounded(t, 10*time.Second), other.trans.local); err != nil {
				t.Error(err)
			}
			return errDiffers
		})
		if errors.Is(err, errDiffers) || !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("got %v", err)
		}
		// The same with leadership that has come back: the look was of another term.
		for other.raft.State() != raft.Leader {
			time.Sleep(time.Millisecond)
		}
		_, _, err = other.cons.ProposeIf(bounded(t, 30*time.Second), put(t, "x"), func() error {
			if err := other.cons.NewTerm(bounded(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			for other.raft.State() != raft.Leader {
				time.Sleep(time.Millisecond)
			}
			return errDiffers
		})
		if errors.Is(err, errDiffers) || !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("after a term of somebody else's: %v", err)
		}
		// And cut off from everybody, while it still holds itself for the leader.
		if _, err := other.cons.CommitNoop(bounded(t, time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			m.inner.DisconnectAll()
		}
		time.Sleep(time.Millisecond)
		_, err = other.putIf(bounded(t, 50*time.Millisecond), put(t, "x"), 99)
		if errors.Is(err, errDiffers) || !errors.Is(err, failover.ErrNoQuorum) && !errors.Is(err, failover.ErrNotLeader) {
			t.Errorf("cut off: %v", err)
		}
	})
}
