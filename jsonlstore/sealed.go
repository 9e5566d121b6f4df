package jsonlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// sealedPart is a sealed part of a log that is open. Its head never changes.
type sealedPart struct {
	partHead
	path string

	loaded atomic.Pointer[loadedPart] // nil: nobody has read from it lately
	used   atomic.Int64               // when it was last read, by the clock of its shelf
	gone   bool                       // it belongs to the log no more; under the shelf's lock
	looked bool                       // it was read from end to end for the sake of a bad line; likewise
	lies   bool                       // and its index file was what was wrong; likewise
}

// loadedPart is what reading from a part needs.
type loadedPart struct {
	*partIndex
	file vfs.File
}

// maxLoadedParts bounds how many sealed parts keep their file open and their index
// in memory.
const maxLoadedParts = 32

// partShelf loads parts when they are read, and lets those go that were not read
// for the longest time. A reader who still has one of these finds its file closed
// and asks again.
type partShelf struct {
	fs      vfs.FS
	dir     string
	logger  hclog.Logger
	maxLine int
	limit   int

	clock  atomic.Int64 // counts what was loaded
	mu     sync.Mutex   // never held while anything is synced
	loaded []*sealedPart
	closed bool
}

// get returns a part ready to be read from. The error wraps fs.ErrClosed if the
// part does not belong to the log any more.
func (sh *partShelf) get(p *sealedPart) (*loadedPart, error) {
	if now := sh.clock.Load(); p.used.Load() != now {
		p.used.Store(now)
	}
	if l := p.loaded.Load(); l != nil {
		return l, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p.gone || sh.closed {
		return nil, fs.ErrClosed
	}
	if l := p.loaded.Load(); l != nil {
		return l, nil
	}
	x, err := sh.index(p)
	if err != nil {
		return nil, err
	}
	file, err := sh.fs.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", p.path, err)
	}
	l := &loadedPart{x, file}
	sh.shelve(p, l)
	return l, nil
}

// index reads the part's index file or, if that is not what it should be, the part.
func (sh *partShelf) index(p *sealedPart) (*partIndex, error) {
	if p.lies {
		return sh.scan(p)
	}
	x, err := loadIndex(sh.fs, sh.dir, p.first)
	if err == nil && (x.count != p.count || x.bytes != p.bytes) {
		err = fmt.Errorf("%w: it is another than before", errBadIndex)
	}
	if err == nil || !errors.Is(err, errBadIndex) && !errors.Is(err, fs.ErrNotExist) {
		return x, err
	}
	sh.logger.Warn("reading a sealed part of the log for want of its index", "part", p.path, "error", err)
	return sh.scan(p)
}

// scan makes the index of a part that was good when the store was opened.
func (sh *partShelf) scan(p *sealedPart) (*partIndex, error) {
	x, err := scanPart(sh.fs, part{path: p.path, first: p.first, sealed: true}, sh.maxLine)
	if err == nil && x.count != p.count {
		err = &logstore.CorruptionError{
			File: p.path, Offset: x.bytes, Index: x.last() + 1, Advice: logAdvice,
			Reason: fmt.Sprintf("it ends with index %d, and ended with index %d before", x.last(), p.last()),
		}
	}
	return x, err
}

// shelve puts a loaded part on the shelf. The caller holds the lock.
func (sh *partShelf) shelve(p *sealedPart, l *loadedPart) {
	p.used.Store(sh.clock.Add(1))
	p.loaded.Store(l)
	sh.loaded = append(sh.loaded, p)
	if len(sh.loaded) <= sh.limit {
		return
	}
	oldest := slices.MinFunc(sh.loaded, func(a, b *sealedPart) int { return int(a.used.Load() - b.used.Load()) })
	sh.unload(oldest)
}

// unload closes a part's file. The caller holds the lock.
func (sh *partShelf) unload(p *sealedPart) {
	l := p.loaded.Swap(nil)
	if l == nil {
		return
	}
	sh.loaded = slices.DeleteFunc(sh.loaded, func(other *sealedPart) bool { return other == p })
	if err := l.file.Close(); err != nil {
		sh.logger.Warn("closing a sealed part of the log", "part", p.path, "error", err)
	}
}

// put has a part, which was just sealed, be read from the file it is open as.
func (sh *partShelf) put(p *sealedPart, l *loadedPart) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.shelve(p, l)
}

// drop takes a part away that belongs to the log no more.
func (sh *partShelf) drop(p *sealedPart) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p.gone = true
	sh.unload(p)
}

// lookAgain is asked by a reader to whom l shows no entry where one should be: is it
// the index that is wrong? It says so once for each part, and then has the right
// one loaded.
func (sh *partShelf) lookAgain(p *sealedPart, l *loadedPart) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p.looked || p.gone || sh.closed {
		return p.loaded.Load() != l // somebody else found out meanwhile
	}
	p.looked = true
	x, err := sh.scan(p)
	if err != nil || p.loaded.Load() != l || slices.Equal(x.starts.short, l.starts.short) && slices.Equal(x.starts.long, l.starts.long) {
		return false
	}
	sh.logger.Warn("the index of a sealed part of the log does not fit it", "part", p.path)
	p.lies = true
	p.loaded.Store(&loadedPart{x, l.file})
	return true
}

// close closes all files. Nothing is loaded any more.
func (sh *partShelf) close() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.closed = true
	for _, p := range slices.Clone(sh.loaded) {
		sh.unload(p)
	}
}
