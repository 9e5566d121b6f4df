package jsonlstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

func (op *opening) listParts() error {
	s := op.s
	parts, err := listParts(s.fs, s.dir)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.sealed {
			op.sealed = append(op.sealed, p)
		} else {
			op.hasOpen = true
		}
	}
	return nil
}

// chooseOpenPart finds the part that ends with last, which an unfinished cut is to
// leave as the last entry, and makes it the open one. done tells that nothing is to
// be left.
func (op *opening) chooseOpenPart(last uint64) (done bool, err error) {
	if last == 0 {
		op.dropParts(op.sealed)
		op.sealed = nil
		return true, nil
	}
	base, err := op.firstOfOpenPart()
	if err != nil {
		return false, err
	}
	keep := 0
	for keep < len(op.sealed) && op.sealed[keep].first <= last && (base == 0 || base > last || op.sealed[keep].first < base) {
		keep++
	}
	op.dropParts(op.sealed[keep:])
	op.sealed = op.sealed[:keep]
	if base != 0 && base <= last {
		return false, nil // it has its name already
	}
	if keep == 0 {
		return false, op.missing(max(op.state.first, 1), last)
	}
	p := op.sealed[keep-1]
	file, err := op.s.fs.OpenReadWrite(p.path)
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", p.path, err)
	}
	if err := op.file.Close(); err != nil {
		return false, errors.Join(fmt.Errorf("closing %s: %w", op.openAt, err), file.Close())
	}
	op.file, op.openAt = file, p.path
	op.sealed = op.sealed[:keep-1]
	op.useless = append(op.useless, indexPath(op.s.dir, p.first))
	return false, nil
}

// dropParts has parts removed that belong to the log no more.
func (op *opening) dropParts(parts []part) {
	for _, p := range parts {
		op.useless = append(op.useless, indexPath(op.s.dir, p.first), p.path)
	}
}

// firstOfOpenPart reads no further than the first entry; 0: there is none.
func (op *opening) firstOfOpenPart() (first uint64, err error) {
	size, err := op.file.Size()
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", op.openAt, err)
	}
	sc := scanner{
		r: op.file, size: size, file: op.openAt, maxLine: maxLineLen(op.s.maxEntry),
		damaged: func(e *logstore.CorruptionError) error { return e },
		visit: func(_ rawLine, p *parsedLine) error {
			first = p.index
			return errStopped
		},
	}
	if _, err := sc.run(); err != nil && !errors.Is(err, errStopped) {
		return 0, err
	}
	return first, nil
}

// missing says that entries are not there.
func (op *opening) missing(from, to uint64) error {
	return &logstore.CorruptionError{
		File: partPath(op.s.dir, from), Index: from, Advice: logAdvice,
		Reason: fmt.Sprintf("the entries %d to %d are not there, and no file begins with %d", from, to, from),
	}
}

// readParts looks at the sealed parts: whether they are all there, and what their
// indexes say. It does not read them unless that is needed to know.
func (op *opening) readParts() error {
	log := &op.log
	if err := op.dropLink(); err != nil {
		return err
	}
	first := uint64(0)
	if op.state != nil {
		first = op.state.first
	}
	if log.count == 0 && len(op.sealed) > 0 {
		return op.emptyOpenPart()
	}
	if n := len(op.sealed); n > 0 && op.sealed[n-1].first > log.base {
		return &logstore.CorruptionError{
			File: op.sealed[n-1].path, Line: 1, Index: op.sealed[n-1].first, Advice: logAdvice,
			Reason: fmt.Sprintf("a sealed part that begins behind %s, which begins with index %d", LogFile, log.base),
		}
	}
	for i, p := range op.sealed {
		next := log.base
		if i+1 < len(op.sealed) {
			next = op.sealed[i+1].first
		}
		if next <= first {
			op.dropParts(op.sealed[i : i+1])
			continue
		}
		h, err := op.readPart(p, next)
		if err != nil {
			return err
		}
		op.maxTerm = max(op.maxTerm, h.maxTerm)
		log.parts = append(log.parts, &sealedPart{partHead: h, path: p.path})
	}
	if err := op.findUselessIndexes(); err != nil {
		return err
	}
	begins := log.base
	if len(log.parts) > 0 {
		begins = log.parts[0].first
	}
	switch {
	case first == 0:
		log.first = begins
	case first < begins:
		return op.missing(first, begins-1)
	case first > log.last():
		return &logstore.CorruptionError{
			File: op.openAt, Line: op.scan.lines + 1, Offset: log.end, Index: log.last() + 1, Advice: logAdvice,
			Reason: fmt.Sprintf("the log ends with index %d, but %s says that it begins with %d", log.last(), StateFile, first),
		}
	default:
		log.first = first
	}
	return nil
}

// emptyOpenPart says that the open part, which was never without an entry behind
// sealed ones, is.
func (op *opening) emptyOpenPart() error {
	e := &logstore.CorruptionError{
		File: op.openAt, Line: 1, Advice: logAdvice,
		Reason: fmt.Sprintf("it holds no entry, but behind a sealed part, %s, it always did", op.sealed[len(op.sealed)-1].path),
	}
	if op.torn != nil {
		e.Line, e.Offset = op.torn.Line, op.torn.Offset
		e.Reason += ": " + op.torn.Reason
	}
	return e
}

// dropLink removes the second name of the open part, which it has until a new one is
// in its place.
func (op *opening) dropLink() error {
	n := len(op.sealed)
	if n == 0 || op.log.count == 0 || op.sealed[n-1].first != op.log.base {
		return nil
	}
	p := op.sealed[n-1]
	same, err := op.beginsLikeOpenPart(p)
	if err != nil {
		return fmt.Errorf("reading %s: %w", p.path, err)
	}
	if !same {
		return &logstore.CorruptionError{
			File: p.path, Line: 1, Index: p.first, Advice: logAdvice,
			Reason: fmt.Sprintf("it begins with the same index as %s, and does not hold the same", LogFile),
		}
	}
	op.dropParts(op.sealed[n-1:])
	op.sealed = op.sealed[:n-1]
	return nil
}

// beginsLikeOpenPart tells whether all that a part holds stands in the open part, too.
func (op *opening) beginsLikeOpenPart(p part) (bool, error) {
	file, err := op.s.fs.Open(p.path)
	if err != nil {
		return false, err
	}
	defer file.Close() // only read from
	sealed, err := freeze(file)
	if err != nil || sealed.from == 0 {
		return sealed.size == 0, err
	}
	a, b := make([]byte, readChunk), make([]byte, readChunk)
	for at := int64(0); at < sealed.from; at += readChunk {
		n, err := file.ReadAt(a[:min(readChunk, sealed.from-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		m, err := op.file.ReadAt(b[:n], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
	}
	return true, nil
}

// readPart returns the head of a sealed part that ends before the index next. It
// comes from the index file if that is right, and otherwise from the part.
func (op *opening) readPart(p part, next uint64) (partHead, error) {
	s := op.s
	h, err := loadHead(s.fs, s.dir, p.first)
	if err == nil && h.last()+1 == next {
		fits, err := op.fits(p, h)
		if err != nil || fits {
			return h, err
		}
	}
	if err != nil && !errors.Is(err, errBadIndex) && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	s.logger.Warn("reading a sealed part of the log, for its index is not what it should be", "part", p.path, "error", err)
	x, err := scanPart(s.fs, p, maxLineLen(s.maxEntry))
	if err != nil {
		return h, err
	}
	if x.last()+1 < next {
		return h, op.missing(x.last()+1, next-1)
	}
	if x.last()+1 > next {
		from, _ := x.span(next)
		return h, &logstore.CorruptionError{
			File: p.path, Line: op.lineIn(p, from), Offset: from, Index: next, Advice: logAdvice,
			Reason: fmt.Sprintf("another file begins with index %d, too", next),
		}
	}
	op.rebuilt = append(op.rebuilt, x)
	if size, err := op.sizeOf(p); err != nil {
		return h, err
	} else if size > x.bytes {
		op.roomy = append(op.roomy, &sealedPart{partHead: x.partHead, path: p.path})
	}
	return x.partHead, nil
}

func (op *opening) lineIn(p part, offset int64) int {
	file, err := op.s.fs.Open(p.path)
	if err != nil {
		return 0
	}
	defer file.Close() // only read from
	return lineAt(file, offset)
}

func (op *opening) sizeOf(p part) (int64, error) {
	info, err := op.s.fs.Stat(p.path)
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", p.path, err)
	}
	return info.SizeBytes, nil
}

// fits tells whether a part is as long as its index says. Room behind that is what a
// crash leaves that came before it was cut off.
func (op *opening) fits(p part, h partHead) (bool, error) {
	size, err := op.sizeOf(p)
	if err != nil || size <= h.bytes {
		return size == h.bytes, err
	}
	file, err := op.s.fs.Open(p.path)
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", p.path, err)
	}
	defer file.Close() // only read from
	blank, err := isBlank(file, h.bytes, size)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", p.path, err)
	}
	if blank {
		op.roomy = append(op.roomy, &sealedPart{partHead: h, path: p.path})
	}
	return blank, nil
}

// isBlank tells whether the bytes [from, to) are room.
func isBlank(r io.ReaderAt, from, to int64) (bool, error) {
	buf := make([]byte, min(readChunk, to-from))
	for from < to {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			return false, err
		}
		if !isRoom(buf[:n]) {
			return false, nil
		}
		from += int64(n)
	}
	return true, nil
}

// findUselessIndexes has index files removed that have no part.
func (op *opening) findUselessIndexes() error {
	firsts, err := listIndexes(op.s.fs, op.s.dir)
	if err != nil {
		return err
	}
	used := make(map[uint64]bool, len(op.log.parts))
	for _, p := range op.log.parts {
		used[p.first] = true
	}
	for _, first := range firsts {
		if !used[first] {
			op.useless = append(op.useless, indexPath(op.s.dir, first))
		}
	}
	return nil
}

// tidyParts does what sealed parts are better off with. Only a disk that fails to sync
// is an error.
func (op *opening) tidyParts() error {
	s := op.s
	for _, x := range op.rebuilt {
		if synced, err := writeIndex(s.fs, s.dir, x); synced && err != nil {
			return err
		} else if err != nil {
			s.logger.Warn("writing the index of a sealed part of the log", "path", indexPath(s.dir, x.first), "error", err)
		}
	}
	for _, p := range op.roomy {
		if err := truncateFile(s.fs, p.path, p.bytes); err != nil {
			s.logger.Warn("cutting the room off a sealed part of the log", "part", p.path, "error", err)
		}
	}
	return nil
}

func truncateFile(fsys vfs.FS, path string, size int64) error {
	file, err := fsys.OpenReadWrite(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}
