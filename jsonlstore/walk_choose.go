package jsonlstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/aiondb/aiondb-ha/logstore"
)

// begin opens the open part and lists the others, at a moment at which nobody was
// changing either.
func (w *logWalk) begin() ([]part, error) {
	for range walkAttempts {
		loaded, damage, err := w.loadState()
		if err != nil {
			return nil, err
		}
		w.loaded, w.stateDamage = loaded, damage
		parts, err := w.list()
		if err != nil {
			return nil, err
		}
		err = w.freezeOpen(parts)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errMoved) {
			return nil, err
		}
		again, listErr := w.list()
		after, _, stateErr := w.loadState()
		if err := errors.Join(listErr, stateErr); err != nil {
			return nil, err
		}
		if err == nil && slices.Equal(parts, again) && sameLog(loaded.st, after.st) {
			return parts, nil
		}
		if w.open.file != nil {
			if err := w.open.file.Close(); err != nil {
				return nil, err
			}
			w.open = frozenFile{}
		}
	}
	return nil, fmt.Errorf("%s: %w", w.dir, errMoved)
}

func sameLog(a, b *stableState) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.first == b.first && (a.cut == nil) == (b.cut == nil) && (a.cut == nil || *a.cut == *b.cut)
}

func (w *logWalk) loadState() (l loadedState, damage *logstore.CorruptionError, err error) {
	if l, err = loadState(w.o.fs, filepath.Join(w.dir, StateFile)); errors.As(err, &damage) {
		err = nil
	}
	return l, damage, err
}

func (w *logWalk) list() ([]part, error) {
	parts, err := listParts(w.o.fs, w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return parts, err
}

// freezeOpen opens the open part, if there is one, and looks where it ends.
func (w *logWalk) freezeOpen(parts []part) error {
	if n := len(parts); n == 0 || parts[n-1].sealed {
		return nil
	}
	path := parts[len(parts)-1].path
	file, err := w.o.fs.Open(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	if w.open, err = freeze(file); err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", path, err), file.Close())
	}
	w.base, w.front = 0, nil
	sc := scanner{
		r: w.open, size: w.open.size, file: path, maxLine: maxLineLen(w.o.maxEntry),
		damaged: func(e *logstore.CorruptionError) error { w.front = e; return errStopped },
		visit: func(_ rawLine, p *parsedLine) error {
			w.base = p.index
			return errStopped
		},
	}
	if _, err := sc.run(); err != nil && !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// choose leaves the parts that belong to the log.
func (w *logWalk) choose(parts []part) ([]part, error) {
	n := len(parts)
	open := !parts[n-1].sealed
	sealed := parts
	if open {
		sealed = parts[:n-1]
	}
	w.link, w.rival, w.reopen = "", "", ""
	if k := len(sealed); open && k > 0 && (w.front != nil || sealed[k-1].first == w.base) {
		// The open part under a second name, until a new one is in its place.
		same, err := w.secondName(sealed[k-1])
		switch {
		case err != nil:
			return nil, err
		case same:
			w.link = sealed[k-1].path
			sealed = sealed[:k-1]
		case w.base != 0:
			w.rival = sealed[k-1].path
		}
	}
	after, cutting := w.cut()
	if k := len(sealed); k > 0 && !cutting && w.base != 0 && sealed[k-1].first > w.base {
		w.rival = sealed[k-1].path
	}
	if cutting {
		if after == 0 {
			return nil, nil
		}
		sealed = slices.DeleteFunc(slices.Clone(sealed), func(p part) bool { return p.first > after })
		open = open && (w.base != 0 && w.base <= after || len(sealed) == 0)
	}
	// A part is of no use if the next begins at or before the first entry. But which of
	// two that begin alike is the log, nobody can tell.
	for len(sealed) > 0 && sealed[0].path != w.rival {
		next := w.base
		if len(sealed) > 1 {
			next = sealed[1].first
		}
		if next == 0 || next > w.first() {
			break
		}
		sealed = sealed[1:]
	}
	if open {
		return append(slices.Clip(sealed), parts[n-1]), nil
	}
	if k := len(sealed); cutting && k > 0 {
		w.reopen = sealed[k-1].path
	}
	return sealed, nil
}

// secondName tells whether all that a sealed part holds stands in the open one.
func (w *logWalk) secondName(p part) (bool, error) {
	file, err := w.o.fs.Open(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s: %w", p.path, errMoved)
	}
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", p.path, err)
	}
	defer file.Close() // only read from
	sealed, err := freeze(file)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", p.path, err)
	}
	a, b := make([]byte, readChunk), make([]byte, readChunk)
	if sealed.from == 0 || sealed.from > w.open.from {
		return false, nil
	}
	for at := int64(0); at < sealed.from; {
		n := min(readChunk, sealed.from-at)
		if _, err := sealed.ReadAt(a[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("reading %s: %w", p.path, err)
		}
		if _, err := w.open.ReadAt(b[:n], at); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("reading %s: %w", LogFile, err)
		}
		if string(a[:n]) != string(b[:n]) {
			return false, nil
		}
		at += n
	}
	return true, nil
}
