package settings

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// apiPortOffset and dataPortOffset place the ports that are not set.
	apiPortOffset  = 100
	dataPortOffset = 200
)

// Settings is what serve needs.
type Settings struct {
	// Enabled is false when the operator switched this node off. Nothing else
	// is set or checked then.
	Enabled bool
	// Node configures the node. Version, Logger, DatabaseAddr and APIAddr are
	// left to the caller: the two addresses are known once their ports are
	// bound (see Advertise).
	Node ha.Config
	// APIAddr and DataAddr are what to listen on.
	APIAddr  string
	DataAddr string
	// APITLS says whether the API speaks TLS: with the certificate and key in the
	// two files, or, when they are "", with what the node makes itself.
	APITLS   bool
	APICert  string
	APIKey   string
	LogLevel hclog.Level
	// Warnings are worth a line in the log, and no reason to stop.
	Warnings []string
}

// Load reads and checks all settings. environ is in the form of os.Environ. The
// error joins all faults, each of one line and naming the setting; secrets never
// appear in it.
func Load(flags *Flags, environ []string) (Settings, error) {
	s, warnings := readSources(flags, environ)
	l := &loader{sources: s}
	out := Settings{Enabled: l.boolean("enabled", true), LogLevel: l.logLevel(), Warnings: warnings}
	if !out.Enabled {
		return Settings{Warnings: warnings}, errors.Join(s.faults.list...)
	}
	l.node(&out.Node)
	out.Node.Reload = func() (ha.Credentials, error) {
		s, _ := readSources(flags, environ)
		l := &loader{sources: s}
		c := l.credentials()
		return c, errors.Join(s.faults.list...)
	}
	l.addresses(&out)
	l.api(&out)
	out.Node.Witness = l.boolean("witness", false)
	l.timeouts(&out.Node)
	if len(s.faults.list) == 0 {
		// What the node itself asks for beyond that, should it ask for more.
		if err := out.Node.Validate(); err != nil {
			return Settings{}, err
		}
	}
	return out, errors.Join(s.faults.list...)
}

// Advertise returns the address to tell others for a listener bound to actual:
// listening on every interface says nothing of how to get there, so the host
// that the node advertises for its HA port takes the place of it.
func (s Settings) Advertise(actual net.Addr) string {
	addr, err := netip.ParseAddrPort(actual.String())
	if err != nil || !addr.Addr().Unmap().IsUnspecified() {
		return actual.String()
	}
	host, _, err := net.SplitHostPort(s.advertised())
	if err != nil {
		return actual.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(addr.Port())))
}

func (s Settings) advertised() string {
	if s.Node.AdvertiseAddr != "" {
		return s.Node.AdvertiseAddr
	}
	return s.Node.Nodes[s.Node.NodeID-1]
}

// loader reads one setting after the other and notes what is wrong.
type loader struct{ *sources }

// setting returns the text of a setting and a name for it in a fault: where it
// was set, or its variable.
func (l *loader) setting(name string) (text, where string) {
	if v, ok := l.get(name); ok {
		return v.text, v.from
	}
	return "", Option{Name: name}.Env()
}

func (l *loader) boolean(name string, otherwise bool) bool {
	text, where := l.setting(name)
	switch strings.ToLower(text) {
	case "":
		return otherwise
	case "true", "1", "yes", "on":
		return true
	case "false", "0", "no", "off":
		return false
	}
	l.faults.add("%s: %q is neither true nor false", where, text)
	return otherwise
}

// number reads a whole number from low to high; 0 and false if it is not set or
// not one.
func (l *loader) number(name string, low, high uint64) (uint64, bool) {
	text, where := l.setting(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < low || n > high {
		if high == 1<<64-1 {
			l.faults.add("%s: %q is not a whole number from %d up", where, text, low)
		} else {
			l.faults.add("%s: %q is not a whole number from %d to %d", where, text, low, high)
		}
		return 0, false
	}
	return n, true
}

func (l *loader) logLevel() hclog.Level {
	text, where := l.setting("log-level")
	if text == "" {
		return hclog.Info
	}
	level := hclog.LevelFromString(text)
	if level == hclog.NoLevel {
		l.faults.add("%s: %q is no level: use trace, debug, info, warn, error or off", where, text)
		return hclog.Info
	}
	return level
}

// node reads who the node is, its secret and its directory.
func (l *loader) node(c *ha.Config) {
	text, where := l.setting("cluster-nodes")
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			c.Nodes = append(c.Nodes, part)
		}
	}
	switch n := len(c.Nodes); {
	case n == 0:
		l.faults.add("%s is not set: list the HA address of every node, this one included, as host:port,host:port", where)
	case n > ha.MaxNodes:
		l.faults.add("%s: %d nodes are too many: at most %d can vote", where, n, ha.MaxNodes)
	}
	for i, addr := range c.Nodes {
		if why := notDialable(addr); why != "" {
			l.faults.add("%s: node %d: %s", where, i+1, why)
		}
		if first := slices.Index(c.Nodes, addr); first < i {
			l.faults.add("%s: nodes %d and %d are both %s: give every node an address of its own", where, first+1, i+1, addr)
		}
	}

	id, where := l.setting("node-id")
	if n, ok := l.number("node-id", 1, 1<<64-1); ok {
		c.NodeID = protocol.NodeID(n)
		if len(c.Nodes) > 0 && n > uint64(len(c.Nodes)) {
			l.faults.add("%s: there is no node %d among %d: give this node's position in the list, 1 to %d", where, n, len(c.Nodes), len(c.Nodes))
		}
	} else if id == "" {
		l.faults.add("%s is not set: give this node's position in the list of nodes, from 1", where)
	}

	credentials := l.credentials()
	c.Secret, c.OtherSecrets = credentials.Secret, credentials.OtherSecrets
	c.CA, c.Certificate, c.Key = credentials.CA, credentials.Certificate, credentials.Key
	dir, where := l.setting("data-dir")
	if c.DataDir = dir; dir == "" {
		l.faults.add("%s is not set: name the directory that holds this node's state", where)
	}
	c.FencingTokenPath, _ = l.setting("fencing-token-path")
	c.LeaseFile, _ = l.setting("lease-file")
	c.MaxFailoverLag, _ = l.number("max-failover-lag", 0, 1<<64-1)
}

// timeouts reads the three times and keeps them in order.
func (l *loader) timeouts(c *ha.Config) {
	const maxMS = uint64(ha.MaxElectionTimeout / time.Millisecond)
	read := func(name string, otherwise time.Duration) (time.Duration, string) {
		_, where := l.setting(name)
		ms, ok := l.number(name, 1, maxMS)
		if !ok {
			return otherwise, where
		}
		return time.Duration(ms) * time.Millisecond, where
	}
	before := len(l.faults.list)
	text, where := l.setting("profile")
	c.Profile = ha.Profile(strings.ToLower(text))
	interval, timeout, election, known := c.Profile.Times()
	if !known {
		l.faults.add("%s: %q is no profile: use %s or %s", where, text, ha.ProfileDefault, ha.ProfileFast)
	}
	interval, _ = read("health-check-interval-ms", interval)
	timeout, timeoutWhere := read("health-check-timeout-ms", timeout)
	election, electionWhere := read("election-timeout-ms", election)
	c.HealthCheckInterval, c.HealthCheckTimeout, c.ElectionTimeout = interval, timeout, election
	if len(l.faults.list) > before {
		return // a default in the place of nonsense would only make more lines
	}
	if timeout < ha.MinHealthCheckTimeout {
		l.faults.add("%s: %d ms is too short, a slow disk would look like a dead node: give at least %d", timeoutWhere, timeout.Milliseconds(), ha.MinHealthCheckTimeout.Milliseconds())
	}
	if timeout <= interval {
		l.faults.add("%s: the check timeout, %d ms, must be longer than the check interval, %d ms: one late answer would be a failure", timeoutWhere, timeout.Milliseconds(), interval.Milliseconds())
	}
	if election <= timeout {
		l.faults.add("%s: the election timeout, %d ms, must be longer than the check timeout, %d ms: no election would ever finish", electionWhere, election.Milliseconds(), timeout.Milliseconds())
	}
}
