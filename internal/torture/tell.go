package torture

import (
	"fmt"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

// intro tells what is about to happen, before anything does.
func (r *run) intro() {
	v := &r.verdict
	r.Line("")
	r.Line("  %s  %d nodes, %v, seed %d", r.Bold("torture"), v.Nodes, r.cfg.Duration, v.Seed)
	r.Line("  network  %s", v.Network)
	r.Line("  disk     %s", v.Disk)
	if !v.Compare {
		r.Line("  %s     writes that depend on a revision are left out: these nodes do not offer them", r.Yellow("note"))
	}
	if len(v.LeftOut) > 0 {
		r.Line("  %s     not possible here: %s", r.Yellow("note"), strings.Join(v.LeftOut, ", "))
	}
	r.Line("")
}

// progress is the line that shows while a step is under way.
func (r *run) progress(s Step) string {
	passed := (r.now() - r.verdict.from).Round(time.Second)
	return fmt.Sprintf("%v of %v  step %d, %s  epoch %d  %s acknowledged ", passed, r.cfg.Duration, s.N, s.Fault,
		r.client.Epoch(), term.Count(r.client.Count()))
}

// whom names what a step was done to.
func whom(id protocol.NodeID) string {
	if id == protocol.NoNode {
		return "all nodes"
	}
	return "node " + id.String()
}

// tellStep writes the line of a step that is done.
func (r *run) tellStep(d Done) {
	var extra []string
	if d.Step.Turns > 0 {
		extra = append(extra, fmt.Sprintf("%d turns", d.Step.Turns))
	}
	if d.Step.Variant {
		extra = append(extra, "variant")
	}
	back := "whole after " + term.Millis(d.Whole-d.To)
	if d.Whole == 0 {
		back = r.Red("not whole")
	}
	who := whom(d.Node)
	if d.Node != protocol.NoNode {
		who = fmt.Sprintf("%s %s", d.Step.Target, who)
	}
	r.Line("  %s  %s %s %s  %s  %s", r.Dim(fmt.Sprintf("%4d", d.Step.N)), fmt.Sprintf("%7s", (d.From-r.verdict.from).Round(100*time.Millisecond)),
		pad(r.Bold(string(d.Step.Fault)), 16), pad(who, 17),
		pad(fmt.Sprintf("%v %s", d.Step.For, strings.Join(extra, " ")), 18), r.Dim(back))
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-term.Width(text)))
}

// tell writes the table at the end.
func (r *run) tell() {
	v := r.verdict
	if r.client == nil {
		return
	}
	zero := func(n int) string {
		if n == 0 {
			return r.Green("0")
		}
		return r.Red(term.Count(n))
	}
	r.Line("")
	faults := term.NewTable("FAULT", "TIMES", "FAILOVERS", "MEDIAN MS", "P95 MS", "SLOWEST MS").Right(1, 2, 3, 4, 5)
	rows := []Fault{noFault}
	for _, k := range kinds() {
		rows = append(rows, k.fault)
	}
	for _, f := range rows {
		times, n := v.Times[f], v.Faults[f]
		if n == 0 && times.Count == 0 {
			continue
		}
		row := []string{string(f), fmt.Sprint(n), fmt.Sprint(times.Count)}
		if times.Count > 0 {
			for _, ms := range []float64{times.MedianMS, times.P95MS, times.MaxMS} {
				row = append(row, fmt.Sprintf("%.0f", ms))
			}
		}
		faults.Row(row...)
	}
	r.Table(faults)
	r.Line("")
	table := term.NewTable().Right(1)
	table.Row("acknowledged writes", term.Count(v.AckedWrites))
	table.Row("lost", zero(v.LostWrites))
	table.Row("acknowledged by two primaries at once", zero(v.DualPrimaryAcks))
	linear := r.Green("yes")
	switch {
	case !v.Linearizable && v.LinearizableUnproven > 0:
		linear = r.Yellow(fmt.Sprintf("not proven for %d keys", v.LinearizableUnproven))
	case !v.Linearizable:
		linear = r.Red("no")
	}
	table.Row(fmt.Sprintf("linearizable (%s requests, %s keys)", term.Count(v.RegisterOps), term.Count(v.RegisterKeys)), linear)
	table.Row("longest without a primary, a quorum being connected", term.Millis(time.Duration(v.LongestWithoutPrimaryMS*1e6)))
	table.Row("slowest return of the whole cluster after a fault", term.Millis(time.Duration(v.SlowestRecoveryMS*1e6)))
	table.Row("failovers, of them without a fault", fmt.Sprintf("%d, %d", len(v.Failovers), v.UnprovokedFailovers))
	r.Table(table)
	r.Line("")
	for _, text := range v.Violations {
		r.Line("  %s  %s", r.Red("wrong"), term.Safe(text))
	}
	if v.Report != "" {
		r.Line("  the picture: %s", v.Report)
	}
	if v.Dir != "" {
		r.Line("  data, logs and records: %s", v.Dir)
	}
	if !v.OK {
		r.Line("  the same script again: --seed %d", v.Seed)
	}
}
