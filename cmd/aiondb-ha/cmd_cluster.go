package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// switchoverTimeout is how long a switchover may take without --timeout.
	switchoverTimeout = 20 * time.Second
	// switchoverPoll is how often the outcome is looked at.
	switchoverPoll = 50 * time.Millisecond
)

// simple wraps a command without flags of its own.
func simple(run runner) func(*flag.FlagSet) runner {
	return func(*flag.FlagSet) runner { return run }
}

func clusterCommands() []command {
	return []command{
		{
			name: "status", short: "who is primary, in which epoch, and what is in the way", client: true, data: true,
			long:  "What one node knows of itself and of its cluster; it asks nobody.",
			setup: simple(runStatus),
		},
		{
			name: "nodes", short: "every node: role, position, lag, round trip", client: true, data: true,
			long:  "As the node that is asked sees the others.",
			setup: simple(runNodes),
		},
		{
			name: "events", short: "what happened, step by step, and why", client: true, data: true,
			long:     "The decision journal of one node: elections, promotions, refusals, with the time each\nstep took. --failover shows where the time of the last failover went. With --json one object a line.",
			examples: []string{"aiondb-ha events --follow", "aiondb-ha events --json | jq 'select(.event == \"ElectionWon\")'"},
			setup:    setupEvents,
		},
		{
			name: "switchover", short: "hand the primacy to another node, losing nothing", client: true, data: true,
			long:     "Any node may be asked. Without --to the best replica takes over. It returns when the new\nprimary has been promoted.",
			examples: []string{"aiondb-ha switchover --to 2"},
			setup:    setupSwitchover,
		},
		{
			name: "node add", args: "ID ADDRESS", short: "register a node and the address of its database", min: 2, max: 2, client: true, data: true,
			long:     "A registered node can be given shards. Who votes is not changed by this: voters are the\nnodes of AIONDB_HA_CLUSTER_NODES.",
			examples: []string{"aiondb-ha node add 4 10.0.0.4:5433"},
			setup:    simple(runNodeAdd),
		},
		{
			name: "node remove", args: "ID", short: "forget a node and its shard assignments", min: 1, max: 1, client: true, data: true,
			setup: simple(runNodeRemove),
		},
	}
}

func runStatus(a *app, in *input) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var s ha.Status
	raw, err := c.get(a.ctx, "/v1/status", nil, &s)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	return statusTable(s, a.style()).Write(a.stdout, a.style())
}

func statusTable(s ha.Status, style term.Style) *term.Table {
	tab := term.NewTable()
	row := func(name, format string, args ...any) { tab.Row(style.Dim(name), fmt.Sprintf(format, args...)) }
	role := s.Role.String()
	if s.Role == protocol.RolePrimary {
		role = style.Green(role)
	}
	row("node", "%s, %s, up %s, version %s", s.NodeID, role, millis(s.UptimeMS), term.Safe(s.Version))
	switch {
	case s.Primary == protocol.NoNode:
		row("primary", "%s", style.Red("none"))
	case s.PrimaryAddress == "":
		row("primary", "node %s, epoch %d", s.Primary, s.Epoch)
	default:
		row("primary", "node %s at %s, epoch %d", s.Primary, term.Safe(s.PrimaryAddress), s.Epoch)
	}
	leader := "none"
	if s.Leader != protocol.NoNode {
		leader = "node " + s.Leader.String()
	}
	contact := ""
	if s.Leader != s.NodeID && s.LastContactMS >= 0 {
		contact = ", heard " + millis(s.LastContactMS) + " ago"
	}
	row("leader", "%s, term %d%s", leader, s.Term, contact)
	quorum := fmt.Sprintf("%d of %d voters reachable, %d needed", s.Quorum.Reachable, s.Quorum.Voters, s.Quorum.Needed)
	if s.Quorum.Reachable < s.Quorum.Needed {
		quorum = style.Red(quorum)
	}
	row("quorum", "%s", quorum)
	row("position", "timeline %d, LSN %d", s.Position.Timeline, s.Position.LSN)
	row("state", "%s, floor %d, applied to index %d", s.State, s.Floor, s.AppliedIndex)
	if p := s.Rules.Pause; p != nil {
		row("paused", "%s", style.Yellow(since(p.At, p.Reason)))
	}
	for _, m := range s.Rules.Maintenance {
		row("maintenance", "node %s, %s", m.NodeID, since(m.At, m.Reason))
	}
	if p := s.Rules.Permit; p != nil && p.After == s.Epoch && s.Primary == protocol.NoNode {
		row("permitted", "node %s, %s", p.NodeID, since(p.At, p.Reason))
	}
	if s.Aside != "" {
		row("aside", "%s", style.Yellow(term.Safe(s.Aside)))
	}
	for _, w := range s.Warnings {
		row("warning", "%s", style.Yellow(term.Safe(w)))
	}
	if s.Blocked != "" {
		row("blocked", "%s", style.Yellow(term.Safe(s.Blocked)))
	}
	if s.Halted != "" {
		row("halted", "%s", style.Red(term.Safe(s.Halted)))
	}
	return tab
}

// since says since when a rule holds, and why.
func since(at time.Time, reason string) string {
	text := "since " + at.Local().Format("2006-01-02 15:04:05")
	if reason != "" {
		text += ": " + term.Safe(reason)
	}
	return text
}

func runNodes(a *app, in *input) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		Nodes []ha.NodeInfo `json:"nodes"`
	}
	raw, err := c.get(a.ctx, "/v1/nodes", nil, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	style := a.style()
	tab := term.NewTable("NODE", "ROLE", "EPOCH", "LSN", "LAG", "RTT", "SEEN", "DATABASE", "API", "").Right(2, 3, 4, 5)
	for _, n := range answer.Nodes {
		role, seen, lag, rtt, notes := n.Role.String(), "never", "?", "-", []string{}
		switch {
		case !n.Alive:
			role = style.Red("down")
		case n.Primary:
			role = style.Green(role)
		case n.Witness:
			role = "witness"
		}
		if n.LastSeenMS >= 0 {
			seen = "now"
			if n.LastSeenMS >= 1000 {
				seen = millis(n.LastSeenMS) + " ago"
			}
		}
		if n.Lag != nil {
			lag = count(*n.Lag)
		}
		if n.RTTUS > 0 {
			rtt = micros(n.RTTUS)
		}
		if n.Leader {
			notes = append(notes, "leader")
		}
		if n.Maintenance {
			notes = append(notes, "maintenance")
		}
		if !n.Voter {
			notes = append(notes, "no voter")
		}
		tab.Row(n.NodeID.String(), role, count(n.Epoch), count(n.LSN), lag, rtt, seen,
			term.Safe(n.DatabaseAddress), term.Safe(n.APIAddress), style.Dim(strings.Join(notes, ", ")))
	}
	return tab.Write(a.stdout, style)
}

func setupSwitchover(fs *flag.FlagSet) runner {
	to := fs.Uint64("to", 0, "`ID` of the new primary (default: the best replica)")
	return func(a *app, in *input) error { return runSwitchover(a, in, protocol.NodeID(*to)) }
}

// runSwitchover asks for the handover, then waits until somebody else is
// primary.
func runSwitchover(a *app, in *input, to protocol.NodeID) error {
	limit := in.timeout.or(switchoverTimeout)
	c, err := a.clientWith(in, limit)
	if err != nil {
		return err
	}
	var before, after ha.Status
	if _, err := c.get(a.ctx, "/v1/status", nil, &before); err != nil {
		return err
	}
	start := time.Now()
	if _, err := c.post(a.ctx, "/v1/switchover", map[string]protocol.NodeID{"to": to}); err != nil {
		return err
	}
	tick := time.NewTicker(switchoverPoll)
	defer tick.Stop()
	for {
		raw, err := c.get(a.ctx, "/v1/status", nil, &after)
		switch done := err == nil && after.Primary != protocol.NoNode &&
			(after.Primary == to || to == protocol.NoNode && after.Epoch > before.Epoch); {
		case done && in.json:
			return a.document(raw)
		case done:
			took := millis(time.Since(start).Milliseconds())
			_, err := fmt.Fprintf(a.stdout, "node %s is primary, epoch %d (%s)\n", after.Primary, after.Epoch, took)
			return err
		case time.Since(start) > limit:
			return errors.Join(fmt.Errorf("handed over, but no node took the primacy within %s: see aiondb-ha status and aiondb-ha events", limit), err)
		}
		select {
		case <-tick.C:
		case <-a.ctx.Done():
			return errors.New("interrupted: the switchover goes on, see aiondb-ha status")
		}
	}
}

func runNodeAdd(a *app, in *input) error {
	id, err := protocol.ParseNodeID(in.args[0])
	if err != nil {
		return misused("%v", err)
	}
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.post(a.ctx, "/v1/nodes", map[string]any{"node_id": id, "address": in.args[1]})
	return a.done(in, raw, err, fmt.Sprintf("node %s is registered at %s", id, term.Safe(in.args[1])))
}

func runNodeRemove(a *app, in *input) error {
	id, err := protocol.ParseNodeID(in.args[0])
	if err != nil {
		return misused("%v", err)
	}
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.call(a.ctx, http.MethodDelete, "/v1/nodes/"+id.String(), nil, nil)
	return a.done(in, raw, err, "node "+id.String()+" is removed")
}

// done prints what a write has done.
func (a *app) done(in *input, raw []byte, err error, sentence string) error {
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	var result struct {
		Index   uint64            `json:"index"`
		Changed bool              `json:"changed"`
		Removed []json.RawMessage `json:"removed"`
	}
	if err := json.Unmarshal(raw, &result); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	note := "index " + strconv.FormatUint(result.Index, 10)
	if !result.Changed {
		note += ", it was so already"
	}
	if n := len(result.Removed); n > 0 {
		note += fmt.Sprintf(", shard assignments that went with it: %d", n)
	}
	_, err = fmt.Fprintf(a.stdout, "%s (%s)\n", sentence, note)
	return err
}
