package jsonlstore

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Cat yields the entries of the log in a state directory, in order. It takes no
// lock and changes nothing, so it may run beside a node; it ends where the log
// ended when it began, less what was being written.
//
// A place of damage is yielded as a nil entry with an error that wraps
// logstore.ErrCorrupt, and the entries that can be read behind it follow. Any
// other error is the last thing yielded. Entries belong to the caller.
func Cat(dir string, opts ...Option) iter.Seq2[*raft.Log, error] {
	return func(yield func(*raft.Log, error) bool) {
		if err := cat(dir, opts, yield); err != nil && err != errStopped { //nolint:errorlint // never wrapped
			yield(nil, err)
		}
	}
}

// errStopped ends the scan when the caller has seen enough.
var errStopped = errors.New("stopped")

func cat(dir string, opts []Option, yield func(*raft.Log, error) bool) error {
	o, err := collect(opts)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, LogFile)
	file, err := o.fs.Open(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer file.Close() // only read from
	size, err := file.Size()
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	state, err := loadState(o.fs, filepath.Join(dir, StateFile))
	deletedTo := uint64(0) // below it; a damaged state file is for Verify to name
	if err == nil && state.st != nil {
		deletedTo = state.st.first
	}
	give := func(l *raft.Log, err error) error {
		if !yield(l, err) {
			return errStopped
		}
		return nil
	}
	sc := scanner{
		r: file, size: size, file: path, maxLine: maxLineLen(o.maxEntry),
		damaged: func(e *logstore.CorruptionError) error { return give(nil, e) },
		visit: func(line rawLine, p *parsedLine) error {
			if p.index < deletedTo {
				return nil
			}
			l := new(raft.Log)
			if err := p.fill(l); err != nil {
				return give(nil, &logstore.CorruptionError{
					File: path, Line: line.number, Offset: line.offset, Index: p.index, Reason: err.Error(), Advice: logAdvice,
				})
			}
			return give(l, nil)
		},
	}
	_, err = sc.run()
	return err
}
