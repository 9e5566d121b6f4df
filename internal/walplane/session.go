package walplane

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// maxConns bounds accepted connections; more are closed at once.
	maxConns = 2 * MaxVoters
	// streamWindow is how many batches may be unanswered on one stream. What
	// gathers meanwhile goes into the next batch.
	streamWindow = 4
	// acceptPause follows a failed accept (out of descriptors, say).
	acceptPause = 50 * time.Millisecond
)

// listen accepts replicas until the listener is closed.
func (db *DB) listen() {
	for {
		conn, err := db.cfg.Listener.Accept()
		if errors.Is(err, net.ErrClosed) || db.ctx.Err() != nil {
			if conn != nil {
				hangUp(conn)
			}
			return
		}
		if err != nil {
			db.log.Warn("accept a replica", "error", err)
			timer := time.NewTimer(acceptPause)
			select {
			case <-timer.C:
			case <-db.ctx.Done():
				timer.Stop()
			}
			continue
		}
		if !db.keep(conn) {
			hangUp(conn)
			continue
		}
		db.wg.Go(func() {
			defer db.drop(conn)
			if err := db.serve(conn); err != nil {
				db.log.Debug("stream to a replica ended", "remote", conn.RemoteAddr(), "error", err)
			}
		})
	}
}

func (db *DB) keep(conn net.Conn) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed || len(db.conns) >= maxConns {
		return false
	}
	db.conns[conn] = struct{}{}
	return true
}

func (db *DB) drop(conn net.Conn) {
	hangUp(conn)
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.conns, conn)
}

// hangUp closes a connection without a word. A TLS connection would want to say
// goodbye first, and wait seconds for a peer that is stopped.
func hangUp(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		c.NetConn().Close()
	}
	conn.Close()
}

// isNode refuses a peer whose certificate names another node. Where nodes have
// none, every peer is believed.
func isNode(conn net.Conn, node protocol.NodeID) error {
	c, ok := conn.(interface{ PeerNode() protocol.NodeID })
	if !ok || c.PeerNode() == protocol.NoNode || c.PeerNode() == node {
		return nil
	}
	return fmt.Errorf("node %d is there in the place of node %d", c.PeerNode(), node)
}

// session is the primary's end of one replica's stream.
type session struct {
	t     *term
	node  protocol.NodeID
	conn  net.Conn
	in    *bufio.Reader
	at    cursor
	sent  signal       // an ack came: the window may have room again
	open  atomic.Int32 // batches not answered yet
	stamp atomic.Int64 // newest stamp of the replica
	done  chan struct{}
	out   []byte
}

// serve takes one replica's connection from its hello on.
func (db *DB) serve(conn net.Conn) error {
	deadline := time.Now().Add(db.cfg.PeerTimeout)
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 4<<10)
	var buf []byte
	p, err := readFrame(in, frameHello, helloBytes, &buf)
	if err != nil {
		return err
	}
	h, err := parseHello(p)
	if err != nil {
		return err
	}
	if err := isNode(conn, h.node); err != nil {
		return err
	}
	s := &session{node: h.node, conn: conn, in: in, done: make(chan struct{})}
	if err := s.enter(db, h); err != nil {
		db.mu.Lock()
		var epoch protocol.Epoch
		if db.term != nil {
			epoch = db.term.epoch
		}
		db.mu.Unlock()
		_, writeErr := conn.Write(appendWelcome(nil, welcome{status: welcomeRefused, epoch: epoch, reason: err.Error()}))
		return errors.Join(err, writeErr)
	}
	defer s.leave()
	if _, err := conn.Write(appendWelcome(nil, welcome{status: welcomeOK, epoch: s.t.epoch})); err != nil {
		return err
	}
	if err := db.wal.seek(&s.at, h.position.LSN+1); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	reading := make(chan error, 1)
	go func() {
		err := s.readAcks()
		close(s.done)
		hangUp(conn)
		reading <- err
	}()
	err = s.stream()
	hangUp(conn)
	return errors.Join(err, <-reading)
}

// enter makes s the session of its node in the current term. The replica must
// follow exactly this epoch, and its log must be a beginning of this one: then
// what it has flushed counts.
func (s *session) enter(db *DB, h hello) error {
	own := db.wal.ownLineage()
	db.mu.Lock()
	defer db.mu.Unlock()
	t := db.term
	switch {
	case t == nil || !t.alive():
		return fmt.Errorf("%w", ErrNotPrimary)
	case h.epoch != t.epoch:
		return fmt.Errorf("%w: you follow epoch %d, this is the primary of epoch %d", ErrStaleEpoch, h.epoch, t.epoch)
	case h.node == protocol.NoNode || h.node == db.cfg.NodeID:
		return fmt.Errorf("node ID %d is not another node's", h.node)
	case own.EpochAt(h.position.LSN) != h.position.Timeline:
		return fmt.Errorf("your log ends at %v, which is not in this one: cut it to the lineage first", h.position)
	}
	if old := t.sessions[h.node]; old != nil {
		hangUp(old.conn)
	}
	s.t = t
	t.sessions[h.node] = s
	t.acked[h.node] = h.position.LSN
	db.advanceCommit(t)
	return nil
}

func (s *session) leave() {
	s.t.db.mu.Lock()
	defer s.t.db.mu.Unlock()
	if s.t.sessions[s.node] == s {
		delete(s.t.sessions, s.node)
	}
}

// readAcks counts what the replica has flushed, until the connection ends.
func (s *session) readAcks() error {
	var buf []byte
	db := s.t.db
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(db.cfg.PeerTimeout)); err != nil {
			return err
		}
		p, err := readFrame(s.in, frameAck, ackBytes, &buf)
		if err != nil {
			return err
		}
		a, err := parseAck(p)
		if err != nil {
			return err
		}
		if err := s.count(a); err != nil {
			return err
		}
		if s.open.Add(-1) < 0 {
			return fmt.Errorf("%w: an ack for nothing", errWire)
		}
		s.sent.broadcast()
	}
}

// count takes one ack. Acks of another epoch, of what was never sent, or that
// go back end the stream.
func (s *session) count(a ack) error {
	db := s.t.db
	last, err := db.wal.position()
	if err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	switch {
	case !s.t.alive() || s.t.sessions[s.node] != s:
		return errNotFollowing
	case a.epoch != s.t.epoch:
		return fmt.Errorf("%w: an ack of epoch %d in epoch %d", ErrStaleEpoch, a.epoch, s.t.epoch)
	case a.flushed > last.LSN || a.flushed < s.t.acked[s.node]:
		return fmt.Errorf("%w: an ack of lsn %d after %d, with %d written", errWire, a.flushed, s.t.acked[s.node], last.LSN)
	}
	s.stamp.Store(int64(a.stamp))
	if a.flushed > s.t.acked[s.node] {
		s.t.acked[s.node] = a.flushed
		db.advanceCommit(s.t)
	}
	return nil
}

// stream sends what is flushed and not sent yet, and keeps the connection
// alive between.
func (s *session) stream() error {
	db := s.t.db
	tick := time.NewTicker(db.cfg.KeepAlive)
	defer tick.Stop()
	idle := false // a keep-alive is due; the first frame goes out at once
	for first := true; ; first = false {
		flushed, answered := db.flushed.wait(), s.sent.wait()
		room := s.open.Load() < streamWindow
		var records []record
		if room {
			var err error
			if records, err = db.wal.read(&s.at, protocol.MaxLSN, maxBatchBytes); err != nil {
				return err
			}
		}
		if len(records) > 0 || room && (idle || first) {
			if err := s.send(records); err != nil {
				return err
			}
			idle = false
			continue
		}
		select {
		case <-flushed:
		case <-answered:
		case <-tick.C:
			idle = true
		case <-s.done:
			return nil
		case <-s.t.ctx.Done():
			return errNotFollowing
		}
	}
}

// send sends one batch, in the name of the term if that still lasts.
func (s *session) send(records []record) error {
	db := s.t.db
	m := batch{epoch: s.t.epoch, records: records}
	// The stamp first, the guard second, the commit last: what is committed
	// then holds every write acknowledged before the stamp.
	stamp := s.stamp.Load()
	if s.t.guard.Check(s.t.epoch) == nil {
		m.echo = time.Duration(stamp)
	}
	db.mu.Lock()
	alive := s.t.alive()
	m.commit = db.commit
	db.mu.Unlock()
	if !alive {
		return errNotFollowing
	}
	s.open.Add(1)
	s.out = appendBatch(s.out, m)
	if err := s.conn.SetWriteDeadline(time.Now().Add(db.cfg.PeerTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.out)
	return err
}
