package sim

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/protocol"
)

// who finds the machine that is meant, nil if there is none.
func (c *cluster) who(w Who) *machine {
	switch w {
	case Primary:
		if p := c.primary(); p != nil {
			return p.m
		}
		return nil
	case Follower, Other:
		var found *machine
		primary := c.primary()
		for _, p := range c.all() {
			if p != primary && (found == nil || w == Other) {
				found = p.m
			}
		}
		return found
	}
	if id := w.id(); id != protocol.NoNode {
		return c.machine(id)
	}
	return nil
}

// befall does what a fault says, in goroutines of its own.
func (c *cluster) befall(f Fault) {
	m, other := c.who(f.A), c.who(f.B)
	if f.Kind == "rough" {
		r := roughness{f.N, f.M, f.D}
		c.fault(f, f.E, func() { c.net.roughen(r, 1) }, func() { c.net.roughen(r, -1) })
		return
	}
	if f.Kind == "switch" {
		c.switchover(f)
		return
	}
	if m == nil {
		return
	}
	switch f.Kind {
	case "crash":
		c.down(f, m, (*process).kill)
	case "stop":
		c.down(f, m, (*process).stop)
	case "pause":
		p := c.running(m.id)
		if p == nil || !p.pause() {
			return
		}
		c.fault(f, f.D, func() {}, func() {
			if !p.isDead() {
				c.ledger.woken(p)
			}
			p.resume()
		})
	case "isolate":
		c.cutting(f, func(a, b protocol.NodeID) bool { return a == m.id || b == m.id })
	case "cut":
		if other != nil {
			c.cutting(f, func(a, b protocol.NodeID) bool { return a == m.id && b == other.id || a == other.id && b == m.id })
		}
	case "cutone":
		if other != nil {
			c.cutting(f, func(a, b protocol.NodeID) bool { return a == m.id && b == other.id })
		}
	case "split":
		if other != nil {
			in := func(id protocol.NodeID) bool { return id == m.id || id == other.id }
			c.cutting(f, func(a, b protocol.NodeID) bool { return in(a) != in(b) })
		}
	case "slow":
		c.fault(f, f.E, func() { m.disk.slowBy(f.D) }, func() { m.disk.slowBy(-f.D) })
	case "stick":
		c.fault(f, f.D, m.disk.stick, m.disk.release)
	case "drift":
		right := m.clock.rate()
		c.fault(f, f.D, func() { m.clock.set(int64(f.N)) }, func() { m.clock.set(right) })
	case "demote":
		c.unseat(f, m, func(r *raft.Raft, id raft.ServerID) raft.IndexFuture { return r.DemoteVoter(id, 0, memberPatience) })
	case "remove":
		c.unseat(f, m, func(r *raft.Raft, id raft.ServerID) raft.IndexFuture { return r.RemoveServer(id, 0, memberPatience) })
	case "rogue":
		if p := c.running(m.id); p != nil && other != nil && other != m {
			c.ledger.tell("%v", f)
			c.tasks.Go(func() {
				request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(raftshim.ServerID(m.id))}}
				_ = p.wire.TimeoutNow(raftshim.ServerID(other.id), "", request, &raft.TimeoutNowResponse{})
			})
		}
	}
}

// fault begins something and ends it after a while.
func (c *cluster) fault(f Fault, d time.Duration, begin, end func()) {
	c.faults.Add(1)
	c.ledger.tell("%v", f)
	begin()
	c.tasks.Go(func() {
		time.Sleep(d)
		end()
		c.faults.Add(-1)
		c.ledger.tell("over: %v", f)
		c.ledger.disturbed()
	})
}

// down ends a process, unless somebody else has, and starts another one later.
func (c *cluster) down(f Fault, m *machine, end func(*process)) {
	p := c.running(m.id)
	if p == nil || !p.ending.CompareAndSwap(false, true) {
		return
	}
	c.ledger.tell("%v (node %d)", f, m.id)
	c.tasks.Go(func() {
		end(p)
		time.Sleep(f.D)
		c.begin(m)
	})
}

// begin starts a node, again if it cannot start.
func (c *cluster) begin(m *machine) {
	for !c.over.Load() {
		err := c.start(m)
		if err == nil {
			return
		}
		c.ledger.tell("node %d does not start: %v", m.id, err)
		if p := c.running(m.id); p != nil {
			p.kill()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// cutting cuts the ways that are chosen.
func (c *cluster) cutting(f Fault, chosen func(from, to protocol.NodeID) bool) {
	var ways [][2]protocol.NodeID
	for _, a := range c.machines {
		for _, b := range c.machines {
			if a != b && chosen(a.id, b.id) {
				ways = append(ways, [2]protocol.NodeID{a.id, b.id})
			}
		}
	}
	change := func(by int) {
		for _, w := range ways {
			c.net.way(w[0], w[1], by)
		}
		c.ledger.disturbed()
	}
	c.ledger.tell("%v: %v", f, ways)
	change(1)
	c.tasks.Go(func() {
		time.Sleep(f.D)
		change(-1)
		c.ledger.tell("over: %v", f)
	})
}

func (c *cluster) switchover(f Fault) {
	p := c.primary()
	if p == nil {
		return
	}
	to := protocol.NoNode
	if m := c.who(f.A); m != nil {
		to = m.id
	}
	if to == p.id {
		return
	}
	c.ledger.tell("%v: from node %d", f, p.id)
	c.ledger.disturbed()
	c.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := p.driver.Switchover(ctx, to)
		c.ledger.tell("the switchover to %d: %v", to, err)
	})
}
