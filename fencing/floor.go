package fencing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

	writing chan struct{} // one token: one write at a time; never waited for by Current
	missing bool
	unsure  bool // what was read when the file was opened may not have reached the disk
	failed  error
	disk    Disk
}

// OpenFloor reads the fencing file. It changes nothing on disk.
//
// A missing file is no error: Missing reports it, and the caller decides
// whether this is a new node (Create) or an old one that lost its file. A file
// that cannot be understood is a *CorruptError, never an epoch of zero (I2).
func OpenFloor(path string) (*Floor, error) { return OpenFloorOn(path, osDisk{}) }

// OpenFloorOn is OpenFloor on a disk that is not the operating system's.
func OpenFloorOn(path string, disk Disk) (*Floor, error) {
	f := &Floor{path: path, disk: disk, writing: make(chan struct{}, 1)}
	f.current.Store(&Token{})
	raw, err := disk.Read(path, MaxTokenBytes+1)
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
	f.unsure = true
	return f, nil
}

// lock waits for the token, which the function it returns gives back.
func (f *Floor) lock() (unlock func()) {
	f.writing <- struct{}{}
	return func() { <-f.writing }
}

// Path returns the name of the file.
func (f *Floor) Path() string { return f.path }

// Missing reports that there is no file yet. Promise refuses until Create.
func (f *Floor) Missing() bool {
	defer f.lock()()
	return f.missing
}

// Create writes the floor of a new node: epoch 0, promised to nobody. It does
// nothing when the file is there.
func (f *Floor) Create(now time.Time) error {
	defer f.lock()()
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
// *StaleEpochError; the floor's own on behalf of the same node changes nothing,
// and is synced once more if it was there already when the file was opened.
//
// An error while the new file is being written (a full disk, say) leaves the
// floor as it was, and a later call may succeed. An error of a sync or of the
// rename leaves it unknown what is on disk: from then on every call fails with
// ErrFloorFailed, and nothing is promised.
func (f *Floor) Promise(epoch protocol.Epoch, node protocol.NodeID, now time.Time) error {
	if epoch == 0 || node == protocol.NoNode {
		return fmt.Errorf("promise epoch %d to node %d: both count from 1", epoch, node)
	}
	defer f.lock()()
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
		return f.settle()
	}
	return f.write(Token{Epoch: epoch, NodeID: node, TimestampUS: microseconds(now)})
}

// write replaces the file. The caller has the token.
func (f *Floor) write(t Token) error {
	temp := f.path + ".tmp"
	if err := f.disk.WriteTemp(temp, appendToken(nil, t)); err != nil {
		f.disk.Remove(temp)
		return fmt.Errorf("write fencing file: %w", err)
	}
	for _, step := range []func() error{
		func() error { return f.disk.SyncFile(temp) },
		func() error { return f.disk.Rename(temp, f.path) },
		func() error { return f.disk.SyncDir(f.path) },
	} {
		if err := step(); err != nil {
			return f.fail(err)
		}
	}
	f.unsure = false
	f.current.Store(&t)
	return nil
}

// settle makes durable what was found when the file was opened: a process that
// died between the rename and the sync leaves a file that the next power cut
// may take back. The caller has the token.
func (f *Floor) settle() error {
	if !f.unsure {
		return nil
	}
	if err := f.disk.SyncFile(f.path); err != nil {
		return f.fail(err)
	}
	if err := f.disk.SyncDir(f.path); err != nil {
		return f.fail(err)
	}
	f.unsure = false
	return nil
}

func (f *Floor) fail(err error) error {
	f.failed = fmt.Errorf("%w (%w)", ErrFloorFailed, err)
	return f.failed
}

func microseconds(now time.Time) uint64 { return uint64(max(0, now.UnixMicro())) }

// Disk is what a floor asks of a disk, one fallible step a method. A path that
// does not exist is an error that wraps fs.ErrNotExist. The order of the steps,
// and what an error of each means, is the Floor's business.
type Disk interface {
	Read(path string, limit int) ([]byte, error) // at most limit bytes
	WriteTemp(path string, data []byte) error    // makes or replaces a file; not durable
	SyncFile(path string) error                  // makes the file's bytes durable
	Rename(from, to string) error                // replaces to at once; not durable
	SyncDir(file string) error                   // makes the names in the directory that holds file durable
	Remove(path string)                          // as far as it can
}

// osDisk is the operating system's.
type osDisk struct{}

func (osDisk) Read(path string, limit int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, int64(limit)))
}
