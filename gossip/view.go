package gossip

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Member is what is known of a node.
type Member struct {
	NodeID       protocol.NodeID
	Local        bool               // this node
	Alive        bool               // as gossip sees it: evidence, not truth
	Addr         string             // HA address, as the node advertises it
	DatabaseAddr string             // where its database listens; may be empty
	APIAddr      string             // where its HTTP API listens; may be empty
	Version      string             // what it runs; may be empty
	Heartbeat    protocol.Heartbeat // the last one; zero if there was none yet
	RTT          time.Duration      // of the last answered probe; 0 if there was none yet
	Seen         time.Time          // when it last showed a sign of life, here; zero if it never did
}

// view is the last word on every node ever seen. It is kept beside
// memberlist's own list because that hands out pointers into itself.
type view struct {
	local protocol.NodeID
	mu    sync.Mutex
	nodes map[protocol.NodeID]*entry
	// claims are second addresses of nodes, to be tried when the first is dead.
	claims map[protocol.NodeID]string // IP:port
}

// entry is a Member and where memberlist talks to it.
type entry struct {
	Member
	endpoint string // IP:port
}

func newView(local protocol.NodeID) *view {
	return &view{local: local, nodes: make(map[protocol.NodeID]*entry), claims: make(map[protocol.NodeID]string)}
}

// hasRoom reports whether a node is known or may still be added.
func (v *view) hasRoom(id protocol.NodeID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nodes[id] != nil || len(v.nodes) < maxMembers
}

// update changes what is known of a node; unknown nodes are added if add is set.
func (v *view) update(id protocol.NodeID, add bool, change func(*entry)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := v.nodes[id]
	if m == nil {
		if !add || len(v.nodes) >= maxMembers {
			return
		}
		m = &entry{Member: Member{NodeID: id, Local: id == v.local}}
		v.nodes[id] = m
	}
	change(m)
}

// alive returns how many nodes are alive, this one included.
func (v *view) alive() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, m := range v.nodes {
		if m.Alive {
			n++
		}
	}
	return n
}

// endpoints returns where the nodes that are alive are talked to, this one included.
func (v *view) endpoints() map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make(map[string]bool, len(v.nodes))
	for _, m := range v.nodes {
		if m.Alive {
			out[m.endpoint] = true
		}
	}
	return out
}

// claim remembers a second address of a node until the node is seen to join.
func (v *view) claim(id protocol.NodeID, endpoint string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.nodes[id] != nil {
		v.claims[id] = endpoint
	}
}

// unclaim forgets it.
func (v *view) unclaim(id protocol.NodeID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.claims, id)
}

// claimed returns the second addresses.
func (v *view) claimed() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Values(v.claims))
}

// Members returns what is known of every node, this one included, by node ID.
// Nodes that died stay in it, not alive. The slice is the caller's.
func (g *Gossip) Members() []Member {
	own, ok := g.heartbeat()
	g.view.mu.Lock()
	defer g.view.mu.Unlock()
	out := make([]Member, 0, len(g.view.nodes))
	for _, m := range g.view.nodes {
		out = append(out, m.Member)
		if m.Local && ok {
			out[len(out)-1].Heartbeat, out[len(out)-1].Seen = own, time.Now()
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return out
}

// Lookup returns the HA address a node was last seen to advertise, dead or
// alive; false if the node was never seen.
func (g *Gossip) Lookup(id protocol.NodeID) (addr string, ok bool) {
	g.view.mu.Lock()
	defer g.view.mu.Unlock()
	m := g.view.nodes[id]
	if m == nil || m.Addr == "" {
		return "", false
	}
	return m.Addr, true
}

// describe writes what a node tells of itself into its entry. Meta data of
// another layout leaves the IP address, which memberlist knows by itself.
func describe(m *entry, n *memberlist.Node) error {
	m.endpoint = n.Address()
	told, err := decodeMeta(n.Meta)
	if err != nil {
		m.Addr = m.endpoint
		return err
	}
	m.Addr, m.DatabaseAddr, m.APIAddr, m.Version = told.addr, told.databaseAddr, told.apiAddr, told.version
	return nil
}
