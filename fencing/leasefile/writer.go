package leasefile

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Writer keeps a node's lease file. It is a fencing.Mirror, for
// fencing.Guard.ShowTo. It is safe for concurrent use; Close waits for its
// goroutine.
//
// A primacy without a deadline, that of a node alone in its cluster, is shown
// with one, Grant ahead, which the Writer renews for as long as it lives: a
// database must not outlive its node for ever.
type Writer struct {
	grant time.Duration
	file  *mapped
	magic uint64

	mu     sync.Mutex
	lease  lease
	ends   bool // lease.deadline is what was published; else the Writer renews it
	closed bool

	stop  chan struct{}
	ended chan struct{}
	once  sync.Once
	err   error
}

var _ fencing.Mirror = (*Writer)(nil)

// renewals is how often within a grant it is renewed.
const renewals = 4

// Create makes the lease file at path, or takes over the one an earlier start of
// the node has left there, and shows that the node is primary of nothing.
// Whoever has it mapped sees that. fresh is true if there was none: a database
// may then go by another one, for as long as the lease in it runs. What is
// there and no lease file is left alone (ErrNotLeaseFile), and so is one of a
// node that runs (ErrInUse).
//
// grant is how long a database may go on after this process has died when the
// primacy has no deadline of its own. It is more than 0.
func Create(path string, grant time.Duration) (w *Writer, fresh bool, err error) {
	if grant <= 0 {
		return nil, false, fmt.Errorf("lease file %s: a grant of %v", path, grant)
	}
	w = &Writer{grant: grant, stop: make(chan struct{}), ended: make(chan struct{})}
	own, magic, err := thisHost()
	if err != nil {
		return nil, false, fmt.Errorf("lease file %s: %w", path, err)
	}
	if w.file, err = mapForWriting(path); err != nil {
		return nil, false, fmt.Errorf("lease file %s: %w", path, err)
	}
	w.magic = magic
	if fresh = w.file.blank(); !fresh && w.file.load(wordMagic) != magic {
		return nil, false, errors.Join(fmt.Errorf("lease file %s: %w: remove it, or name another path", path, ErrNotLeaseFile), w.file.Close())
	}
	w.lease.generation = w.file.load(wordGeneration) + 1
	w.write(func() {
		for i, word := range own.head(magic) {
			w.file.store(i, word)
		}
	})
	go w.renew()
	return w, fresh, nil
}

// write writes the lease, and what else does, under the sequence lock. The
// caller holds mu or is alone.
func (w *Writer) write(more func()) {
	sequence := w.file.load(wordSequence) | 1 // odd already, if the last writer died here
	w.file.store(wordSequence, sequence)
	if more != nil {
		more()
	}
	sequence++
	w.file.store(wordGeneration, w.lease.generation)
	w.file.store(wordEpoch, uint64(w.lease.epoch))
	w.file.store(wordDeadline, uint64(w.lease.deadline)) //nolint:gosec // bits
	w.file.store(wordBody, w.lease.sum(w.magic, sequence))
	w.file.store(wordSequence, sequence)
}

// Publish implements fencing.Mirror.
func (w *Writer) Publish(epoch protocol.Epoch, deadline time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.lease.epoch, w.ends = epoch, deadline != fencing.NoDeadline
	if w.lease.deadline = deadline; !w.ends {
		w.lease.deadline = clock.Boot() + w.grant
	}
	w.write(nil)
}

// renew keeps a primacy without a deadline alive.
func (w *Writer) renew() {
	defer close(w.ended)
	tick := time.NewTicker(w.grant / renewals)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
		w.mu.Lock()
		if w.lease.epoch != 0 && !w.ends {
			w.lease.deadline = clock.Boot() + w.grant
			w.write(nil)
		}
		w.mu.Unlock()
	}
}

// OnDisk reports whether the file is in no file system in memory: then writing
// to it may have to wait for a disk.
func (w *Writer) OnDisk() bool { return w.file.onDisk }

// Close shows that the node is primary of nothing, and gives the file up; it
// stays where it is. It may be called again.
func (w *Writer) Close() error {
	w.once.Do(func() {
		w.Publish(0, 0)
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		close(w.stop)
		<-w.ended
		w.err = w.file.Close()
	})
	return w.err
}
