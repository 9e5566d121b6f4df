package democluster

import (
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const ms = time.Millisecond

// at makes an acknowledgement of an epoch at a time, sent 2 ms earlier.
func at(key string, epoch protocol.Epoch, acked time.Duration) Ack {
	return Ack{Key: key, Value: "v" + key, Epoch: epoch, Sent: acked - 2*ms, Acked: acked}
}

func TestFailover(t *testing.T) {
	for _, tt := range []struct {
		name string
		acks []Ack
		old  protocol.Epoch
		gap  time.Duration
		ok   bool
	}{
		{"nothing", nil, 1, 0, false},
		{"not yet", []Ack{at("a", 1, 10*ms)}, 1, 0, false},
		{"plain", []Ack{at("a", 1, 10*ms), at("b", 2, 110*ms), at("c", 2, 120*ms)}, 1, 100 * ms, true},
		{"last words after the kill count as before", []Ack{at("a", 1, 10*ms), at("b", 1, 14*ms), at("c", 2, 110*ms)}, 1, 96 * ms, true},
		{"recorded out of order", []Ack{at("c", 2, 120*ms), at("b", 2, 110*ms), at("z", 1, 30*ms), at("a", 1, 10*ms)}, 1, 80 * ms, true},
		{"two epochs on", []Ack{at("a", 1, 10*ms), at("b", 4, 60*ms)}, 1, 50 * ms, true},
		{"the second failover", []Ack{at("a", 1, 10*ms), at("b", 2, 60*ms), at("c", 3, 90*ms)}, 2, 30 * ms, true},
	} {
		gap, first, ok := Failover(tt.acks, tt.old)
		if ok != tt.ok || (ok && (gap != tt.gap || first.Epoch <= tt.old)) {
			t.Errorf("%s: %v, %+v, %v; want %v, %v", tt.name, gap, first, ok, tt.gap, tt.ok)
		}
	}
}

func TestDualPrimaryAcks(t *testing.T) {
	for _, tt := range []struct {
		name string
		acks []Ack
		want int
	}{
		{"nothing", nil, 0},
		{"one after the other", []Ack{at("a", 1, 10*ms), at("b", 2, 20*ms), at("c", 3, 30*ms)}, 0},
		{"recorded out of order", []Ack{at("b", 2, 20*ms), at("a", 1, 10*ms)}, 0},
		{"at the same instant is not after", []Ack{at("a", 2, 20*ms), at("b", 1, 20*ms)}, 0},
		{"a zombie", []Ack{at("a", 1, 10*ms), at("b", 2, 20*ms), at("c", 1, 30*ms), at("d", 1, 31*ms), at("e", 2, 40*ms)}, 2},
		{"sent before, acknowledged after", []Ack{{Epoch: 1, Sent: 1 * ms, Acked: 50 * ms}, at("b", 2, 20*ms)}, 1},
		{"older than two", []Ack{at("a", 3, 10*ms), at("b", 2, 20*ms), at("c", 1, 30*ms)}, 2},
	} {
		if got := DualPrimaryAcks(tt.acks); len(got) != tt.want {
			t.Errorf("%s: %d, want %d: %+v", tt.name, len(got), tt.want, got)
		}
	}
}

func TestLostWrites(t *testing.T) {
	acks := []Ack{at("a", 1, 1*ms), at("b", 1, 2*ms), at("c", 2, 3*ms)}
	data := map[string]string{"a": "va", "b": "other", "x": "never acknowledged"}
	lost := LostWrites(acks, data)
	if len(lost) != 2 || lost[0].Key != "b" || lost[1].Key != "c" {
		t.Errorf("lost %+v, want b (another value) and c (absent)", lost)
	}
	if lost := LostWrites(acks[:1], data); lost != nil {
		t.Errorf("lost %+v, want none", lost)
	}
}

func TestLongestGap(t *testing.T) {
	acks := []Ack{at("c", 1, 90*ms), at("a", 1, 10*ms), at("b", 1, 40*ms), at("z", 1, 500*ms)}
	for _, tt := range []struct{ from, to, want time.Duration }{
		{10 * ms, 90 * ms, 50 * ms},
		{10 * ms, 40 * ms, 30 * ms},
		{0, 100 * ms, 50 * ms},
		{0, 250 * ms, 160 * ms},
		{41 * ms, 42 * ms, 1 * ms},
	} {
		if got := LongestGap(acks, tt.from, tt.to); got != tt.want {
			t.Errorf("%v to %v: %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
}

func TestLatency(t *testing.T) {
	if got := Latency(nil, 0.5); got != 0 {
		t.Error(got)
	}
	acks := []Ack{{Sent: 0, Acked: 9 * ms}, {Sent: 0, Acked: 1 * ms}, {Sent: 1 * ms, Acked: 3 * ms}}
	if got := Latency(acks, 0.5); got != 2*ms {
		t.Error(got)
	}
	if got := Latency(acks, 1); got != 9*ms {
		t.Error(got)
	}
}
