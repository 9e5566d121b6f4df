package quiet

import (
	"fmt"
	"testing"
	"time"
)

func TestQuiet(t *testing.T) {
	now := time.Unix(1000, 0)
	q := New(func() time.Time { return now })
	if !q.Say("a") || q.Say("a") || !q.Say("b") || q.Say("b") {
		t.Error("not once for each source")
	}
	now = now.Add(Window - 1)
	if q.Say("a") {
		t.Error("the window is not over")
	}
	now = now.Add(1)
	if !q.Say("a") {
		t.Error("nothing in the next window")
	}
	now = now.Add(Window)
	lines := 0
	for i := range 3 * Sources {
		if q.Say(fmt.Sprint(i)) {
			lines++
		}
	}
	if lines != Sources+1 || len(q.said) != Sources {
		t.Errorf("%d lines, %d sources remembered", lines, len(q.said))
	}
	now = now.Add(Window)
	if !q.Say("new") || q.Say("new") || len(q.said) != 1 {
		t.Errorf("a window later: %d sources remembered", len(q.said))
	}
}

// The window is that of the source, whoever else was mentioned when.
func TestEachHasItsWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	q := New(func() time.Time { return now })
	q.Say("early")
	now = now.Add(Window - time.Second)
	if !q.Say("late") {
		t.Error("late is not mentioned at all")
	}
	now = now.Add(time.Second)
	if !q.Say("early") || q.Say("late") {
		t.Error("the window of one ends that of the other")
	}
	now = now.Add(Window - time.Second)
	if !q.Say("late") {
		t.Error("the window of late is over")
	}
}
