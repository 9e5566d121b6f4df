package transport

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestGateBounds(t *testing.T) {
	var g gate
	src := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range maxHandshakesPerSource {
		if !g.knock(src(0)) {
			t.Fatalf("handshake %d of one source refused", i)
		}
	}
	if g.knock(src(0)) {
		t.Error("one source takes more than its part")
	}
	for i := range maxHandshakes - maxHandshakesPerSource {
		if !g.knock(src(1 + i)) {
			t.Fatalf("handshake %d refused", i)
		}
	}
	if g.knock(src(1000)) {
		t.Error("more handshakes than allowed")
	}
	for i := range maxHandshakes - maxHandshakesPerSource {
		g.turnAway(src(1 + i))
	}
	for range maxHandshakesPerSource {
		if !g.admit(src(0)) {
			t.Fatal("not admitted")
		}
	}
	for i := maxHandshakesPerSource; i < maxConnsPerSource; i++ {
		if !g.knock(src(0)) || !g.admit(src(0)) {
			t.Fatalf("connection %d refused", i)
		}
	}
	if !g.knock(src(0)) || g.admit(src(0)) {
		t.Error("one source holds more connections than its part")
	}
	for range maxConnsPerSource {
		g.leave(src(0))
	}
	if len(g.sources) != 0 || g.conns != 0 || g.handshakes != 0 {
		t.Errorf("something is left: %+v", g.sources)
	}
}

func TestQuiet(t *testing.T) {
	now := time.Unix(1000, 0)
	q := quiet{now: func() time.Time { return now }}
	if !q.say("a") || q.say("a") || !q.say("b") {
		t.Error("not once per source")
	}
	now = now.Add(quietWindow)
	if !q.say("a") || q.say("a") {
		t.Error("not once per window")
	}
	lines := 0
	for i := range 3 * quietSources {
		if q.say(fmt.Sprint("source ", i)) {
			lines++
		}
	}
	if lines != quietSources || len(q.seen) != quietSources {
		t.Errorf("%d lines, %d sources remembered", lines, len(q.seen))
	}
}
