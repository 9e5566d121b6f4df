package transport

import (
	"net/netip"
	"testing"
	"time"
)

func TestGateBounds(t *testing.T) {
	var g gate
	src := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	var inside []*visitor
	now := time.Unix(1000, 0)
	call := func(i int) (v, out *visitor) {
		v, out = g.call(nil, src(i), now)
		inside = append(inside, v)
		return v, out
	}
	for i := range maxCallersPerSource {
		if _, out := call(0); out != nil {
			t.Fatalf("caller %d of one source turned another out", i)
		}
	}
	node, _ := call(1) // of another source, about to knock
	for range 10 * maxCallersPerSource {
		if v, out := call(0); out == nil || out.source != src(0) || out == v {
			t.Fatal("one source takes more than its part, or another's")
		}
	}
	for i := range maxCallers - maxCallersPerSource - 1 {
		if _, out := call(2 + i); out != nil {
			t.Fatalf("caller %d turned another out", i)
		}
	}
	if _, out := call(1000); out == nil || g.callers.Len() != maxCallers {
		t.Error("more callers than allowed")
	}
	if !node.turned && !g.advance(node) {
		t.Error("a node that knocks is not let on")
	}
	turned := 0
	for _, v := range inside {
		if v.turned {
			turned++
			if g.advance(v) {
				t.Fatal("one that was turned out goes on")
			}
		}
		g.leave(v)
	}
	if turned != 10*maxCallersPerSource+1 {
		t.Errorf("%d turned out", turned)
	}
	if len(g.sources) != 0 || g.callers.Len() != 0 || g.total != [stages]int{} {
		t.Fatalf("something is left: %+v", g.total)
	}

	// Whoever had its time goes first, whoever came first among them.
	inside = nil
	first, _ := call(0)
	for range maxCallersPerSource - 1 {
		call(0)
	}
	now = now.Add(callerPatience)
	if _, out := call(0); out != first {
		t.Error("not the oldest one went")
	}
	for range maxCallersPerSource - 1 {
		if v, out := call(0); out == nil || out.since == v.since {
			t.Fatal("one that had no time yet went before one that had")
		}
	}
	for _, v := range inside {
		g.leave(v)
	}

	// The later stages turn away instead: whoever is there has proved something.
	inside = nil
	shake := func(i int) bool {
		v, _ := call(i)
		return g.advance(v)
	}
	for range maxHandshakesPerSource {
		if !shake(0) {
			t.Fatal("a handshake was refused")
		}
	}
	if shake(0) {
		t.Error("one source takes more than its part of the handshakes")
	}
	for i := range maxHandshakes - maxHandshakesPerSource {
		if !shake(1 + i) {
			t.Fatal("a handshake was refused")
		}
	}
	if shake(1000) {
		t.Error("more handshakes than allowed")
	}
	for _, v := range inside {
		g.leave(v)
	}
	inside = nil
	enter := func(i int) bool {
		v, _ := call(i)
		return g.advance(v) && g.advance(v)
	}
	for range maxConnsPerSource {
		if !enter(0) {
			t.Fatal("a connection was refused")
		}
	}
	if enter(0) {
		t.Error("one source takes more than its part of the connections")
	}
	for range maxConnsPerSource {
		if !enter(1) {
			t.Fatal("a connection was refused")
		}
	}
	if enter(2) {
		t.Error("more connections than allowed")
	}
	for _, v := range inside {
		g.leave(v)
	}
	if len(g.sources) != 0 || g.callers.Len() != 0 || g.total != [stages]int{} {
		t.Errorf("something is left: %+v", g.total)
	}
}
