package fencing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	// ErrStaleEpoch is wrapped by the refusal of a promise: the epoch is below
	// the floor, or is promised to another node. See StaleEpochError.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrCorrupt is wrapped by every CorruptError.
	ErrCorrupt = errors.New("fencing file is damaged")
	// ErrFloorFailed is wrapped by every Promise after one whose write may or
	// may not have reached the disk. Only opening the file again helps.
	ErrFloorFailed = errors.New("fencing file cannot be trusted after a failed write; restart the node")
	// ErrNoFloor is returned by Promise while there is no file yet.
	ErrNoFloor = errors.New("there is no fencing file yet; create it for a new node, restore it for an old one")
)

// CorruptError says that a fencing file exists and cannot be understood. The
// file has not been touched.
type CorruptError struct {
	Path   string
	Reason string
}

// Error names the file, what is wrong with it and what to do, in one line.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("fencing file %s is damaged: %s; put it back from a backup, or, only while all other nodes run, "+
		"move this node's state directory away and start it empty (never delete this file alone: the node would forget what it promised)", e.Path, e.Reason)
}

// Unwrap returns ErrCorrupt.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// StaleEpochError is the refusal of a promise, and what stands against it.
type StaleEpochError struct {
	Epoch protocol.Epoch  // asked for
	Node  protocol.NodeID // on whose behalf
	Floor Token           // promised already
}

// Error names both promises.
func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("%v: epoch %d for node %d, while epoch %d is promised to node %d",
		ErrStaleEpoch, e.Epoch, e.Node, e.Floor.Epoch, e.Floor.NodeID)
}

// Unwrap returns ErrStaleEpoch.
func (e *StaleEpochError) Unwrap() error { return ErrStaleEpoch }

// Floor is the durable promise of one node: the highest epoch it has promised
// to anybody, and to whom. It is safe for concurrent use.
//
// Invariants: the floor never goes down (I2), and no epoch is promised to two
// nodes (I1). Both hold across crashes, because Promise returns nil only when
// the promise is on disk, file and directory entry both.
type Floor struct {
	path    string
	current atomic.Pointer[Token] // what is known to be on disk

	mu      sync.Mutex // one write at a time; never held by Current
	missing bool
	failed  error
	fs      fileSystem
}

// OpenFloor reads the fencing file. It changes nothing on disk.
//
// A missing file is no error: Missing reports it, and the caller decides
// whether this is a new node (Create) or an old one that lost its file. A file
// that cannot be understood is a *CorruptError, never an epoch of zero (I2).
func OpenFloor(path string) (*Floor, error) { return openFloor(path, diskFS{}) }

func openFloor(path string, fsys fileSystem) (*Floor, error) {
	f := &Floor{path: path, fs: fsys}
	f.current.Store(&Token{})
	raw, err := fsys.read(path)
	if errors.Is(err, fs.ErrNotExist) {
		f.missing = true
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read fencing file: %w", err)
	}
	token, err := parseToken(raw)
	if err != nil {
		return nil, &CorruptError{Path: path, Reason: err.Error()}
	}
	f.current.Store(&token)
	return f, nil
}

// Path returns the name of the file.
func (f *Floor) Path() string { return f.path }

// Missing reports that there is no file yet. Promise refuses until Create.
func (f *Floor) Missing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.missing
}

// Create writes the floor of a new node: epoch 0, promised to nobody. It does
// nothing when the file is there.
func (f *Floor) Create(now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.missing {
		return nil
	}
	if err := f.write(Token{TimestampUS: microseconds(now)}); err != nil {
		return err
	}
	f.missing = false
	return nil
}

// Current returns the promise that is on disk. It never waits for a write.
func (f *Floor) Current() Token { return *f.current.Load() }

// Promise makes epoch the floor, on behalf of node, and returns nil when that
// is durable. now is recorded for people to read.
//
// An epoch below the floor, or the floor's own on behalf of another node, is a
// *StaleEpochError; the floor's own on behalf of the same node is nil at once.
//
// An error while the new file is being written (a full disk, say) leaves the
// floor as it was, and a later call may succeed. An error of a sync or of the
// rename leaves it unknown what is on disk: from then on every call fails with
// ErrFloorFailed, and nothing is promised.
func (f *Floor) Promise(epoch protocol.Epoch, node protocol.NodeID, now time.Time) error {
	if epoch == 0 || node == protocol.NoNode {
		return fmt.Errorf("promise epoch %d to node %d: both count from 1", epoch, node)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	if f.missing {
		return ErrNoFloor
	}
	floor := *f.current.Load()
	if epoch < floor.Epoch || epoch == floor.Epoch && node != floor.NodeID { // I1, I2
		return &StaleEpochError{Epoch: epoch, Node: node, Floor: floor}
	}
	if epoch == floor.Epoch {
		return nil
	}
	return f.write(Token{Epoch: epoch, NodeID: node, TimestampUS: microseconds(now)})
}

// write replaces the file. The caller holds mu.
func (f *Floor) write(t Token) error {
	temp := f.path + ".tmp"
	if err := f.fs.writeTemp(temp, appendToken(nil, t)); err != nil {
		f.fs.remove(temp)
		return fmt.Errorf("write fencing file: %w", err)
	}
	for _, step := range []func() error{
		func() error { return f.fs.syncFile(temp) },
		func() error { return f.fs.rename(temp, f.path) },
		func() error { return f.fs.syncDir(f.path) },
	} {
		if err := step(); err != nil {
			f.failed = fmt.Errorf("%w (%w)", ErrFloorFailed, err)
			return f.failed
		}
	}
	f.current.Store(&t)
	return nil
}

func microseconds(now time.Time) uint64 { return uint64(max(0, now.UnixMicro())) }

// fileSystem is what a floor asks of a disk, one fallible step a method.
type fileSystem interface {
	read(path string) ([]byte, error) // at most MaxTokenBytes+1 bytes
	writeTemp(path string, data []byte) error
	syncFile(path string) error
	rename(from, to string) error
	syncDir(file string) error // the directory that holds file
	remove(path string)
}

type diskFS struct{}

func (diskFS) read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, MaxTokenBytes+1))
}
