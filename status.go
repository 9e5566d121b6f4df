package ha

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Status is what a node knows of itself and of its cluster.
type Status struct {
	NodeID  protocol.NodeID   `json:"node_id"`
	Version string            `json:"version"`
	Role    protocol.NodeRole `json:"role"`
	State   failover.State    `json:"state"` // of the failover orchestrator

	Epoch  protocol.Epoch  `json:"epoch"`  // of the current primary, 0 before the first
	Floor  protocol.Epoch  `json:"floor"`  // highest epoch this node has promised to
	Term   uint64          `json:"term"`   // Raft's
	Leader protocol.NodeID `json:"leader"` // Raft's, 0 if none is known

	Primary        protocol.NodeID `json:"primary"` // 0 if none is known
	PrimaryAddress string          `json:"primary_address"`

	Position      protocol.Position `json:"position"` // of this node's WAL
	AppliedIndex  uint64            `json:"applied_index"`
	LastContactMS int64             `json:"last_contact_ms"` // with the leader; -1: never

	Quorum Quorum `json:"quorum"`

	Rules    fsm.Rules `json:"rules"`    // what operators have laid down: pause, maintenance, witnesses, permit
	Aside    string    `json:"aside"`    // why this node does not become primary by the rules; "" if it may
	Warnings []string  `json:"warnings"` // what works and should be seen to; empty if nothing
	FsyncUS  int64     `json:"fsync_us"` // 99th percentile of the latest writes to the log, µs

	CoolDownUntil time.Time `json:"cool_down_until,omitzero"` // until when others are preferred to this node

	Blocked  string `json:"blocked"` // why there is no primary, or why this node can't be it; "" if nothing is in the way
	Halted   string `json:"halted"`  // why this node applies no more commands; "" if it does
	UptimeMS int64  `json:"uptime_ms"`

	Credentials CredentialStatus `json:"credentials"`
}

// Quorum says whether the cluster can decide anything.
type Quorum struct {
	Voters    int `json:"voters"`
	Needed    int `json:"needed"`
	Reachable int `json:"reachable"` // as gossip sees it, this node included
}

// NodeInfo is what a node knows of one node of the cluster.
type NodeInfo struct {
	NodeID          protocol.NodeID   `json:"node_id"`
	Address         string            `json:"address"` // HA port
	DatabaseAddress string            `json:"database_address"`
	APIAddress      string            `json:"api_address"`
	Alive           bool              `json:"alive"` // as gossip sees it: evidence, not proof
	Role            protocol.NodeRole `json:"role"`
	Epoch           protocol.Epoch    `json:"epoch"` // highest it has promised to
	LSN             protocol.LSN      `json:"lsn"`
	Lag             *uint64           `json:"lag"`          // LSNs behind the primary; null if either is unknown
	RTTUS           int64             `json:"rtt_us"`       // 0 if not measured
	LastSeenMS      int64             `json:"last_seen_ms"` // -1: never
	Version         string            `json:"version"`
	Leader          bool              `json:"leader"`
	Primary         bool              `json:"primary"`
	Voter           bool              `json:"voter"`
	Witness         bool              `json:"witness"`     // a voter without data
	Maintenance     bool              `json:"maintenance"` // does not become primary, by an operator's word
}

// Status returns what this node knows now. It does not ask anybody.
func (n *Node) Status() Status {
	driver := n.driver.Load().Status()
	leader, term := n.consensus.Leader()
	voters := n.consensus.Voters()
	s := Status{
		NodeID:        n.config.NodeID,
		Version:       n.config.Version,
		Role:          driver.Role,
		State:         driver.State,
		Epoch:         driver.Epoch,
		Floor:         n.floor.Current().Epoch,
		Term:          term,
		Leader:        leader,
		Primary:       driver.Primary,
		Position:      driver.Position,
		LastContactMS: n.contactAge(),
		Quorum:        Quorum{Voters: len(voters), Needed: len(voters)/2 + 1},
		Rules:         n.rules(),
		Aside:         driver.Aside,
		FsyncUS:       n.writes.p99().Microseconds(),
		CoolDownUntil: driver.CoolDownUntil,
		Blocked:       driver.Blocked,
		UptimeMS:      time.Since(n.started).Milliseconds(),
		Credentials:   n.credentials.status(),
	}
	if s.Primary != protocol.NoNode {
		s.PrimaryAddress = cluster{n}.Address(s.Primary)
	}
	n.fsm.Read(func(state *fsm.State) { s.AppliedIndex, _ = state.Applied() })
	if err := n.fsm.Halted(); err != nil {
		s.Halted = err.Error()
	}
	alive := map[protocol.NodeID]bool{n.config.NodeID: true}
	for _, m := range n.members() {
		alive[m.NodeID] = alive[m.NodeID] || m.Alive
	}
	for _, id := range voters {
		if alive[id] {
			s.Quorum.Reachable++
		}
	}
	s.Warnings = n.warnings(s)
	if q := s.Quorum; s.Blocked != "" && q.Reachable < q.Needed {
		s.Blocked = fmt.Sprintf("no quorum: %d of %d voters reachable, %d needed; %s", q.Reachable, q.Voters, q.Needed, s.Blocked)
	}
	return s
}

// warnings are what a person had better see to.
func (n *Node) warnings(s Status) []string {
	out := []string{} // JSON: a list, not null
	if slow := tooSlow(n.writes.p99(), n.config.HealthCheckTimeout); slow != "" {
		out = append(out, slow)
	}
	if s.Rules.Pause != nil {
		out = append(out, "failover is paused: nobody takes over when the primary is lost")
	}
	if data := s.Quorum.Voters - len(s.Rules.Witnesses); s.Quorum.Voters > 0 && data < s.Quorum.Needed {
		out = append(out, fmt.Sprintf("%d of %d voters have data, fewer than the %d of a quorum: no write can be acknowledged by a quorum", data, s.Quorum.Voters, s.Quorum.Needed))
	}
	return out
}

// Nodes returns what this node knows of every node that is configured, that
// registered itself, or that gossip has heard of, by ID.
func (n *Node) Nodes() []NodeInfo {
	driver := n.driver.Load().Status()
	leader, _ := n.consensus.Leader()
	infos := make(map[protocol.NodeID]*NodeInfo)
	info := func(id protocol.NodeID) *NodeInfo {
		if infos[id] == nil {
			infos[id] = &NodeInfo{NodeID: id, Role: protocol.RoleReplica, LastSeenMS: -1}
		}
		return infos[id]
	}
	for i, addr := range n.config.Nodes {
		info(protocol.NodeID(i + 1)).Address = addr
	}
	n.fsm.Read(func(s *fsm.State) {
		for _, m := range s.Members() {
			info(m.NodeID).DatabaseAddress = m.Address
		}
	})
	for _, id := range n.consensus.Voters() {
		info(id).Voter = true
	}
	rules := n.rules()
	for _, m := range rules.Witnesses {
		info(m.NodeID).Witness = true
	}
	for _, m := range rules.Maintenance {
		info(m.NodeID).Maintenance = true
	}
	for _, m := range n.members() {
		i := info(m.NodeID)
		i.Address, i.APIAddress, i.Version, i.Alive = m.Addr, m.APIAddr, m.Version, m.Alive
		i.Role, i.Epoch, i.LSN = m.Heartbeat.Role, m.Heartbeat.Epoch, m.Heartbeat.WALLSN
		i.RTTUS = m.RTT.Microseconds()
		if !m.Seen.IsZero() {
			i.LastSeenMS = time.Since(m.Seen).Milliseconds()
		}
	}
	self, h := info(n.config.NodeID), n.driver.Load().Heartbeat()
	self.Alive, self.LastSeenMS, self.Version, self.APIAddress = true, 0, n.config.Version, n.config.APIAddr
	self.Role, self.Epoch, self.LSN = h.Role, h.Epoch, h.WALLSN

	all := make([]NodeInfo, 0, len(infos))
	for id, i := range infos {
		i.Leader, i.Primary = id == leader, id == driver.Primary
		all = append(all, *i)
	}
	setLags(all)
	return all
}

// setLags fills in how far each node is behind the primary, and sorts by ID.
func setLags(nodes []NodeInfo) {
	slices.SortFunc(nodes, func(a, b NodeInfo) int { return cmp.Compare(a.NodeID, b.NodeID) })
	i := slices.IndexFunc(nodes, func(n NodeInfo) bool { return n.Primary && n.LastSeenMS >= 0 })
	if i < 0 {
		return
	}
	end := nodes[i].LSN
	for i := range nodes {
		if nodes[i].LastSeenMS < 0 || nodes[i].Witness {
			continue
		}
		var lag uint64
		if nodes[i].LSN < end {
			lag = uint64(end - nodes[i].LSN)
		}
		nodes[i].Lag = &lag
	}
}

// members is gossip's view, empty before gossip has started.
func (n *Node) members() []gossip.Member {
	if g := n.gossip.Load(); g != nil {
		return g.Members()
	}
	return nil
}
