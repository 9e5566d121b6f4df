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

// cat walks through the log as often as a writer at work makes that necessary, and
// goes on behind what was yielded before.
func cat(dir string, opts []Option, yield func(*raft.Log, error) bool) error {
	o, err := collect(opts)
	if err != nil {
		return err
	}
	c := catalog{o: o, dir: dir, yield: yield}
	for range walkAttempts {
		if err = c.walk(); !errors.Is(err, errMoved) {
			return err
		}
	}
	return err
}

// catalog is a Cat in progress.
type catalog struct {
	o     options
	dir   string
	yield func(*raft.Log, error) bool

	last uint64          // index of the last entry yielded
	told map[string]bool // damage that was yielded
	real map[string]bool // damage that a walk after the first sight of some found, too
}

func (c *catalog) give(l *raft.Log, err error) error {
	if !c.yield(l, err) {
		return errStopped
	}
	return nil
}

func (c *catalog) walk() error {
	w := logWalk{o: c.o, dir: c.dir, damaged: c.damaged, visit: func(path string, line rawLine, p *parsedLine) error {
		if p.index <= c.last {
			return nil
		}
		l := new(raft.Log)
		if err := p.fill(l); err != nil {
			return c.damaged(badPayload(path, line, p, err))
		}
		c.last = p.index
		return c.give(l, nil)
	}}
	if err := w.run(); err != nil || !w.missing {
		return err
	}
	path := filepath.Join(c.dir, LogFile)
	file, err := c.o.fs.Open(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	return file.Close()
}

// damaged yields a place of damage if it is there on a second look: what moves is a
// writer at work.
func (c *catalog) damaged(e *logstore.CorruptionError) error {
	what := e.Error()
	if c.told[what] {
		return nil
	}
	if !c.real[what] {
		c.real = make(map[string]bool)
		again := logWalk{
			o: c.o, dir: c.dir,
			damaged: func(e *logstore.CorruptionError) error { c.real[e.Error()] = true; return nil },
			visit: func(path string, line rawLine, p *parsedLine) error {
				if err := p.fill(new(raft.Log)); err != nil {
					c.real[badPayload(path, line, p, err).Error()] = true
				}
				return nil
			},
		}
		if err := again.run(); err != nil {
			return err
		}
		if !c.real[what] {
			return fmt.Errorf("%s: %w", c.dir, errMoved)
		}
	}
	if c.told == nil {
		c.told = make(map[string]bool)
	}
	if len(c.told) < MaxDamageListed {
		c.told[what] = true
	}
	return c.give(nil, e)
}
