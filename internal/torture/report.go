package torture

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

//go:embed report.html
var reportPage string

// The picture's measures, in pixels.
const (
	laneHeight = 26
	laneGap    = 6
	axisHeight = 22
	writeArea  = 90
	// pixelsPerSecond is the scale, unless the picture would become wider than
	// maxWidth or narrower than minWidth.
	pixelsPerSecond = 24.0
	minWidth        = 1000.0
	maxWidth        = 30000.0
	// minMark is the least width of something that happened.
	minMark = 2.0
	// gapShown is how long a stretch without acknowledged writes must be to be
	// drawn.
	gapShown = 50 * time.Millisecond
	// minBucket is the least time that a column of the writes stands for.
	minBucket = 100 * time.Millisecond
	// labelRoom is how wide a bar must be to carry its name.
	labelRoom = 46.0
	// ticksEvery is about how far apart the marks of the axis are.
	ticksEvery = 110.0
)

// mark is a bar of the picture.
type mark struct {
	X, Y, W, H float64
	Class      string
	Label      string // inside, if there is room
	Title      string // shown by the pointer
}

type label struct {
	X, Y float64
	Text string
}

// picture is the timeline, laid out.
type picture struct {
	Width, Height float64
	Lanes         []label
	Marks         []mark
	Area          string // of the writes: a path
	AreaTop       label
	Ticks         []label
	Nodes         []string
}

// layout turns times into places.
type layout struct {
	from, until time.Duration
	scale       float64 // pixels a second
	picture
}

func (l *layout) x(at time.Duration) float64 {
	at = min(max(at, l.from), l.until)
	return math.Round((at-l.from).Seconds()*l.scale*10) / 10
}

// bar adds what lasted from one time to another, if any of it is in the picture.
func (l *layout) bar(from, to time.Duration, y, h float64, class, text, title string) {
	if to < l.from || from > l.until {
		return
	}
	m := mark{X: l.x(from), Y: y, H: h, Class: class, Title: title}
	m.W = max(l.x(to)-m.X, minMark)
	if m.W >= labelRoom || float64(len(text))*6.5 < m.W {
		m.Label = text
	}
	l.Marks = append(l.Marks, m)
}

// at writes a time of the run for people.
func at(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// draw lays the timeline of a run out: who was primary, what was done to which
// node, how many writes were acknowledged, and where none were.
func draw(rec Record, f Finding) picture {
	l := &layout{from: rec.From, until: max(rec.Until, rec.From+time.Second)}
	span := (l.until - l.from).Seconds()
	l.Width = min(max(span*pixelsPerSecond, minWidth), maxWidth)
	l.scale = l.Width / span
	y := float64(axisHeight)
	lane := func(name string, height float64) float64 {
		top := y
		l.Lanes = append(l.Lanes, label{Y: top + height/2 + 4, Text: name})
		y += height + laneGap
		return top
	}
	top := lane("fault", laneHeight)
	for _, d := range rec.Done {
		end := d.Whole
		if end == 0 {
			end = l.until
		}
		title := fmt.Sprintf("step %s\n%s, from %s, over at %s", d.Step, whom(d.Node), at(d.From-l.from), at(d.To-l.from))
		class := "step"
		if d.Whole == 0 {
			title, class = title+"\nnot whole again: "+d.Note, "step bad"
		} else {
			title += fmt.Sprintf("\nwhole again after %s", term.Millis(d.Whole-d.To))
		}
		l.bar(d.From, end, top, laneHeight, class, string(d.Step.Fault), title)
	}
	top = lane("primary", laneHeight)
	for i, r := range f.Reigns {
		last := r.Last
		if i+1 < len(f.Reigns) { // late answers are shown as what they are, below
			last = min(last, max(r.First, f.Reigns[i+1].First))
		}
		l.bar(r.First, last, top, laneHeight, fmt.Sprintf("reign n%d", (uint64(r.Node)-1)%maxColours+1),
			fmt.Sprintf("%d · node %s", r.Epoch, r.Node),
			fmt.Sprintf("epoch %d: node %s\nfirst acknowledgement at %s, last at %s\n%s acknowledged writes",
				r.Epoch, r.Node, at(r.First-l.from), at(r.Last-l.from), term.Count(r.Acks)))
	}
	for id := range rec.Nodes {
		node := protocol.NodeID(id + 1)
		top = lane("node "+node.String(), laneHeight)
		l.Marks = append(l.Marks, mark{X: 0, Y: top, W: l.Width, H: laneHeight, Class: "lane"})
		for _, w := range rec.Windows {
			l.harm(w, node, top)
		}
	}
	top = lane("writes", writeArea)
	l.writes(f.Acks, top)
	l.gaps(f, top)
	for _, a := range f.Dual {
		l.bar(a.Acked, a.Acked, top, writeArea, "dual", "", fmt.Sprintf("%s acknowledged by node %s in epoch %d at %s, after a later epoch had begun",
			a.Key, a.Node, a.Epoch, at(a.Acked-l.from)))
	}
	l.ticks(y)
	l.Height = y + 4
	return l.picture
}

// maxColours is how many nodes have a colour of their own.
const maxColours = 7

// harm adds a window to the lane of a node it was done to.
func (l *layout) harm(w Window, node protocol.NodeID, top float64) {
	text, peer := string(w.Harm), w.Peer
	switch {
	case w.Harm == HarmCut && w.Peer == node:
		peer = w.Node
	case w.Node != node:
		return
	}
	if w.Harm == HarmCut || w.Harm == HarmOneWay {
		to := "from the clients"
		if peer != protocol.NoNode {
			to = "from node " + peer.String()
		}
		if w.Harm == HarmOneWay {
			to = strings.Replace(to, "from", "to", 1)
		}
		text += " " + to
	}
	end := w.To
	if end == 0 {
		end = l.until
	}
	l.bar(w.From, end, top, laneHeight, "harm "+string(w.Harm), text,
		fmt.Sprintf("node %s: %s\nfrom %s, for %s (step %d)", node, text, at(w.From-l.from), term.Millis(end-w.From), w.Step))
}

// writes draws how many writes were acknowledged per stretch of time.
func (l *layout) writes(acks []democluster.Ack, top float64) {
	span := l.until - l.from
	bucket := max(minBucket, time.Duration(float64(span)*2/l.Width))
	counts := make([]int, int(span/bucket)+1)
	highest := 0
	for _, a := range acks {
		if a.Acked < l.from || a.Acked > l.until {
			continue
		}
		i := int((a.Acked - l.from) / bucket)
		counts[i]++
		highest = max(highest, counts[i])
	}
	if highest == 0 {
		return
	}
	var path strings.Builder
	fmt.Fprintf(&path, "M0 %.1f", top+writeArea)
	for i, n := range counts {
		height := top + writeArea - float64(n)/float64(highest)*writeArea
		fmt.Fprintf(&path, "H%.1fV%.1f", l.x(l.from+time.Duration(i)*bucket), height)
	}
	fmt.Fprintf(&path, "H%.1fV%.1fZ", l.Width, top+writeArea)
	l.Area = path.String()
	l.AreaTop = label{Y: top + 11, Text: fmt.Sprintf("%s/s", term.Count(int(float64(highest)/bucket.Seconds())))}
}

// gaps marks the stretches without an acknowledged write.
func (l *layout) gaps(f Finding, top float64) {
	last := l.from
	note := func(to time.Duration) {
		if to-last < gapShown {
			return
		}
		var connected time.Duration
		for _, c := range f.Connected {
			connected += max(0, min(c.To, to)-max(c.From, last))
		}
		class, why := "gap", fmt.Sprintf("a quorum was connected for %s of it", term.Millis(connected))
		if connected == 0 {
			class, why = "gap calm", "no quorum was connected"
		} else if connected > MaxWithoutPrimary {
			class = "gap bad"
		}
		l.bar(last, to, top, writeArea, class, "", fmt.Sprintf("no acknowledged write for %s, from %s on\n%s",
			term.Millis(to-last), at(last-l.from), why))
	}
	for _, a := range f.Acks {
		if a.Acked < l.from || a.Acked > l.until {
			continue
		}
		note(a.Acked)
		last = a.Acked
	}
	note(l.until)
}

// ticks writes the time along the top.
func (l *layout) ticks(float64) {
	every := time.Second
	for _, nice := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
		5 * time.Minute, 15 * time.Minute, time.Hour} {
		if every = nice; every.Seconds()*l.scale >= ticksEvery {
			break
		}
	}
	for t := time.Duration(0); t <= l.until-l.from; t += every {
		l.Ticks = append(l.Ticks, label{X: l.x(l.from + t), Text: t.String()})
	}
}

// fact is one of the figures at the head of the page.
type fact struct {
	Name, Value, Tone string
}

// page is what the page shows.
type page struct {
	Verdict
	Picture picture
	Facts   []fact
	Kinds   []string
	Nodes   []int
	Length  string
	Seed    string
	from    time.Duration
}

// When writes a time of the record as one of the picture.
func (p page) When(ms float64) string {
	return at(time.Duration(ms*float64(time.Millisecond)) - p.from)
}

// Report makes the page: one file of HTML that needs nothing else.
func Report(v Verdict, rec Record, f Finding) []byte {
	tone := func(good bool) string {
		if good {
			return "good"
		}
		return "bad"
	}
	linear := "yes"
	if !v.Linearizable {
		linear = "no"
		if len(f.Linearity.Illegal) == 0 {
			linear = "not proven"
		}
	}
	p := page{
		Verdict: v, Picture: draw(rec, f), Length: (rec.Until - rec.From).Round(time.Second).String(), Seed: fmt.Sprint(v.Seed), from: rec.From,
		Facts: []fact{
			{"acknowledged writes", term.Count(v.AckedWrites), ""},
			{"lost", term.Count(v.LostWrites), tone(v.LostWrites == 0)},
			{"acknowledged by two primaries", term.Count(v.DualPrimaryAcks), tone(v.DualPrimaryAcks == 0)},
			{"linearizable", linear, tone(v.Linearizable)},
			{"longest without a primary*", term.Millis(f.Longest.Length()), tone(f.Longest.Length() <= MaxWithoutPrimary)},
			{"failovers", fmt.Sprint(len(v.Failovers)), ""},
		},
	}
	for i := range rec.Nodes {
		p.Nodes = append(p.Nodes, i+1)
	}
	for _, k := range kinds() {
		if n := v.Faults[k.fault]; n > 0 {
			p.Kinds = append(p.Kinds, fmt.Sprintf("%s %d", k.fault, n))
		}
	}
	var b bytes.Buffer
	// The page is fixed and everything in it is escaped: this fails only if the
	// page itself is wrong, which its test would show.
	if err := template.Must(template.New("report").Parse(reportPage)).Execute(&b, p); err != nil {
		return []byte("<!doctype html><p>" + template.HTMLEscapeString(err.Error()))
	}
	return b.Bytes()
}
