package main

import (
	"fmt"
	"runtime"
	"slices"
)

// contender takes part in a paired measurement.
type contender struct {
	name string
	// round does a small, fixed amount of work and returns what it measured.
	round func(r int) (float64, error)
}

// series is what one contender measured, a value for each round. With an
// error it is out, from that round on.
type series struct {
	name   string
	values []float64
	err    error
}

// alternate lets the contenders take turns: in every round each works once,
// in an order that changes from round to round, so that whatever else happens
// on the machine hits all alike. The first round is practice and not counted
// unless it is the only one.
func alternate(rounds int, cs []contender) []series {
	all := make([]series, len(cs))
	for i, c := range cs {
		all[i].name = c.name
	}
	practice := 1
	if rounds == 1 {
		practice = 0
	}
	for r := range rounds + practice {
		for turn := range cs {
			i := (turn + r) % len(cs)
			if r/len(cs)%2 == 1 {
				i = len(cs) - 1 - i
			}
			if all[i].err != nil {
				continue
			}
			runtime.GC() // nobody cleans up after somebody else
			v, err := cs[i].round(r)
			switch {
			case err != nil:
				all[i].err = fmt.Errorf("round %d: %w", r, err)
			case r >= practice:
				all[i].values = append(all[i].values, v)
			}
		}
	}
	return all
}

// stats sums up a series.
type stats struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func summarize(values []float64) stats {
	if len(values) == 0 {
		return stats{}
	}
	v := slices.Sorted(slices.Values(values))
	return stats{
		Median: quantile(v, 0.5), Q1: quantile(v, 0.25), Q3: quantile(v, 0.75),
		Min: v[0], Max: v[len(v)-1], N: len(v),
	}
}

// quantile interpolates between the neighbours in sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// pairs divides what two contenders measured in the same round. It sees only
// rounds that both took part in, which are the first ones.
func pairs(a, b series) []float64 {
	n := min(len(a.values), len(b.values))
	out := make([]float64, 0, n)
	for i := range n {
		if b.values[i] > 0 {
			out = append(out, a.values[i]/b.values[i])
		}
	}
	return out
}

// medianOf returns the median of the values without changing their order.
func medianOf(values []float64) float64 { return summarize(values).Median }
