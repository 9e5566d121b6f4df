package main

import (
	"fmt"
	"strings"
)

// row is one line of the result.
type row struct {
	Group  string           `json:"group"`
	Name   string           `json:"name"`
	Unit   unit             `json:"unit"`
	Cells  map[string]cell  `json:"cells"`  // by store
	Ratios map[string]stats `json:"ratios"` // jsonlstore ÷ peer, by peer; over 1: slower or larger
	Goals  []goal           `json:"goals,omitempty"`
}

// cell is what one store did.
type cell struct {
	stats
	Missing string `json:"missing,omitempty"` // why there is nothing
}

// unit is what the values of a row count.
type unit string

const (
	nanoseconds unit = "ns"
	bytesUnit   unit = "B"
	plainNumber unit = "×"
)

// goal is a bound that jsonlstore is to keep.
type goal struct {
	// Peer names the store that the median ratio is against; empty: the bound
	// is for jsonlstore's own median.
	Peer  string  `json:"peer,omitempty"`
	Bound float64 `json:"bound"`
	Met   bool    `json:"met"`
}

// name says in a word what the bound is against.
func (g goal) name() string {
	if g.Peer == "" {
		return "bound"
	}
	return strings.TrimPrefix(g.Peer, "raft-")
}

func atMost(bound float64, peer string) goal { return goal{Peer: peer, Bound: bound} }

// makeRow sums up a paired measurement.
func makeRow(group, name string, u unit, all []series, goals ...goal) row {
	r := row{Group: group, Name: name, Unit: u, Cells: map[string]cell{}, Ratios: map[string]stats{}}
	var ours *series
	for i, s := range all {
		c := cell{stats: summarize(s.values)}
		if s.err != nil {
			c.Missing = s.err.Error()
		}
		r.Cells[s.name] = c
		if s.name == nameJSONL {
			ours = &all[i]
		}
	}
	if ours != nil && ours.err == nil {
		for _, s := range all {
			if s.name == nameJSONL || len(s.values) == 0 {
				continue
			}
			if p := pairs(*ours, s); len(p) > 0 {
				r.Ratios[s.name] = summarize(p)
			}
		}
	}
	for _, g := range goals {
		r.Goals = append(r.Goals, r.judge(g))
	}
	return r
}

// judge tells whether a goal is met. What could not be measured is not met.
func (r *row) judge(g goal) goal {
	if g.Peer == "" {
		c := r.Cells[nameJSONL]
		g.Met = c.N > 0 && c.Missing == "" && c.Median <= g.Bound
		return g
	}
	ratio, ok := r.Ratios[g.Peer]
	g.Met = ok && ratio.Median <= g.Bound
	return g
}

// format writes a value with its unit in three digits or so.
func (u unit) format(v float64) string {
	switch u {
	case nanoseconds:
		switch {
		case v < 1e3:
			return fmt.Sprintf("%.0f ns", v)
		case v < 1e6:
			return threeDigits(v/1e3) + " µs"
		case v < 1e9:
			return threeDigits(v/1e6) + " ms"
		}
		return threeDigits(v/1e9) + " s"
	case bytesUnit:
		switch {
		case v < 1<<13 && v > -(1<<13):
			return threeDigits(v) + " B"
		case v < 1<<20 && v > -(1<<20):
			return threeDigits(v/(1<<10)) + " KiB"
		}
		return threeDigits(v/(1<<20)) + " MiB"
	}
	return threeDigits(v)
}

func threeDigits(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// formatRatio writes a ratio with its quartiles.
func formatRatio(s stats) string {
	if s.N == 1 {
		return threeDigits(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", threeDigits(s.Median), threeDigits(s.Q1), threeDigits(s.Q3))
}
