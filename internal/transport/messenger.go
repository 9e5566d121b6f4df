package transport

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/quiet"
	"github.com/aiondb/aiondb-ha/protocol"
)

// A message connection begins with a greeting. The dialing side says
//
//	version u8 | from u64 LE | to u64 LE
//
// and the other answers
//
//	version u8 | node_id u64 LE
//
// and closes when `to` is not its own node ID, or when the other's certificate
// names another node than `from`. Then frames follow (protocol.Sealer, with keys
// of this connection alone), one request, one answer, in turn.
const (
	greetingVersion = 2
	greetingSize    = 1 + 8 + 8
	welcomeSize     = 1 + 8
)

const (
	// maxCallTime bounds a Call whose context has no deadline.
	maxCallTime = time.Minute
	// maxCallsPerPeer bounds the requests under way to one peer, and with it
	// the connections; further calls wait, within their context.
	maxCallsPerPeer = 16
	// clientIdle is when an idle connection is closed by the side that dialed;
	// serverIdle, when the accepting side loses patience. The first is much
	// the shorter one, so that a request does not meet a closing connection.
	clientIdle = 30 * time.Second
	serverIdle = 90 * time.Second
	// answerTimeout bounds the sending of an answer.
	answerTimeout = 5 * time.Second
	// maxServed bounds the accepted message connections, and with them the
	// handlers that run at a time.
	maxServed = 256
	// maxServedPerPeer is the part of it one node may take.
	maxServedPerPeer = 2 * maxCallsPerPeer
	// maxLarge bounds the payloads of more than protocol.ReadChunk bytes that are
	// received and handled at a time, of one node; the rest waits, unread. With
	// protocol.MaxPayload it bounds the memory that one node can make another use.
	maxLarge = 2
	// largeTimeout bounds how long such a frame may take to arrive.
	largeTimeout = 30 * time.Second
)

// Handler answers the messages of other nodes. from is what the peer said it
// is when it connected, and what its certificate names where nodes have any;
// else every holder of the secret is believed. ctx ends when the
// Messenger is closed. An error closes the connection, so that the caller
// learns that there will be no answer; what can be answered in the protocol
// should be.
type Handler func(ctx context.Context, from protocol.NodeID, m protocol.Message) (protocol.Message, error)

// Messenger sends HA messages to other nodes and answers theirs. It is safe
// for concurrent use.
type Messenger struct {
	mux     *Mux
	local   protocol.NodeID
	lookup  func(protocol.NodeID) (string, bool)
	handler Handler
	logger  hclog.Logger
	quiet   *quiet.Quiet

	listener net.Listener
	served   chan struct{} // places of accepted connections
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[protocol.NodeID]*peer
	guests map[protocol.NodeID]*guest
	conns  map[net.Conn]struct{} // open connections of either side

	closeOnce sync.Once
}

// NewMessenger starts answering the message connections of mux. lookup gives
// the HA address ("host:port") of a node; it is asked at every new connection
// and must not block. The caller closes the Messenger before the Mux.
func NewMessenger(mux *Mux, local protocol.NodeID, lookup func(protocol.NodeID) (addr string, ok bool), handler Handler, logger hclog.Logger) *Messenger {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Messenger{
		mux: mux, local: local, lookup: lookup, handler: handler,
		logger:   logger,
		quiet:    quiet.New(time.Now),
		listener: mux.Stream(ALPNMessage),
		served:   make(chan struct{}, maxServed),
		ctx:      ctx, cancel: cancel,
		peers:  make(map[protocol.NodeID]*peer),
		guests: make(map[protocol.NodeID]*guest),
		conns:  make(map[net.Conn]struct{}),
	}
	mux.setNode(local)
	s.wg.Go(s.acceptLoop)
	return s
}

// Close refuses further calls, ends those under way, closes every connection,
// ends the handlers' context and waits for them. It may be called again.
func (s *Messenger) Close() error {
	s.closeOnce.Do(func() {
		s.cancel() // first, so that the calls it ends know why
		s.mu.Lock()
		s.closed = true
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		_ = s.listener.Close()
	})
	s.wg.Wait()
	return nil
}

// spawn runs f for a connection that Close closes and waits for; false, and
// the connection closed, after Close.
func (s *Messenger) spawn(c net.Conn, f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		defer func() {
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		f()
	})
	return true
}

func (s *Messenger) acceptLoop() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		select {
		case s.served <- struct{}{}:
		default:
			_ = c.Close()
			s.warn("full", "message connection refused: too many are open", "from", c.RemoteAddr(), "limit", maxServed)
			continue
		}
		if !s.spawn(c, func() { defer func() { <-s.served }(); s.serve(c) }) {
			<-s.served
		}
	}
}

// guest is what one calling node holds.
type guest struct {
	conns int           // open; guarded by Messenger.mu
	large chan struct{} // a place per large payload
}

// enter counts a connection of a node; nil if it has too many.
func (s *Messenger) enter(from protocol.NodeID) *guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.guests[from]
	if g == nil {
		g = &guest{large: make(chan struct{}, maxLarge)}
		s.guests[from] = g
	}
	if g.conns >= maxServedPerPeer {
		return nil
	}
	g.conns++
	return g
}

func (s *Messenger) leave(from protocol.NodeID, g *guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.conns--; g.conns == 0 {
		delete(s.guests, from)
	}
}

// serve answers one connection until it ends.
func (s *Messenger) serve(accepted net.Conn) {
	c := accepted.(*peerConn)
	r := bufio.NewReader(c)
	from, err := s.welcome(c, r)
	if err != nil {
		if !isEnd(err) {
			s.warn(sourceOf(c.RemoteAddr()).String(), "message connection refused", "from", c.RemoteAddr(), "error", err)
		}
		return
	}
	g := s.enter(from)
	if g == nil {
		s.warn("crowd "+from.String(), "message connection refused: the node has too many open", "node", from, "limit", maxServedPerPeer)
		return
	}
	defer s.leave(from, g)
	sealer, opener, err := c.session()
	if err != nil {
		s.warn("keys", "message connection refused", "node", from, "error", err)
		return
	}
	for s.exchange(c, r, from, g, sealer, opener) {
	}
}

// exchange reads one request and answers it; false when the connection is over.
func (s *Messenger) exchange(c net.Conn, r io.Reader, from protocol.NodeID, g *guest, sealer *protocol.Sealer, opener *protocol.Opener) bool {
	large := false
	defer func() {
		if large {
			<-g.large
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(serverIdle))
	request, err := opener.Read(r, func(int) error {
		select {
		case g.large <- struct{}{}:
			large = true
		case <-s.ctx.Done():
			return ErrClosed
		}
		return c.SetReadDeadline(time.Now().Add(largeTimeout))
	})
	if err == nil {
		err = speaksFor(from, request)
	}
	if err != nil {
		if !isEnd(err) {
			s.warn("read "+from.String(), "message connection ended", "node", from, "error", err)
		}
		return false
	}
	answer, err := s.handler(s.ctx, from, request)
	if err == nil && answer == nil {
		err = errors.New("the handler gave neither an answer nor an error")
	}
	if err != nil {
		s.warn("handler "+from.String(), "request not answered", "node", from, "tag", request.Tag(), "error", err)
		return false
	}
	frame, err := sealer.Seal(answer)
	if err != nil {
		s.warn("answer "+from.String(), "answer not sent", "node", from, "tag", answer.Tag(), "error", err)
		return false
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, err = c.Write(frame)
	return err == nil
}

// welcome reads the greeting and answers it.
func (s *Messenger) welcome(c *peerConn, r io.Reader) (protocol.NodeID, error) {
	_ = c.SetDeadline(time.Now().Add(HandshakeTimeout))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	var greeting [greetingSize]byte
	if _, err := io.ReadFull(r, greeting[:]); err != nil {
		return 0, err
	}
	from, to, err := parseGreeting(greeting)
	if err != nil {
		return 0, err
	}
	var welcome [welcomeSize]byte
	welcome[0] = greetingVersion
	binary.LittleEndian.PutUint64(welcome[1:], uint64(s.local))
	if _, err := c.Write(welcome[:]); err != nil {
		return 0, err
	}
	if to != s.local {
		return 0, fmt.Errorf("node %d looks for node %d here: check the order of the node list and the node IDs", from, to)
	}
	if node := c.PeerNode(); node != protocol.NoNode && node != from {
		return 0, fmt.Errorf("the peer calls itself node %d, and its certificate names node %d", from, node)
	}
	if from == s.local || from == protocol.NoNode {
		return 0, fmt.Errorf("the peer calls itself node %d: two nodes must not have the same node ID", from)
	}
	return from, nil
}

// parseGreeting takes a greeting apart.
func parseGreeting(g [greetingSize]byte) (from, to protocol.NodeID, err error) {
	if g[0] != greetingVersion {
		return 0, 0, fmt.Errorf("message protocol version %d, want %d: run the same release on all nodes", g[0], greetingVersion)
	}
	return protocol.NodeID(binary.LittleEndian.Uint64(g[1:9])), protocol.NodeID(binary.LittleEndian.Uint64(g[9:17])), nil
}

// warn logs once per key and minute.
func (s *Messenger) warn(key, msg string, args ...any) {
	if s.ctx.Err() == nil && s.quiet.Say(key) {
		s.logger.Warn(msg, args...)
	}
}

// isEnd tells the ends of a connection that are nobody's fault.
func isEnd(err error) bool {
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &ne)
}
