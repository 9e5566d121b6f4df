package democluster

import (
	"strings"
	"time"
)

// event is something done to the cluster, for the chart.
type event struct {
	at   time.Duration
	name string
}

// chart draws the acknowledged writes between from and to as a line of bars,
// width columns wide, and below it the events where they happened. A column
// without any acknowledgement is a dot: that is what an interruption looks like.
func chart(acks []Ack, events []event, from, to time.Duration, width int) (bars, marks string) {
	if to <= from || width < 1 {
		return "", ""
	}
	column := func(at time.Duration) int {
		return min(int(int64(at-from)*int64(width)/int64(to-from)), width-1)
	}
	counts := make([]int, width)
	highest := 0
	for _, a := range acks {
		if a.Acked < from || a.Acked > to {
			continue
		}
		i := column(a.Acked)
		counts[i]++
		highest = max(highest, counts[i])
	}
	levels := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, n := range counts {
		if n == 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune(levels[(n*len(levels)-1)/highest])
	}

	line := []rune{}
	for _, e := range events {
		if e.at < from || e.at > to {
			continue
		}
		at := column(e.at)
		if len(line) > 0 && at <= len(line) {
			at = len(line) + 1 // beside the one before, not over it
		}
		for len(line) < at {
			line = append(line, ' ')
		}
		line = append(line, []rune("↑"+e.name)...)
	}
	return b.String(), string(line)
}
