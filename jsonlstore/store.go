package jsonlstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// The files of a state directory.
const (
	LogFile   = "raft_log.jsonl"
	StateFile = "raft_state.json"
	LockFile  = "raft.lock"

	tempSuffix = ".tmp" // of a file that is to replace another
)

// Permissions of what the store makes.
const (
	dirPerm  = 0o700
	filePerm = 0o600
)

// DefaultMaxEntryBytes bounds Data and Extensions of one entry together,
// unless WithMaxEntrySize says otherwise.
const DefaultMaxEntryBytes = 64 << 20

// keepBufferBytes bounds the write buffer that is kept from one batch for the
// next.
const keepBufferBytes = 1 << 20

// Store is a log on disk. See logstore.Store for what its methods promise.
// It is safe for concurrent use; writers wait for each other, readers for
// nobody. Open makes one, Close gives its directory up.
type Store struct {
	dir      string
	fs       vfs.FS
	logger   hclog.Logger
	maxEntry int // bytes
	room     int // bytes written ahead as blanks
	metrics  metricKeys
	shelf    *partShelf // sealed parts, for readers

	partBytes int64 // how long the open part gets

	snap   atomic.Pointer[snapshot]    // the log, for readers
	stable atomic.Pointer[stableState] // the stable values, for readers
	staged atomic.Uint64               // by StageCommitIndex
	flight inFlight
	closed atomic.Bool

	freeing sync.WaitGroup // files without a name are being closed
	held    atomic.Int64   // how many

	mu         sync.Mutex // held by whoever writes
	lock       vfs.Lock
	size       int64         // length of the open part; what is behind the last entry is blank
	marks      []commitMark  // where commit indexes stand in the open part, in order
	maxTerm    uint64        // of the entries in it, or more
	sealAt     int64         // seal it when it is that long
	cut        *pendingCut   // has yet to be finished; nil: nothing
	stale      []*sealedPart // have yet to be removed
	buf        []byte        // of the last batch, to be used again
	stateFiles stateFiles
	failed     error // latched; wraps logstore.ErrFailed
	closeOnce  sync.Once
	closeErr   error
}

var _ logstore.Store = (*Store)(nil)

// commitMark says that the line of an entry carries a commit index.
type commitMark struct{ index, commit uint64 }

// Option changes how a store works; see the With functions.
type Option func(*options)

type options struct {
	logger   hclog.Logger
	maxEntry int
	fs       vfs.FS
	room     int

	partBytes   int64
	loadedParts int
}

// WithLogger has the store report what a person should know, such as a torn
// write that was cut off. The default is silence.
func WithLogger(l hclog.Logger) Option { return func(o *options) { o.logger = l } }

// WithMaxEntrySize bounds Data and Extensions of one entry together, in bytes;
// larger ones are refused with an error that wraps logstore.ErrTooLarge. 0 is
// DefaultMaxEntryBytes. A log must be opened with a bound no smaller than that
// it was written with.
func WithMaxEntrySize(bytes int) Option { return func(o *options) { o.maxEntry = bytes } }

func collect(opts []Option) (options, error) {
	o := options{logger: hclog.NewNullLogger(), maxEntry: DefaultMaxEntryBytes, fs: vfs.OS{}, room: roomBytes, partBytes: partBytes, loadedParts: maxLoadedParts}
	for _, opt := range opts {
		opt(&o)
	}
	if o.logger == nil {
		o.logger = hclog.NewNullLogger()
	}
	if o.maxEntry == 0 {
		o.maxEntry = DefaultMaxEntryBytes
	}
	if o.maxEntry < 0 || o.maxEntry > maxMaxEntry {
		return o, fmt.Errorf("maximum entry size %d: want 1 to %d bytes", o.maxEntry, maxMaxEntry)
	}
	return o, nil
}

// maxMaxEntry keeps the length of a line well within an int of 32 bits.
const maxMaxEntry = 1 << 30

func (s *Store) logPath() string   { return filepath.Join(s.dir, LogFile) }
func (s *Store) statePath() string { return filepath.Join(s.dir, StateFile) }
func (s *Store) twinPath() string  { return s.statePath() + tempSuffix }

// Close gives the directory up, after a write in progress has ended. It may be
// called again and gives the same answer.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed.Store(true)
		s.endState()
		s.closeStateFiles()
		s.shelf.close()
		s.freeing.Wait()
		if err := errors.Join(s.snap.Load().file.Close(), s.lock.Unlock()); err != nil {
			s.closeErr = fmt.Errorf("closing the log store in %s: %w", s.dir, err)
		}
	})
	return s.closeErr
}

// beginWrite locks the store for writing and tells whether it may be written
// to. endWrite must follow unless it fails.
func (s *Store) beginWrite() error {
	s.mu.Lock()
	err := s.failed
	if s.closed.Load() {
		err = logstore.ErrClosed
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.flight.begin()
	return nil
}

func (s *Store) endWrite() {
	s.flight.end()
	s.mu.Unlock()
}

// latch stops all writing: nobody knows any more what is on disk. Making the
// sync again would report success for pages that the kernel has given up.
func (s *Store) latch(cause error) error {
	s.failed = &logstore.FailedError{Cause: cause}
	s.logger.Error("log store stops writing", "dir", s.dir, "error", cause)
	return s.failed
}

// WriteInFlight implements logstore.Store.
func (s *Store) WriteInFlight() time.Time { return s.flight.since() }

// inFlight remembers when the write in progress began, as nanoseconds since
// epoch plus one; 0: none is in progress.
type inFlight struct {
	epoch time.Time // with a monotonic clock reading; set when the store is opened
	start atomic.Int64
}

func (f *inFlight) begin() { f.start.Store(int64(time.Since(f.epoch)) + 1) }

func (f *inFlight) end() { f.start.Store(0) }

func (f *inFlight) since() time.Time {
	if n := f.start.Load(); n != 0 {
		return f.epoch.Add(time.Duration(n - 1))
	}
	return time.Time{}
}
