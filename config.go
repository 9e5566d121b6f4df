package ha

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The defaults of Config's zero values. They are fast, and still quiet on a
// busy machine with two cores.
const (
	DefaultPort                = 7600
	DefaultHealthCheckInterval = 50 * time.Millisecond
	DefaultHealthCheckTimeout  = 250 * time.Millisecond
	DefaultElectionTimeout     = 600 * time.Millisecond
)

// Bounds of the settings.
const (
	// MaxNodes bounds the configured nodes: every voter takes part in every
	// commit, and more than this only makes commits slower.
	MaxNodes = 15
	// MinHealthCheckTimeout keeps the time after which a primary is given up
	// well above the time of a disk sync.
	MinHealthCheckTimeout = 20 * time.Millisecond
	// MaxElectionTimeout bounds how slow a cluster may be set.
	MaxElectionTimeout = 10 * time.Minute
)

// Secret is a cluster secret: bytes that nothing prints. See NewSecret.
type Secret = protocol.Secret

// APITokens are what is accepted by the HTTP API, besides the tokens derived from
// the cluster secret (aiondb-ha token --api). Admin tokens may do everything, Read
// tokens may change nothing. With any of them, or Required, a request on loopback
// needs one too; beyond loopback it is needed always, and so is TLS.
type APITokens = httpapi.Tokens

// NewSecret returns a Secret of a copy of raw.
func NewSecret(raw []byte) Secret { return protocol.NewSecret(raw) }

// Config says who this node is and whom it works with. The zero value of a
// field means its documented default; fields without one must be set.
type Config struct {
	// NodeID is this node's 1-based position in Nodes.
	NodeID protocol.NodeID

	// Nodes are the HA addresses, "host:port", of all voters, this one
	// included, in the same order on every node. At most MaxNodes.
	Nodes []string

	// AdvertiseAddr is the address the others reach this node's HA port at.
	// Default: its entry in Nodes.
	AdvertiseAddr string

	// BindAddr is what the HA port listens on, TCP and UDP. Default:
	// AdvertiseAddr.
	BindAddr string

	// DatabaseAddr is where clients and replicas reach the database of this
	// node. It is committed to the replicated state and told to the others when
	// this node is promoted. Default: AdvertiseAddr.
	DatabaseAddr string

	// APIAddr is where this node's HTTP API listens, told to the others for
	// people to find. Serving it is up to the caller (Node.Handler). May be
	// empty.
	APIAddr string

	// APICertificate, which may be nil, returns when the certificate ends that the
	// HTTP API presents, and why a newer one is not used, "" if there is none:
	// for Status and the metrics. It must not block.
	APICertificate func() (notAfter time.Time, fault string) `json:"-"`

	// API says who may use the HTTP API. The zero value: everybody on this
	// machine, on loopback, and nobody else.
	API APITokens

	// Secret is the cluster secret, at least protocol.MinSecretLen bytes, the
	// same on all nodes. Everything nodes prove to each other and encrypt with
	// is derived from it.
	Secret Secret

	// OtherSecrets, CA, Certificate and Key are as in Credentials.
	OtherSecrets []Secret
	CA           []byte
	Certificate  []byte
	Key          Secret

	// Reload, which may be nil, returns the credentials as they are now, or why
	// they cannot be used. It is asked every CredentialInterval and by
	// Node.ReloadCredentials: so secrets and certificates are rotated without a
	// restart.
	Reload func() (Credentials, error) `json:"-"`

	// DataDir holds the state directory, ha/node-N under it.
	DataDir string

	// FencingTokenPath is the file of the durable floor. Default: fencing.json
	// in the state directory.
	FencingTokenPath string

	// LeaseFile is a file in which the node shows its lease, for a database in
	// another process: see package fencing/leasefile. It belongs into a file
	// system in memory, such as /run; a path that is not absolute is in the state
	// directory. To change it or take it away, end the database first. Default:
	// none.
	LeaseFile string

	// Witness makes this node a voter without data: it takes part in elections
	// and ballots and never becomes primary. It has no Database. See
	// failover.Witness for what that means for acknowledgements.
	Witness bool

	// Profile chooses the defaults of the three times that follow. Default
	// ProfileDefault.
	Profile Profile

	// HealthCheckInterval is how often a node looks at its own database and
	// tells the others about it. Default: the profile's.
	HealthCheckInterval time.Duration

	// HealthCheckTimeout is how long the leader may be silent before it is
	// given up (Raft's heartbeat timeout and leader lease). Default: the
	// profile's; more than HealthCheckInterval.
	HealthCheckTimeout time.Duration

	// ElectionTimeout is how long an election and a ballot may take before they
	// are tried again. Default: the profile's; more than HealthCheckTimeout.
	ElectionTimeout time.Duration

	// MaxFailoverLag is how far, in LSNs, a node may be behind the last known
	// position of the primary and still be promoted. 0 means no limit.
	MaxFailoverLag uint64

	// Version is shown to the others and in Status. Default "dev".
	Version string

	// Logger receives what happens. Default: nothing is logged.
	Logger hclog.Logger
}

// withDefaults returns c with every default filled in.
func (c Config) withDefaults() Config {
	if c.AdvertiseAddr == "" && c.NodeID >= 1 && uint64(c.NodeID) <= uint64(len(c.Nodes)) {
		c.AdvertiseAddr = c.Nodes[c.NodeID-1]
	}
	if c.BindAddr == "" {
		c.BindAddr = c.AdvertiseAddr
	}
	if c.DatabaseAddr == "" {
		c.DatabaseAddr = c.AdvertiseAddr
	}
	interval, timeout, election, _ := c.Profile.Times()
	if c.HealthCheckInterval == 0 {
		c.HealthCheckInterval = interval
	}
	if c.HealthCheckTimeout == 0 {
		c.HealthCheckTimeout = timeout
	}
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = election
	}
	if c.FencingTokenPath == "" && c.DataDir != "" {
		c.FencingTokenPath = filepath.Join(c.StateDir(), "fencing.json")
	}
	if c.LeaseFile != "" && !filepath.IsAbs(c.LeaseFile) && c.DataDir != "" {
		c.LeaseFile = filepath.Join(c.StateDir(), c.LeaseFile)
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// StateDir returns the directory of this node's log, state and floor.
func (c Config) StateDir() string {
	return filepath.Join(c.DataDir, "ha", "node-"+c.NodeID.String())
}

// Quorum returns how many of the configured voters make a majority.
func (c Config) Quorum() int { return len(c.Nodes)/2 + 1 }

// Credentials returns what the node begins with.
func (c Config) Credentials() Credentials {
	return Credentials{Secret: c.Secret, OtherSecrets: c.OtherSecrets, CA: c.CA, Certificate: c.Certificate, Key: c.Key}
}

// Secrets returns the secret to use and those to accept besides, in this order.
func (c Config) Secrets() [][]byte { return c.Credentials().secrets() }

// Validate reports everything that is wrong with c, joined into one error, or
// nil. Defaults count as set. Secrets never appear in the error.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if len(c.Nodes) == 0 {
		fault("no cluster nodes: list the HA address of every node, this one included, as host:port")
	}
	if len(c.Nodes) > MaxNodes {
		fault("%d cluster nodes: at most %d can vote", len(c.Nodes), MaxNodes)
	}
	seen := make(map[string]int, len(c.Nodes))
	for i, addr := range c.Nodes {
		if err := checkPeerAddr(addr); err != nil {
			fault("cluster node %d: %w", i+1, err)
			continue
		}
		if first, twice := seen[addr]; twice {
			fault("cluster nodes %d and %d are both %s: every node needs an address of its own", first, i+1, addr)
		} else {
			seen[addr] = i + 1
		}
	}
	if c.NodeID < 1 || uint64(c.NodeID) > uint64(len(c.Nodes)) {
		fault("node ID %d is out of range: it is this node's position in the list of %d cluster nodes, counted from 1", c.NodeID, len(c.Nodes))
	}
	if c.AdvertiseAddr != "" {
		if err := checkPeerAddr(c.AdvertiseAddr); err != nil {
			fault("advertise address: %w", err)
		} else if err := c.checkReachable(); err != nil {
			fault("advertise address: %w", err)
		}
	}
	for _, a := range []struct{ name, addr string }{{"bind address", c.BindAddr}, {"database address", c.DatabaseAddr}} {
		if a.addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			fault("%s %q: want host:port", a.name, a.addr)
		}
	}
	if len(c.DatabaseAddr) > protocol.MaxAddrLen {
		fault("database address: %d bytes, at most %d", len(c.DatabaseAddr), protocol.MaxAddrLen)
	}
	faults = append(faults, c.Credentials().validate()...)
	if err := c.API.Validate(c.Secrets()...); err != nil {
		fault("API tokens: %w", err)
	}
	if c.DataDir == "" {
		fault("no data directory: name the one that holds this node's state")
	}
	if _, _, _, known := c.Profile.Times(); !known {
		fault("profile %q: there are %s and %s", c.Profile, ProfileDefault, ProfileFast)
		return errors.Join(faults...) // its times are unknown
	}
	if c.HealthCheckInterval <= 0 {
		fault("health check interval %s: want more than 0", c.HealthCheckInterval)
	}
	if c.HealthCheckTimeout < MinHealthCheckTimeout {
		fault("health check timeout %s: want at least %s, or a slow disk looks like a dead node", c.HealthCheckTimeout, MinHealthCheckTimeout)
	}
	if c.HealthCheckTimeout <= c.HealthCheckInterval {
		fault("health check timeout %s must be more than the health check interval %s: one late answer would be a failure", c.HealthCheckTimeout, c.HealthCheckInterval)
	}
	if c.ElectionTimeout <= c.HealthCheckTimeout {
		fault("election timeout %s must be more than the health check timeout %s: elections would never finish", c.ElectionTimeout, c.HealthCheckTimeout)
	}
	if c.ElectionTimeout > MaxElectionTimeout {
		fault("election timeout %s: at most %s", c.ElectionTimeout, MaxElectionTimeout)
	}
	return errors.Join(faults...)
}

// checkPeerAddr checks an address that other nodes are to dial.
func checkPeerAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return fmt.Errorf("%q: want host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: the port must be a number from 1 to 65535", addr)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q means every interface of a machine, so nobody else can dial it: name the address the other nodes reach this one at", addr)
	}
	return nil
}

// checkReachable refuses a loopback address among peers on other machines: the
// others would dial themselves.
func (c Config) checkReachable() error {
	if !isLoopback(c.AdvertiseAddr) {
		return nil
	}
	for i, peer := range c.Nodes {
		if uint64(i+1) != uint64(c.NodeID) && !isLoopback(peer) {
			return fmt.Errorf("%s is this machine alone, but node %d is at %s: advertise an address that node can reach", c.AdvertiseAddr, i+1, peer)
		}
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
