package walplane

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	logName  = "wal.log"
	lockName = "wal.lock"
	logMagic = "AIONWAL1"

	headerBytes = 16
	// indexStride is how many bytes of log share one entry of the index.
	indexStride = 32 << 10
	// keptBuffer is the largest encoding buffer kept between two appends, bytes.
	keptBuffer = 4 << 20
)

// disk is what tests make fail.
type disk struct {
	write func(f *os.File, b []byte, off int64) (int, error)
	sync  func(f *os.File) error
}

var realDisk = disk{write: (*os.File).WriteAt, sync: (*os.File).Sync}

// wal is the log file. One goroutine at a time appends or truncates (DB.append
// is the lock for that); everybody may read what is flushed, beside it.
type wal struct {
	path string
	f    *os.File
	lock *os.File
	salt uint64
	disk disk
	buf  []byte // of append

	flight atomic.Pointer[time.Time] // since when append has been writing; nil: it is not

	mu      sync.RWMutex
	last    protocol.Position // of the last flushed record
	end     int64             // where the flushed records end, bytes
	lineage protocol.Lineage  // what the flushed records are made of; the last segment ends at last.LSN
	index   []indexEntry
	failed  error // set for good
}

// indexEntry says where a record begins. There is one for the first record
// that begins indexStride or more behind the one before.
type indexEntry struct {
	lsn protocol.LSN
	off int64
}

// position returns what is flushed, or why that is not known.
func (w *wal) position() (protocol.Position, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.last, w.failed
}

// bytes returns the size of the flushed log.
func (w *wal) bytes() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.end
}

// ownLineage returns a copy of the lineage of the flushed log.
func (w *wal) ownLineage() protocol.Lineage {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.Clone(w.lineage)
}

// note takes a record that is flushed at off into the books. The caller holds
// mu or is alone.
func (w *wal) note(r record, off int64) {
	if n := len(w.index); n == 0 || off-w.index[n-1].off >= indexStride {
		w.index = append(w.index, indexEntry{r.lsn, off})
	}
	if n := len(w.lineage); n > 0 && w.lineage[n-1].Epoch == r.epoch {
		w.lineage[n-1].End = r.lsn
	} else {
		w.lineage = append(w.lineage, protocol.Segment{Epoch: r.epoch, End: r.lsn})
	}
	w.last = r.position()
	w.end = off + int64(r.size())
}

// fail latches the log shut and returns the error that says so. The caller
// holds mu.
func (w *wal) fail(doing string, err error) error {
	if w.failed == nil {
		w.failed = fmt.Errorf("%w: %s %s: %w", ErrFailed, doing, w.path, err)
	}
	return w.failed
}

// append writes records behind the log and flushes them: all of them are
// durable when it returns nil, and only then do they show. When the write
// fails (no room, say) the log is as it was before and may be tried again, but
// a crash may yet bring the records back. When the flush fails the log latches.
// The caller holds the append lock.
func (w *wal) append(records []record) error {
	last, err := w.position()
	if err != nil {
		return err
	}
	w.buf = w.buf[:0]
	synced, next := last.LSN, last
	for _, r := range records {
		if err := r.follows(next); err != nil {
			return fmt.Errorf("append to %s: %w", w.path, err)
		}
		r.synced = synced
		if err := r.valid(); err != nil {
			return fmt.Errorf("append to %s: %w", w.path, err)
		}
		w.buf = appendRecord(w.buf, w.salt, r)
		next = r.position()
	}
	now := time.Now()
	w.flight.Store(&now)
	defer w.flight.Store(nil)
	off := w.end // only append and truncate change it, and the caller keeps both out
	if _, err := w.disk.write(w.f, w.buf, off); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if cutErr := w.f.Truncate(off); cutErr != nil {
			return w.fail("take back a failed write to", errors.Join(err, cutErr))
		}
		return fmt.Errorf("write to %s: %w", w.path, err)
	}
	err = w.disk.sync(w.f)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		return w.fail("flush", err)
	}
	for _, r := range records {
		w.note(r, off)
		off += int64(r.size())
	}
	if cap(w.buf) > keptBuffer {
		w.buf = nil
	}
	return nil
}

// roomBytes is how much tryRoom wants: a block.
const roomBytes = 4 << 10

// tryRoom tries whether there is room behind the log, and leaves the log as it
// is. What a crash may leave of the trial is no record, and cut off by Open. The
// caller holds the append lock.
func (w *wal) tryRoom() error {
	if _, err := w.position(); err != nil {
		return err
	}
	now := time.Now()
	w.flight.Store(&now)
	defer w.flight.Store(nil)
	off := w.end
	_, err := w.disk.write(w.f, make([]byte, roomBytes), off)
	if cutErr := w.f.Truncate(off); cutErr != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.fail("take back a trial write to", errors.Join(err, cutErr))
	}
	return err
}

// truncate cuts the log behind to, durably. Position and readers see the
// shorter log before the disk does. The caller holds the append lock.
func (w *wal) truncate(to protocol.LSN) error {
	last, err := w.position()
	if err != nil || to >= last.LSN {
		return err
	}
	c := cursor{}
	if err := w.seek(&c, to+1); err != nil {
		return err
	}
	w.shorten(to, c.off)
	// Not under mu: the disk may take its time, and nobody needs to wait.
	doing := "cut"
	if err = w.f.Truncate(c.off); err == nil {
		doing, err = "flush the cut of", w.disk.sync(w.f)
	}
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.fail(doing, err)
	}
	return nil
}

// shorten takes everything behind to out of the books; it ends at end.
func (w *wal) shorten(to protocol.LSN, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = end
	for n := len(w.index); n > 0 && w.index[n-1].lsn > to; n-- {
		w.index = w.index[:n-1]
	}
	if to == 0 {
		w.lineage, w.last = nil, protocol.Position{}
		return
	}
	i, _ := slices.BinarySearchFunc(w.lineage, to, func(s protocol.Segment, lsn protocol.LSN) int { return cmp.Compare(s.End, lsn) })
	w.lineage = w.lineage[:i+1]
	w.lineage[i].End = to
	w.last = protocol.Position{Timeline: w.lineage[i].Epoch, LSN: to}
}

// cursor is a place in the log to go on reading from. The zero value is at the
// first record. A cursor stays good while the records before it do.
type cursor struct {
	next protocol.LSN // the record at off; 0 is taken as 1
	off  int64
	buf  []byte
	recs []record
}

// seek moves c to the record lsn, or behind the log if it ends right before.
func (w *wal) seek(c *cursor, lsn protocol.LSN) error {
	w.mu.RLock()
	i, found := slices.BinarySearchFunc(w.index, lsn, func(e indexEntry, lsn protocol.LSN) int { return cmp.Compare(e.lsn, lsn) })
	if !found {
		i--
	}
	c.next, c.off = 1, headerBytes
	if i >= 0 {
		c.next, c.off = w.index[i].lsn, w.index[i].off
	}
	w.mu.RUnlock()
	for c.next < lsn {
		recs, err := w.read(c, lsn-1, indexStride)
		if err != nil {
			return err
		}
		if len(recs) == 0 {
			return fmt.Errorf("look for lsn %d in %s: the log ends at %d", lsn, w.path, c.next-1)
		}
	}
	return nil
}

// read returns records from c on, up to and including upTo, as many as fit in
// about maxBytes and at least one, and moves c behind them; none when what is
// flushed ends before c. They are good until the next read with c.
func (w *wal) read(c *cursor, upTo protocol.LSN, maxBytes int) ([]record, error) {
	if c.next == 0 {
		c.next, c.off = 1, headerBytes
	}
	w.mu.RLock()
	last, end, err := w.last.LSN, w.end, w.failed
	w.mu.RUnlock()
	c.recs = c.recs[:0]
	if err != nil || c.next > min(last, upTo) {
		return nil, err
	}
	want := min(int64(max(maxBytes, minRecordBytes)), end-c.off)
	for {
		c.buf = slices.Grow(c.buf[:0], int(want))[:want]
		if _, err := w.f.ReadAt(c.buf, c.off); err != nil {
			return nil, fmt.Errorf("read %s at offset %d: %w", w.path, c.off, err)
		}
		used := 0
		for c.next <= min(last, upTo) {
			r, n, err := decodeRecord(c.buf[used:], w.salt)
			if errors.Is(err, errShortRecord) {
				break
			}
			if err == nil && r.lsn != c.next {
				err = fmt.Errorf("lsn %d stands there", r.lsn)
			}
			if err != nil {
				return nil, &DamageError{File: w.path, Offset: c.off, LSN: c.next, Reason: err.Error()}
			}
			c.recs = append(c.recs, r)
			c.next, c.off, used = c.next+1, c.off+int64(n), used+n
		}
		if len(c.recs) > 0 {
			return c.recs, nil
		}
		// The first record is longer than maxBytes: once more, with its size.
		n, err := recordSize(c.buf)
		if err != nil || int64(n) <= want || int64(n) > end-c.off {
			return nil, &DamageError{File: w.path, Offset: c.off, LSN: c.next, Reason: "it reaches beyond the end of the log"}
		}
		want = int64(n)
	}
}

// close releases file and lock. Nothing is flushed: whatever counts is.
func (w *wal) close() error {
	return errors.Join(w.f.Close(), w.lock.Close())
}
