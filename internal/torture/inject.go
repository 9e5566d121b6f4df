package torture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// wholeTimeout bounds how long a cluster may take to be whole again after
	// all harm is over.
	wholeTimeout = 60 * time.Second
	// endGrace is how long a node may take to end when it is asked to.
	endGrace = 12 * time.Second
	// diskPatience is how long a node whose disk has room again may take to go
	// on by itself, before it is started anew.
	diskPatience = 3 * time.Second
	// successorTimeout bounds the wait for a paused primary's successor.
	successorTimeout = 10 * time.Second
	// switchoverTimeout bounds the answer to a switchover.
	switchoverTimeout = 20 * time.Second
	// afterWake is how long a combination lasts once its paused node is awake.
	afterWake = 300 * time.Millisecond

	slowDelay, slowJitter, slowLoss = 15 * time.Millisecond, 10 * time.Millisecond, 2.0
)

// errWhole says that the cluster did not come back although nothing was in its
// way any more.
var errWhole = errors.New("the cluster did not become whole again")

// hold lets a harm last. It returns early, without an error, when ctx ends: what
// was done is undone then all the same.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// harm notes that a harm is complete, and returns what notes its end.
func (r *run) harm(h Harm, node, peer protocol.NodeID) (over func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.windows)
	r.windows = append(r.windows, Window{Step: r.step.N, Harm: h, Node: node, Peer: peer, From: r.now()})
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.windows[i].To == 0 {
			r.windows[i].To = r.now()
		}
	}
}

// kill is kill -9. The harm lasts until restart.
func (r *run) kill(id protocol.NodeID) error {
	if err := r.cluster.Kill(id); err != nil && r.cluster.Running(id) {
		return err
	}
	r.cluster.Excuse(id)
	r.down[id] = r.harm(HarmDown, id, protocol.NoNode)
	return nil
}

// end is SIGTERM. The harm lasts until restart.
func (r *run) end(id protocol.NodeID) error {
	clean, err := r.cluster.Terminate(id, endGrace)
	if err != nil {
		return err
	}
	r.down[id] = r.harm(HarmDown, id, protocol.NoNode)
	if !clean {
		r.violation("node %d was asked to end (SIGTERM) and did not end by itself with status 0 within %v", id, endGrace)
	}
	return nil
}

// restart starts a node that was ended.
func (r *run) restart(id protocol.NodeID) error {
	if over := r.down[id]; over != nil {
		over()
		delete(r.down, id)
	}
	return r.cluster.Start(id)
}

// pause stops a process and returns what wakes it.
func (r *run) pause(id protocol.NodeID) (wake func() error, err error) {
	if err := r.cluster.Pause(id); err != nil {
		return nil, err
	}
	over := r.harm(HarmPaused, id, protocol.NoNode)
	return func() error { over(); return r.cluster.Resume(id) }, nil
}

// way is a direction that is cut.
type way struct{ from, to protocol.NodeID }

// cut loses what goes those ways, and returns what mends them.
func (r *run) cut(ways ...way) (mend func() error, err error) {
	var overs []func()
	var cut []way
	mend = func() error {
		for _, over := range overs {
			over()
		}
		var errs []error
		for _, w := range cut {
			errs = append(errs, r.arena.Mend(w.from, w.to))
		}
		return errors.Join(errs...)
	}
	for _, w := range ways {
		if err := r.arena.Cut(w.from, w.to); err != nil {
			return nil, errors.Join(err, mend())
		}
		cut = append(cut, w)
	}
	for _, w := range cut {
		node, peer, h := w.from, w.to, HarmOneWay
		if slices.Contains(cut, way{w.to, w.from}) {
			if h = HarmCut; w.from != protocol.NoNode && (w.to == protocol.NoNode || w.from < w.to) {
				overs = append(overs, r.harm(h, node, peer))
			}
			continue // the other direction stands for both
		}
		overs = append(overs, r.harm(h, node, peer))
	}
	return mend, nil
}

// around lists the ways between a node and the others, and the clients if asked.
func (r *run) around(id protocol.NodeID, in, out, clients bool) []way {
	var ways []way
	add := func(peer protocol.NodeID) {
		if out {
			ways = append(ways, way{id, peer})
		}
		if in {
			ways = append(ways, way{peer, id})
		}
	}
	for _, n := range r.cluster.Nodes() {
		if n.ID != id {
			add(n.ID)
		}
	}
	if clients {
		add(protocol.NoNode)
	}
	return ways
}

// choose finds the node a step is for, and another.
func (r *run) choose(ctx context.Context, s Step) (node, other protocol.NodeID, err error) {
	ctx, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	primary, err := r.cluster.WaitPrimary(ctx, max(r.client.Epoch(), 1)-1)
	if err != nil {
		return 0, 0, err
	}
	var replicas []protocol.NodeID
	for _, n := range r.cluster.Nodes() {
		if n.ID != primary.NodeID {
			replicas = append(replicas, n.ID)
		}
	}
	i := s.Pick % len(replicas)
	if s.Target == OnReplica {
		return replicas[i], replicas[(i+1)%len(replicas)], nil
	}
	return primary.NodeID, replicas[i], nil
}

// inject does what a step says. All harm is over when it returns, whatever it
// returns: an error says that it could not be done, or that a node did not do
// what it must.
func (r *run) inject(ctx context.Context, s Step, node, other protocol.NodeID) error {
	switch s.Fault {
	case FaultKill:
		if err := r.kill(node); err != nil {
			return err
		}
		hold(ctx, s.For)
		return r.restart(node)
	case FaultPause:
		return r.pauseFor(ctx, node, s.For)
	case FaultStutter:
		for range s.Turns {
			if err := r.pauseFor(ctx, node, s.For); err != nil {
				return err
			}
			hold(ctx, s.For/2)
		}
		return nil
	case FaultPauseAll:
		return r.pauseAll(ctx, s)
	case FaultIsolate:
		return r.cutFor(ctx, s.For, r.around(node, true, true, s.Variant)...)
	case FaultOneWay:
		return r.cutFor(ctx, s.For, r.around(node, s.Variant, !s.Variant, false)...)
	case FaultPartial:
		return r.cutFor(ctx, s.For, way{node, other}, way{other, node})
	case FaultFlap:
		for range s.Turns {
			if err := r.cutFor(ctx, s.For, r.around(node, true, true, s.Variant)...); err != nil {
				return err
			}
			hold(ctx, s.For/2)
		}
		return nil
	case FaultSlowNet:
		if err := r.arena.Slow(node, slowDelay, slowJitter, slowLoss); err != nil {
			return err
		}
		over := r.harm(HarmSlow, node, protocol.NoNode)
		hold(ctx, s.For)
		over()
		return r.arena.Fast(node)
	case FaultDiskFull:
		return r.fillDisk(ctx, s)
	case FaultSwitchover:
		to := other
		if s.Variant {
			to = protocol.NoNode // the best one
		}
		r.switchover(ctx, node, to)
		return nil
	case FaultStorm:
		r.storm(ctx, s)
		return nil
	case FaultTerminate:
		if err := r.end(node); err != nil {
			return err
		}
		hold(ctx, s.For)
		return r.restart(node)
	case FaultCalm:
		hold(ctx, s.For)
		return nil
	case FaultRestart:
		return r.rollingRestart(ctx, s)
	case FaultBlackout:
		return r.blackout(ctx, s)
	case FaultWipe:
		return r.wipe(ctx, s, node)
	case FaultWakeKill:
		return r.wakeKill(ctx, s, node)
	case FaultSwitchoverKill:
		return r.switchoverKill(ctx, s, node, other)
	case FaultRejoinKill:
		return r.rejoinKill(ctx, s, node)
	case FaultCutPause:
		mend, err := r.cut(way{node, other}, way{other, node})
		if err != nil {
			return err
		}
		err = r.pauseFor(ctx, node, s.For)
		hold(ctx, afterWake)
		return errors.Join(err, mend())
	}
	return fmt.Errorf("unknown fault %q", s.Fault)
}

func (r *run) pauseFor(ctx context.Context, id protocol.NodeID, d time.Duration) error {
	wake, err := r.pause(id)
	if err != nil {
		return err
	}
	hold(ctx, d)
	return wake()
}

func (r *run) cutFor(ctx context.Context, d time.Duration, ways ...way) error {
	mend, err := r.cut(ways...)
	if err != nil {
		return err
	}
	hold(ctx, d)
	return mend()
}

// pauseAll stops every node, and wakes them one by one, the first chosen by the step.
func (r *run) pauseAll(ctx context.Context, s Step) error {
	var wakes []func() error
	var errs []error
	for _, n := range r.cluster.Nodes() {
		wake, err := r.pause(n.ID)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		wakes = append(wakes, wake)
	}
	hold(ctx, s.For)
	for i := range wakes {
		errs = append(errs, wakes[(i+s.Pick)%len(wakes)]())
		if s.Variant {
			hold(ctx, s.For/4)
		}
	}
	return errors.Join(errs...)
}

// switchover asks for one. That it is refused, or comes to nothing, is worth a
// note and no violation: what counts is what the clients see.
func (r *run) switchover(ctx context.Context, from, to protocol.NodeID) {
	ctx, cancel := context.WithTimeout(ctx, switchoverTimeout)
	defer cancel()
	via := from
	for _, n := range r.cluster.Nodes() { // any node must do
		if n.ID != from && n.ID != to && r.cluster.Running(n.ID) {
			via = n.ID
		}
	}
	if err := r.cluster.Switchover(ctx, via, to); err != nil && ctx.Err() == nil {
		r.note("the switchover from node %d to node %d: %v", from, to, err)
	}
}

// storm asks every node at once to hand the primacy to its neighbour. Most are
// refused; what counts is what the clients see.
func (r *run) storm(ctx context.Context, s Step) {
	ctx, cancel := context.WithTimeout(ctx, switchoverTimeout)
	defer cancel()
	nodes := r.cluster.Nodes()
	for range s.Turns {
		var asked sync.WaitGroup
		for i, n := range nodes {
			to := nodes[(i+1+s.Pick)%len(nodes)].ID
			asked.Go(func() { _ = r.cluster.Switchover(ctx, n.ID, to) })
		}
		asked.Wait()
	}
}

// rollingRestart ends and starts every node, one after the other.
func (r *run) rollingRestart(ctx context.Context, s Step) error {
	for _, n := range r.cluster.Nodes() {
		if ctx.Err() != nil {
			return nil
		}
		if err := r.end(n.ID); err != nil {
			return err
		}
		hold(ctx, s.For)
		if err := r.restart(n.ID); err != nil {
			return err
		}
		if _, err := r.waitWhole(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (r *run) blackout(ctx context.Context, s Step) error {
	var errs []error
	for _, n := range r.cluster.Nodes() {
		errs = append(errs, r.kill(n.ID))
	}
	hold(ctx, s.For)
	for i := range r.cluster.Nodes() {
		errs = append(errs, r.restart(r.cluster.Nodes()[(i+s.Pick)%len(r.cluster.Nodes())].ID))
	}
	return errors.Join(errs...)
}

// wipe takes a node's directory away and lets it start empty. That is safe only
// while all other nodes run and have what was acknowledged; so it waits for that.
func (r *run) wipe(ctx context.Context, s Step, id protocol.NodeID) error {
	epoch := r.client.Epoch()
	if err := r.kill(id); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, wholeTimeout)
	defer cancel()
	if s.Target == OnPrimary {
		if _, err := r.client.WaitEpoch(limited, epoch); err != nil {
			return errors.Join(err, r.restart(id))
		}
	}
	if _, err := r.waitRunning(limited); err != nil {
		return errors.Join(err, r.restart(id))
	}
	if err := empty(r.cluster.Node(id).DataDir); err != nil {
		return err
	}
	hold(ctx, s.For)
	return r.restart(id)
}

// empty removes what is in a directory, and leaves the directory, which may be a
// disk of its own.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(append(errs, err)...)
}

// fillDisk fills the disk of the node that has one of its own.
func (r *run) fillDisk(ctx context.Context, s Step) error {
	n := r.cluster.Nodes()[len(r.cluster.Nodes())-1]
	if s.Target == OnPrimary {
		limited, cancel := context.WithTimeout(ctx, successorTimeout)
		defer cancel()
		if p, err := r.cluster.WaitPrimary(limited, 0); err == nil && p.NodeID != n.ID {
			r.switchover(limited, p.NodeID, n.ID)
		}
	}
	if err := r.arena.Fill(n.DataDir); err != nil {
		return err
	}
	over := r.harm(HarmFull, n.ID, protocol.NoNode)
	hold(ctx, s.For)
	if err := r.arena.Free(n.DataDir); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	_, err := r.waitWhole(limited)
	if err == nil || ctx.Err() != nil {
		over()
		return nil
	}
	if !r.cluster.Running(n.ID) {
		r.cluster.Excuse(n.ID)
		r.note("node %d ended when its disk was full; it was started again", n.ID)
	} else {
		r.note("node %d did not go on by itself within %v of its disk having room again; it was restarted", n.ID, diskPatience)
		if _, err := r.cluster.Terminate(n.ID, endGrace); err != nil {
			return err
		}
	}
	over()
	return r.restart(n.ID)
}

// wakeKill pauses the primary, and kills its successor as it wakes.
func (r *run) wakeKill(ctx context.Context, s Step, id protocol.NodeID) error {
	epoch := r.client.Epoch()
	wake, err := r.pause(id)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, successorTimeout)
	defer cancel()
	first, err := r.client.WaitEpoch(limited, epoch)
	for err == nil && first.Node == id {
		// It became primary anew just before the pause, in an epoch that no
		// client knew yet.
		first, err = r.client.WaitEpoch(limited, first.Epoch)
	}
	if err != nil {
		if ctx.Err() != nil {
			return wake()
		}
		return errors.Join(fmt.Errorf("the paused primary had no successor: %w", err), wake())
	}
	hold(ctx, s.For)
	if s.Variant {
		err = errors.Join(wake(), r.kill(first.Node))
	} else {
		err = errors.Join(r.kill(first.Node), wake())
	}
	hold(ctx, s.For/2)
	return errors.Join(err, r.restart(first.Node))
}

// switchoverKill kills one of the two nodes of a switchover in the middle of it.
func (r *run) switchoverKill(ctx context.Context, s Step, from, to protocol.NodeID) error {
	asked := make(chan struct{})
	asking, cancel := context.WithCancel(ctx)
	go func() {
		defer close(asked)
		r.switchover(asking, from, to)
	}()
	hold(ctx, s.For)
	victim := from
	if s.Variant {
		victim = to
	}
	err := r.kill(victim)
	hold(ctx, 2*time.Second)
	cancel()
	<-asked
	return errors.Join(err, r.restart(victim))
}

// rejoinKill kills a node again and again while it starts.
func (r *run) rejoinKill(ctx context.Context, s Step, id protocol.NodeID) error {
	for range s.Turns {
		if err := r.kill(id); err != nil {
			return err
		}
		if err := r.restart(id); err != nil {
			return err
		}
		hold(ctx, s.For)
	}
	return nil
}

// waitWhole waits until every node runs and follows one primary that
// acknowledges, with all that this one had.
func (r *run) waitWhole(ctx context.Context) (democluster.Status, error) {
	for _, n := range r.cluster.Nodes() {
		if !r.cluster.Running(n.ID) {
			if exited := r.cluster.Exited(); exited != nil {
				return democluster.Status{}, exited
			}
			return democluster.Status{}, fmt.Errorf("node %d does not run", n.ID)
		}
	}
	return r.waitRunning(ctx)
}

// waitRunning is waitWhole for the nodes that run.
func (r *run) waitRunning(ctx context.Context) (democluster.Status, error) {
	want := 0
	for _, n := range r.cluster.Nodes() {
		if r.cluster.Running(n.ID) {
			want++
		}
	}
	var primary democluster.Status
	target := map[protocol.Epoch]protocol.Position{} // by epoch: what its primary had when first seen
	err := r.cluster.Wait(ctx, "every node to be back", func(all []democluster.Status) bool {
		if primary = (democluster.Status{}); len(all) < want {
			return false
		}
		for _, s := range all {
			if s.Role == protocol.RolePrimary && s.Epoch > primary.Epoch {
				primary = s
			}
		}
		if primary.NodeID == protocol.NoNode {
			return false
		}
		goal, known := target[primary.Epoch]
		if !known {
			goal = primary.Position
			target[primary.Epoch] = goal
		}
		for _, s := range all {
			follows := s.Role == protocol.RoleReplica && s.Primary == primary.NodeID && s.Position.LSN >= goal.LSN
			if s.NodeID != primary.NodeID && !follows {
				return false
			}
		}
		return true
	})
	if err == nil {
		err = r.client.WaitAcks(ctx, 2)
	}
	return primary, err
}
