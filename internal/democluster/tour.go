package democluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// MinTourNodes is the smallest cluster that survives the loss of a node.
	MinTourNodes = 3

	// stepTimeout bounds each step of the tour. A step takes a second; the
	// bound is for machines that are busy with other things.
	stepTimeout = 30 * time.Second

	// The number of acknowledged writes between two steps. The tour goes by
	// writes and not by the clock, so that it shows the same on any machine.
	writesBefore  = 300
	writesBetween = 150

	// gapLead is how long before the death of a replica the writes are looked at.
	gapLead = 100 * time.Millisecond

	chartWidth = 64
)

// ErrInterrupted says that the tour was ended from outside before its end.
var ErrInterrupted = errors.New("interrupted")

// TourConfig says how the tour is given.
type TourConfig struct {
	// Cluster is what to run. Nodes must be MinTourNodes to MaxNodes (0 means
	// DefaultNodes).
	Cluster Config
	// Out is where the tour is told; nil tells nobody.
	Out io.Writer
	// Style colours it, and Live shows progress on a line that is rewritten:
	// for terminals.
	Style term.Style
	Live  bool
	// Program is how a person would call this binary, for hints.
	Program string
	// Version goes into the verdict.
	Version string
	// Stay keeps the cluster running under a gentle load, after the tour, until
	// the context ends.
	Stay bool
}

// Validate reports every fault of the configuration at once.
func (c TourConfig) Validate() error {
	err := c.Cluster.Validate()
	if n := c.Cluster.Nodes; n > 0 && n < MinTourNodes {
		err = errors.Join(err, fmt.Errorf("%d nodes: a failover takes at least %d, because fewer have no quorum without one of them", n, MinTourNodes))
	}
	return err
}

// tour is one run of it.
type tour struct {
	*story
	cfg     TourConfig
	cluster *Cluster
	client  *Client
	began   time.Time
	verdict Verdict
	events  []event
}

// Tour starts a cluster, takes it through a failover and more, and proves from
// the client's record that nothing was lost. It returns the verdict, and an
// error if that is not good or did not come about; ErrInterrupted if ctx ended
// before. No process is left when it returns. Data and logs are kept if the
// configuration names a directory for them, or if something went wrong: the
// verdict says where.
func Tour(ctx context.Context, cfg TourConfig) (Verdict, error) {
	if err := cfg.Validate(); err != nil {
		return Verdict{}, err
	}
	if cfg.Cluster.Nodes == 0 {
		cfg.Cluster.Nodes = DefaultNodes
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	t := &tour{
		story: &story{Story: term.NewStory(cfg.Out, cfg.Style, cfg.Live)},
		cfg:   cfg, began: time.Now(),
		verdict: Verdict{Nodes: cfg.Cluster.Nodes, Failovers: []FailoverReport{}, Version: cfg.Version},
	}
	err := t.run(ctx)
	t.verdict.OK = err == nil
	if err != nil {
		t.verdict.Reason = err.Error()
	}
	return t.verdict, err
}

func (t *tour) run(ctx context.Context) (err error) {
	if t.cluster, err = New(t.cfg.Cluster); err != nil {
		return err
	}
	defer func() {
		broken := err != nil && !errors.Is(err, ErrInterrupted)
		done := t.Waiting(func() string { return "stopping the nodes" })
		t.cluster.Shutdown(broken)
		done()
		if broken || !t.cluster.temp {
			t.verdict.Dir = t.cluster.Dir()
		}
	}()
	err = t.show(ctx)
	t.verdict.DurationMS = inMS(time.Since(t.began))
	if err == nil && t.cfg.Stay {
		err = t.stay(ctx)
	}
	if t.client != nil {
		if closeErr := t.client.Close(); err == nil {
			err = closeErr
		}
	}
	return err
}

// show is the tour proper, one method for each step.
func (t *tour) show(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		t.start, t.elect, t.load, t.killPrimary, t.rejoin, t.killReplica, t.switchover, t.prove,
	} {
		stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := step(stepCtx)
		cancel()
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) start(context.Context) error {
	n := len(t.cluster.Nodes())
	t.Line("")
	t.Line("  %s  %s", t.Bold("aiondb-ha demo"), t.Dim(fmt.Sprintf("%d real processes on this machine: one becomes primary, %d follow it", n, n-1)))
	t.Line("")
	if err := t.cluster.StartAll(); err != nil {
		return err
	}
	table := term.NewTable("node", "pid", "cluster port", "dashboard")
	for _, node := range t.cluster.Nodes() {
		table.Row(t.Bold(node.ID.String()), fmt.Sprint(t.cluster.PID(node.ID)), node.Addr, t.Cyan("http://"+node.APIAddr+"/"))
	}
	t.Table(table)
	t.Line("  %s", t.Dim("data and logs in "+t.cluster.Dir()))
	t.Line("")
	return nil
}

func (t *tour) elect(ctx context.Context) error {
	started := time.Now()
	done := t.Waiting(func() string { return "waiting for a primary" })
	primary, err := t.cluster.WaitPrimary(ctx, 0)
	done()
	if err != nil {
		return err
	}
	t.chapter("elect", "node %s is primary in epoch %d, after %s",
		t.Green(primary.NodeID.String()), primary.Epoch, t.Bold(term.Millis(time.Since(started))))
	return nil
}

func (t *tour) load(ctx context.Context) error {
	client, err := NewClient(ClientConfig{Nodes: t.cluster.Nodes(), Log: filepath.Join(t.cluster.Dir(), "client.jsonl")})
	if err != nil {
		return err
	}
	t.client = client
	if err := t.writes(ctx, writesBefore); err != nil {
		return err
	}
	acks := t.client.Acks()
	t.chapter("write", "%s writes acknowledged, each on the disks of %d of %d nodes first  %s", t.Bold(term.Count(len(acks))),
		t.verdict.Nodes/2+1, t.verdict.Nodes, t.Dim("median "+term.Millis(Latency(acks, 0.5))))
	return nil
}

// writes lets the client get n more acknowledgements.
func (t *tour) writes(ctx context.Context, n int) error {
	defer t.Waiting(func() string { return "writing: " + term.Count(t.client.Count()) + " acknowledged" })()
	return t.client.WaitAcks(ctx, n)
}

// primary finds who is primary now: in the epoch of the last acknowledgement,
// or later.
func (t *tour) primary(ctx context.Context) (Status, error) {
	return t.cluster.WaitPrimary(ctx, max(t.client.Epoch(), 1)-1)
}

// killPrimary is what the tour is about.
func (t *tour) killPrimary(ctx context.Context) error {
	old, err := t.primary(ctx)
	if err != nil {
		return err
	}
	pid := t.cluster.PID(old.NodeID)
	epoch := t.client.Epoch()
	wall := time.Now()
	t.mark(FaultKill, "kill -9", old.NodeID)
	if err := t.cluster.Kill(old.NodeID); err != nil {
		return err
	}
	t.chapter("kill -9", "node %s, the primary, is dead  %s", t.Red(old.NodeID.String()), t.Dim(fmt.Sprintf("pid %d, no goodbye", pid)))
	report, err := t.failover(ctx, FaultKill, old.NodeID, epoch)
	if err != nil {
		return err
	}
	t.tellJournal(ctx, report, wall)
	t.more(t.Bold("promoted"), "node %s is primary in epoch %d: %s without an acknowledged write",
		t.Green(report.NewPrimary.String()), report.Epoch, t.Bold(term.Millis(time.Duration(report.FailoverMS*1e6))))
	return t.writes(ctx, writesBetween)
}

// mark notes a fault in the client's record and for the chart.
func (t *tour) mark(fault, label string, node protocol.NodeID) time.Duration {
	at := t.client.Mark(fault, node)
	t.events = append(t.events, event{at: at, name: label})
	return at
}

// failover waits for the first acknowledgement of an epoch above old and adds
// what it took to the verdict.
func (t *tour) failover(ctx context.Context, fault string, node protocol.NodeID, old protocol.Epoch) (FailoverReport, error) {
	done := t.Waiting(func() string { return "no primary; the client keeps trying" })
	first, err := t.client.WaitEpoch(ctx, old)
	done()
	if err != nil {
		return FailoverReport{}, fmt.Errorf("after the %s of node %d: %w", fault, node, err)
	}
	gap, first, ok := Failover(t.client.Acks(), old)
	if !ok {
		return FailoverReport{}, fmt.Errorf("epoch %d has acknowledged nothing: there is no failover from it to measure", old)
	}
	report := FailoverReport{
		Fault: fault, FailoverMS: inMS(gap), Node: node,
		OldPrimary: node, NewPrimary: first.Node, Epoch: first.Epoch,
	}
	t.verdict.Failovers = append(t.verdict.Failovers, report)
	return report, nil
}

// rejoin starts the killed primary again.
func (t *tour) rejoin(ctx context.Context) error {
	back := t.verdict.Failovers[0].OldPrimary
	log := t.cluster.Node(back).LogPath
	var said int64
	if info, err := os.Stat(log); err == nil {
		said = info.Size()
	}
	took, replica, err := t.restart(ctx, back)
	if err != nil {
		return err
	}
	t.chapter("rejoin", "node %s is back as a replica and has all up to LSN %s, after %s",
		t.Green(back.String()), term.Count(int(replica.Position.LSN)), t.Bold(term.Millis(took)))
	if cut := cutRecords(log, said); cut > 0 {
		t.more("", "%s", t.Dim(fmt.Sprintf("cut off the end of its log, which the others did not have and nobody was promised: %d record(s)", cut)))
	}
	return nil
}

// restart starts a node that was killed and waits until it has caught up.
func (t *tour) restart(ctx context.Context, id protocol.NodeID) (time.Duration, Status, error) {
	defer t.Waiting(func() string { return "node " + id.String() + " starts again from its directory" })()
	primary, err := t.primary(ctx)
	if err != nil {
		return 0, Status{}, err
	}
	started := time.Now()
	if err := t.cluster.Start(id); err != nil {
		return 0, Status{}, err
	}
	replica, err := t.cluster.WaitReplica(ctx, id, primary.NodeID)
	return time.Since(started), replica, err
}

// killReplica shows that the loss of a replica interrupts nothing.
func (t *tour) killReplica(ctx context.Context) error {
	primary, err := t.primary(ctx)
	if err != nil {
		return err
	}
	victim := t.other(primary.NodeID, t.verdict.Failovers[0].OldPrimary)
	from := t.mark("kill-replica", "kill -9 a replica", victim)
	if err := t.cluster.Kill(victim); err != nil {
		return err
	}
	if err := t.writes(ctx, writesBetween); err != nil {
		return err
	}
	gap := LongestGap(t.client.Acks(), from-gapLead, t.client.Now())
	t.verdict.ReplicaKillGapMS = inMS(gap)
	t.chapter("kill -9", "node %s, a replica: the writes go on, the longest gap between two is %s", t.Red(victim.String()), t.Bold(term.Millis(gap)))
	took, _, err := t.restart(ctx, victim)
	if err != nil {
		return err
	}
	t.more("", "%s", t.Dim(fmt.Sprintf("node %d started again and has caught up, after %s", victim, term.Millis(took))))
	return nil
}

// other picks a node that is none of those given.
func (t *tour) other(not ...protocol.NodeID) protocol.NodeID {
	for _, n := range t.cluster.Nodes() {
		taken := false
		for _, id := range not {
			taken = taken || id == n.ID
		}
		if !taken {
			return n.ID
		}
	}
	return protocol.NoNode
}

// switchover hands the primacy back to the node that was killed first.
func (t *tour) switchover(ctx context.Context) error {
	old, err := t.primary(ctx)
	if err != nil {
		return err
	}
	to := t.verdict.Failovers[0].OldPrimary
	if to == old.NodeID {
		to = t.other(old.NodeID)
	}
	epoch := t.client.Epoch()
	t.mark(FaultSwitchover, "switchover", old.NodeID)
	asked := t.cluster.Switchover(ctx, t.other(old.NodeID, to), to)
	if asked != nil { // it may have gone to another node, or nowhere; what counts is that the writes go on
		t.note("the switchover from node %d to node %d: %v", old.NodeID, to, asked)
		if err := t.writes(ctx, writesBetween); err != nil {
			return fmt.Errorf("after a switchover that failed (%w): %w", asked, err)
		}
		if t.client.Epoch() == epoch {
			return nil
		}
	}
	report, err := t.failover(ctx, FaultSwitchover, old.NodeID, epoch)
	if err != nil {
		return err
	}
	t.chapter("switchover", "node %s hands over to node %s, epoch %d: a pause of %s in the writes",
		old.NodeID, t.Green(report.NewPrimary.String()), report.Epoch, t.Bold(term.Millis(time.Duration(report.FailoverMS*1e6))))
	return t.writes(ctx, writesBetween)
}

// note tells, and keeps for the verdict, what went otherwise than planned.
func (t *tour) note(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	t.verdict.Notes = append(t.verdict.Notes, note)
	t.more("", "%s", t.Yellow(term.Safe(note)))
}

// prove holds the client's record against the data of the primary.
func (t *tour) prove(ctx context.Context) error {
	to := t.client.Now()
	acks := t.client.Acks()
	data, primary, err := t.dump(ctx)
	if err != nil {
		return err
	}
	t.verdict.UnknownWrites = t.client.Unknown()
	verdict := t.verdict.judge(acks, data)

	if len(acks) > 0 {
		bars, marks := chart(acks, t.events, acks[0].Acked, to, chartWidth)
		t.Line("")
		t.Line("      %s  %s", t.Green(bars), t.Dim("acknowledged writes"))
		t.Line("      %s", t.Dim(marks))
	}
	t.Line("")
	t.tellVerdict(primary)
	return verdict
}

// dump reads the data of whoever is primary, again if that changes meanwhile.
func (t *tour) dump(ctx context.Context) (map[string]string, protocol.NodeID, error) {
	defer t.Waiting(func() string { return "reading back what the primary holds" })()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		primary, err := t.primary(ctx)
		if err != nil {
			return nil, protocol.NoNode, err
		}
		data, err := t.cluster.Dump(ctx, primary.NodeID)
		var refused *APIError
		if !errors.As(err, &refused) {
			return data, primary.NodeID, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, protocol.NoNode, err
		}
	}
}

func (t *tour) tellVerdict(primary protocol.NodeID) {
	v := t.verdict
	mark := func(n int) string {
		if n == 0 {
			return t.Green("0")
		}
		return t.Red(term.Count(n))
	}
	t.Line("  %s  %s acknowledged   %s lost   %s acknowledged by two primaries at once", t.Bold("proof"),
		t.Bold(term.Count(v.AckedWrites)), mark(v.LostWrites), mark(v.DualPrimaryAcks))
	t.Line("         %s", t.Dim(fmt.Sprintf("the client's own record, held against the data of node %d", primary)))
	t.Line("")
}
