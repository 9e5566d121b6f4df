package fsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// ErrHalted is wrapped by every error of an FSM that stopped applying.
var ErrHalted = errors.New("state machine has halted")

// HaltedError says which entry an FSM could not apply. errors.Is finds
// ErrHalted and what Err wraps (command.ErrUnknown if the entry may be of a
// newer version).
type HaltedError struct {
	Index, Term uint64
	Err         error
}

// Error names the entry and what to do.
func (e *HaltedError) Error() string {
	advice := "its data is damaged or not a command of this program: check with log verify"
	if errors.Is(e.Err, command.ErrUnknown) {
		advice = "a newer version wrote it: upgrade this node"
	}
	return fmt.Sprintf("%s at entry %d of term %d: %s: %v", ErrHalted, e.Index, e.Term, advice, e.Err)
}

// Unwrap returns ErrHalted and the reason.
func (e *HaltedError) Unwrap() []error { return []error{ErrHalted, e.Err} }

// FSM makes a State out of Raft's log. It implements raft.FSM, and is safe for
// concurrent use beside Raft.
//
// An entry that cannot be decoded halts it for good: what a node does not
// understand it must not skip, or its state would differ from the others'. A
// halted FSM keeps the state it had, applies nothing, takes no snapshot (which
// would let Raft drop the entry) and restores none. The way out is a restart
// with a version, or a log, that can be read.
type FSM struct {
	logger  hclog.Logger
	waiters waiters

	mu      sync.RWMutex
	state   *State
	halted  *HaltedError
	onApply []func(Change)
}

// New returns an FSM without any state. A nil logger discards.
func New(logger hclog.Logger) *FSM {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &FSM{logger: logger, state: NewState()}
}

// OnApply registers f to be told of every entry applied and every snapshot
// restored, in order. It is called by the goroutine that applies, outside of
// any lock, before the next entry: it must not block. f may call Read. Register
// before Raft starts.
func (f *FSM) OnApply(fn func(Change)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onApply = append(f.onApply, fn)
}

// Read calls fn with the state as it is, all of one moment. The State is fn's
// own for as long as it likes, at no cost: it does not change any more, and no
// lock is held while fn runs.
func (f *FSM) Read(fn func(*State)) { fn(f.view()) }

func (f *FSM) view() *State {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.Clone()
}

// Wait returns nil once the command at index, or a later one, is applied. Raft
// gives an FSM commands only: for an index of another kind of entry it may wait
// in vain until the next command comes; see CommandIndex. It returns the cause of
// ctx's end, or a *HaltedError if the index will never be applied.
func (f *FSM) Wait(ctx context.Context, index uint64) error { return f.waiters.wait(ctx, index) }

// Halted returns nil, or the *HaltedError for which the FSM stopped for good.
func (f *FSM) Halted() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.halted == nil {
		return nil
	}
	return f.halted
}

// CommandIndex returns the index of the last command at or below commit: what
// Wait must be given, on any node, to have everything up to commit applied. log
// is this node's and holds the entries up to commit, except those that a
// snapshot covers. They are read backwards from commit to a command or to what
// is applied already; as a rule that is one entry. Errors are the log's, wrapped.
func (f *FSM) CommandIndex(log raft.LogStore, commit uint64) (uint64, error) {
	for i := commit; i > f.applied(); i-- {
		var entry raft.Log
		err := log.GetLog(i, &entry)
		if err == nil {
			if entry.Type == raft.LogCommand {
				return i, nil
			}
			continue
		}
		// Cut off behind a snapshot, an entry was applied before that: not
		// yet when the loop looked, but now.
		if first, ferr := log.FirstIndex(); errors.Is(err, raft.ErrLogNotFound) && ferr == nil && (first == 0 || i < first) {
			break
		}
		return 0, fmt.Errorf("find the last command up to entry %d: entry %d: %w", commit, i, err)
	}
	return min(f.applied(), commit), nil
}

func (f *FSM) applied() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.index
}

// Apply implements raft.FSM. The response is a Result or, from the first entry
// on that cannot be decoded, an error wrapping ErrHalted.
func (f *FSM) Apply(entry *raft.Log) any {
	if err := f.Halted(); err != nil {
		return err
	}
	c, err := command.Decode(entry.Data)
	if err != nil {
		return f.halt(entry, err)
	}
	f.mu.Lock()
	result := f.state.Apply(entry.Index, entry.Term, c)
	applied, _ := f.state.Applied()
	told := f.onApply
	f.mu.Unlock()

	if result.Refused != "" {
		f.logger.Debug("command refused", "index", entry.Index, "command", c.Name(), "reason", result.Refused)
	}
	f.waiters.advance(applied)
	for _, fn := range told {
		fn(Change{Index: entry.Index, Term: entry.Term, Command: c, Result: result})
	}
	return result
}

func (f *FSM) halt(entry *raft.Log, reason error) error {
	err := &HaltedError{Index: entry.Index, Term: entry.Term, Err: reason}
	f.mu.Lock()
	f.halted = err
	f.mu.Unlock()
	f.logger.Error("state machine halted, this node applies nothing any more", "error", err)
	f.waiters.fail(err)
	return err
}

// Snapshot implements raft.FSM. It only copies the state's roots: Apply waits
// for no more than that, and what it changes afterwards does not show in the
// snapshot. A halted FSM refuses.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.Halted(); err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	return &snapshot{state: f.view()}, nil
}

// snapshot is a state on its way to disk.
type snapshot struct{ state *State }

// Persist streams the state to sink and closes it; after an error it cancels.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.WriteSnapshot(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot. There is nothing to give back.
func (s *snapshot) Release() {}

// Restore implements raft.FSM. The state is replaced as a whole, after the
// snapshot was read and found good to its last byte; on an error nothing has
// changed. It closes from. A halted FSM refuses.
func (f *FSM) Restore(from io.ReadCloser) error {
	defer from.Close() // read only: there is nothing an error could lose
	if err := f.Halted(); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	state, err := ReadSnapshot(from)
	if err != nil {
		return err
	}
	index, term := state.Applied()
	f.mu.Lock()
	f.state = state
	told := f.onApply
	f.mu.Unlock()

	f.logger.Info("restored from snapshot", "index", index, "term", term)
	f.waiters.advance(index)
	for _, fn := range told {
		fn(Change{Index: index, Term: term, Command: command.Noop{}, Result: Result{Index: index, Changed: true}, Restored: true})
	}
	return nil
}
