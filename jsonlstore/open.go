package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// Open opens the state directory dir, which it makes if it is not there, for
// this process alone. What a crash left unfinished is cut off; everything that
// was acknowledged is there.
//
// It fails with an error that wraps logstore.ErrInUse if another store holds
// the directory, logstore.ErrCorrupt if something that may have been
// acknowledged is damaged, or what the file system said. When it fails, it has
// changed nothing.
func Open(dir string, opts ...Option) (*Store, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, errors.New("opening the log store: the state directory has no name")
	}
	op := opening{s: &Store{
		dir: filepath.Clean(dir), fs: o.fs, logger: o.logger, maxEntry: o.maxEntry, room: o.room, metrics: newMetricKeys(),
	}}
	op.s.flight.epoch = time.Now()
	op.s.partBytes, op.s.sealAt = o.partBytes, o.partBytes
	op.s.shelf = &partShelf{fs: o.fs, dir: op.s.dir, logger: o.logger, maxLine: maxLineLen(o.maxEntry), limit: o.loadedParts}
	if err := op.run(); err != nil {
		if undoErr := op.undo(); undoErr != nil {
			err = fmt.Errorf("%w (and what was begun could not be taken back: %w)", err, undoErr)
		}
		return nil, err
	}
	return op.s, nil
}

// opening is an Open in progress. Everything up to recover only reads, but for
// names that undo takes away again.
type opening struct {
	s       *Store
	made    []string // directories and files, in the order they were made
	lock    vfs.Lock
	file    vfs.File // the log
	newFile bool

	loaded   loadedState
	state    *stableState
	newState bool // there was no state file
	log      snapshot
	scan     scanner
	torn     *TornTail
	maxTerm  uint64 // of all entries

	sealed  []part // that are there
	hasOpen bool   // so is the open part
	openAt  string // path of what is, or becomes, the open part

	useless []string      // names of what belongs to the log no more, to be removed
	rebuilt []*partIndex  // index files to be written
	roomy   []*sealedPart // with room behind their last entry, to be cut off
}

func (op *opening) run() error {
	for _, step := range []func() error{
		op.makeDir, op.takeLock, op.readState, op.listParts, op.openLog, op.readLog, op.readParts, op.compare, op.recover, op.finishState,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	s := op.s
	s.lock = op.lock
	s.maxTerm = op.maxTerm
	s.snap.Store(&op.log)
	s.staged.Store(op.log.commit)
	if err := s.trimOpenPart(); err != nil {
		return op.unwritable(err)
	}
	return nil
}

// undo takes back what a failing Open made.
func (op *opening) undo() error {
	var errs []error
	if op.file != nil {
		errs = append(errs, op.file.Close())
	}
	op.s.closeStateFiles()
	if op.newState {
		errs = append(errs, removeIfThere(op.s.fs, op.s.statePath()))
	}
	if op.newFile {
		errs = append(errs, removeIfThere(op.s.fs, op.s.logPath()))
	}
	if op.lock != nil {
		errs = append(errs, op.lock.Undo())
	}
	for i := len(op.made) - 1; i >= 0; i-- {
		errs = append(errs, removeIfThere(op.s.fs, op.made[i]))
	}
	return errors.Join(errs...)
}

// makeDir makes the directory and those above it, each durable in its parent.
func (op *opening) makeDir() error {
	s := op.s
	var missing []string
	for at := s.dir; ; at = filepath.Dir(at) {
		info, err := s.fs.Stat(at)
		if err == nil {
			if !info.Mode.IsDir() {
				return fmt.Errorf("state directory %s: %s is not a directory", s.dir, at)
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return fmt.Errorf("state directory %s: %w", s.dir, err)
		}
		missing = append(missing, at)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		name := missing[i]
		if err := s.fs.Mkdir(name, dirPerm); err != nil {
			return op.unwritable(err)
		}
		op.made = append(op.made, name)
		if err := s.fs.SyncDir(filepath.Dir(name)); err != nil {
			return op.unwritable(err)
		}
	}
	return nil
}

// unwritable says what to do about a directory that cannot be written.
func (op *opening) unwritable(err error) error {
	return fmt.Errorf("state directory %s cannot be written: %w: give this user the right to write there, or choose another directory", op.s.dir, err)
}

func (op *opening) takeLock() error {
	s := op.s
	lock, err := s.fs.Lock(filepath.Join(s.dir, LockFile), fmt.Sprintf("pid %d", os.Getpid()))
	var locked *vfs.LockedError
	switch {
	case errors.As(err, &locked):
		return &logstore.InUseError{Dir: s.dir, Holder: locked.Holder}
	case err != nil:
		return op.unwritable(err)
	}
	op.lock = lock
	return nil
}

func (op *opening) readState() (err error) {
	op.loaded, err = loadState(op.s.fs, op.s.statePath())
	op.state = op.loaded.st
	return err
}

// openLog opens the open part, or makes it if there is no log.
func (op *opening) openLog() error {
	s := op.s
	op.openAt = s.logPath()
	if !op.hasOpen && len(op.sealed) > 0 {
		return &logstore.CorruptionError{
			File: s.logPath(), Reason: fmt.Sprintf("it is not there, but older parts of the log are, such as %s", op.sealed[0].path), Advice: logAdvice,
		}
	}
	file, err := s.fs.OpenReadWrite(s.logPath())
	if errors.Is(err, fs.ErrNotExist) {
		file, err = s.fs.Create(s.logPath(), filePerm)
		op.newFile = err == nil
	}
	if err != nil {
		return op.unwritable(err)
	}
	op.file = file
	return nil
}

// readLog builds the open part's index, and fails at the first damage. What a cut
// has deleted that is not finished is not looked at.
func (op *opening) readLog() error {
	if op.cutting() {
		if done, err := op.chooseOpenPart(*op.state.cut); err != nil || done {
			op.log.file = op.file
			return err
		}
	}
	if err := op.scanOpenPart(); err != nil {
		return err
	}
	if op.cutting() {
		last := *op.state.cut
		if op.log.last() < last {
			return op.missing(op.log.last()+1, last)
		}
		op.dropBehind(last)
		op.torn = nil
		op.s.size = op.log.end
	}
	return nil
}

func (op *opening) cutting() bool { return op.state != nil && op.state.cut != nil }

func (op *opening) scanOpenPart() error {
	s := op.s
	size, err := op.file.Size()
	if err != nil {
		return fmt.Errorf("reading %s: %w", op.openAt, err)
	}
	op.log.file = op.file
	op.scan = scanner{
		r: op.file, size: size, file: op.openAt, maxLine: maxLineLen(s.maxEntry),
		visit:   op.addLine,
		damaged: func(e *logstore.CorruptionError) error { return e },
	}
	op.torn, err = op.scan.run()
	if err != nil {
		return err
	}
	if op.log.last() > op.scan.last {
		op.dropBehind(op.scan.last) // lines of a torn batch that were good by themselves
	}
	op.log.end = op.scan.end
	s.size = op.log.end
	if op.torn == nil && !op.scan.unended && op.log.end+op.scan.room == size {
		s.size = size
	}
	return nil
}

// dropBehind drops the entries of the open part that come behind last.
func (op *opening) dropBehind(last uint64) {
	if op.log.last() <= last {
		return
	}
	keep := 0
	if op.log.count > 0 && last >= op.log.base {
		keep = int(last - op.log.base + 1)
	}
	op.log.cutOpen(keep)
	for n := len(op.s.marks); n > 0 && op.s.marks[n-1].index > last; n-- {
		op.s.marks = op.s.marks[:n-1]
	}
}

func (op *opening) addLine(line rawLine, p *parsedLine) error {
	op.log.add(p.index, line.offset, line.end)
	op.maxTerm = max(op.maxTerm, p.term)
	if p.commit > 0 {
		op.s.marks = append(op.s.marks, commitMark{index: p.index, commit: min(p.commit, p.index)})
	}
	return nil
}
