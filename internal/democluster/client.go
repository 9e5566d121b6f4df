package democluster

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	defaultWriters = 4
	maxWriters     = 64
	defaultPace    = 3 * time.Millisecond
	defaultTimeout = 300 * time.Millisecond

	// lateFor is how long an answer that missed its deadline is still waited for.
	lateFor = 5 * time.Second
	// maxLate bounds how many such answers are waited for at a time.
	maxLate = 64
	// maxRecord bounds the record: a client that has it full writes no more.
	maxRecord = 4 << 20
)

// ClientConfig says how a Client writes. The zero value but for Nodes is ready
// to use.
type ClientConfig struct {
	// Nodes are those to write to.
	Nodes []Node
	// Writers is how many write at a time, 1 to 64; 0 means 4.
	Writers int
	// Pace is how long a writer rests between two writes; 0 means 3 ms.
	Pace time.Duration
	// Timeout is how long an answer is waited for before the next write is
	// tried; 0 means 300 ms.
	Timeout time.Duration
	// Keys is how many keys each writer writes before it writes the first again,
	// for those to whom it matters how much the nodes have to keep; 0 means that
	// it writes none twice.
	Keys int
	// Log is where acknowledgements and marks are appended as JSON lines;
	// empty means nowhere.
	Log string
}

// Client writes unique values as fast as its pace allows and keeps a record of
// every acknowledgement outside the nodes. It follows the hints of nodes that
// are not primary, and tries the next node when one does not answer. An answer
// that comes after the client's own deadline is waited for on the side, so that
// a primary that slept and wakes cannot hide what it says, and is still an
// acknowledgement if it is valid yet (walplane.HeaderValid). One that is not
// tells nothing about its write. It is safe for concurrent use; Close waits for
// its goroutines.
type Client struct {
	cfg   ClientConfig
	run   string        // makes values of different clients differ
	start time.Duration // on clock.Boot
	pace  atomic.Int64  // nanoseconds
	hint  atomic.Uint64
	tried atomic.Int64
	lacks atomic.Int64 // outcomes
	stop  context.CancelFunc
	tasks sync.WaitGroup
	late  chan struct{} // semaphore

	mu     sync.Mutex
	acks   []Ack
	epoch  protocol.Epoch // the highest in acks
	change chan struct{}  // closed and replaced at every acknowledgement
	log    *bufio.Writer
	file   *os.File
	failed error // of the log
	closed bool
}

// Mark is a line of the log that is not an acknowledgement: what was done to
// the cluster, and when.
type Mark struct {
	Fault string          `json:"fault"`
	Node  protocol.NodeID `json:"node"`
	At    time.Duration   `json:"at_ns"`
}

// NewClient starts a client. It writes until Close.
func NewClient(cfg ClientConfig) (*Client, error) {
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("a client needs nodes to write to")
	}
	cfg.Writers = cmp.Or(cfg.Writers, defaultWriters)
	cfg.Pace = cmp.Or(cfg.Pace, defaultPace)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	if cfg.Writers < 1 || cfg.Writers > maxWriters || cfg.Pace < 0 || cfg.Timeout < 0 || cfg.Keys < 0 {
		return nil, fmt.Errorf("client with %d writers, pace %v, timeout %v, %d keys: want 1 to %d writers and nothing negative",
			cfg.Writers, cfg.Pace, cfg.Timeout, cfg.Keys, maxWriters)
	}
	c := &Client{
		cfg: cfg, run: fmt.Sprintf("%08x", rand.Uint32()), start: clock.Boot(),
		late: make(chan struct{}, maxLate), change: make(chan struct{}),
		log: bufio.NewWriter(io.Discard),
	}
	if cfg.Log != "" {
		if err := os.MkdirAll(filepath.Dir(cfg.Log), 0o700); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(cfg.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("opening the client's record: %w", err)
		}
		c.file, c.log = file, bufio.NewWriter(file)
	}
	c.pace.Store(int64(cfg.Pace))
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	for w := range cfg.Writers {
		c.tasks.Go(func() { c.write(ctx, w) })
	}
	return c, nil
}

// Close stops writing, waits for the goroutines, and flushes the log. It
// returns what went wrong with the log, if anything did. What the client has
// recorded stays readable.
func (c *Client) Close() error {
	c.stop()
	c.tasks.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed
	}
	c.closed = true
	c.noteFailure(c.log.Flush())
	if c.file != nil {
		c.noteFailure(c.file.Close())
	}
	return c.failed
}

// SetPace changes how long the writers rest between two writes.
func (c *Client) SetPace(d time.Duration) { c.pace.Store(int64(d)) }

// Now is the time since the client's start, the clock of its record. It counts
// the time the machine was suspended.
func (c *Client) Now() time.Duration { return clock.Boot() - c.start }

// Acks returns a copy of the record.
func (c *Client) Acks() []Ack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.acks)
}

// Count returns how many writes were acknowledged so far.
func (c *Client) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}

// Tried returns how many writes were sent so far, acknowledged or not.
func (c *Client) Tried() int { return int(c.tried.Load()) }

// Unknown returns how many writes were sent whose outcome nobody told, or told
// too late: they may be there or not.
func (c *Client) Unknown() int { return int(c.lacks.Load()) }

// Epoch returns the highest epoch that has acknowledged a write; 0 for none.
func (c *Client) Epoch() protocol.Epoch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Mark writes into the log what is being done to a node, and returns when.
func (c *Client) Mark(fault string, node protocol.NodeID) time.Duration {
	m := Mark{Fault: fault, Node: node, At: c.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.append(m)
	return m.At
}

// WaitAcks waits until n more writes are acknowledged than now.
func (c *Client) WaitAcks(ctx context.Context, n int) error {
	want := c.Count() + n
	return c.wait(ctx, fmt.Sprintf("%d more acknowledged writes", n), func() bool { return len(c.acks) >= want })
}

// WaitEpoch waits until a write is acknowledged by an epoch above old, and
// returns that acknowledgement.
func (c *Client) WaitEpoch(ctx context.Context, old protocol.Epoch) (Ack, error) {
	var first Ack
	seen := 0
	err := c.wait(ctx, fmt.Sprintf("a write acknowledged by an epoch after %d", old), func() bool {
		for ; seen < len(c.acks); seen++ {
			if c.acks[seen].Epoch > old {
				first = c.acks[seen]
				return true
			}
		}
		return false
	})
	return first, err
}

// wait blocks until condition, called with the record locked, holds.
func (c *Client) wait(ctx context.Context, what string, condition func() bool) error {
	for {
		c.mu.Lock()
		holds, change := condition(), c.change
		c.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("waited too long for %s (%d acknowledged in all)", what, c.Count())
			}
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}

// record keeps an acknowledgement.
func (c *Client) record(a Ack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks = append(c.acks, a)
	c.epoch = max(c.epoch, a.Epoch)
	if len(c.acks) >= maxRecord {
		c.stop() // the record must stay whole: rather no more writes than some unrecorded
	}
	c.append(a)
	close(c.change)
	c.change = make(chan struct{})
}

// append writes a line to the log; c.mu is held.
func (c *Client) append(line any) {
	if c.file == nil || c.closed {
		return
	}
	raw, err := json.Marshal(line)
	if err == nil {
		_, err = c.log.Write(append(raw, '\n'))
	}
	if err == nil {
		err = c.log.Flush() // into the file's cache: the record outlives this process
	}
	c.noteFailure(err)
}

func (c *Client) noteFailure(err error) {
	if err != nil && c.failed == nil {
		c.failed = fmt.Errorf("writing the client's record: %w", err)
	}
}

// write is one writer. It keeps a connection to every node it has met.
func (c *Client) write(ctx context.Context, w int) {
	links := make([]*conn, len(c.cfg.Nodes))
	defer func() {
		for _, link := range links {
			if link != nil {
				_ = link.Close()
			}
		}
	}()
	at := w % len(links)
	rest := time.NewTimer(0)
	defer rest.Stop()
	for n := 0; ; n++ {
		select {
		case <-rest.C:
		case <-ctx.Done():
			return
		}
		rest.Reset(time.Duration(c.pace.Load()))
		if hint := c.hint.Load(); hint > 0 {
			at = int(hint - 1) // an index: see follow
		}
		if links[at] != nil && links[at].idle() {
			_ = links[at].Close()
			links[at] = nil
		}
		if links[at] == nil {
			link, err := dial(ctx, c.cfg.Nodes[at].APIAddr)
			if err != nil {
				at = c.leave(at)
				continue
			}
			links[at] = link
		}
		key, value := n, fmt.Sprintf("%s-w%d-%07d", c.run, w, n)
		if c.cfg.Keys > 0 {
			key %= c.cfg.Keys
		}
		answer, err := c.put(ctx, links[at], Ack{Key: fmt.Sprintf("w%d-%07d", w, key), Value: value, Node: c.cfg.Nodes[at].ID})
		switch {
		case err != nil:
			links[at] = nil // put has closed it, or waits on it
			at = c.leave(at)
		case !answer.acked():
			at = c.follow(at, answer.Primary)
		}
	}
}

// put writes one key over link and records the acknowledgement. After an error
// the link is not the caller's any more.
func (c *Client) put(ctx context.Context, link *conn, a Ack) (reply, error) {
	c.tried.Add(1)
	a.Sent = c.Now()
	_ = link.SetDeadline(time.Now().Add(c.cfg.Timeout))
	err := link.send(a.Key, a.Value)
	var answer reply
	if err == nil {
		answer, err = link.receive()
	}
	a.Acked = c.Now()
	if err == nil {
		switch {
		case answer.acked() && answer.late(a.Acked-a.Sent), answer.Code == codeUnknownOutcome:
			c.lacks.Add(1)
		case answer.acked():
			a.Epoch, a.LSN = answer.Epoch, answer.LSN
			c.record(a)
		}
		return answer, nil
	}
	c.lacks.Add(1)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() || !c.awaitLate(ctx, link, a) {
		_ = link.Close()
	}
	return reply{}, err
}

// leave turns away from a node that does not answer, and returns the next.
func (c *Client) leave(at int) int {
	c.hint.CompareAndSwap(uint64(at+1), 0)
	return (at + 1) % len(c.cfg.Nodes)
}

// follow turns to the node that one which is not primary has named, if it has
// named another, else to the next.
func (c *Client) follow(at int, primary protocol.NodeID) int {
	if i := slices.IndexFunc(c.cfg.Nodes, func(n Node) bool { return n.ID == primary }); i >= 0 && i != at {
		c.hint.Store(uint64(i + 1))
		return i
	}
	return c.leave(at)
}

// awaitLate takes over a connection on which an answer is overdue and records
// the acknowledgement should it come after all. It declines when too many are
// waited for already.
func (c *Client) awaitLate(ctx context.Context, link *conn, a Ack) bool {
	select {
	case c.late <- struct{}{}:
	default:
		return false
	}
	c.tasks.Go(func() {
		defer func() { <-c.late }()
		defer link.Close()
		defer context.AfterFunc(ctx, func() { _ = link.SetDeadline(time.Now()) })()
		_ = link.SetDeadline(time.Now().Add(lateFor))
		if ctx.Err() != nil {
			return
		}
		answer, err := link.receive()
		a.Acked = c.Now()
		if err == nil && answer.acked() && !answer.late(a.Acked-a.Sent) {
			a.Epoch, a.LSN = answer.Epoch, answer.LSN
			c.record(a)
			c.lacks.Add(-1)
		}
	})
	return true
}
