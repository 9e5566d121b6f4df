package ha

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fencing/leasefile"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/gossip"
	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/protocol"
)

// What an embedder implements and catches, under this package's name.
type (
	// Database is what an embedding server implements.
	Database = failover.Database
	// WriteStopper is what a Database may implement for gentler switchovers.
	WriteStopper = failover.WriteStopper
	// WriteWatcher is what a Database may implement so that a disk that hangs
	// under it is noticed.
	WriteWatcher = failover.WriteWatcher
	// Promotion is what Database.Promote is given.
	Promotion = failover.Promotion
	// Demotion is what Database.Demote is given.
	Demotion = failover.Demotion
)

// The errors callers decide by; see errors.Is.
var (
	// ErrNoQuorum: too few voters answer for anything to be decided.
	ErrNoQuorum = failover.ErrNoQuorum
	// ErrOutcomeUnknown: what was asked for may still happen, or have happened.
	ErrOutcomeUnknown = failover.ErrOutcomeUnknown
	// ErrNotLeader: no Raft leader could be reached; nothing was done.
	ErrNotLeader = failover.ErrNotLeader
	// ErrNotPrimary: this node's database is not the primary.
	ErrNotPrimary = failover.ErrNotPrimary
	// ErrClosed: the node was closed.
	ErrClosed = failover.ErrClosed
)

// How the node is closed.
const (
	resignTimeout = 3 * time.Second // how long a primary may take to hand over when it is closed
)

// Node is a running member of the cluster. Its methods may be called from any
// goroutine, also after Close, when they fail with ErrClosed.
type Node struct {
	config    Config
	started   time.Time
	mux       *transport.Mux
	messenger *transport.Messenger
	store     *jsonlstore.Store
	probe     *diskProbe
	writes    *writeTimer
	leaseFile *leasefile.Writer // nil: none
	consensus *raftshim.Consensus
	lease     failover.Lease
	fsm       *fsm.FSM
	gossip    atomic.Pointer[gossip.Gossip]
	health    *healthView
	guard     *fencing.Guard
	floor     *fencing.Floor
	driver    atomic.Pointer[failover.Driver]
	db        Database

	credentials *credentialKeeper

	closeOnce sync.Once
	ready     chan struct{}   // closed when the node can answer the others
	life      context.Context // ends when Close begins
	end       context.CancelFunc
	closeErr  error
	tasks     sync.WaitGroup
	access    *httpapi.Access
	guardHTTP *httpapi.Guard
	handler   http.Handler
}

// Open starts the node: from its return on it takes part in the cluster and
// drives db. ctx bounds the start only. When it fails everything is given up,
// as by Close.
//
// A witness has no database: db is nil.
func (p *Prepared) Open(ctx context.Context, db Database) (_ *Node, err error) {
	switch {
	case p.config.Witness && db != nil:
		return nil, errors.Join(errors.New("a witness has no database: give none, or unset Witness"), p.Close())
	case p.config.Witness:
		db = failover.Witness{}
	case db == nil:
		return nil, errors.Join(errors.New("no database: give one, or set Witness"), p.Close())
	}
	n := &Node{
		config:    p.config,
		started:   time.Now(),
		mux:       p.mux,
		access:    p.access,
		store:     p.store,
		writes:    p.writes,
		floor:     p.floor,
		leaseFile: p.leaseFile,
		guard:     fencing.NewQuickGuard(clock.Boot, clock.Quick),
		db:        db,

		consensus: raftshim.NewConsensus(),
		ready:     make(chan struct{}),
	}
	n.life, n.end = context.WithCancel(context.Background())
	n.credentials = newCredentialKeeper(n, p)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	log := n.config.Logger
	n.health = &healthView{monitor: health.New(n.config.NodeID, n.healthTimeout()), maxLag: n.config.MaxFailoverLag, progress: n.progress}
	n.fsm = fsm.New(log.Named("fsm"))
	n.fsm.OnApply(n.replicated)
	n.messenger = transport.NewMessenger(p.mux, n.config.NodeID, n.lookup, n.serveMessage, log.Named("messages"))
	if n.leaseFile != nil {
		n.guard.ShowTo(n.leaseFile)
	}
	n.startProbe(p.disk)
	if err := n.startRaft(); err != nil {
		return n, fmt.Errorf("starting raft: %w", err)
	}
	if err := n.startDriver(ctx); err != nil {
		return n, fmt.Errorf("starting the failover driver: %w", err)
	}
	if err := n.startGossip(); err != nil {
		return n, fmt.Errorf("starting gossip: %w", err)
	}
	n.guardHTTP = httpapi.NewGuard(n.access, log.Named("api"))
	n.handler = httpapi.New(backend{n}, n.guardHTTP, log.Named("api"))
	close(n.ready)
	n.tasks.Go(n.register)
	n.tasks.Go(n.credentials.keep)
	n.tasks.Go(n.watchDisk)
	n.tasks.Go(n.tellProgress)
	return n, nil
}

// ID returns the node's own ID.
func (n *Node) ID() protocol.NodeID { return n.config.NodeID }

// Guard returns the guard of this node. It is the same for every promotion.
func (n *Node) Guard() *fencing.Guard { return n.guard }

// Handler returns the HTTP API of the node: /v1, the load balancers' probes,
// /metrics and the dashboard. What comes in on loopback is answered, with a
// token if Config.API has any; what comes from elsewhere needs a token and TLS
// (an *http.Server says how a request has come in).
func (n *Node) Handler() http.Handler { return n.handler }

// ProtectHandler puts what protects Handler before a handler of the embedder's
// own: GET and HEAD need a read token, everything else an admin token.
func (n *Node) ProtectHandler(next http.Handler) http.Handler {
	return n.guardHTTP.Wrap(httpapi.ScopeByMethod, next)
}

// SetAPITokens replaces Config.API: from its return on the tokens that are not
// among them are refused, and so are the sessions begun with them.
func (n *Node) SetAPITokens(tokens APITokens) error {
	if err := tokens.Validate(); err != nil {
		return fmt.Errorf("API tokens: %w", err)
	}
	n.access.SetTokens(tokens)
	return nil
}

// Switchover hands the primacy to another node, NoNode for the best replica. It
// may be called on any node. It returns nil when the old primary knows the new
// one to be primary; this node may hear of it a moment later.
func (n *Node) Switchover(ctx context.Context, to protocol.NodeID) error {
	return n.atLeader(ctx, "switchover", func(ctx context.Context) error {
		return n.driver.Load().Switchover(ctx, to)
	}, protocol.ForwardRequest{Kind: protocol.ForwardSwitchover, Payload: binary.LittleEndian.AppendUint64(nil, uint64(to))}, func([]byte) error { return nil })
}

// Events returns what happens from now on, until ctx ends or the node is
// closed. A reader that is too slow loses the oldest events and is told so.
func (n *Node) Events(ctx context.Context) <-chan failover.Record {
	return n.driver.Load().Subscribe(ctx)
}

// Journal returns what has happened, oldest first, with sequence numbers above
// after. Only the newest part is kept.
func (n *Node) Journal(after uint64) []failover.Record { return n.driver.Load().Journal(after) }

// Close hands the primacy over if this node has it, leaves the cluster and
// releases the port and the files. It blocks until everything has ended, may be
// called more than once, and gives the same answer each time. The database is
// demoted before it returns.
func (n *Node) Close() error {
	n.closeOnce.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	n.end()
	n.tasks.Wait()
	var errs []error
	if driver := n.driver.Load(); driver != nil {
		ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
		driver.Resign(ctx)
		cancel()
		errs = append(errs, driver.Close())
	}
	n.guard.Close(failover.ErrClosed)
	errs = append(errs, n.consensus.Close())
	var closers []io.Closer
	if g := n.gossip.Load(); g != nil {
		closers = append(closers, g)
	}
	if n.messenger != nil {
		closers = append(closers, n.messenger)
	}
	closers = append(closers, n.mux)
	if n.leaseFile != nil {
		closers = append(closers, n.leaseFile)
	}
	if n.probe != nil {
		closers = append(closers, n.probe)
	}
	for _, c := range append(closers, n.store) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// running returns ErrClosed once Close was called.
func (n *Node) running() error {
	if n.life.Err() != nil {
		return failover.ErrClosed
	}
	return nil
}

// serveMessage answers what another node sends. Until the node is ready the
// others wait, as they would for a node that is still starting. A node that is
// being closed answers as long as it can: its word in its successor's ballot,
// that its guard is closed for good, spares that one the wait for the lease.
func (n *Node) serveMessage(ctx context.Context, from protocol.NodeID, m protocol.Message) (protocol.Message, error) {
	if !closed(n.ready) {
		select {
		case <-n.ready:
		case <-n.life.Done():
			return nil, failover.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if request, ok := m.(protocol.ForwardRequest); ok {
		return n.serveForward(ctx, from, request)
	}
	return n.driver.Load().HandleMessage(ctx, from, m)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lookup returns the HA address of a node: what gossip knows, because a node
// may come back under another address, or else what was configured.
func (n *Node) lookup(id protocol.NodeID) (string, bool) {
	if g := n.gossip.Load(); g != nil {
		if addr, ok := g.Lookup(id); ok {
			return addr, true
		}
	}
	if id < 1 || uint64(id) > uint64(len(n.config.Nodes)) {
		return "", false
	}
	return n.config.Nodes[id-1], true
}
