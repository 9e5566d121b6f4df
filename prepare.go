package ha

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/fencing/leasefile"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/jsonlstore"
	"github.com/aiondb/aiondb-ha/protocol"
)

// peerCheckTimeout bounds how long Prepare waits for the other nodes to prove
// that they have the same secret. A node that does not answer is not waited for
// at later starts either: most of a cluster may be down.
const peerCheckTimeout = 2 * time.Second

// ErrWrongSecret is wrapped by the error of a node whose cluster secret is not
// that of the nodes it found running.
var ErrWrongSecret = transport.ErrWrongSecret

// Prepared is a node that has its port and its state directory and has not
// begun to take part in the cluster. Everything that can be wrong with the
// settings, the secret and the node's files has been found by then. Open or
// Close must be called on it, once.
type Prepared struct {
	config Config
	digest [sha256.Size]byte // of the credentials
	access *httpapi.Access
	mux    *transport.Mux
	store  *jsonlstore.Store
	writes *writeTimer
	floor  *fencing.Floor
	disk   vfs.FS // of the state directory

	leaseFile *leasefile.Writer // nil: none
}

// Prepare checks cfg, takes the HA port, makes sure that the nodes already
// running have the same secret, and opens the state directory, in this order:
// when it fails, nothing on disk was changed.
//
// Use it instead of Open by itself when the database's own files must not be
// touched before all that is known to be right.
func Prepare(ctx context.Context, cfg Config) (_ *Prepared, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	p := &Prepared{config: cfg.withDefaults(), disk: vfs.OS{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	credentials := cfg.Credentials()
	id, err := credentials.identity(cfg.NodeID)
	if err != nil {
		return p, err
	}
	p.access = httpapi.NewAccess(credentials.secrets(), cfg.API)
	p.digest = credentials.digest()
	p.config.Secret, p.config.OtherSecrets, p.config.Key, p.config.API = Secret{}, nil, Secret{}, APITokens{} // not needed any more
	if p.mux, err = transport.Listen(p.config.BindAddr, id, p.config.Logger.Named("transport")); err != nil {
		return p, err
	}
	if err := p.checkSecret(ctx); err != nil {
		return p, err
	}
	if err := p.openState(); err != nil {
		return p, err
	}
	return p, p.showLease(ctx)
}

// checkSecret fails if nodes are running and every one of them has another
// secret. One node that agrees is enough: then it is the others that are wrong.
func (p *Prepared) checkSecret(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, peerCheckTimeout)
	defer cancel()
	var peers []string
	for i, addr := range p.config.Nodes {
		if protocol.NodeID(i+1) != p.config.NodeID {
			peers = append(peers, addr)
		}
	}
	found := transport.CheckPeers(ctx, p.mux, peers)
	if len(found.Self) > 0 {
		return fmt.Errorf("%s in the list of cluster nodes is this node itself: every node needs one entry, and this one is number %s", strings.Join(found.Self, ", "), p.config.NodeID)
	}
	if len(found.Rejected) == 0 {
		return nil
	}
	for _, addr := range found.Rejected {
		if err := found.Errors[addr]; errors.Is(err, transport.ErrCertificate) && len(found.Accepted) == 0 {
			return fmt.Errorf("certificates: %w", err)
		}
	}
	who := strings.Join(found.Rejected, ", ")
	if len(found.Accepted) > 0 {
		p.config.Logger.Warn("nodes with another cluster secret are running: set the same secret on all", "nodes", who)
		return nil
	}
	return fmt.Errorf("%w on %s: set the same cluster secret (auth token) on all nodes", ErrWrongSecret, who)
}

// openState opens the floor, the log and the Raft state. The floor is read
// first, because reading changes nothing and the store leaves its mark.
func (p *Prepared) openState() (err error) {
	if p.floor, err = fencing.OpenFloor(p.config.FencingTokenPath); err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
			err = fmt.Errorf("%w: give this user the right to read and write there, or choose another directory", err)
		}
		return err
	}
	if p.store, err = jsonlstore.Open(p.config.StateDir()); err != nil {
		return err
	}
	if p.writes, err = newWriteTimer(p.store, p.config.StateDir()); err != nil {
		return err
	}
	if !p.floor.Missing() {
		return nil
	}
	// I2: a floor is never made up for a node that may have promised something.
	if used, err := raft.HasExistingState(p.store, p.store, raft.NewInmemSnapshotStore()); err != nil {
		return fmt.Errorf("reading the state in %s: %w", p.config.StateDir(), err)
	} else if used {
		return fmt.Errorf("%s is missing, but %s has been in use: without it this node could break a promise it made; "+
			"restore the file, or set the fencing token path to where it is", p.floor.Path(), p.config.StateDir())
	}
	return p.floor.Create(time.Now())
}

// DataListener returns a listener for the database's own traffic between
// nodes, of a TCP port that l has bound: what it accepts comes from nodes of
// this cluster, encrypted, under the bounds of the HA port. It may be asked for
// once. Who the peer is, where nodes have certificates, its connections tell by
// PeerNode() protocol.NodeID. The port is closed with the node.
func (p *Prepared) DataListener(l net.Listener) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("a listener of type %T: want one of TCP", l)
	}
	stream := p.mux.Stream(transport.ALPNWAL)
	if err := p.mux.ServeAlso(tcp); err != nil {
		return nil, err
	}
	return stream, nil
}

// DialData connects to another node's DataListener.
func (p *Prepared) DialData(ctx context.Context, addr string) (net.Conn, error) {
	return p.mux.Dial(ctx, addr, transport.ALPNWAL)
}

// showLease opens the lease file, if one is wanted. From here on a database that
// reads it, and may have been led by an earlier start of this node, is primary
// of nothing; so this comes before anything is said to other nodes. If the file
// is new, the database may be reading one that was removed: what that says is
// waited for.
func (p *Prepared) showLease(ctx context.Context) error {
	if p.config.LeaseFile == "" {
		return nil
	}
	lease := fencing.LeaseFor(p.config.HealthCheckTimeout)
	w, fresh, err := leasefile.Create(p.config.LeaseFile, lease)
	if err != nil {
		return err
	}
	p.leaseFile = w
	if w.OnDisk() {
		p.config.Logger.Warn("the lease file is on a disk: when that hangs, so does the closing of the guard; choose a path in memory, such as /run", "file", p.config.LeaseFile)
	}
	if !fresh {
		return nil
	}
	wait := time.NewTimer(fencing.OverAfter(lease))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close gives up the port and the files of a Prepared that was not opened.
func (p *Prepared) Close() error {
	var errs []error
	if p.leaseFile != nil {
		errs = append(errs, p.leaseFile.Close())
	}
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.mux != nil {
		errs = append(errs, p.mux.Close())
	}
	return errors.Join(errs...)
}

// Open is Prepare and Prepared.Open in one: it starts a node that takes part
// in the cluster and drives db. ctx bounds the start only. The Node must be
// closed before db is.
func Open(ctx context.Context, cfg Config, db Database) (*Node, error) {
	p, err := Prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return p.Open(ctx, db)
}
