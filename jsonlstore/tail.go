package jsonlstore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// TailPollInterval is how often a Tail that follows looks at the file, unless
// its options bring their own ticks. A look at a log that did not change reads
// its last line and one sector.
const TailPollInterval = 250 * time.Millisecond

// TailOptions says what Tail shows. The zero value shows nothing but damage.
type TailOptions struct {
	Last   int  // begin with that many of the last entries
	Follow bool // then go on with what happens, until the context ends
	// Ticks has a following Tail look again with every value; nil: every
	// TailPollInterval.
	Ticks <-chan time.Time
}

// TailKind says what a TailEvent is about.
type TailKind uint8

// The kinds of events.
const (
	TailEntry    TailKind = iota // Entry is the next entry
	TailDamage                   // Damage stands where the next entry should
	TailCut                      // entries First to Last, shown or passed over before, were cut off the end
	TailFrontCut                 // the log begins with index First now, later than before
)

// TailEvent is one thing that Tail tells.
type TailEvent struct {
	Kind        TailKind
	Entry       *raft.Log // belongs to the caller
	Damage      *logstore.CorruptionError
	First, Last uint64
}

// ErrTailGone is wrapped by the last error of a Tail whose directory vanished.
var ErrTailGone = errors.New("the state directory is gone: there is nothing more to follow")

// Tail yields the last entries of the log in a state directory and, if it is to
// follow, then what a running node does to it. It takes no lock and changes
// nothing. It sees what is in the file, which may be a little more than what the
// node has acknowledged; what is taken back is told as a TailCut.
//
// It ends when the context ends, without an error, or with one as the last
// thing it yields: it wraps ErrTailGone if the directory vanished. A
// directory without a log is waited for when following.
func Tail(ctx context.Context, dir string, t TailOptions, opts ...Option) iter.Seq2[TailEvent, error] {
	return func(yield func(TailEvent, error) bool) {
		o, err := collect(opts)
		if err == nil {
			err = newFollower(o, dir, t, func(e TailEvent) error {
				if ctx.Err() != nil || !yield(e, nil) {
					return errStopped
				}
				return nil
			}).run(ctx, t)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(TailEvent{}, err)
		}
	}
}

// tailMarks bounds how many entries a follower remembers: so far back it finds
// out how much of the tail was cut without reading the whole log again.
const tailMarks = 1024

// tailRound and tailRoundBytes bound how much is read before it is told.
const (
	tailRound      = 256
	tailRoundBytes = 4 << 20
)

// tailAttempts is how often a part that a writer is changing is read again
// before the next tick.
const tailAttempts = 3

// tailPending bounds how much of what is no entry is compared with what stood
// there at the last look, in bytes.
const tailPending = 1 << 20

// follower knows how far it has read, and sees at each look what became of it.
//
// What it has read is still there as long as the line of the last entry is: a
// writer that cuts the tail and writes anew puts another line there, and one
// that cuts the front moves it.
type follower struct {
	o     options
	dir   string
	path  string // of the part that is read
	show  int
	waits bool // for a log that is not there
	tell  func(TailEvent) error

	placed bool                                // the start was found
	first  uint64                              // of the log; 0: it is empty
	last   uint64                              // index of the last entry passed; 0: none
	end    int64                               // where to read on in that part
	sealed bool                                // it is sealed: nothing in it is being written
	fresh  bool                                // it is the open part, and the last entry passed ends the part before it
	resync bool                                // behind damage: any higher index may follow
	marks  []mark                              // of entries up to last, the newest at the end
	damage map[int64]*logstore.CorruptionError // places of damage from end on, by offset

	size  int64 // of the file at the last look
	stuck stuck // what stands at end and is no entry
}

func newFollower(o options, dir string, t TailOptions, tell func(TailEvent) error) *follower {
	return &follower{o: o, dir: dir, path: filepath.Join(dir, LogFile), show: max(t.Last, 0), waits: t.Follow, tell: tell}
}

// stuck describes bytes that are no entry: a write in progress, what is left of
// one, or damage.
type stuck struct {
	size    int64
	sum     uint32
	scanned bool // the whole log was looked at, and this is no damage
}

func (f *follower) run(ctx context.Context, t TailOptions) error {
	if err := f.look(); err != nil || !t.Follow {
		return err
	}
	ticks := t.Ticks
	if ticks == nil {
		ticker := time.NewTicker(TailPollInterval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-ticks:
			if !open {
				return nil
			}
		}
		if err := f.look(); err != nil {
			return err
		}
	}
}

// look tells what has happened since the last look.
func (f *follower) look() error {
	for range tailAttempts {
		moved, err := f.lookOnce()
		if errors.Is(err, errMoved) && f.waits {
			return nil // the next tick will see
		}
		if err != nil || !moved {
			return err
		}
	}
	return nil // the next tick will see
}

// lookOnce looks at the file that has the name raft_log.jsonl now: a cut, or sealing,
// gives it to another.
func (f *follower) lookOnce() (moved bool, err error) {
	path := filepath.Join(f.dir, LogFile)
	file, err := f.o.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := f.o.fs.Stat(f.dir); f.placed && errors.Is(statErr, fs.ErrNotExist) {
			return false, fmt.Errorf("%s: %w", f.dir, ErrTailGone)
		} else if statErr == nil && f.waits {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", path, err)
	}
	defer file.Close() // only read from
	return f.lookAt(file)
}

// lookAt looks at the open log; moved tells that it changed meanwhile.
func (f *follower) lookAt(file vfs.File) (moved bool, err error) {
	if !f.placed {
		if err := f.place(); err != nil {
			return false, err
		}
	}
	if err := f.seeFront(); err != nil {
		return false, err
	}
	if err := f.catchUp(file); err != nil {
		return false, err
	}
	size, err := file.Size()
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", f.path, err)
	}
	grown := size != f.size
	f.size = size
	if n := len(f.marks); n > 0 && !f.fresh && !stands(file, f.marks[n-1]) {
		if err := f.goBack(file); err != nil {
			return false, err
		}
		if f.path != filepath.Join(f.dir, LogFile) || len(f.marks) == 0 {
			return true, nil // it goes on in a sealed part, or with the first
		}
	} else if n == 0 && size < f.end {
		f.end, f.damage, f.stuck = 0, nil, stuck{}
	} else if quiet, err := f.quiet(file, grown); err != nil || quiet {
		return false, err
	}
	if size < f.end {
		return true, nil // cut since
	}
	return f.readOn(file)
}

// seeFront tells if the state file says that the log begins later than before, among
// the entries that were passed.
func (f *follower) seeFront() error {
	l, err := loadState(f.o.fs, filepath.Join(f.dir, StateFile))
	if err != nil || l.st == nil || f.first == 0 || l.st.first <= f.first || l.st.first > f.last {
		return nil //nolint:nilerr // it is being written, or Verify will name what is wrong with it
	}
	f.first = l.st.first
	return f.tell(TailEvent{Kind: TailFrontCut, First: f.first})
}

// quiet tells whether nothing new stands behind what was read.
func (f *follower) quiet(file vfs.File, grown bool) (bool, error) {
	if f.stuck != (stuck{}) {
		now, err := f.pending(file)
		return err == nil && f.stuck.scanned && now == f.stuck, err
	}
	if grown {
		return false, nil
	}
	var probe [vfs.SectorSize]byte
	n, err := file.ReadAt(probe[:], f.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading %s: %w", f.path, err)
	}
	return len(trimTail(probe[:n])) == 0, nil
}

// pending describes what stands behind what was read.
func (f *follower) pending(file vfs.File) (stuck, error) {
	now := stuck{size: f.size, scanned: f.stuck.scanned}
	buf := make([]byte, max(0, min(tailPending, f.size-f.end)))
	n, err := file.ReadAt(buf, f.end)
	if err != nil && !errors.Is(err, io.EOF) {
		return now, fmt.Errorf("reading %s: %w", f.path, err)
	}
	now.sum = crc32.Checksum(buf[:n], castagnoli)
	return now, nil
}
