package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// joinBackoffMin and joinBackoffMax bound the pause between two attempts to
	// reach the nodes that are not there.
	joinBackoffMin = 100 * time.Millisecond
	joinBackoffMax = 5 * time.Second
	// maxJoins is how many addresses are tried at a time.
	maxJoins = 16
	// resolveTimeout bounds the resolution of a host name.
	resolveTimeout = 2 * time.Second
	// maxResolved is how many addresses of one host name are used.
	maxResolved = 4
	// maxClaims bounds the claims of node IDs that wait to be looked into.
	maxClaims = 16
	// claimQuiet is how long nothing more is logged, or asked, about the same claim.
	claimQuiet = time.Minute
	// claimRecheck is the least time between two looks at one node's claims.
	claimRecheck = time.Second
)

// keep joins the configured nodes until all are seen, and again when one is
// lost.
func (g *Gossip) keep() {
	backoff := joinBackoffMin
	for {
		if !g.whole() {
			g.join(g.absent())
		}
		pause := backoff
		if g.whole() {
			backoff, pause = joinBackoffMin, joinBackoffMax
		} else {
			backoff = min(2*backoff, joinBackoffMax)
		}
		timer := time.NewTimer(pause)
		select {
		case <-g.ctx.Done():
			timer.Stop()
			return
		case <-g.kick:
			backoff = joinBackoffMin
		case <-timer.C:
		}
		timer.Stop()
	}
}

// whole reports whether as many nodes are alive as are configured.
func (g *Gossip) whole() bool {
	want := 1
	for _, p := range g.config.Peers {
		if p != g.config.Advertise {
			want++
		}
	}
	return g.view.alive() >= want
}

// absent returns the addresses worth trying, as IP:port: those configured and
// those claimed, without the members that are alive and this node.
func (g *Gossip) absent() []string {
	skip := g.view.endpoints()
	var out []string
	for _, p := range append(slices.Clone(g.config.Peers), g.view.claimed()...) {
		host, port, err := splitHostPort(p)
		if err != nil {
			continue
		}
		ips, err := resolve(g.ctx, host)
		if err != nil {
			g.logger.Debug("host name of a node not resolved", "addr", p, "error", err)
			continue
		}
		for _, ip := range ips {
			addr := netip.AddrPortFrom(ip, port).String()
			if !skip[addr] {
				skip[addr] = true
				out = append(out, addr)
			}
		}
	}
	return out
}

// join exchanges views with each address, several at a time: one that does not
// answer costs streamTimeout.
func (g *Gossip) join(addrs []string) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxJoins)
	for _, addr := range addrs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if g.ctx.Err() != nil {
				return
			}
			if _, err := g.list.Join([]string{addr}); err != nil {
				g.logger.Trace("node not joined", "addr", addr, "error", err)
			}
		})
	}
	wg.Wait()
}

// claim is a node ID seen at a second address.
type claim struct {
	id             protocol.NodeID
	known, claimed string // IP:port
}

// judge looks into claims: has a node moved, or do two nodes share an ID?
func (g *Gossip) judge() {
	looked := map[protocol.NodeID]time.Time{}
	logged := map[protocol.NodeID]time.Time{}
	for {
		var c claim
		select {
		case <-g.ctx.Done():
			return
		case c = <-g.claims:
		}
		if c.id != g.config.Local {
			g.view.claim(c.id, c.claimed)
		}
		if last, ok := looked[c.id]; ok && time.Since(last) < claimRecheck {
			continue
		}
		looked[c.id] = time.Now()
		if last, ok := logged[c.id]; ok && time.Since(last) < claimQuiet {
			continue
		}
		if (c.id == g.config.Local || g.answers(c.id, c.known)) && g.answers(c.id, c.claimed) {
			logged[c.id] = time.Now()
			g.logger.Error("two nodes run with the same node ID: stop one of them or give it an ID of its own",
				"node", c.id, "addr", c.known, "other", c.claimed)
		}
	}
}

// answers reports whether a node with that ID answers at addr.
func (g *Gossip) answers(id protocol.NodeID, addr string) bool {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false
	}
	_, err = g.list.Ping(id.String(), net.UDPAddrFromAddrPort(at))
	return err == nil
}

func splitHostPort(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q: want host:port: %w", addr, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: port %q is not a number from 1 to 65535", addr, p)
	}
	if host == "" {
		return "", 0, fmt.Errorf("%q: the host is missing", addr)
	}
	return host, uint16(n), nil
}

// resolve returns the IP addresses of a host, IPv4 first, at most maxResolved.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int {
		switch {
		case a.Is4() && !b.Is4():
			return -1
		case b.Is4() && !a.Is4():
			return 1
		}
		return 0
	})
	if len(ips) == 0 {
		return nil, fmt.Errorf("host %s has no IP address", host)
	}
	return ips[:min(len(ips), maxResolved)], nil
}
