package kinds

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/aiondb/aiondb-ha/logstore"
)

// PartialSuffix ends the name of a target until it is complete and compared with
// its source. One that is there belongs to a migration that was interrupted.
const PartialSuffix = ".partial"

// ErrTargetExists is wrapped when there is something at the target's path: a
// migration adds nothing to a log and replaces none.
var ErrTargetExists = errors.New("the target exists")

// Phase is a part of a migration.
type Phase string

// The phases, in their order.
const (
	Copying   Phase = "copying"
	Comparing Phase = "comparing"
)

// MigrateOptions change how Migrate works. The zero value is a good one.
type MigrateOptions struct {
	// From leaves out the entries before it; see logstore.CopyOptions.
	From uint64

	// BatchBytes of payload are copied at a time; 0: a good number.
	BatchBytes int

	// Progress, if not nil, is called now and then by the caller's goroutine.
	Progress func(Phase, logstore.CopyProgress)
}

// Migrate copies the log and the stable values at from to a new store at to,
// closes it, opens it for reading, and compares every entry and every value with the
// source. Only then does the target get its name: until then it is called
// to.Path + PartialSuffix, so that there is never a half-made target. Interrupted
// at any moment, the same migration goes on where it was, or starts anew if what
// it finds is of no use.
//
// The source is not changed, and kept from being opened for writing meanwhile.
// Errors wrap logstore.ErrInUse for a source in use, logstore.ErrCorrupt for a
// damaged one, logstore.ErrHole, ErrTargetExists.
func Migrate(ctx context.Context, from, to logstore.Location, o MigrateOptions) (report logstore.CopyReport, err error) {
	if from.Kind.OpenSource == nil || to.Kind.OpenSource == nil {
		return report, fmt.Errorf("a store of the kind memory cannot be migrated, as nothing of it is on disk")
	}
	src, err := from.Kind.OpenSource(from.Path)
	if err != nil {
		return report, fmt.Errorf("opening the source %s: %w", from, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := checkTarget(to.Path); err != nil {
		return report, err
	}
	m := migration{ctx: ctx, src: src, to: to, partial: filepath.Clean(to.Path) + PartialSuffix, o: o}
	_, statErr := os.Lstat(m.partial)
	leftover := statErr == nil
	for {
		report, err = m.run()
		useless := errors.Is(err, logstore.ErrDiffers) || errors.Is(err, logstore.ErrCorrupt) || errors.Is(err, logstore.ErrHole) || errors.Is(err, errUseless)
		if useless {
			err = errors.Join(err, m.discard())
		}
		if !useless || !leftover {
			return report, err
		}
		leftover = false // whatever it was, it was not what we need: once more
	}
}

// run makes the target, or completes it.
func (m *migration) run() (logstore.CopyReport, error) {
	report, err := m.copy()
	if err == nil {
		err = m.compare()
	}
	if err == nil {
		err = m.finish()
	}
	return report, err
}

// checkTarget refuses a path that leads to anything but an empty directory.
func checkTarget(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err == nil:
		return fmt.Errorf("%w: the directory %s is not empty; choose another path, or move it away", ErrTargetExists, path)
	}
	if _, statErr := os.Stat(path); statErr == nil {
		return fmt.Errorf("%w: %s; choose another path, or move it away", ErrTargetExists, path)
	}
	return err
}

type migration struct {
	ctx     context.Context
	src     logstore.Source
	to      logstore.Location
	partial string
	o       MigrateOptions
}

// errUseless says that a partial target cannot even be opened.
var errUseless = errors.New("what an interrupted migration left cannot be opened")

func (m *migration) options(p Phase) logstore.CopyOptions {
	o := logstore.CopyOptions{From: m.o.From, BatchBytes: m.o.BatchBytes}
	if m.o.Progress != nil {
		o.Progress = func(c logstore.CopyProgress) { m.o.Progress(p, c) }
	}
	return o
}

func (m *migration) copy() (report logstore.CopyReport, err error) {
	open := m.to.Kind.Open
	if m.to.Kind.OpenFast != nil {
		open = m.to.Kind.OpenFast
	}
	_, statErr := os.Stat(m.partial)
	dst, err := open(m.partial)
	if err != nil {
		if statErr == nil && !errors.Is(err, logstore.ErrInUse) {
			err = errors.Join(errUseless, err)
		}
		return report, fmt.Errorf("opening %s: %w", m.partial, err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return logstore.Copy(m.ctx, dst, m.src, m.options(Copying))
}

// compare reads what is on disk now.
func (m *migration) compare() (err error) {
	copied, err := m.to.Kind.OpenSource(m.partial)
	if err != nil {
		return fmt.Errorf("opening %s to compare it: %w", m.partial, err)
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	_, err = logstore.Compare(m.ctx, copied, m.src, m.options(Comparing))
	return err
}

// discard removes a partial target, if it looks like one.
func (m *migration) discard() error {
	if _, err := os.Lstat(m.partial); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if info, err := os.Lstat(m.partial); err != nil || (!info.Mode().IsRegular() && !m.to.Kind.Looks(m.partial)) {
		return fmt.Errorf("%s is in the way: it is not what an interrupted migration leaves; move it away", m.partial)
	}
	return os.RemoveAll(m.partial)
}

func (m *migration) finish() error {
	// Rename replaces an empty directory where the system allows it.
	if err := os.Remove(m.to.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(m.partial, m.to.Path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(m.to.Path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
