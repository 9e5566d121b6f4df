package torture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// ack is an acknowledgement of an epoch, sent 2 ms before.
func ack(key string, epoch protocol.Epoch, at time.Duration) democluster.Ack {
	return democluster.Ack{Key: key, Value: "v" + key, Epoch: epoch, LSN: protocol.LSN(at), Node: protocol.NodeID(epoch), Sent: at - 2*ms, Acked: at}
}

// healthy is the record of a run in which node 1 was killed and all went well.
func healthy() Record {
	rec := Record{Nodes: 3, From: 0, Until: 10 * sec, Data: map[string]string{}, KV: map[string]string{}}
	for at := 10 * ms; at < 10*sec; at += 10 * ms {
		epoch := protocol.Epoch(1)
		if at > 4*sec {
			if epoch = 2; at < 4300*ms {
				continue
			}
		}
		a := ack(fmt.Sprint("k", at), epoch, at)
		rec.Acks = append(rec.Acks, a)
		rec.Data[a.Key] = a.Value
	}
	rec.Windows = []Window{{Step: 1, Harm: HarmDown, Node: 1, From: 4 * sec, To: 6 * sec}}
	rec.Done = []Done{{Step: Step{N: 1, Fault: FaultKill, Target: OnPrimary}, Node: 1, From: 4 * sec, To: 6 * sec, Whole: 7 * sec}}
	rec.Ops = []Op{
		{Key: "t/kv-0", Kind: OpPut, Value: "a", Outcome: OK, Rev: 5, Start: 1 * sec, End: 1010 * ms},
		{Key: "t/kv-0", Kind: OpGet, Seen: "a", Outcome: OK, Rev: 5, Start: 2 * sec, End: 2010 * ms},
		{Key: "t/kv-0", Kind: OpCompare, Old: "a", Value: "b", Outcome: OK, Rev: 9, Start: 3 * sec, End: 3010 * ms},
		{Key: "t/kv-0", Kind: OpGet, Seen: "b", Outcome: OK, Rev: 9, Start: 5 * sec, End: 5010 * ms},
		{Key: uniqueKey(4, 7), Kind: OpPut, Value: "u", Outcome: OK, Rev: 11, Start: 3 * sec, End: 3010 * ms},
		{Key: "t/data-0", Kind: OpPut, Value: "d", Outcome: OK, Epoch: 1, LSN: 3, Node: 1, Start: 3 * sec, End: 3001 * ms},
		{Key: "t/data-0", Kind: OpGet, Seen: "d", Outcome: OK, Epoch: 1, Node: 2, Start: 5 * sec, End: 5001 * ms},
	}
	rec.KV[uniqueKey(4, 7)] = "u"
	return rec
}

// Each thing that must not be is found, and nothing else with it.
func TestJudgeFindsEachViolation(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*Record)
		want string // begins the only violation; "" is none
	}{
		{"all is well", func(*Record) {}, ""},
		{"an acknowledged write is gone", func(r *Record) { delete(r.Data, r.Acks[100].Key) }, "1 acknowledged writes are lost, the first: k"},
		{"an acknowledged write has another value", func(r *Record) { r.Data[r.Acks[100].Key] = "x" }, "1 acknowledged writes are lost"},
		{"an acknowledged write of KV is gone", func(r *Record) { clear(r.KV) }, "1 acknowledged writes are lost, the first: [3s 3.01s]"},
		{"the old primary acknowledges after the new one", func(r *Record) {
			a := ack("late", 1, 4500*ms)
			r.Acks, r.Data["late"] = append(r.Acks, a), a.Value
		}, "1 writes were acknowledged by an older epoch after a newer one, the first: late by node 1 in epoch 1"},
		{"the old primary acknowledges a register after the new one", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/data-1", Kind: OpPut, Value: "z", Outcome: OK, Epoch: 1, Node: 1, Start: 3900 * ms, End: 4600 * ms})
		}, "1 writes were acknowledged by an older epoch"},
		{"a read of what was overwritten", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/kv-0", Kind: OpGet, Seen: "a", Outcome: OK, Rev: 5, Start: 6 * sec, End: 6010 * ms})
		}, "1 of 2 registers are not linearizable: key t/kv-0"},
		{"a write to a register is lost", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/data-0", Kind: OpGet, Outcome: OK, Start: 9 * sec, End: 9010 * ms})
		}, "1 of 2 registers are not linearizable: key t/data-0"},
		{"two compares win against the same value", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/kv-0", Kind: OpCompare, Old: "a", Value: "c", Outcome: OK, Rev: 10, Start: 3 * sec, End: 3020 * ms})
		}, "1 of 2 registers are not linearizable"},
		{"a compare loses against the value it asked for", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/kv-0", Kind: OpCompare, Old: "b", Value: "c", Outcome: Differs, Start: 6 * sec, End: 6020 * ms})
		}, "1 of 2 registers are not linearizable"},
		{"a value nobody wrote", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/data-0", Kind: OpGet, Seen: "?", Outcome: OK, Start: 9 * sec, End: 9010 * ms})
		}, "1 of 2 registers are not linearizable"},
		{"one revision for two values", func(r *Record) {
			r.Ops = append(r.Ops, Op{Key: "t/kv-0", Kind: OpPut, Value: "q", Outcome: OK, Rev: 9, Start: 6 * sec, End: 6010 * ms})
		}, "1 of 2 registers are not linearizable: key t/kv-0: a revision is not one write"},
		{"no primary for longer than allowed", func(r *Record) {
			r.Acks = r.Acks[:400]
		}, "6s without a primary while a quorum was connected, from 4s on"},
		{"no primary, but no quorum either", func(r *Record) {
			r.Acks = r.Acks[:400]
			r.Windows = append(r.Windows, Window{Harm: HarmPaused, Node: 2, From: 4001 * ms, To: 9 * sec}, Window{Harm: HarmDown, Node: 3, From: 4001 * ms, To: 9 * sec})
		}, ""},
		{"nothing was written at all", func(r *Record) { r.Acks, r.Ops, r.Until = nil, nil, sec }, "no write was acknowledged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := healthy()
			tt.do(&rec)
			got := Judge(rec, 10*sec).Violations()
			if tt.want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || tt.want == "" || !strings.HasPrefix(got[0], tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What the requests without an answer may have done is counted for the cluster,
// never against it; and what they cannot have done is still found.
func TestUnknownWritesMayOrMayNotBeThere(t *testing.T) {
	unknown := Op{Key: "t/kv-0", Kind: OpPut, Value: "x", Outcome: Unknown, Start: 4 * sec, End: 5 * sec}
	read := func(seen string, at time.Duration) Op {
		return Op{Key: "t/kv-0", Kind: OpGet, Seen: seen, Outcome: OK, Start: at, End: at + ms}
	}
	for _, tt := range []struct {
		name string
		ops  []Op
		ok   bool
	}{
		{"never seen", []Op{unknown, read("b", 8*sec)}, true},
		{"seen late", []Op{unknown, read("b", 8*sec), read("x", 9*sec)}, true},
		{"seen before it was sent", []Op{unknown, read("x", 3500*ms)}, false},
		{"seen and gone again", []Op{unknown, read("x", 8*sec), read("b", 9*sec)}, false},
		{"noticed by a compare only", []Op{unknown, {Key: "t/kv-0", Kind: OpCompare, Old: "b", Value: "c", Outcome: Differs, Start: 8 * sec, End: 9 * sec}}, true},
		{"too young to be noticed", []Op{unknown, {Key: "t/kv-0", Kind: OpCompare, Old: "b", Value: "c", Outcome: Differs, Start: 3100 * ms, End: 3200 * ms}}, false},
		{"a compare that may have won", []Op{{Key: "t/kv-0", Kind: OpCompare, Old: "b", Value: "c", Outcome: Unknown, Start: 8 * sec, End: 9 * sec}, read("c", 9500*ms)}, true},
		{"a compare that cannot have won", []Op{{Key: "t/kv-0", Kind: OpCompare, Old: "a", Value: "c", Outcome: Unknown, Start: 8 * sec, End: 9 * sec}, read("c", 9500*ms)}, false},
		{"refused, and there", []Op{{Key: "t/kv-0", Kind: OpPut, Value: "x", Outcome: Refused, Start: 4 * sec, End: 5 * sec}, read("x", 8*sec)}, false},
	} {
		l := CheckLinearizable(append(healthy().Ops[:4], tt.ops...), 10*sec)
		if l.OK() != tt.ok || len(l.Open) > 0 {
			t.Errorf("%s: %+v, want ok %v", tt.name, l, tt.ok)
		}
	}
}

// Histories of a real register, with requests that overlap and answers that get
// lost, are found linearizable; with one answer changed to something older they
// are not.
func TestLinearizableAgainstARegister(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for round := range 60 {
		value, now := "", time.Duration(0)
		var ops []Op
		var firstSeen []int // reads of a value that had been overwritten for good later
		for i := range 80 {
			now += time.Duration(1+random.IntN(5)) * ms
			o := Op{Client: i % 4, Key: "k", Value: fmt.Sprint(i), Outcome: OK, Start: now - time.Duration(random.IntN(8))*ms, End: now + time.Duration(random.IntN(8))*ms}
			switch random.IntN(4) {
			case 0:
				o.Kind, value = OpPut, o.Value
			case 1:
				o.Kind = OpCompare
				if o.Old = value; random.IntN(3) == 0 {
					o.Old, o.Outcome = "none", Differs
				} else {
					value = o.Value
				}
			default:
				o.Kind, o.Seen, o.Value = OpGet, value, ""
				firstSeen = append(firstSeen, i)
			}
			if o.Outcome == OK && random.IntN(10) == 0 {
				o.Outcome = Unknown
			}
			ops = append(ops, o)
		}
		if l := CheckLinearizable(ops, 10*sec); !l.OK() {
			t.Fatalf("round %d: %+v", round, l)
		}
		for _, i := range firstSeen { // a read of what never was
			if ops[i].Outcome == OK {
				ops[i].Seen = "never"
				break
			}
		}
		if l := CheckLinearizable(ops, 10*sec); len(l.Illegal) != 1 || l.Worst == nil {
			t.Fatalf("round %d: a read of what never was is taken for linearizable: %+v", round, l)
		}
	}
}

// A check that cannot end in time is no proof.
func TestUnprovenIsNotLinearizable(t *testing.T) {
	var ops []Op
	for i := range 40 { // every order of forty writes, and a read that fits none
		ops = append(ops, Op{Client: i, Key: "k", Kind: OpPut, Value: fmt.Sprint(i), Outcome: OK, End: sec})
	}
	for i := range 40 {
		ops = append(ops, Op{Client: i, Key: "k", Kind: OpGet, Seen: fmt.Sprint(i), Outcome: OK, End: sec})
	}
	ops = append(ops, Op{Key: "k", Kind: OpGet, Seen: "never", Outcome: OK, Start: 2 * sec, End: 3 * sec})
	l := CheckLinearizable(ops, 100*ms)
	if l.OK() {
		t.Errorf("%+v", l)
	}
	f := Finding{Linearity: l, Acked: 1}
	if len(f.Violations()) != 1 {
		t.Errorf("violations %q", f.Violations())
	}
}

func TestConnected(t *testing.T) {
	for _, tt := range []struct {
		name    string
		nodes   int
		windows []Window
		want    string
	}{
		{"nothing happened", 3, nil, "[{0s 10s}]"},
		{"one down", 3, []Window{{Harm: HarmDown, Node: 1, From: sec, To: 2 * sec}}, "[{0s 10s}]"},
		{"two down", 3, []Window{{Harm: HarmDown, Node: 1, From: sec, To: 3 * sec}, {Harm: HarmPaused, Node: 2, From: 2 * sec, To: 4 * sec}}, "[{0s 2s} {3s 10s}]"},
		{"down for good", 3, []Window{{Harm: HarmDown, Node: 1, From: sec}, {Harm: HarmFull, Node: 2, From: 2 * sec}}, "[{0s 2s}]"},
		{"a chain has two quorums", 3, []Window{{Harm: HarmCut, Node: 1, Peer: 2, From: sec, To: 2 * sec}}, "[{0s 10s}]"},
		{"each cut from each", 3, []Window{
			{Harm: HarmCut, Node: 1, Peer: 2, From: sec, To: 2 * sec}, {Harm: HarmCut, Node: 2, Peer: 3, From: sec, To: 2 * sec}, {Harm: HarmOneWay, Node: 3, Peer: 1, From: sec, To: 2 * sec},
		}, "[{0s 1s} {2s 10s}]"},
		{"cut from the clients", 3, []Window{{Harm: HarmCut, Node: 1, From: sec, To: 2 * sec}}, "[{0s 10s}]"},
		{"slow is connected", 3, []Window{{Harm: HarmSlow, Node: 1, From: sec}, {Harm: HarmSlow, Node: 2, From: sec}}, "[{0s 10s}]"},
		{"a ring of five has no three that all meet", 5, []Window{
			{Harm: HarmCut, Node: 1, Peer: 3, From: sec}, {Harm: HarmCut, Node: 2, Peer: 4, From: sec}, {Harm: HarmCut, Node: 3, Peer: 5, From: sec},
			{Harm: HarmCut, Node: 4, Peer: 1, From: sec}, {Harm: HarmCut, Node: 5, Peer: 2, From: sec},
		}, "[{0s 1s}]"},
	} {
		if got := fmt.Sprint(Connected(tt.windows, tt.nodes, 0, 10*sec)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestChangesAreLaidAtTheirFault(t *testing.T) {
	acks := []democluster.Ack{ack("a", 1, 1*sec), ack("b", 2, 1300*ms), ack("c", 2, 5*sec), ack("d", 4, 5400*ms), ack("e", 4, 6*sec), ack("f", 5, 9*sec)}
	done := []Done{
		{Step: Step{N: 1, Fault: FaultKill}, From: 1100 * ms, To: 2 * sec, Whole: 3 * sec},
		{Step: Step{N: 2, Fault: FaultPause}, From: 8 * sec, To: 8500 * ms}, // never whole
	}
	var got []string
	for _, c := range Changes(Reigns(acks), done) {
		got = append(got, fmt.Sprintf("%s %d: epoch %d, %v ms", c.Fault, c.Step, c.Epoch, c.FailoverMS))
	}
	want := []string{"kill 1: epoch 2, 300 ms", "none 0: epoch 4, 400 ms", "pause 2: epoch 5, 3000 ms"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestDifference(t *testing.T) {
	for _, tt := range []struct {
		a, b map[string]string
		want [3]string
	}{
		{map[string]string{"k": "v"}, map[string]string{"k": "v"}, [3]string{}},
		{map[string]string{"k": "v", "l": ""}, map[string]string{"k": "v"}, [3]string{"l", "", ""}},
		{map[string]string{"k": "v"}, map[string]string{"k": "w", "j": "x"}, [3]string{"j", "", "x"}},
		{map[string]string{"k": "v"}, map[string]string{"k": "w"}, [3]string{"k", "v", "w"}},
	} {
		if key, a, b := difference(tt.a, tt.b); [3]string{key, a, b} != tt.want {
			t.Errorf("%v and %v: %q, %q, %q", tt.a, tt.b, key, a, b)
		}
	}
}
