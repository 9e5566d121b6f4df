package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// DefaultInterval is the time between two probes of this node. Each probe
	// asks one peer, in turn.
	DefaultInterval = 200 * time.Millisecond
	// MinInterval is the shortest Config.Interval.
	MinInterval = 10 * time.Millisecond

	// streamTimeout bounds opening and using a stream (state exchange).
	streamTimeout = 2 * time.Second
	// leaveTimeout bounds how long Close tries to tell the others.
	leaveTimeout = 500 * time.Millisecond
	// announceTimeout bounds how long Announce waits for the first peer to be told.
	announceTimeout = time.Second
	// exchangeInterval is how often the whole view is exchanged with one peer.
	exchangeInterval = 10 * time.Second
	// forgetAfter is how long memberlist remembers and still tries a dead node.
	forgetAfter = 30 * time.Second
	// maxMembers bounds the view.
	maxMembers = 256
)

// Config says how a node takes part in gossip. Local, Advertise, Keys and
// Transport are required.
type Config struct {
	Local     protocol.NodeID
	Advertise string   // HA address of this node as the others reach it, "host:port"; a host name is resolved once
	Peers     []string // HA addresses of all configured nodes, "host:port"; this node's own may be among them

	Keys      [][]byte             // 16, 24 or 32 bytes each; the first encrypts, all decrypt
	Transport memberlist.Transport // owned by Gossip from Start on: Close shuts it down

	DatabaseAddr string // told to the others
	APIAddr      string // told to the others
	Version      string // told to the others; what this node runs

	Interval time.Duration // between two probes; DefaultInterval if 0

	// Heartbeat returns what this node says of itself. It is called often,
	// must not block, and is not called any more once Close has returned.
	Heartbeat func() protocol.Heartbeat

	// Evidence is told everything seen of other nodes, in order for each node.
	// It is called with locks of memberlist held: it must not block and must
	// not call Announce or Close; Members and Lookup it may. It is not called any more once Close has
	// returned. May be nil.
	Evidence func(Evidence)

	Logger hclog.Logger // may be nil
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Local == protocol.NoNode {
		fault("node ID is 0: node IDs begin at 1")
	}
	if _, _, err := splitHostPort(c.Advertise); err != nil {
		fault("advertise address: %w", err)
	}
	for _, p := range c.Peers {
		if _, _, err := splitHostPort(p); err != nil {
			fault("peer: %w", err)
		}
	}
	if len(c.Keys) == 0 {
		fault("no gossip key")
	}
	for i, k := range c.Keys {
		if err := memberlist.ValidateKey(k); err != nil {
			fault("gossip key %d of %d: %w", i+1, len(c.Keys), err)
		}
	}
	if c.Transport == nil {
		fault("no gossip transport")
	}
	if c.Heartbeat == nil {
		fault("no heartbeat function")
	}
	if c.Interval != 0 && c.Interval < MinInterval {
		fault("gossip interval %v: want at least %v", c.Interval, MinInterval)
	}
	if _, err := c.meta().encode(); err != nil {
		fault("%w", err)
	}
	return errors.Join(errs...)
}

func (c Config) meta() meta {
	return meta{addr: c.Advertise, databaseAddr: c.DatabaseAddr, apiAddr: c.APIAddr, version: c.Version}
}

// Kind says what a piece of Evidence shows.
type Kind uint8

// The kinds of evidence.
const (
	Alive     Kind = 1 // the node joined, came back, or answered without a heartbeat
	Dead      Kind = 2 // the node did not answer for long enough, or said that it leaves
	Heartbeat Kind = 3 // the node answered, with this heartbeat
)

// String returns alive, dead or heartbeat.
func (k Kind) String() string {
	switch k {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Heartbeat:
		return "heartbeat"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Evidence is one thing seen of another node.
type Evidence struct {
	NodeID    protocol.NodeID
	Kind      Kind
	Heartbeat protocol.Heartbeat // of Kind Heartbeat; its NodeID is NodeID
	RTT       time.Duration      // of a probe just answered; 0 if this was not one
	At        time.Time          // when it was seen, here
}

// Gossip is a running member. It is safe for concurrent use.
type Gossip struct {
	config Config
	logger hclog.Logger
	list   *memberlist.Memberlist
	ring   *memberlist.Keyring
	view   *view
	meta   atomic.Pointer[[]byte] // encoded

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // tells the keeper that somebody was lost
	claims chan claim    // node IDs seen at a second address

	callback sync.Mutex
	silent   bool           // no callback of Config is begun any more
	running  sync.WaitGroup // callbacks of Config under way

	announce  sync.Mutex
	closeOnce sync.Once
	closeErr  error
}

// Start joins gossip: it returns at once, the configured nodes are joined in
// the background. The caller closes the Gossip.
func Start(config Config) (*Gossip, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if config.Interval == 0 {
		config.Interval = DefaultInterval
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{
		config: config, logger: config.Logger, view: newView(config.Local),
		ctx: ctx, cancel: cancel,
		kick: make(chan struct{}, 1), claims: make(chan claim, maxClaims),
	}
	encoded, err := config.meta().encode()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.meta.Store(&encoded)
	conf, err := g.memberlistConfig()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	inward := newGate(config.Transport)
	conf.Transport = inward
	g.list, err = memberlist.Create(conf)
	inward.open()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("gossip: %w", errors.Join(err, config.Transport.Shutdown()))
	}
	g.wg.Go(g.keep)
	g.wg.Go(g.judge)
	return g, nil
}

// memberlistConfig is memberlist's LAN configuration, scaled to our interval.
func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	host, port, err := splitHostPort(g.config.Advertise)
	if err != nil {
		return nil, err
	}
	ips, err := resolve(g.ctx, host)
	if err != nil {
		return nil, fmt.Errorf("advertise address %s: %w", g.config.Advertise, err)
	}
	if g.ring, err = memberlist.NewKeyring(g.config.Keys, g.config.Keys[0]); err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Local.String()
	c.Transport = g.config.Transport
	c.AdvertiseAddr, c.AdvertisePort = ips[0].String(), int(port)
	c.BindPort = int(port) // only what memberlist takes for an address without port
	c.Keyring = g.ring
	c.EnableCompression = false // the packets are small, the time is not

	c.ProbeInterval = g.config.Interval
	c.ProbeTimeout = g.config.Interval / 2
	c.GossipInterval = max(g.config.Interval/4, MinInterval)
	c.PushPullInterval = exchangeInterval
	c.TCPTimeout = streamTimeout
	c.GossipToTheDeadTime = forgetAfter
	// A node that has trouble itself probes more slowly, at most by half:
	// probes are also what keeps heartbeats fresh.
	c.AwarenessMaxMultiplier = 2
	// A dead node's ID may come back at another address at once.
	c.DeadNodeReclaimTime = time.Nanosecond

	d := &delegate{g: g}
	c.Delegate, c.Events, c.Ping, c.Alive, c.Conflict = d, d, d, d, d
	c.LogOutput = nil
	c.Logger = log.New(&bridge{logger: g.logger, ended: g.ctx.Done()}, "", 0)
	return c, nil
}

// Announce tells the others new addresses of this node's database and API. It
// waits, at most a second, until one has been told; if none was in time, they
// still learn it later. It is an error if the addresses are too long.
func (g *Gossip) Announce(databaseAddr, apiAddr string) error {
	g.announce.Lock()
	defer g.announce.Unlock()
	if g.ctx.Err() != nil {
		return net.ErrClosed
	}
	config := g.config
	config.DatabaseAddr, config.APIAddr = databaseAddr, apiAddr
	encoded, err := config.meta().encode()
	if err != nil {
		return err
	}
	g.meta.Store(&encoded)
	if err := g.list.UpdateNode(announceTimeout); err != nil {
		g.logger.Debug("nobody was told the new addresses yet", "error", err)
	}
	return nil
}

// Close tells the others that this node leaves, within half a second, shuts
// the transport down and waits for the goroutines of the Gossip; those of
// memberlist itself end within a probe interval. It may be called again and
// gives the same answer.
func (g *Gossip) Close() error {
	g.closeOnce.Do(func() {
		g.callback.Lock()
		g.silent = true
		g.callback.Unlock()
		g.running.Wait()
		g.cancel()
		g.announce.Lock()
		defer g.announce.Unlock()
		if err := g.list.Leave(leaveTimeout); err != nil {
			g.logger.Debug("left without having told anybody", "error", err)
		}
		g.closeErr = g.list.Shutdown()
		g.wg.Wait()
	})
	return g.closeErr
}

// begin reports whether a callback may be called, and if so has Close wait for
// g.running.Done. Callbacks may nest: Evidence may ask for Members.
func (g *Gossip) begin() bool {
	g.callback.Lock()
	defer g.callback.Unlock()
	if g.silent {
		return false
	}
	g.running.Add(1)
	return true
}

// emit passes evidence on unless the Gossip is closed.
func (g *Gossip) emit(e Evidence) {
	if g.config.Evidence == nil || !g.begin() {
		return
	}
	defer g.running.Done()
	g.config.Evidence(e)
}

// heartbeat returns this node's own heartbeat; false once closed.
func (g *Gossip) heartbeat() (protocol.Heartbeat, bool) {
	if !g.begin() {
		return protocol.Heartbeat{}, false
	}
	defer g.running.Done()
	h := g.config.Heartbeat()
	h.NodeID = g.config.Local
	return h, true
}

// SetKeys replaces the keys: the first encrypts from now on. The others are
// opened too, as are those given earlier: memberlist cannot take a key from its
// ring while packets are being opened with it. To refuse what an old key made
// is the transport's part.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no gossip key")
	}
	for i, key := range keys {
		if err := g.ring.AddKey(key); err != nil {
			return fmt.Errorf("gossip key %d of %d: %w", i+1, len(keys), err)
		}
	}
	return g.ring.UseKey(keys[0])
}
