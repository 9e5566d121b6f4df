package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Checked makes a Store of a store that has only Raft's two interfaces, such as
// those of other projects. It adds what they lack and refuses what they let
// pass:
//
//   - the contiguity check of CheckAppend, and CheckDelete for ranges;
//   - the bare errors for what is not there, whatever the store gives;
//   - one set of keys for numbers and bytes, numbers in big endian;
//   - CurrentTerm that never goes down, and votes that stay given;
//   - a candidate that is emptied before LastVoteTerm is written, so that none of
//     an old term is left beside a new one (in two writes, for want of one);
//   - WriteInFlight, ErrClosed, and Close that may be called again.
//
// What it cannot add: readers that never wait for a sync, all or nothing for a
// batch, survival of a crash, and the commit index, which is kept in memory and
// lost at Close. These are as good as the store beneath.
//
// The store belongs to the wrapper, which closes it. Keys works if the store
// beneath has it.
func Checked(raw Raw) *CheckedStore { return &CheckedStore{raw: raw, started: time.Now()} }

// CheckedStore is made by Checked. It is safe for concurrent use if the store
// beneath is.
type CheckedStore struct {
	raw     Raw
	started time.Time // WriteInFlight counts from here

	staged, commit atomic.Uint64
	emptyCandidate atomic.Bool  // LastVoteCand was set to no bytes, rather than dropped
	inFlight       atomic.Int64 // nanoseconds since started, plus one; 0: none

	mu       sync.Mutex   // held by whoever writes
	closing  sync.RWMutex // held by whoever uses raw
	closed   bool
	closeErr error
}

var (
	_ Store     = (*CheckedStore)(nil)
	_ KeyLister = (*CheckedStore)(nil)
)

// use keeps the store open until done is called.
func (c *CheckedStore) use() (done func(), err error) {
	c.closing.RLock()
	if c.closed {
		c.closing.RUnlock()
		return nil, ErrClosed
	}
	return c.closing.RUnlock, nil
}

// write is use for whoever changes something: one at a time, and timed.
func (c *CheckedStore) write() (done func(), err error) {
	c.mu.Lock()
	release, err := c.use()
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.inFlight.Store(int64(time.Since(c.started)) + 1)
	return func() {
		c.inFlight.Store(0)
		release()
		c.mu.Unlock()
	}, nil
}

// FirstIndex implements raft.LogStore.
func (c *CheckedStore) FirstIndex() (uint64, error) {
	done, err := c.use()
	if err != nil {
		return 0, err
	}
	defer done()
	return c.raw.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (c *CheckedStore) LastIndex() (uint64, error) {
	done, err := c.use()
	if err != nil {
		return 0, err
	}
	defer done()
	return c.raw.LastIndex()
}

func (c *CheckedStore) bounds() (first, last uint64, err error) {
	first, err = c.raw.FirstIndex()
	if err != nil {
		return 0, 0, err
	}
	last, err = c.raw.LastIndex()
	return first, last, err
}

// GetLog implements raft.LogStore.
func (c *CheckedStore) GetLog(index uint64, log *raft.Log) error {
	done, err := c.use()
	if err != nil {
		return err
	}
	defer done()
	// Some stores hand out what they have not got around to deleting.
	first, last, err := c.bounds()
	if err != nil {
		return err
	}
	if index == 0 || index < first || index > last {
		return raft.ErrLogNotFound
	}
	var l raft.Log // some decoders leave in place what they do not find
	switch err := c.raw.GetLog(index, &l); {
	case errors.Is(err, raft.ErrLogNotFound):
		return raft.ErrLogNotFound
	case err != nil:
		return err
	}
	*log = l
	return nil
}

// StoreLog implements raft.LogStore.
func (c *CheckedStore) StoreLog(log *raft.Log) error { return c.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (c *CheckedStore) StoreLogs(logs []*raft.Log) error {
	done, err := c.write()
	if err != nil {
		return err
	}
	defer done()
	last, err := c.raw.LastIndex()
	if err != nil {
		return err
	}
	if err := CheckAppend(last, logs); err != nil || len(logs) == 0 {
		return err
	}
	if err := c.raw.StoreLogs(logs); err != nil {
		return err
	}
	c.commit.Store(max(c.commit.Load(), min(c.staged.Load(), logs[len(logs)-1].Index)))
	return nil
}

// DeleteRange implements raft.LogStore.
func (c *CheckedStore) DeleteRange(minIndex, maxIndex uint64) error {
	done, err := c.write()
	if err != nil {
		return err
	}
	defer done()
	first, last, err := c.bounds()
	if err != nil {
		return err
	}
	cut, err := CheckDelete(first, last, minIndex, maxIndex)
	if err != nil || cut == CutNothing {
		return err
	}
	// Some stores mind bounds that lie beyond what they hold.
	if err := c.raw.DeleteRange(max(minIndex, first), min(maxIndex, last)); err != nil {
		return err
	}
	if cut == CutFront {
		return nil
	}
	left := minIndex - 1
	if cut == CutAll {
		left = 0
	}
	c.commit.Store(min(c.commit.Load(), left))
	c.staged.Store(min(c.staged.Load(), left))
	return nil
}

// Get implements raft.StableStore.
func (c *CheckedStore) Get(key []byte) ([]byte, error) {
	done, err := c.use()
	if err != nil {
		return nil, err
	}
	defer done()
	return c.get(key)
}

// get knows the ways in which stores say that a key is not there: an error of
// the text that Raft compares, or a nil value without one, or no bytes where a
// candidate was.
func (c *CheckedStore) get(key []byte) ([]byte, error) {
	value, err := c.raw.Get(key)
	switch {
	case err != nil && err.Error() == ErrKeyNotFound.Error(),
		err == nil && value == nil,
		err == nil && len(value) == 0 && string(key) == KeyLastVoteCand && !c.emptyCandidate.Load():
		return nil, ErrKeyNotFound
	}
	return value, err
}

// GetUint64 implements raft.StableStore.
func (c *CheckedStore) GetUint64(key []byte) (uint64, error) {
	value, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	return Uint64Value(key, value)
}

// Set implements raft.StableStore.
func (c *CheckedStore) Set(key, value []byte) error {
	done, err := c.write()
	if err != nil {
		return err
	}
	defer done()
	switch k := string(key); k {
	case KeyCurrentTerm, KeyLastVoteTerm, KeyLastVoteCand:
		return c.setRafts(k, value)
	}
	return c.setRaw(key, value)
}

func (c *CheckedStore) setRaw(key, value []byte) error {
	if value == nil {
		value = []byte{} // set, and empty
	}
	return c.raw.Set(key, value)
}

// setRafts sets one of Raft's own three values, by the rules of the reference:
// they are tried on what the keys hold.
func (c *CheckedStore) setRafts(k string, value []byte) error {
	before := make(map[string][]byte)
	for _, key := range []string{KeyCurrentTerm, KeyLastVoteTerm, KeyLastVoteCand} {
		switch v, err := c.get([]byte(key)); {
		case err == nil:
			before[key] = v
		case !errors.Is(err, ErrKeyNotFound):
			return err
		}
	}
	after := maps.Clone(before)
	if err := SetStable(after, k, value); err != nil || maps.EqualFunc(before, after, bytes.Equal) {
		return err
	}
	if _, stays := after[KeyLastVoteCand]; !stays && before[KeyLastVoteCand] != nil {
		if err := c.dropCandidate(); err != nil {
			return err
		}
	}
	if err := c.setRaw([]byte(k), value); err != nil {
		return err
	}
	if k == KeyLastVoteCand {
		c.emptyCandidate.Store(len(value) == 0)
	}
	return nil
}

// dropCandidate empties the candidate, because no store beneath can remove a
// key. It is done before the new LastVoteTerm is written: with a crash in between, the
// vote of an older term is forgotten, and CurrentTerm, which Raft has raised by
// then, keeps it from being given again.
func (c *CheckedStore) dropCandidate() error {
	c.emptyCandidate.Store(false)
	return c.raw.Set([]byte(KeyLastVoteCand), []byte{})
}

// SetUint64 implements raft.StableStore.
func (c *CheckedStore) SetUint64(key []byte, value uint64) error {
	return c.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// Keys implements KeyLister. It fails with an error wrapping
// errors.ErrUnsupported if the store beneath has no such method.
func (c *CheckedStore) Keys() ([][]byte, error) {
	done, err := c.use()
	if err != nil {
		return nil, err
	}
	defer done()
	if lister, ok := c.raw.(KeyLister); ok {
		return lister.Keys()
	}
	return nil, fmt.Errorf("%T does not tell its keys: %w", c.raw, errors.ErrUnsupported)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (c *CheckedStore) IsMonotonic() bool { return true }

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (c *CheckedStore) StageCommitIndex(index uint64) error {
	done, err := c.use()
	if err != nil {
		return err
	}
	defer done()
	c.staged.Store(index)
	return nil
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (c *CheckedStore) GetCommitIndex() (uint64, error) {
	done, err := c.use()
	if err != nil {
		return 0, err
	}
	defer done()
	return c.commit.Load(), nil
}

// WriteInFlight implements Store.
func (c *CheckedStore) WriteInFlight() time.Time {
	if n := c.inFlight.Load(); n != 0 {
		return c.started.Add(time.Duration(n - 1))
	}
	return time.Time{}
}

// Close implements Store.
func (c *CheckedStore) Close() error {
	c.mu.Lock() // behind a write in progress
	defer c.mu.Unlock()
	c.closing.Lock()
	defer c.closing.Unlock()
	if !c.closed {
		c.closed = true
		c.closeErr = c.raw.Close()
	}
	return c.closeErr
}
