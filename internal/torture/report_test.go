package torture

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/democluster"
)

func TestPictureShowsWhatHappened(t *testing.T) {
	rec := healthy()
	rec.Windows = append(rec.Windows, Window{Step: 2, Harm: HarmCut, Node: 2, Peer: 3, From: 7 * sec, To: 8 * sec}, Window{Step: 2, Harm: HarmOneWay, Node: 3, From: 8 * sec})
	late := ack("late", 1, 4500*ms)
	rec.Acks = append(rec.Acks, late)
	f := Judge(rec, 10*sec)
	p := draw(rec, f)
	find := func(class, title string) *mark {
		for i := range p.Marks {
			if p.Marks[i].Class == class && strings.Contains(p.Marks[i].Title, title) {
				return &p.Marks[i]
			}
		}
		t.Errorf("nothing of class %q tells %q", class, title)
		return &mark{}
	}
	for _, want := range [][2]string{
		{"step", "001 +0s kill primary"}, {"reign n1", "epoch 1: node 1"}, {"reign n2", "epoch 2: node 2"},
		{"harm down", "node 1: down\nfrom 4.00 s, for 2000 ms"}, {"harm cut", "node 2: cut from node 3"}, {"harm cut", "node 3: cut from node 2"},
		{"harm one-way", "node 3: one-way to the clients"}, {"gap", "no acknowledged write for 300 ms"}, {"dual", "late acknowledged by node 1 in epoch 1"},
	} {
		find(want[0], want[1])
	}
	down, first, second := find("harm down", ""), find("reign n1", ""), find("reign n2", "")
	if want := p.Width * 2 / 10; down.W < want-1 || down.W > want+1 {
		t.Errorf("two of ten seconds are %v wide of %v", down.W, p.Width)
	}
	if first.X+first.W > second.X || first.Y != second.Y {
		t.Errorf("the reigns are not one after the other in a lane: %+v, %+v", first, second)
	}
	for _, m := range p.Marks {
		if m.X < 0 || m.X+m.W > p.Width+minMark || m.Y < 0 || m.Y+m.H > p.Height || m.W < minMark {
			t.Errorf("outside the picture: %+v", m)
		}
	}
	if !strings.HasPrefix(p.Area, "M0 ") || len(p.Ticks) < 5 || len(p.Lanes) != 6 {
		t.Errorf("area %.20q, %d ticks, %d lanes", p.Area, len(p.Ticks), len(p.Lanes))
	}
}

// The picture of an empty run and of one that never ended must come about too.
func TestPictureOfAlmostNothing(t *testing.T) {
	for _, rec := range []Record{{Nodes: 3}, {Nodes: 3, Until: 5 * sec, Acks: []democluster.Ack{ack("a", 1, sec)},
		Windows: []Window{{Harm: HarmDown, Node: 1, From: sec}}, Done: []Done{{Step: Step{N: 1, Fault: FaultKill}, From: sec, Note: "stuck"}}}} {
		p := draw(rec, Judge(rec, sec))
		if p.Width <= 0 || p.Height <= 0 {
			t.Errorf("picture %vx%v", p.Width, p.Height)
		}
	}
}

// The page is one file, well-formed where it draws, and what others have said
// cannot become a part of it.
func TestReportStandsAlone(t *testing.T) {
	rec := healthy()
	f := Judge(rec, 10*sec)
	v := Verdict{OK: false, Nodes: 3, Seed: 99, Faults: map[Fault]int{FaultKill: 1}, Failovers: f.Changes,
		Violations: []string{"<script>alert(1)</script>"}, Notes: []string{"a & b"}, Script: []string{"001 kill"}}
	page := string(Report(v, rec, f))
	for _, want := range []string{"seed 99", "&lt;script&gt;", "Something is wrong", "prefers-color-scheme: dark", "300.0 ms", "a &amp; b", "<title>epoch 2: node 2"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, bad := range []string{"<script>", "http://", "https://", "src=", "@import", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	drawn := page[strings.Index(page, "<svg class=\"names\""):strings.Index(page, "<div class=\"key")]
	dec := xml.NewDecoder(strings.NewReader("<div><div>" + drawn))
	dec.Strict = true
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			if strings.Contains(err.Error(), "unexpected EOF") {
				break
			}
			t.Fatal(err)
		}
	}
}
