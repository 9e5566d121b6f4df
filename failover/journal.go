package failover

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// JournalSize is how many records a node remembers.
	JournalSize = 4096
	// subscriberBuffer is how many records a reader may be behind before it
	// loses the oldest.
	subscriberBuffer = 256
	// maxSubscribers bounds the readers of one journal.
	maxSubscribers = 256
)

// RecordsSkipped is the Event of a record that stands for others a slow reader
// has lost; its Detail says how many.
const RecordsSkipped = "RecordsSkipped"

// Record is one line of the decision journal: what happened, and why.
type Record struct {
	Seq   uint64          `json:"seq"` // from 1, without gaps; in memory only, so from 1 again after a restart
	At    time.Time       `json:"at"`
	Event string          `json:"event"`
	Epoch protocol.Epoch  `json:"epoch,omitempty"`
	Node  protocol.NodeID `json:"node,omitempty"` // whom it is about, if not the node itself
	// Detail is a sentence for people.
	Detail string `json:"detail,omitempty"`
	// SinceMS is how long ago, in ms, the failover began that this belongs to:
	// when the primary was found lost, else when leadership was gained.
	SinceMS float64 `json:"since_ms,omitempty"`
	// StepMS is how long, in ms, the step took that ends with this record.
	StepMS float64 `json:"step_ms,omitempty"`
}

// journal is a bounded ring of records, and those who read along. Safe for
// concurrent use; writing never waits for a reader.
type journal struct {
	mu      sync.Mutex
	ring    []Record // ring[seq%JournalSize] once full
	last    uint64
	readers map[*reader]struct{}
	closed  bool
}

type reader struct {
	queue   []Record
	skipped uint64
	wake    chan struct{}
}

func (j *journal) add(r Record) Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	r.Seq = j.last
	if len(j.ring) < JournalSize {
		j.ring = append(j.ring, r)
	} else {
		j.ring[(r.Seq-1)%JournalSize] = r
	}
	for rd := range j.readers {
		if len(rd.queue) >= subscriberBuffer {
			rd.queue = append(rd.queue[:0], rd.queue[1:]...)
			rd.skipped++
		}
		rd.queue = append(rd.queue, r)
		rd.poke()
	}
	return r
}

func (rd *reader) poke() {
	select {
	case rd.wake <- struct{}{}:
	default:
	}
}

// after returns the records with a Seq above seq that are still remembered,
// oldest first.
func (j *journal) after(seq uint64) []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seq >= j.last {
		return nil
	}
	first := max(seq+1, j.last-uint64(len(j.ring))+1)
	var out []Record
	for s := first; s <= j.last; s++ {
		out = append(out, j.ring[(s-1)%JournalSize])
	}
	return out
}

// subscribe returns a channel of the records from now on. It is closed when
// ctx ends or the journal is closed.
func (j *journal) subscribe(ctx context.Context) <-chan Record {
	out := make(chan Record)
	rd := &reader{wake: make(chan struct{}, 1)}
	j.mu.Lock()
	if j.closed || len(j.readers) >= maxSubscribers {
		j.mu.Unlock()
		close(out)
		return out
	}
	if j.readers == nil {
		j.readers = map[*reader]struct{}{}
	}
	j.readers[rd] = struct{}{}
	j.mu.Unlock()
	go j.serve(ctx, rd, out)
	return out
}

// serve ends when ctx does, or when the journal is closed and all is read.
func (j *journal) serve(ctx context.Context, rd *reader, out chan<- Record) {
	defer close(out)
	defer func() {
		j.mu.Lock()
		delete(j.readers, rd)
		j.mu.Unlock()
	}()
	for {
		j.mu.Lock()
		batch, skipped, closed := rd.queue, rd.skipped, j.closed
		rd.queue, rd.skipped = nil, 0
		j.mu.Unlock()
		if skipped > 0 {
			batch = append([]Record{{Event: RecordsSkipped, At: time.Now(),
				Detail: fmt.Sprintf("%d records lost: read faster, or ask the journal for them", skipped)}}, batch...)
		}
		for _, r := range batch {
			select {
			case out <- r:
			case <-ctx.Done():
				return
			}
		}
		if closed && len(batch) == 0 {
			return
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-rd.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	for rd := range j.readers {
		rd.poke()
	}
}
