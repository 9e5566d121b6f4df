package ha

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

func kvPut(key, value string) command.KvWrite {
	return command.KvWrite{Key: []byte(key), Value: []byte(value)}
}

func TestProposeIfAtEveryNode(t *testing.T) {
	c := newTestCluster(t)
	c.primary(protocol.NoNode)
	for id, n := range c.nodes {
		key := "k" + id.String()
		first, err := n.ProposeIf(c.context(), kvPut(key, "a"), 0)
		if err != nil || !first.Changed {
			t.Fatalf("node %d: %+v, %v", id, first, err)
		}
		for _, want := range []uint64{0, first.Index - 1, first.Index + 1} {
			_, err = n.ProposeIf(c.context(), kvPut(key, "b"), want)
			var differs *fsm.RevisionError
			if !errors.As(err, &differs) || differs.Have != first.Index || differs.Want != want || string(differs.Key) != key {
				t.Errorf("node %d: with revision %d where there is %d: %v", id, want, first.Index, err)
			}
		}
		if same, err := n.ProposeIf(c.context(), kvPut(key, "a"), first.Index); err != nil || same.Changed {
			t.Errorf("node %d: the value it has: %+v, %v", id, same, err)
		}
		second, err := n.ProposeIf(c.context(), kvPut(key, "b"), first.Index) // the one before changed nothing
		if err != nil || second.Index <= first.Index {
			t.Errorf("node %d: %+v, %v", id, second, err)
		}
		if _, err := n.ProposeIf(c.context(), command.KvWrite{Key: []byte(key), Delete: true}, second.Index); err != nil {
			t.Errorf("node %d: deleting: %v", id, err)
		}
		_, err = n.ProposeIf(c.context(), kvPut(key, "c"), second.Index)
		if differs := new(fsm.RevisionError); !errors.As(err, &differs) || differs.Have != 0 {
			t.Errorf("node %d: what was deleted: %v", id, err)
		}
		if _, err := n.ProposeIf(c.context(), kvPut(fsm.ReservedPrefix+"x", "c"), 0); !errors.Is(err, fsm.ErrRefused) {
			t.Errorf("node %d: a reserved key: %v", id, err)
		}
	}
	// What no node of ours forwards, and one with another version might.
	noop, _ := command.Encode(command.Noop{})
	n := c.nodes[1]
	for name, payload := range map[string][]byte{"nothing": nil, "half a revision": make([]byte, 7), "no command": append(make([]byte, 8), "x"...), "another command": append(make([]byte, 8), noop...)} {
		reply, err := n.serveForward(c.context(), 2, protocol.ForwardRequest{Kind: protocol.ForwardProposeIf, TimeoutUS: 1e6, Payload: payload})
		if err != nil || reply.Status != protocol.ForwardRefused {
			t.Errorf("%s is forwarded: %+v, %v", name, reply, err)
		}
	}
	for id, n := range c.nodes {
		if err := n.fsm.Halted(); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
	}
}

// A cluster does what a map with revisions does, whichever node is asked.
func TestConditionalWritesAgainstAModel(t *testing.T) {
	c := newTestCluster(t)
	c.primary(protocol.NoNode)
	type cell struct {
		value string
		rev   uint64
	}
	model := map[string]cell{}
	random := rand.New(rand.NewPCG(3, 1))
	last := uint64(0)
	for step := range 300 {
		n := c.nodes[protocol.NodeID(1+random.IntN(3))]
		key := string(rune('a' + random.IntN(3)))
		now := model[key]
		write := command.KvWrite{Key: []byte(key), Delete: random.IntN(4) == 0}
		if !write.Delete {
			write.Value = []byte{byte('0' + random.IntN(3))}
		}
		changes := write.Delete && now.rev > 0 || !write.Delete && (now.rev == 0 || now.value != string(write.Value))
		want := []uint64{now.rev, now.rev, 0, last, last + 1, uint64(random.Uint32N(uint32(last) + 2))}[random.IntN(6)]
		var result fsm.Result
		var err error
		if plain := random.IntN(4) == 0; plain {
			result, err = n.Propose(c.context(), write)
		} else if result, err = n.ProposeIf(c.context(), write, want); want != now.rev {
			var differs *fsm.RevisionError
			if !errors.As(err, &differs) || differs.Have != now.rev || differs.Want != want {
				t.Fatalf("step %d: %+v if %d, with %+v there: %+v, %v", step, write, want, now, result, err)
			}
			continue
		}
		if err != nil || result.Changed != changes || result.Index <= last {
			t.Fatalf("step %d: %+v, with %+v there: %+v, %v; want changed %v", step, write, now, result, err, changes)
		}
		last = result.Index
		switch {
		case changes && write.Delete:
			delete(model, key)
		case changes:
			model[key] = cell{string(write.Value), result.Index}
		}
	}
	for id, n := range c.nodes {
		if _, err := n.Read(c.context(), fsm.Linearizable, func(s *fsm.State) {
			for _, key := range []string{"a", "b", "c"} {
				e, _ := s.KVGet([]byte(key))
				if want := model[key]; string(e.Value) != want.value || e.Revision != want.rev || s.KVRevision([]byte(key)) != want.rev {
					t.Errorf("node %d: %s is %q of revision %d, want %+v", id, key, e.Value, e.Revision, want)
				}
			}
		}); err != nil {
			t.Errorf("node %d: %v", id, err)
		}
	}
}

// counter is a number that many increment at once, and what they were told.
type counter struct {
	t     *testing.T
	mu    sync.Mutex
	nodes map[protocol.NodeID]*Node
	done  map[int]string   // by number: whose success made it
	maybe map[int][]string // by number: who may have made it
	seen  map[int]string   // by number: who made it, as read
	lost  int              // comparisons that failed
}

func (c *counter) node(random *rand.Rand) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if n := c.nodes[protocol.NodeID(1+random.IntN(3))]; n != nil {
			return n
		}
	}
}

func (c *counter) read(ctx context.Context, n *Node) (number int, who string, rev uint64, err error) {
	var e fsm.Entry
	_, err = n.Read(ctx, fsm.Linearizable, func(s *fsm.State) { e, _ = s.KVGet([]byte("counter")) })
	if err != nil || e.Revision == 0 {
		return 0, "", 0, err
	}
	if _, err := fmt.Sscanf(string(e.Value), "%d by %s", &number, &who); err != nil {
		c.t.Errorf("the counter is %q", e.Value)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.seen[number]; before != "" && before != who {
		c.t.Errorf("%d was made by %s and by %s", number, before, who)
	}
	c.seen[number] = who
	return number, who, e.Revision, nil
}

// increment adds one to the counter, and comes back when it is known to be so, or
// when it is not known whether it is.
func (c *counter) increment(ctx context.Context, me string, random *rand.Rand) {
	for ctx.Err() == nil {
		timeout := 3 * time.Second
		if random.IntN(10) == 0 {
			timeout = time.Duration(random.IntN(20)) * time.Millisecond // leaves early
		}
		limited, cancel := context.WithTimeout(ctx, timeout)
		number, _, rev, err := c.read(limited, c.node(random))
		if errors.Is(err, ErrOutcomeUnknown) {
			c.t.Errorf("%s: a read does nothing, and is of unknown outcome: %v", me, err)
			err = context.DeadlineExceeded
		}
		if err == nil {
			_, err = c.node(random).ProposeIf(limited, kvPut("counter", fmt.Sprintf("%d by %s", number+1, me)), rev)
			c.note(number+1, me, err)
		}
		cancel()
		switch {
		case err == nil, errors.Is(err, ErrOutcomeUnknown):
			return
		case errors.As(err, new(*fsm.RevisionError)), errors.Is(err, ErrNoQuorum), errors.Is(err, ErrNotLeader), errors.Is(err, ErrClosed),
			errors.Is(err, context.DeadlineExceeded), errors.Is(err, transport.ErrNotSent):
		default:
			c.t.Errorf("%s: %v", me, err)
			return
		}
	}
	c.t.Errorf("%s did not come to an end", me)
}

func (c *counter) note(number int, me string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		if other := c.done[number]; other != "" {
			c.t.Errorf("both %s and %s made %d", other, me, number)
		}
		c.done[number] = me
	case errors.Is(err, ErrOutcomeUnknown):
		c.maybe[number] = append(c.maybe[number], me)
	case errors.As(err, new(*fsm.RevisionError)):
		c.lost++
	}
}

// Many increment one counter through all nodes, by comparing, while leadership
// moves and a leader goes down: no increment is lost, none is counted twice.
func TestConcurrentIncrements(t *testing.T) {
	cluster := newTestCluster(t)
	cluster.primary(protocol.NoNode)
	c := &counter{t: t, nodes: map[protocol.NodeID]*Node{}, done: map[int]string{}, maybe: map[int][]string{}, seen: map[int]string{}}
	for id, n := range cluster.nodes {
		c.nodes[id] = n
	}
	const clients, each = 6, 15
	ctx := cluster.context()
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for i := range each {
				c.increment(ctx, fmt.Sprintf("%d.%d", n, i), random)
			}
		})
	}
	reached := func(n int) {
		await(t, fmt.Sprintf("the counter reaches %d", n), func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.done) >= n
		})
	}
	leader := func() (id protocol.NodeID) {
		await(t, "there is a leader", func() bool {
			for own, n := range c.nodes {
				if id, _ = n.consensus.Leader(); id == own {
					return true
				}
			}
			return false
		})
		return id
	}
	const total = clients * each
	reached(total / 5)
	first := leader()
	if err := cluster.nodes[first].consensus.Transfer(ctx, first%3+1); err != nil {
		t.Logf("leadership stays: %v", err) // the machine is slow; a leader goes down below
	}
	reached(2 * total / 5)
	down := leader()
	c.mu.Lock()
	delete(c.nodes, down)
	c.mu.Unlock()
	cluster.stop(down)
	reached(3 * total / 5)
	cluster.start(down)
	c.mu.Lock()
	c.nodes[down] = cluster.nodes[down]
	c.mu.Unlock()
	all.Wait()

	final, _, _, err := c.read(ctx, cluster.nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	unknown, took := 0, 0
	for _, who := range c.maybe {
		unknown += len(who)
	}
	for number := 1; number <= final; number++ {
		by, maybe := c.done[number], c.maybe[number]
		switch {
		case by == "" && len(maybe) == 0:
			t.Errorf("%d was made by nobody", number)
		case by == "":
			took++
		}
		if seen := c.seen[number]; seen != "" && seen != by && (by != "" || !strings.Contains(" "+strings.Join(maybe, " ")+" ", " "+seen+" ")) {
			t.Errorf("%d was made by %s, and read as of %s", number, by, seen)
		}
	}
	if len(c.done)+unknown != total || len(c.done)+took != final {
		t.Errorf("the counter is %d after %d successes and %d unknown outcomes of %d increments, %d of which took place", final, len(c.done), unknown, total, took)
	}
	if c.lost == 0 {
		t.Error("no two of them ever met")
	}
	t.Logf("%d successes, %d unknown of which %d took place, %d comparisons failed", len(c.done), unknown, took, c.lost)
}

// Conditional writes and plain ones of the same key: between a conditional one and
// the revision it depended on there is no other, plain ones included.
func TestPlainWritesBetween(t *testing.T) {
	c := newTestCluster(t)
	c.primary(protocol.NoNode)
	ctx := c.context()
	type change struct{ index, over uint64 } // over: the revision it depended on
	var mu sync.Mutex
	var plain []uint64
	var conditional []change
	const writers, each = 3, 8
	successes := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(conditional)
	}
	var all sync.WaitGroup
	for w := range writers {
		n := c.nodes[protocol.NodeID(w+1)]
		all.Go(func() { // plain, and leaves the others a chance
			for i := 0; ctx.Err() == nil && successes() < writers*each; i++ {
				result, err := n.Propose(ctx, kvPut("k", fmt.Sprintf("plain %d.%d", w, i)))
				if err != nil {
					t.Errorf("plain: %v", err)
					return
				}
				mu.Lock()
				plain = append(plain, result.Index)
				mu.Unlock()
				for before := successes(); ctx.Err() == nil && successes() < min(before+1, writers*each); time.Sleep(time.Millisecond) {
				}
			}
		})
		all.Go(func() {
			var over uint64
			for done := 0; done < each && ctx.Err() == nil; {
				result, err := n.ProposeIf(ctx, kvPut("k", fmt.Sprintf("if %d.%d", w, done)), over)
				var differs *fsm.RevisionError
				switch {
				case errors.As(err, &differs):
					over = differs.Have
				case err != nil:
					t.Errorf("conditional: %v", err)
					return
				default:
					mu.Lock()
					conditional = append(conditional, change{result.Index, over})
					mu.Unlock()
					done++
				}
			}
		})
	}
	all.Wait()
	for _, one := range conditional {
		between := func(index uint64) bool { return index > one.over && index < one.index }
		for _, other := range plain {
			if between(other) {
				t.Errorf("the write at %d depended on revision %d, and one at %d came between", one.index, one.over, other)
			}
		}
		for _, other := range conditional {
			if between(other.index) {
				t.Errorf("the write at %d depended on revision %d, and another such one at %d came between", one.index, one.over, other.index)
			}
		}
	}
	if len(plain) < writers || len(conditional) != writers*each {
		t.Errorf("%d plain and %d conditional writes", len(plain), len(conditional))
	}
	t.Logf("%d plain, %d conditional", len(plain), len(conditional))
}

func TestRevisionErrorSaysWhat(t *testing.T) {
	for _, c := range []struct {
		want, have uint64
		text       string
	}{{7, 9, "has revision 9, want 7"}, {0, 9, "is there already, with revision 9"}, {7, 0, "is not there, want revision 7"}} {
		err := &fsm.RevisionError{Key: bytes.Repeat([]byte{'k', 0}, 2), Want: c.want, Have: c.have}
		if got := err.Error(); got != `key "k\x00k\x00" `+c.text+": nothing was written" {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
