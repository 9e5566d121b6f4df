package walplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The waits between attempts to reach the primary: none before the first two,
// then doubling from retryFirst to retryMost.
const (
	retryFirst = 10 * time.Millisecond
	retryMost  = 100 * time.Millisecond
)

var (
	errNotFollowing = errors.New("not following this primary any more")
	errGiveUp       = errors.New("will not be tried again")
)

// follower follows one primary in one epoch, from Demote until something else
// is said.
type follower struct {
	db      *DB
	primary protocol.NodeID
	address string
	epoch   protocol.Epoch
	lineage protocol.Lineage
	ctx     context.Context
	cancel  context.CancelCauseFunc

	connected bool // under DB.mu
}

func newFollower(db *DB, d failover.Demotion) *follower {
	f := &follower{db: db, primary: d.Primary, address: d.Address, lineage: d.Lineage, epoch: d.Lineage[len(d.Lineage)-1].Epoch}
	f.ctx, f.cancel = context.WithCancelCause(db.ctx)
	return f
}

// run follows until the follower is cancelled or sees that it never can.
func (f *follower) run() {
	var wait time.Duration
	for {
		began := time.Now()
		err := f.session()
		if f.ctx.Err() != nil {
			return
		}
		f.note(false, err)
		f.db.log.Debug("stream ended", "primary", f.primary, "epoch", f.epoch, "error", err)
		if errors.Is(err, errGiveUp) {
			f.db.log.Error("not following the primary", "primary", f.primary, "epoch", f.epoch, "error", err)
			return
		}
		if time.Since(began) > f.db.cfg.PeerTimeout {
			wait = 0 // it had worked for a while
		}
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-f.ctx.Done():
				timer.Stop()
				return
			}
		}
		wait = min(max(2*wait, retryFirst), retryMost)
	}
}

// note records for Status how following goes.
func (f *follower) note(connected bool, err error) {
	f.db.mu.Lock()
	defer f.db.mu.Unlock()
	if f.db.follower == f {
		f.connected = connected
		f.db.blocked = err
	}
}

// mayWrite returns nil when this follower is the one in charge and its epoch
// is not below the fence. The caller holds the append lock, so that it stays
// so until the lock is given back.
func (f *follower) mayWrite() error {
	f.db.mu.Lock()
	defer f.db.mu.Unlock()
	if err := f.db.usable(); err != nil {
		return err
	}
	if f.db.follower != f {
		return errNotFollowing
	}
	if f.epoch < f.db.fence {
		return &StaleEpochError{Epoch: f.epoch, Floor: f.db.fence}
	}
	return nil
}

// session is one connection to the primary. It returns why it ended.
func (f *follower) session() error {
	dialing, cancel := context.WithTimeout(f.ctx, f.db.cfg.PeerTimeout)
	defer cancel()
	conn, err := f.db.cfg.Dial(dialing, f.address)
	if err != nil {
		return fmt.Errorf("connect to node %d at %s: %w", f.primary, f.address, err)
	}
	defer hangUp(conn)
	if err := isNode(conn, f.primary); err != nil {
		return err
	}
	defer context.AfterFunc(f.ctx, func() { hangUp(conn) })()
	from, position, err := f.cut()
	if err != nil {
		return err
	}
	if from != position {
		f.db.log.Warn("cut off what the primary's timeline does not have; it was never acknowledged",
			"epoch", f.epoch, "from", from, "to", position)
	}
	s := &replicaStream{follower: f, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	if err := s.greet(position); err != nil {
		return err
	}
	f.note(true, nil)
	for err == nil {
		err = s.next()
	}
	return err
}

// cut cuts off what this log does not have in common with the timeline about
// to be followed, durably, and returns the positions before and after. It
// gives up rather than cut anything known to be committed.
func (f *follower) cut() (from, to protocol.Position, err error) {
	db := f.db
	if err := db.append.lock(f.ctx); err != nil {
		return from, to, err
	}
	defer db.append.unlock()
	if err := f.mayWrite(); err != nil {
		return from, to, err
	}
	last, err := db.wal.position()
	if err != nil {
		return last, last, err
	}
	if last.Timeline > f.epoch {
		return last, last, fmt.Errorf("%w: this log ends in epoch %d, the primary is of epoch %d: %w", ErrStaleEpoch, last.Timeline, f.epoch, errGiveUp)
	}
	common := f.lineage.CommonPrefix(db.wal.ownLineage())
	db.mu.Lock()
	commit := db.commit
	db.mu.Unlock()
	if common < commit {
		return last, last, fmt.Errorf("%w (%w)", &DivergedError{Epoch: f.epoch, Common: common, Commit: commit}, errGiveUp)
	}
	if common == last.LSN {
		return last, last, nil
	}
	if err := db.wal.truncate(common); err != nil {
		if errors.Is(err, ErrFailed) {
			db.fail(err)
		}
		return last, last, err
	}
	to, err = db.wal.position()
	return last, to, err
}

// replicaStream is the replica's end of a connection.
type replicaStream struct {
	*follower
	conn    net.Conn
	in      *bufio.Reader
	frame   []byte // being read
	out     []byte // being sent
	records []record
}

// greet says who and where we are, and returns nil if that is welcome.
func (s *replicaStream) greet(position protocol.Position) error {
	s.out = appendHello(s.out, hello{node: s.db.cfg.NodeID, epoch: s.epoch, position: position})
	if err := s.send(); err != nil {
		return err
	}
	p, err := s.read(frameWelcome, 9+maxReason)
	if err != nil {
		return err
	}
	w, err := parseWelcome(p)
	if err != nil {
		return err
	}
	if w.status != welcomeOK || w.epoch != s.epoch {
		return fmt.Errorf("node %d at %s, in epoch %d, refuses: %s", s.primary, s.address, w.epoch, w.reason)
	}
	return nil
}

func (s *replicaStream) read(kind byte, limit int) ([]byte, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.db.cfg.PeerTimeout)); err != nil {
		return nil, err
	}
	return readFrame(s.in, kind, limit, &s.frame)
}

func (s *replicaStream) send() error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.db.cfg.PeerTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.out)
	return err
}

// next takes one batch: checks it, flushes it, learns the commit, answers.
func (s *replicaStream) next() error {
	p, err := s.read(frameBatch, maxFrameBytes)
	if err != nil {
		return err
	}
	m, err := parseBatch(p, s.records)
	if err != nil {
		return err
	}
	s.records = m.records
	flushed, err := s.accept(m)
	if err != nil {
		return err
	}
	s.out = appendAck(s.out, ack{epoch: s.epoch, flushed: flushed, stamp: s.db.cfg.Clock()})
	return s.send()
}

// accept appends and flushes a batch and returns the LSN flushed. The epoch is
// checked on every batch, under the lock that Fence takes.
func (s *replicaStream) accept(m batch) (protocol.LSN, error) {
	db := s.db
	if err := db.append.lock(s.ctx); err != nil {
		return 0, err
	}
	defer db.append.unlock()
	if m.epoch != s.epoch {
		return 0, fmt.Errorf("%w: a batch of epoch %d while following epoch %d", ErrStaleEpoch, m.epoch, s.epoch)
	}
	if err := s.mayWrite(); err != nil {
		return 0, err
	}
	for _, r := range m.records {
		if want := s.lineage.EpochAt(r.lsn); r.epoch != want {
			return 0, fmt.Errorf("%w: lsn %d of epoch %d, on this timeline epoch %d wrote it", errWire, r.lsn, r.epoch, want)
		}
	}
	if len(m.records) > 0 {
		if err := db.writeLog(m.records); err != nil {
			return 0, err
		}
	}
	last, err := db.wal.position()
	if err != nil {
		return 0, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.learnCommit(min(m.commit, last.LSN))
	if m.echo > 0 {
		db.fresh.promise(m.commit, m.echo, db.applied)
	}
	return last.LSN, nil
}
