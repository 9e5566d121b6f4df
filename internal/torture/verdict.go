package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

// MaxWithoutPrimary is how long a connected quorum may be without a primary.
const MaxWithoutPrimary = 5 * time.Second

// Verdict is what came of a torture: the object that `torture --json` prints.
type Verdict struct {
	OK              bool     `json:"ok"`
	Reason          string   `json:"reason,omitempty"` // why not OK
	Nodes           int      `json:"nodes"`
	Failovers       []Change `json:"failovers"`
	AckedWrites     int      `json:"acked_writes"`      // on both planes
	LostWrites      int      `json:"lost_writes"`       // acknowledged, and not there at the end
	DualPrimaryAcks int      `json:"dual_primary_acks"` // by an older epoch after a newer one

	Faults                  map[Fault]int    `json:"faults"` // how often each was done
	Times                   map[Fault]Spread `json:"failover_times"`
	Seed                    uint64           `json:"seed"`
	Linearizable            bool             `json:"linearizable"`
	LinearizableUnproven    int              `json:"linearizable_unproven_keys"` // the check did not end in time
	RegisterOps             int              `json:"register_ops"`
	RegisterKeys            int              `json:"register_keys"`
	Compare                 bool             `json:"compare"` // writes that depend on a revision were part of it
	LongestWithoutPrimaryMS float64          `json:"longest_without_primary_ms"`
	LongestWithoutAtMS      float64          `json:"longest_without_primary_at_ms"`
	ConnectedMS             float64          `json:"quorum_connected_ms"` // of the time faults were injected
	SlowestRecoveryMS       float64          `json:"slowest_recovery_ms"` // from the end of a fault to a whole cluster
	UnprovokedFailovers     int              `json:"unprovoked_failovers"`
	UnknownWrites           int              `json:"unknown_writes"`
	WriteP50MS              float64          `json:"write_p50_ms"`
	WriteP99MS              float64          `json:"write_p99_ms"`
	DurationMS              float64          `json:"duration_ms"`
	Interrupted             bool             `json:"interrupted"`
	Network                 string           `json:"network"`
	Disk                    string           `json:"disk"`
	LeftOut                 []string         `json:"left_out,omitempty"` // faults this machine does not allow
	Script                  []string         `json:"script"`
	Violations              []string         `json:"violations,omitempty"`
	Notes                   []string         `json:"notes,omitempty"`
	Version                 string           `json:"version"`
	Dir                     string           `json:"dir,omitempty"`
	Report                  string           `json:"report,omitempty"`

	from, until time.Duration // when faults were injected
	// What the cluster held at the end; nil: it could not be read.
	finalData, finalKV map[string]string
	finalReads         []Op
}

// Record is everything a verdict is made of.
type Record struct {
	Nodes   int
	Acks    []democluster.Ack // of writes to keys of their own, any order
	Ops     []Op              // of registers, both planes, and unique keys of KV
	Data    map[string]string // the data plane at the end; nil: not known
	KV      map[string]string // unique keys of KV at the end; nil: not known
	Windows []Window
	Done    []Done
	// Faults were injected from From to Until.
	From, Until time.Duration
}

// Finding is what a record says.
type Finding struct {
	Acks      []democluster.Ack // all of the data plane, in the order of Acked
	Acked     int
	Lost      []string
	Dual      []democluster.Ack
	Linearity Linearity
	Connected []Interval
	Longest   Interval
	Reigns    []Reign
	Changes   []Change
}

// Judge looks for what must not be in a record. It takes the time it takes:
// limit bounds the check of each register.
func Judge(rec Record, limit time.Duration) Finding {
	f := Finding{Acks: slices.Clone(rec.Acks)}
	var registers []Op
	for _, o := range rec.Ops {
		unique := isUnique(o.Key)
		if !unique {
			registers = append(registers, o)
		}
		if o.Outcome != OK || o.Kind == OpGet {
			continue
		}
		f.Acked++
		if unique && rec.KV != nil && rec.KV[o.Key] != o.Value {
			f.Lost = append(f.Lost, o.String())
		}
		if o.Epoch > 0 { // the data plane says which epoch acknowledged
			f.Acks = append(f.Acks, democluster.Ack{Key: o.Key, Value: o.Value, Epoch: o.Epoch, LSN: o.LSN, Node: o.Node, Sent: o.Start, Acked: o.End})
		}
	}
	slices.SortStableFunc(f.Acks, func(a, b democluster.Ack) int { return int(a.Acked - b.Acked) })
	f.Acked += len(rec.Acks)
	if rec.Data != nil {
		for _, a := range democluster.LostWrites(rec.Acks, rec.Data) {
			f.Lost = append(f.Lost, fmt.Sprintf("%s, acknowledged at %v by node %d in epoch %d at LSN %d", a.Key, a.Acked, a.Node, a.Epoch, a.LSN))
		}
	}
	f.Dual = democluster.DualPrimaryAcks(f.Acks)
	f.Linearity = CheckLinearizable(registers, limit)
	f.Connected = Connected(rec.Windows, rec.Nodes, rec.From, rec.Until)
	f.Longest = LongestWithoutPrimary(f.Acks, f.Connected)
	f.Reigns = Reigns(f.Acks)
	f.Changes = Changes(f.Reigns, rec.Done)
	return f
}

// Violations says what of a finding must not be, a line each; nothing if all is well.
func (f Finding) Violations() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if n := len(f.Lost); n > 0 {
		add("%d acknowledged writes are lost, the first: %s", n, f.Lost[0])
	}
	if n := len(f.Dual); n > 0 {
		a := f.Dual[0]
		add("%d writes were acknowledged by an older epoch after a newer one, the first: %s by node %d in epoch %d, sent at %v, acknowledged at %v",
			n, a.Key, a.Node, a.Epoch, a.Sent, a.Acked)
	}
	if n := len(f.Linearity.Illegal); n > 0 {
		add("%d of %d registers are not linearizable: %v", n, f.Linearity.Keys, f.Linearity.Worst)
	}
	if n := len(f.Linearity.Open); n > 0 {
		add("%d of %d registers could not be checked in time, the first: %s", n, f.Linearity.Keys, f.Linearity.Open[0])
	}
	if f.Longest.Length() > MaxWithoutPrimary {
		add("%v without a primary while a quorum was connected, from %v on: at most %v is allowed",
			f.Longest.Length().Round(time.Millisecond), f.Longest.From.Round(time.Millisecond), MaxWithoutPrimary)
	}
	if f.Acked == 0 {
		add("no write was acknowledged: nothing was proven")
	}
	return out
}

// judge makes the verdict from what was recorded, and leaves it, the record and
// the picture where they are wanted. It returns what is wrong as an error.
func (r *run) judge() error {
	defer r.Waiting(func() string { return "judging" })()
	ops := r.load.Ops()
	rec := Record{Nodes: r.cfg.Nodes, Acks: r.client.Acks(), Ops: append(ops, r.verdict.finalReads...), Data: r.verdict.finalData,
		KV: r.verdict.finalKV, Windows: r.windows, Done: r.done, From: r.verdict.from, Until: r.verdict.until}
	f := Judge(rec, checkLimit)
	v := &r.verdict
	v.AckedWrites, v.LostWrites, v.DualPrimaryAcks = f.Acked, len(f.Lost), len(f.Dual)
	v.Linearizable = f.Linearity.OK() && f.Linearity.Ops > 0
	v.LinearizableUnproven, v.RegisterOps, v.RegisterKeys = len(f.Linearity.Open), f.Linearity.Ops, f.Linearity.Keys
	v.LongestWithoutPrimaryMS, v.LongestWithoutAtMS = inMS(f.Longest.Length()), inMS(f.Longest.From)
	for _, c := range f.Connected {
		v.ConnectedMS += inMS(c.Length())
	}
	for _, d := range r.done {
		if d.Whole > 0 {
			v.SlowestRecoveryMS = max(v.SlowestRecoveryMS, inMS(d.Whole-d.To))
		}
	}
	if f.Changes != nil {
		v.Failovers = f.Changes
	}
	for _, c := range f.Changes {
		if c.Fault == noFault {
			v.UnprovokedFailovers++
		}
	}
	v.Times = Spreads(f.Changes)
	v.UnknownWrites = r.client.Unknown()
	for _, o := range ops {
		if o.Outcome == Unknown && o.Kind != OpGet {
			v.UnknownWrites++
		}
	}
	v.WriteP50MS, v.WriteP99MS = inMS(democluster.Latency(f.Acks, 0.50)), inMS(democluster.Latency(f.Acks, 0.99))
	v.Violations = append(f.Violations(), r.violations...)
	if v.UnprovokedFailovers > 0 && v.Faults[FaultCalm] > 0 {
		v.Violations = append(v.Violations, fmt.Sprintf("the primary changed %d times without a fault", v.UnprovokedFailovers))
	}
	errs := make([]error, 0, len(v.Violations)+1)
	for _, text := range v.Violations {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(append(errs, r.publish(rec, f, len(errs) > 0))...)
}

// readBack reads what the cluster holds at the end.
func (r *run) readBack() error {
	defer r.Waiting(func() string { return "reading everything back" })()
	ctx, cancel := context.WithTimeout(context.Background(), readBackTimeout)
	defer cancel()
	start := r.now()
	data, primary, err := r.finalDump(ctx)
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	end := r.now()
	r.verdict.finalData = data
	if err := r.compareReplicas(ctx, primary.NodeID, data); err != nil {
		return err
	}
	dataKeys, kvKeys, blocks := r.load.keys()
	for _, key := range dataKeys { // the dump has them
		r.verdict.finalReads = append(r.verdict.finalReads,
			Op{Key: key, Kind: OpGet, Node: primary.NodeID, Seen: data[key], Outcome: OK, Start: start, End: end})
	}
	for _, key := range kvKeys {
		var op Op
		err := again(ctx, func() (err error) { op, err = r.finalRead(ctx, primary.NodeID, key); return err })
		if err != nil {
			return fmt.Errorf("reading back KV key %s: %w", key, err)
		}
		r.verdict.finalReads = append(r.verdict.finalReads, op)
	}
	r.verdict.finalKV = map[string]string{}
	for _, block := range blocks {
		if err := again(ctx, func() error { return r.listInto(ctx, primary.NodeID, block, r.verdict.finalKV) }); err != nil {
			return fmt.Errorf("reading back KV keys %s…: %w", block, err)
		}
	}
	return nil
}

// readTries bounds how often one thing is read back: the primary may be changing.
const readTries = 50

// again calls read until it succeeds, some times at most.
func again(ctx context.Context, read func() error) (err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range readTries {
		if err = read(); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// finalDump reads the data of whoever is primary, again if that changes meanwhile.
func (r *run) finalDump(ctx context.Context) (map[string]string, democluster.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		primary, err := r.cluster.WaitPrimary(ctx, max(r.client.Epoch(), 1)-1)
		if err != nil {
			return nil, primary, err
		}
		data, err := r.cluster.Dump(ctx, primary.NodeID)
		if err == nil {
			return data, primary, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, primary, err
		}
	}
}

// compareReplicas waits until every other node has all that the primary has, and
// looks whether it is the same: a replica that holds something else is a lost
// write that waits for its failover.
func (r *run) compareReplicas(ctx context.Context, primary protocol.NodeID, data map[string]string) error {
	for _, n := range r.cluster.Nodes() {
		if n.ID == primary {
			continue
		}
		var theirs map[string]string
		err := again(ctx, func() (err error) { // it may be catching up
			if theirs, err = r.cluster.DumpStale(ctx, n.ID); err == nil && !maps.Equal(theirs, data) {
				err = errDiffers
			}
			return err
		})
		if err != nil && !errors.Is(err, errDiffers) {
			return fmt.Errorf("reading back: %w", err)
		}
		if key, mine, other := difference(data, theirs); key != "" {
			r.violation("node %d, a replica, holds %q under %s, and the primary, node %d, %q (%d keys and %d)",
				n.ID, other, key, primary, mine, len(theirs), len(data))
		}
	}
	return nil
}

// errDiffers says that a replica holds something else.
var errDiffers = errors.New("it holds something else")

// difference returns the first key, in their order, under which two maps hold
// something else; "" if there is none.
func difference(a, b map[string]string) (key, inA, inB string) {
	for _, keys := range []map[string]string{a, b} {
		for k := range keys {
			va, oka := a[k]
			vb, okb := b[k]
			if (oka != okb || va != vb) && (key == "" || k < key) {
				key, inA, inB = k, va, vb
			}
		}
	}
	return key, inA, inB
}

// finalRead reads a register of KV.
func (r *run) finalRead(ctx context.Context, id protocol.NodeID, key string) (Op, error) {
	op := Op{Key: key, Kind: OpGet, Node: id, Start: r.now()}
	a, sent, err := request(ctx, http.DefaultClient, http.MethodGet, "http://"+r.cluster.Node(id).APIAddr+"/v1/kv/"+key, nil)
	op.End, op.Seen, op.Rev = r.now(), a.Value, a.Revision
	if op.Outcome, op.Code = judgeAnswer(a, sent, err, OpGet); op.Outcome != OK {
		return op, errors.Join(fmt.Errorf("%s %s", op.Code, a.Error), err)
	}
	return op, nil
}

// listInto reads all keys of KV with a prefix.
func (r *run) listInto(ctx context.Context, id protocol.NodeID, prefix string, into map[string]string) error {
	target := fmt.Sprintf("http://%s/v1/kv?limit=%d&prefix=%s", r.cluster.Node(id).APIAddr, uniqueBlock+1, url.QueryEscape(prefix))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var list struct {
		Entries []struct{ Key, Value string } `json:"entries"`
		More    bool                          `json:"more"`
		Error   string                        `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || list.More {
		return fmt.Errorf("status %d, more %v: %s", resp.StatusCode, list.More, list.Error)
	}
	for _, e := range list.Entries {
		into[e.Key] = e.Value
	}
	return nil
}

// publish writes the record and the picture.
func (r *run) publish(rec Record, f Finding, broken bool) error {
	keeping := r.cfg.Keep != "" || broken
	var errs []error
	if keeping {
		errs = append(errs,
			writeLines(filepath.Join(r.dir, "requests.jsonl"), rec.Ops),
			writeLines(filepath.Join(r.dir, "harms.jsonl"), rec.Windows),
			writeLines(filepath.Join(r.dir, "steps.jsonl"), rec.Done))
	}
	path := r.cfg.Report
	if path == "" && keeping {
		path = filepath.Join(r.dir, "report.html")
	}
	if path != "" {
		r.verdict.OK = !broken
		page := Report(r.verdict, rec, f)
		if err := os.WriteFile(path, page, 0o600); err != nil {
			errs = append(errs, fmt.Errorf("writing the report: %w", err))
		} else {
			r.verdict.Report = path
		}
	}
	return errors.Join(errs...)
}

// writeLines writes a JSON line for each item.
func writeLines[T any](path string, items []T) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, item := range items {
		if err := enc.Encode(item); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}
