package democluster

import (
	"context"
	"fmt"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// gentlePace is the rest between two writes of each writer after the tour.
	gentlePace = 60 * time.Millisecond
	// watchEvery is how often the nodes are looked at after the tour.
	watchEvery = 100 * time.Millisecond
	// restartAfter is how long a node that somebody has ended stays down.
	restartAfter = 3 * time.Second
	// finalProof bounds the proof when the person has seen enough.
	finalProof = 2 * time.Second
)

// stay keeps the cluster running for a person to play with, tells what
// happens to it, starts what was killed, and ends with another proof.
func (t *tour) stay(ctx context.Context) error {
	t.client.SetPace(gentlePace)
	t.invite(ctx)
	epoch := t.client.Epoch()
	down := map[protocol.NodeID]time.Time{} // since when
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, n := range t.cluster.Nodes() {
			since, known := down[n.ID]
			switch {
			case t.cluster.Running(n.ID) && known:
				delete(down, n.ID)
			case !t.cluster.Running(n.ID) && !known:
				down[n.ID] = time.Now()
				t.cluster.Excuse(n.ID)
				t.news("node %s is gone; it starts again in %.0f s", t.Red(n.ID.String()), restartAfter.Seconds())
			case known && time.Since(since) >= restartAfter:
				if err := t.cluster.Start(n.ID); err != nil {
					return err
				}
				t.news("node %s starts again from its directory, pid %d", t.Green(n.ID.String()), t.cluster.PID(n.ID))
			}
		}
		if now := t.client.Epoch(); now > epoch {
			gap, first, _ := Failover(t.client.Acks(), epoch)
			t.news("node %s is primary in epoch %d: %s without an acknowledged write",
				t.Green(first.Node.String()), first.Epoch, t.Bold(term.Millis(gap)))
			epoch = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.Line("")
	return t.proveAgain()
}

// proveAgain repeats the proof with what was written since. Without a primary
// there is nobody to ask, which proves nothing and is no failure either.
func (t *tour) proveAgain() error {
	ctx, cancel := context.WithTimeout(context.Background(), finalProof)
	defer cancel()
	acks := t.client.Acks()
	data, primary, err := t.dump(ctx)
	if err != nil {
		t.Line("  %s", t.Dim("no primary at the end: what was written after the tour is not proven"))
		return nil
	}
	t.verdict.UnknownWrites = t.client.Unknown()
	verdict := t.verdict.judge(acks, data)
	t.tellVerdict(primary)
	return verdict
}

// news writes a line with the time of day.
func (t *tour) news(format string, args ...any) {
	t.Line("  %s  %s", t.Dim(time.Now().Format("15:04:05")), fmt.Sprintf(format, args...))
}

// invite tells what there is to try.
func (t *tour) invite(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, finalProof)
	defer cancel()
	primary, err := t.primary(ctx)
	if err != nil {
		return // no more hints than that it runs, which the table above says
	}
	replica := t.other(primary.NodeID)
	pid, api := t.cluster.PID(primary.NodeID), t.cluster.Node(replica).APIAddr
	t.Line("  %s  the cluster keeps running under a gentle load, until %s. Try:", t.Bold("your turn"), t.Bold("Ctrl-C"))
	t.Line("")
	for _, hint := range [][2]string{
		{fmt.Sprintf("kill -9 %d", pid), "the primary; it is started again after a while"},
		{fmt.Sprintf("kill -STOP %d", pid), "a primary that hangs; kill -CONT wakes it up"},
		{fmt.Sprintf("%s status --api http://%s", t.cfg.Program, api), "from any node"},
		{fmt.Sprintf("%s switchover --to %d --api http://%s", t.cfg.Program, replica, api), "the planned way"},
		{"http://" + api + "/", "the dashboard"},
	} {
		t.Line("    %s  %s", pad(t.Cyan(hint[0]), 58), t.Dim(hint[1]))
	}
	t.Line("")
}
