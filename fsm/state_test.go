package fsm

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// script is a state that is given commands one after another, in term 1.
type script struct {
	t     testing.TB
	state *State
}

func newScript(t testing.TB) *script { return &script{t, NewState()} }

func (s *script) apply(c command.Command) Result {
	s.t.Helper()
	index, term := s.state.Applied()
	r := s.state.Apply(index+1, max(term, 1), c)
	if r.Index != index+1 {
		s.t.Fatalf("%s: result of entry %d, want %d", c.Name(), r.Index, index+1)
	}
	if (r.Err() != nil) != (r.Refused != "") || r.Refused != "" && (r.Changed || len(r.Removed) > 0) {
		s.t.Fatalf("%s: %+v contradicts itself", c.Name(), r)
	}
	return r
}

// changes, same and refuses apply c and check what came of it.
func (s *script) changes(c command.Command) Result {
	s.t.Helper()
	r := s.apply(c)
	if !r.Changed {
		s.t.Fatalf("%+v should change something: %+v", c, r)
	}
	return r
}

func (s *script) same(c command.Command) {
	s.t.Helper()
	if r := s.apply(c); r.Changed || r.Refused != "" {
		s.t.Fatalf("%+v should change nothing: %+v", c, r)
	}
}

func (s *script) refuses(c command.Command, because string) {
	s.t.Helper()
	before := s.state.Clone()
	r := s.apply(c)
	if !strings.Contains(r.Refused, because) || r.Refused == "" {
		s.t.Fatalf("%+v should be refused for %q: %+v", c, because, r)
	}
	var refused *RefusedError
	if err := r.Err(); !errors.As(err, &refused) || !errors.Is(err, ErrRefused) || refused.Index != r.Index {
		s.t.Fatalf("%+v: %v", c, err)
	}
	before.index, before.term = s.state.index, s.state.term
	if !before.equal(s.state) {
		s.t.Fatalf("%+v was refused and changed something", c)
	}
}

func TestMembers(t *testing.T) {
	s := newScript(t)
	s.refuses(command.AddNode{NodeID: 0, Address: "a:1"}, "node ID 0")
	s.refuses(command.AddNode{NodeID: 1}, "needs an address")
	s.refuses(command.AddNode{NodeID: 1, Address: strings.Repeat("a", protocol.MaxAddrLen+1)}, "the limit is 512")
	s.refuses(command.AddNode{NodeID: 1, Address: "\xff"}, "UTF-8")
	s.refuses(command.RemoveNode{NodeID: 1}, "not a member")
	s.changes(command.AddNode{NodeID: 2, Address: "b:1"})
	s.changes(command.AddNode{NodeID: 1, Address: strings.Repeat("a", protocol.MaxAddrLen)})
	s.changes(command.AddNode{NodeID: 1, Address: "a:1"})
	s.same(command.AddNode{NodeID: 1, Address: "a:1"})
	s.changes(command.AddNode{NodeID: math.MaxUint64, Address: "c:1"})
	want := []Member{{1, "a:1"}, {2, "b:1"}, {math.MaxUint64, "c:1"}}
	if got := s.state.Members(); !reflect.DeepEqual(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if m, ok := s.state.Member(2); !ok || m != want[1] {
		t.Errorf("member 2: %v, %v", m, ok)
	}
	s.changes(command.RemoveNode{NodeID: 2})
	if m, ok := s.state.Member(2); ok {
		t.Errorf("member 2 after its removal: %v", m)
	}
	s.refuses(command.RemoveNode{NodeID: 2}, "not a member")
}

func TestShards(t *testing.T) {
	s := newScript(t)
	assign := func(table uint64, shard uint32, node protocol.NodeID) command.AssignShard {
		return command.AssignShard{TableID: table, ShardID: shard, NodeID: node}
	}
	move := func(shard uint32, from, to protocol.NodeID) command.TransferShard {
		return command.TransferShard{TableID: 7, ShardID: shard, FromNode: from, ToNode: to}
	}
	s.refuses(assign(7, 0, 1), "node 1 is not a member")
	s.refuses(assign(7, 0, 0), "node 0 is not a member")
	for id := range protocol.NodeID(3) {
		s.changes(command.AddNode{NodeID: id + 1, Address: fmt.Sprintf("%d:1", id+1)})
	}
	s.changes(assign(7, 1, 1))
	s.changes(assign(7, 0, 1))
	s.changes(assign(6, math.MaxUint32, 1))
	s.changes(assign(7, 2, 2))
	s.same(assign(7, 2, 2))
	s.refuses(move(3, 1, 2), "assigned to nobody")
	s.refuses(move(2, 1, 3), "belongs to node 2, not to node 1")
	s.refuses(move(2, 0, 3), "belongs to node 2")
	s.refuses(move(2, 2, 4), "node 4 is not a member")
	s.same(move(2, 2, 2))
	s.changes(move(1, 1, 3))
	s.refuses(move(1, 1, 3), "belongs to node 3")
	s.changes(assign(7, 1, 2)) // whoever had it

	want := []Shard{{6, math.MaxUint32, 1}, {7, 0, 1}, {7, 1, 2}, {7, 2, 2}}
	if got := s.state.Shards(); !reflect.DeepEqual(got, want) {
		t.Errorf("shards %v, want %v", got, want)
	}
	r := s.changes(command.RemoveNode{NodeID: 1})
	if !reflect.DeepEqual(r.Removed, want[:2]) {
		t.Errorf("removed %v, want %v", r.Removed, want[:2])
	}
	if got := s.state.Shards(); !reflect.DeepEqual(got, want[2:]) {
		t.Errorf("shards %v, want %v", got, want[2:])
	}
	if r := s.changes(command.RemoveNode{NodeID: 3}); r.Removed != nil {
		t.Errorf("removed %v, want nothing", r.Removed)
	}
}

func TestSettings(t *testing.T) {
	s := newScript(t)
	s.changes(command.UpdateConfig{Key: "k", Value: ""})
	s.same(command.UpdateConfig{Key: "k", Value: ""})
	s.changes(command.UpdateConfig{Key: "", Value: "v"})
	s.changes(command.UpdateConfig{Key: "k", Value: "w"})
	s.refuses(command.UpdateConfig{Key: "\xff"}, "UTF-8")
	s.refuses(command.UpdateConfig{Value: "\xff"}, "UTF-8")
	if got, want := s.state.Settings(), []Setting{{"", "v"}, {"k", "w"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("settings %v, want %v", got, want)
	}
	if v, ok := s.state.Config("k"); v != "w" || !ok {
		t.Errorf("k is %q, %v", v, ok)
	}
	if v, ok := s.state.Config("K"); ok {
		t.Errorf("K is %q", v)
	}
}

func TestKV(t *testing.T) {
	s := newScript(t)
	put := func(k, v string) command.KvWrite { return command.KvWrite{Key: []byte(k), Value: []byte(v)} }
	del := func(k string) command.KvWrite { return command.KvWrite{Key: []byte(k), Delete: true} }
	s.same(del("a"))
	s.changes(put("a", "1"))   // 2
	s.changes(put("ab", ""))   // 3
	s.same(put("ab", ""))      // 4
	s.changes(put("", "x"))    // 5
	s.changes(put("a", "2"))   // 6
	s.changes(put("\xff", "")) // 7
	s.changes(put("b", "3"))   // 8
	s.changes(del("b"))
	s.same(del("b"))

	list := func(prefix string, limit int) string {
		var b strings.Builder
		for _, e := range s.state.KVList([]byte(prefix), limit) {
			fmt.Fprintf(&b, "%q=%q@%d ", e.Key, e.Value, e.Revision)
		}
		return strings.TrimSpace(b.String())
	}
	for _, test := range []struct {
		prefix string
		limit  int
		want   string
	}{
		{"", 0, `""="x"@5 "a"="2"@6 "ab"=""@3 "\xff"=""@7`},
		{"", 2, `""="x"@5 "a"="2"@6`},
		{"a", -1, `"a"="2"@6 "ab"=""@3`},
		{"ab", 9, `"ab"=""@3`},
		{"abc", 9, ``},
		{"\xff", 9, `"\xff"=""@7`},
	} {
		if got := list(test.prefix, test.limit); got != test.want {
			t.Errorf("list %q, %d:\n got %s\nwant %s", test.prefix, test.limit, got, test.want)
		}
	}
	if e, ok := s.state.KVGet([]byte("b")); ok {
		t.Errorf("b is %+v", e)
	}
	// What is handed out is the caller's own.
	e, _ := s.state.KVGet([]byte("a"))
	e.Key[0], e.Value[0] = 'z', 'z'
	l := s.state.KVList([]byte("a"), 1)
	l[0].Key[0], l[0].Value[0] = 'z', 'z'
	if got := list("a", 1); got != `"a"="2"@6` {
		t.Errorf("after changing what was handed out: %s", got)
	}
	// What is handed in stays the caller's.
	mine := put("c", "mine")
	s.changes(mine)
	mine.Key[0], mine.Value[0] = 'z', 'z'
	if got := list("c", 1); got != `"c"="mine"@11` {
		t.Errorf("after changing what was handed in: %s", got)
	}
}

func TestTimeline(t *testing.T) {
	s := NewState()
	fork := func(f protocol.Fork) command.KvWrite {
		t.Helper()
		c, err := ForkCommand(f)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	f2 := protocol.Fork{Epoch: 2, NodeID: 1}
	f5 := protocol.Fork{Epoch: 5, NodeID: 3, Parent: 2, LSN: 100}
	other := protocol.Fork{Epoch: 5, NodeID: 1, Parent: 2, LSN: 100}
	raw := func(key, value string) command.KvWrite {
		return command.KvWrite{Key: []byte(key), Value: []byte(value)}
	}
	const at = "ha/timeline/00000000000000000006"
	for i, step := range []struct {
		term    uint64
		c       command.KvWrite
		changed bool
		refused string
	}{
		{1, fork(f2), false, "cannot be written in term 1"},
		{2, fork(f2), true, ""},
		{2, fork(f2), false, ""},
		{4, fork(f5), false, "cannot be written in term 4"},
		{5, fork(f5), true, ""},
		{5, fork(other), false, "written already"},
		{6, fork(f5), false, ""}, // again, late: no harm
		{6, fork(other), false, "written already"},
		{6, command.KvWrite{Key: fork(f5).Key, Delete: true}, false, "cannot be deleted"},
		{6, command.KvWrite{Key: []byte(at), Delete: true}, false, "cannot be deleted"},
		{6, raw(at, ``), false, "needs a fork"},
		{6, raw(at, `[]`), false, "needs a fork"},
		{6, raw(at, `{"epoch":-6}`), false, "needs a fork"},
		{6, raw(at, `{"epoch":6,"node_id":0,"parent":5,"lsn":1}`), false, "needs a primary"},
		{6, raw(at, `{"epoch":6,"node_id":1,"parent":6,"lsn":1}`), false, "not older"},
		{6, raw(at, `{"epoch":0,"node_id":1,"parent":0,"lsn":1}`), false, "epoch 0"},
		{6, raw(at, `{"epoch":7,"node_id":1,"parent":5,"lsn":1}`), false, "does not belong"},
		{6, raw("ha/timeline/6", `{"epoch":6,"node_id":1,"parent":5,"lsn":1}`), false, "does not belong"},
		{6, raw("ha/timeline/", `{"epoch":6,"node_id":1,"parent":5,"lsn":1}`), false, "does not belong"},
		{6, raw("ha/timeline/x", `x`), false, "needs a fork"},
		{6, raw("ha/timeline", `x`), true, ""},
		{6, raw("ha/paused", `x`), true, ""},
		{6, command.KvWrite{Key: []byte("ha/paused"), Delete: true}, true, ""},
		{6, raw(at, `{"epoch":6,"node_id":2,"parent":5,"lsn":120,"why":"of a later version"}`), true, ""},
		{7, raw(at, `{"epoch":6,"node_id":2,"parent":5,"lsn":120}`), false, "written already"},
	} {
		r := s.Apply(uint64(i+1), step.term, step.c)
		if r.Changed != step.changed || !strings.Contains(r.Refused, step.refused) || step.refused == "" && r.Refused != "" {
			t.Errorf("step %d, term %d, %s = %s: %+v", i+1, step.term, step.c.Key, step.c.Value, r)
		}
	}
	want := protocol.History{f2, f5, {Epoch: 6, NodeID: 2, Parent: 5, LSN: 120}}
	got := s.History()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("history %v, want %v", got, want)
	}
	got[0].LSN = 77
	if !reflect.DeepEqual(s.History(), want) {
		t.Error("the history handed out is not the caller's own")
	}
	for _, bad := range []protocol.Fork{{}, {Epoch: 1}, {Epoch: 1, NodeID: 1, Parent: 1}} {
		if c, err := ForkCommand(bad); err == nil {
			t.Errorf("%+v gives the command %+v", bad, c)
		}
	}
}

// A copy lives its own life, timelines included.
func TestClone(t *testing.T) {
	s := NewState()
	write := func(to *State, index, epoch uint64, node protocol.NodeID) {
		c, err := ForkCommand(protocol.Fork{Epoch: protocol.Epoch(epoch), NodeID: node})
		if err != nil {
			t.Fatal(err)
		}
		if r := to.Apply(index, epoch, c); !r.Changed {
			t.Fatalf("%+v", r)
		}
	}
	for e := range uint64(5) { // leaves room in the slice behind the history
		write(s, e+1, e+1, 1)
	}
	a, b := s.Clone(), s.Clone()
	write(a, 6, 6, 10)
	write(s, 6, 6, 20)
	write(b, 6, 6, 30)
	for want, state := range map[protocol.NodeID]*State{10: a, 20: s, 30: b} {
		if h := state.History(); len(h) != 6 || h[5].NodeID != want {
			t.Errorf("history %v, want one by %d last", h, want)
		}
	}
}

func TestApplyOutOfOrder(t *testing.T) {
	s := NewState()
	add := command.AddNode{NodeID: 1, Address: "a:1"}
	for _, step := range []struct {
		index, term uint64
		ok          bool
	}{{0, 0, false}, {3, 2, true}, {3, 2, false}, {2, 2, false}, {4, 1, false}, {9, 2, true}, {10, 3, true}} {
		r := s.Apply(step.index, step.term, add)
		if (r.Refused == "") != step.ok || r.Index != step.index {
			t.Errorf("entry %d of term %d: %+v", step.index, step.term, r)
		}
	}
	if index, term := s.Applied(); index != 10 || term != 3 {
		t.Errorf("applied %d of term %d", index, term)
	}
	if r := s.Apply(11, 3, nil); r.Refused == "" {
		t.Errorf("nil: %+v", r)
	}
	if r := s.Apply(12, 3, &add); r.Refused == "" {
		t.Errorf("pointer: %+v", r)
	}
}

func TestStateLimits(t *testing.T) {
	s := newScript(t)
	for id := range protocol.NodeID(MaxMembers) {
		s.changes(command.AddNode{NodeID: id + 1, Address: "a"})
	}
	s.refuses(command.AddNode{NodeID: MaxMembers + 1, Address: "a"}, "no room")
	s.changes(command.AddNode{NodeID: 1, Address: "moved"})
	s.changes(command.RemoveNode{NodeID: 2})
	s.changes(command.AddNode{NodeID: MaxMembers + 1, Address: "a"})

	for i := range uint32(MaxShards) {
		s.state.shards.put(shardKey{7, i}, 1)
	}
	s.refuses(command.AssignShard{TableID: 8, NodeID: 1}, "no room")
	s.changes(command.AssignShard{TableID: 7, NodeID: 3})
	s.changes(command.TransferShard{TableID: 7, FromNode: 3, ToNode: 1})
	if r := s.changes(command.RemoveNode{NodeID: 1}); len(r.Removed) != MaxShards {
		t.Errorf("%d shards removed", len(r.Removed))
	}

	put := func(k, v string) command.KvWrite { return command.KvWrite{Key: []byte(k), Value: []byte(v)} }
	for _, account := range []struct {
		size   *int
		limit  int
		prefix string
	}{{&s.state.dataSize, MaxDataSize, ""}, {&s.state.reservedSize, MaxReservedSize, "ha/"}} {
		s.changes(put(account.prefix+"k", "value"))
		room := len(account.prefix) + 2 + RecordOverhead + 1
		*account.size += account.limit - room - *account.size
		s.refuses(put(account.prefix+"k2", "22"), "delete something first")
		s.changes(put(account.prefix+"k2", "2"))
		if *account.size != account.limit {
			t.Errorf("%d of %d bytes are taken", *account.size, account.limit)
		}
		s.refuses(put(account.prefix+"k2", "22"), "delete something first")
		s.changes(put(account.prefix+"k2", "3"))
		s.changes(put(account.prefix+"k", "valu"))
		s.changes(put(account.prefix+"k2", "22"))
		s.changes(command.KvWrite{Key: []byte(account.prefix + "k"), Delete: true})
		s.changes(put(account.prefix+"k", ""))
	}
	s.refuses(command.UpdateConfig{Key: "setting", Value: "v"}, "delete something first")
	fork, err := ForkCommand(protocol.Fork{Epoch: 1, NodeID: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.changes(fork) // a full state must not stop a failover
}
