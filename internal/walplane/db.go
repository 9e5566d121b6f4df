package walplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Defaults and bounds of Config.
const (
	DefaultKeepAlive   = 50 * time.Millisecond
	DefaultPeerTimeout = time.Second
	DefaultMaxLogBytes = 1 << 30
	MaxVoters          = 64
)

var (
	_ failover.Database     = (*DB)(nil)
	_ failover.WriteStopper = (*DB)(nil)
	_ failover.WriteWatcher = (*DB)(nil)
)

// Config is what Open needs. Zero values mean the defaults named.
type Config struct {
	// Dir holds wal.log and its lock; created, private, if missing.
	Dir string
	// NodeID names this node: 1 to Voters for a voter, above for a replica whose flushes do not count.
	NodeID protocol.NodeID
	// Voters is how many voters the cluster has; they are the nodes 1 to
	// Voters, and a quorum is Voters/2+1 of them. A witness among them counts as
	// a voter and never as a copy: it does not connect, so of two nodes with
	// data and a witness both must have a write before it is acknowledged.
	Voters int
	// Listener is where replicas connect. The DB owns it once Open has
	// succeeded and closes it. Nil: no replica can follow this node.
	Listener net.Listener
	// Dial connects to a primary's address; nil is plain TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Logger may be nil.
	Logger hclog.Logger
	// Clock gives elapsed time and must also count suspended time: the clock of
	// the guards this DB is promoted with. It dates requests and stale reads. Nil
	// is the process's monotonic clock.
	Clock func() time.Duration
	// KeepAlive is how often an idle connection says that it lives, and how
	// late a replica may learn of a commit. Default 50 ms.
	KeepAlive time.Duration
	// PeerTimeout ends a connection on which nothing came or went for that long. Default 1 s.
	PeerTimeout time.Duration
	// MaxLogBytes is the size of the log from which on writes are refused. Default 1 GiB.
	MaxLogBytes int64

	disk *disk // of tests
}

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.Dir == "", "Dir is empty: name a directory for the log")
	fault(c.NodeID == protocol.NoNode, "NodeID is 0: IDs count from 1")
	fault(c.Voters < 1 || c.Voters > MaxVoters, "Voters is %d: want 1 to %d", c.Voters, MaxVoters)
	fault(c.KeepAlive < 0 || c.PeerTimeout < 0 || c.MaxLogBytes < 0, "KeepAlive, PeerTimeout and MaxLogBytes must not be negative")
	keepAlive, peerTimeout := orDefault(c.KeepAlive, DefaultKeepAlive), orDefault(c.PeerTimeout, DefaultPeerTimeout)
	fault(peerTimeout < 2*keepAlive, "PeerTimeout %v is less than twice KeepAlive %v: an idle connection would not last", peerTimeout, keepAlive)
	return errors.Join(errs...)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// DB is one node's database. It is safe for concurrent use. It opens as a
// replica that follows nobody and answers no current read: Fence, Promote and
// Demote say what it is from then on.
type DB struct {
	cfg Config
	log hclog.Logger
	wal *wal

	// append is held while the log is written, flushed or cut, and by Fence
	// for a moment. Whoever writes checks its right to under this lock. It is
	// taken before mu. Neither is held while something is logged (but for the
	// last word of a DB that fails): whoever reads the log may be slow.
	append ctxLock

	flushed   signal // more is flushed, or committed: senders look again
	committed signal // the applier looks again

	state state

	broken atomic.Pointer[time.Time] // when the DB latched; nil: it has not
	noRoom atomic.Pointer[time.Time] // since when this primary's writes have failed; set under mu; nil: they have not

	mu       sync.Mutex
	closed   bool
	failed   error
	fence    protocol.Epoch
	demotion failover.Demotion // the last one; the zero value while primary
	follower *follower         // nil unless following
	term     *term             // nil unless primary
	commit   protocol.LSN      // highest known here, never beyond what is flushed here
	applied  protocol.LSN
	fresh    freshness
	blocked  error // why this replica does not follow, or did not just now

	conns   map[net.Conn]struct{} // accepted ones
	ctx     context.Context       // ends with Close
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	closing sync.Once
	closeOK chan struct{}
	closeRC error
}

// Open opens the log in cfg.Dir and starts listening. A torn tail is cut off;
// damage is a *DamageError, a directory in use an *InUseError, and then nothing
// has been changed on disk.
func Open(cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.KeepAlive = orDefault(cfg.KeepAlive, DefaultKeepAlive)
	cfg.PeerTimeout = orDefault(cfg.PeerTimeout, DefaultPeerTimeout)
	cfg.MaxLogBytes = orDefault(cfg.MaxLogBytes, DefaultMaxLogBytes)
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if cfg.Clock == nil {
		start := time.Now()
		cfg.Clock = func() time.Duration { return time.Since(start) }
	}
	if cfg.disk == nil {
		cfg.disk = &realDisk
	}
	w, torn, err := openWAL(cfg.Dir, *cfg.disk)
	if err != nil {
		return nil, err
	}
	if torn > 0 {
		cfg.Logger.Warn("cut the torn tail of the write-ahead log: it was never acknowledged", "file", w.path, "bytes", torn)
	}
	db := &DB{
		cfg:     cfg,
		log:     cfg.Logger,
		wal:     w,
		append:  newCtxLock(),
		conns:   make(map[net.Conn]struct{}),
		closeOK: make(chan struct{}),
	}
	db.ctx, db.cancel = context.WithCancelCause(context.Background())
	db.wg.Go(db.applyCommitted)
	if cfg.Listener != nil {
		db.wg.Go(db.listen)
	}
	return db, nil
}

// Close stops everything and returns when no goroutine of the DB is left and
// its files are closed. Writes in flight end with an unknown outcome. It may
// be called twice and gives the same answer.
func (db *DB) Close() error {
	db.closing.Do(func() {
		db.mu.Lock()
		db.closed = true
		db.endTerm(ErrClosed)
		db.stopFollowing()
		for conn := range db.conns {
			hangUp(conn)
		}
		db.mu.Unlock()
		db.cancel(ErrClosed)
		var err error
		if db.cfg.Listener != nil {
			if err = db.cfg.Listener.Close(); errors.Is(err, net.ErrClosed) {
				err = nil
			}
		}
		db.wg.Wait()
		db.closeRC = errors.Join(err, db.wal.close())
		close(db.closeOK)
	})
	<-db.closeOK
	return db.closeRC
}

// usable returns why the DB answers nothing any more. The caller holds mu.
func (db *DB) usable() error {
	if db.closed {
		return ErrClosed
	}
	return db.failed
}

// fail latches the DB: whatever it was, it is that no more.
func (db *DB) fail(err error) {
	db.mu.Lock()
	first := db.failed == nil && !db.closed
	if first {
		now := time.Now()
		db.broken.Store(&now)
		db.failed = err
		db.endTerm(err)
		db.stopFollowing()
	}
	db.mu.Unlock()
	if first {
		db.log.Error("the database has stopped", "error", err)
	}
}

// WriteInFlight implements failover.WriteWatcher: since when records have been
// written and flushed, of which one batch is never much. A primary that cannot
// write for want of room, and a database that has stopped for a failed disk,
// have been at it since they first failed: they are of no more use as primary
// than one whose disk hangs.
func (db *DB) WriteInFlight() time.Time {
	for _, since := range []*time.Time{db.broken.Load(), db.noRoom.Load(), db.wal.flight.Load()} {
		if since != nil {
			return *since
		}
	}
	return time.Time{}
}

// writeLog appends under the append lock the caller holds, and latches the DB
// if the log did.
func (db *DB) writeLog(records []record) error {
	err := db.wal.append(records)
	if errors.Is(err, ErrFailed) {
		db.fail(err)
	}
	return err
}
