package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// twin is the state again, as slow and plain as can be.
type twin struct {
	members  map[protocol.NodeID]string
	shards   map[[2]uint64]protocol.NodeID
	settings map[string]string
	kv       map[string]string // value, then "@", then revision
}

func newTwin() *twin {
	return &twin{map[protocol.NodeID]string{}, map[[2]uint64]protocol.NodeID{}, map[string]string{}, map[string]string{}}
}

// apply returns whether c changed something, whether it was refused, and the
// shards it took away.
func (w *twin) apply(index, term uint64, c command.Command) (changed, refused bool, removed []Shard) {
	before := w.dump()
	switch c := c.(type) {
	case command.AddNode:
		if refused = c.NodeID == 0 || c.Address == "" || len(c.Address) > 512; !refused {
			w.members[c.NodeID] = c.Address
		}
	case command.RemoveNode:
		if refused = w.members[c.NodeID] == ""; !refused {
			delete(w.members, c.NodeID)
			for k, owner := range w.shards {
				if owner == c.NodeID {
					removed = append(removed, Shard{k[0], uint32(k[1]), owner})
					delete(w.shards, k)
				}
			}
		}
	case command.AssignShard:
		if refused = w.members[c.NodeID] == ""; !refused {
			w.shards[[2]uint64{c.TableID, uint64(c.ShardID)}] = c.NodeID
		}
	case command.TransferShard:
		k := [2]uint64{c.TableID, uint64(c.ShardID)}
		owner, ok := w.shards[k]
		if refused = !ok || owner != c.FromNode || w.members[c.ToNode] == ""; !refused {
			w.shards[k] = c.ToNode
		}
	case command.UpdateConfig:
		w.settings[c.Key] = c.Value
	case command.KvWrite:
		k := string(c.Key)
		value, _, had := strings.Cut(w.kv[k], "@")
		switch {
		case strings.HasPrefix(k, "ha/timeline/"):
			var f protocol.Fork
			good := !c.Delete && json.Unmarshal(c.Value, &f) == nil && k == fmt.Sprintf("ha/timeline/%020d", f.Epoch) &&
				f.NodeID > 0 && f.Parent < f.Epoch
			if had {
				refused = !good || value != string(c.Value)
			} else if refused = !good || uint64(f.Epoch) != term; !refused {
				w.kv[k] = fmt.Sprintf("%s@%d", c.Value, index)
			}
		case c.Delete:
			delete(w.kv, k)
		case !had || value != string(c.Value):
			w.kv[k] = fmt.Sprintf("%s@%d", c.Value, index)
		}
	}
	return w.dump() != before, refused, removed
}

func (w *twin) dump() string { return fmt.Sprint(w.members, w.shards, w.settings, w.kv) }

// compare checks every question a State answers.
func (w *twin) compare(t *testing.T, s *State) {
	t.Helper()
	got := newTwin()
	for _, m := range s.Members() {
		got.members[m.NodeID] = m.Address
	}
	for _, sh := range s.Shards() {
		got.shards[[2]uint64{sh.TableID, uint64(sh.ShardID)}] = sh.NodeID
	}
	for _, c := range s.Settings() {
		got.settings[c.Key] = c.Value
		if v, ok := s.Config(c.Key); !ok || v != c.Value {
			t.Fatalf("setting %q is %q, %v", c.Key, v, ok)
		}
	}
	var history protocol.History
	for _, e := range s.KVList(nil, 0) {
		got.kv[string(e.Key)] = fmt.Sprintf("%s@%d", e.Value, e.Revision)
		if g, ok := s.KVGet(e.Key); !ok || !reflect.DeepEqual(g, e) {
			t.Fatalf("key %q is %+v, %v, in the list %+v", e.Key, g, ok, e)
		}
		var f protocol.Fork
		if bytes.HasPrefix(e.Key, []byte("ha/timeline/")) && json.Unmarshal(e.Value, &f) == nil {
			history = append(history, f)
		}
	}
	if got.dump() != w.dump() {
		t.Fatalf("state\n%s\nwant\n%s", got.dump(), w.dump())
	}
	if h := s.History(); !slices.Equal(h, history) {
		t.Fatalf("history %v, keys say %v", h, history)
	}
	data, reserved := 0, 0
	for k, v := range maps.All(w.kv) {
		value, _, _ := strings.Cut(v, "@")
		switch size := len(k) + len(value) + RecordOverhead; {
		case strings.HasPrefix(k, "ha/timeline/"):
		case strings.HasPrefix(k, "ha/"):
			reserved += size
		default:
			data += size
		}
	}
	for k, v := range w.settings {
		data += len(k) + len(v) + RecordOverhead
	}
	if s.dataSize != data || s.reservedSize != reserved {
		t.Fatalf("accounts %d, %d, want %d, %d", s.dataSize, s.reservedSize, data, reserved)
	}
}

func randomCommand(rng *rand.Rand, term uint64) command.Command {
	node := func() protocol.NodeID { return protocol.NodeID(rng.IntN(5)) }
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	switch rng.IntN(9) {
	case 0:
		return command.Noop{}
	case 1, 2:
		return command.AddNode{NodeID: node(), Address: pick("a:1", "b:1", "c:1", "", strings.Repeat("x", 513))}
	case 3:
		return command.RemoveNode{NodeID: node()}
	case 4:
		return command.AssignShard{TableID: rng.Uint64N(2), ShardID: rng.Uint32N(3), NodeID: node()}
	case 5:
		return command.TransferShard{TableID: rng.Uint64N(2), ShardID: rng.Uint32N(3), FromNode: node(), ToNode: node()}
	case 6:
		return command.UpdateConfig{Key: pick("", "k", "\n"), Value: pick("", "v", "☃")}
	case 7:
		epoch := term + rng.Uint64N(3) - min(term, 1)
		f := protocol.Fork{Epoch: protocol.Epoch(epoch), NodeID: node(), Parent: protocol.Epoch(rng.Uint64N(epoch + 2)), LSN: protocol.LSN(rng.IntN(3))}
		value, err := json.Marshal(f)
		if err != nil {
			panic(err)
		}
		return command.KvWrite{Key: []byte(timelineKey(f.Epoch)), Value: value}
	default:
		w := command.KvWrite{Key: []byte(pick("", "a", "ab", "\xff\x00", "ha/x", "ha/timeline/1", timelineKey(1))), Delete: rng.IntN(3) == 0}
		if !w.Delete {
			w.Value = []byte(pick("", "v", "\xfe"))
		}
		return w
	}
}

// Random commands on three states: the state, one that is written and read
// back now and then, and the twin.
func TestStateAgainstTwin(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 6))
		s, restored, w := NewState(), NewState(), newTwin()
		term := uint64(1)
		for index := uint64(1); index <= 300; index++ {
			if rng.IntN(10) == 0 {
				term += rng.Uint64N(3)
			}
			c := randomCommand(rng, term)
			r := s.Apply(index, term, c)
			if again := restored.Apply(index, term, c); !reflect.DeepEqual(again, r) {
				t.Fatalf("seed %d, entry %d: %+v: the restored state says %+v, want %+v", seed, index, c, again, r)
			}
			changed, refused, removed := w.apply(index, term, c)
			slices.SortFunc(removed, func(a, b Shard) int {
				return slices.Compare([]uint64{a.TableID, uint64(a.ShardID)}, []uint64{b.TableID, uint64(b.ShardID)})
			})
			if r.Changed != changed || (r.Refused != "") != refused || !slices.Equal(r.Removed, removed) {
				t.Fatalf("seed %d, entry %d of term %d: %+v: %+v, the twin says changed %v, refused %v, removed %v",
					seed, index, term, c, r, changed, refused, removed)
			}
			if rng.IntN(20) == 0 {
				w.compare(t, s)
				var b bytes.Buffer
				if err := restored.WriteSnapshot(&b); err != nil {
					t.Fatal(err)
				}
				got, err := ReadSnapshot(&b)
				if err != nil {
					t.Fatalf("seed %d, entry %d: %v", seed, index, err)
				}
				restored = got
				w.compare(t, restored)
				if !restored.equal(s) {
					t.Fatalf("seed %d, entry %d: the restored state is another one", seed, index)
				}
			}
		}
	}
}
