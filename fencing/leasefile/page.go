package leasefile

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The page, in words of 8 bytes: see the package comment.
const (
	pageBytes = 4096
	pageWords = pageBytes / 8

	wordMagic      = 0
	wordVersion    = 1
	wordBoot       = 2 // and 3
	wordNamespace  = 4
	wordHead       = 5
	wordSequence   = 8
	wordGeneration = 9
	wordEpoch      = 10
	wordDeadline   = 11
	wordBody       = 12

	version = 1
)

// pageTries bounds how often a Check begins again because the page was being
// written. A writer takes some ten nanoseconds; if it died there, it stays so.
const pageTries = 1000

var (
	// ErrNotLeaseFile says that a file holds something else than a lease, of this
	// version.
	ErrNotLeaseFile = errors.New("not a lease file")
	// ErrForeign says that the lease is that of another boot of the machine, or of
	// another time namespace: its deadline says nothing here. It wraps
	// fencing.ErrNotPrimary.
	ErrForeign = fmt.Errorf("%w: the lease is of another boot of this machine, or another time namespace", fencing.ErrNotPrimary)
	// ErrUnwritten says that the writer died while it wrote. The next start of the
	// node mends it. It wraps fencing.ErrNotPrimary.
	ErrUnwritten = fmt.Errorf("%w: the lease file was left half written", fencing.ErrNotPrimary)
	// ErrDamaged says that somebody else has written to the file. It wraps
	// fencing.ErrNotPrimary and ErrNotLeaseFile.
	ErrDamaged = fmt.Errorf("%w: %w", fencing.ErrNotPrimary, ErrNotLeaseFile)
	// ErrInUse says that another writer has the file.
	ErrInUse = errors.New("lease file in use by another node")
)

// words is a mapped page.
type words [pageWords]uint64

func (w *words) load(i int) uint64     { return atomic.LoadUint64(&w[i]) }
func (w *words) store(i int, v uint64) { atomic.StoreUint64(&w[i], v) }

// blank reports whether nothing has been written to the page but perhaps the
// beginning of the first sequence.
func (w *words) blank() bool {
	for i := range w {
		if i != wordSequence && w.load(i) != 0 {
			return false
		}
	}
	return true
}

// host is what a deadline holds good for.
type host struct {
	boot      [2]uint64
	namespace uint64
}

// head is the words before wordSequence.
func (h host) head(magic uint64) [wordHead + 1]uint64 {
	head := [wordHead + 1]uint64{magic, version, h.boot[0], h.boot[1], h.namespace}
	for _, word := range head[:wordHead] {
		head[wordHead] ^= word
	}
	return head
}

// lease is the words from wordGeneration to wordDeadline.
type lease struct {
	generation uint64
	epoch      protocol.Epoch
	deadline   time.Duration
}

func (l lease) sum(magic, sequence uint64) uint64 {
	return magic ^ sequence ^ l.generation ^ uint64(l.epoch) ^ uint64(l.deadline) //nolint:gosec // bits
}

// read returns what the page holds, and by which sequence number.
func (w *words) read(own host, magic uint64) (l lease, sequence uint64, err error) {
	for range pageTries {
		if sequence = w.load(wordSequence); sequence%2 != 0 {
			continue
		}
		var head [wordHead + 1]uint64
		for i := range head {
			head[i] = w.load(i)
		}
		l = lease{w.load(wordGeneration), protocol.Epoch(w.load(wordEpoch)), time.Duration(w.load(wordDeadline))} //nolint:gosec // bits
		body := w.load(wordBody)
		if w.load(wordSequence) != sequence {
			continue
		}
		if head != own.head(magic) {
			return lease{}, 0, explain(head, magic)
		}
		if body != l.sum(magic, sequence) {
			return lease{}, 0, ErrDamaged
		}
		return l, sequence, nil
	}
	return lease{}, 0, ErrUnwritten
}

// explain says what is wrong with a head that is not the reader's own.
func explain(head [wordHead + 1]uint64, magic uint64) error {
	theirs := host{[2]uint64{head[wordBoot], head[wordBoot+1]}, head[wordNamespace]}
	if head == theirs.head(magic) {
		return ErrForeign
	}
	return ErrDamaged
}

// Page is a lease that another process keeps. It is safe for concurrent use.
// What it maps is given back when nobody refers to it any more.
type Page struct {
	words  *words
	magic  uint64
	own    host
	clocks *fencing.Clocks
	seen   atomic.Uint64 // sequence when the clocks were read together
}

// Open maps the lease file of the node on this machine. It fails if there is
// none yet (fs.ErrNotExist) or if it is something else (ErrNotLeaseFile). One
// that is left from before a reboot can be opened: Check refuses until the node
// has started.
func Open(path string) (*Page, error) {
	p := &Page{clocks: fencing.NewClocks(clock.Boot, clock.Quick)}
	var err error
	if p.own, p.magic, err = thisHost(); err != nil {
		return nil, fmt.Errorf("open lease file %s: %w", path, err)
	}
	var unmap func() error
	if p.words, unmap, err = mapForReading(path); err != nil {
		return nil, fmt.Errorf("open lease file %s: %w", path, err)
	}
	_, _, err = p.words.read(p.own, p.magic)
	if errors.Is(err, ErrNotLeaseFile) || p.words.load(wordMagic) != p.magic || p.words.load(wordVersion) != version {
		return nil, errors.Join(fmt.Errorf("open lease file %s: %w", path, ErrNotLeaseFile), unmap())
	}
	runtime.AddCleanup(p, func(unmap func() error) { _ = unmap() }, unmap)
	return p, nil
}

// Check returns nil if the node of this machine is primary of epoch at this
// moment, and an error that is or wraps fencing.ErrNotPrimary, or
// fencing.ErrLeaseExpired itself, if it is not: see fencing.Guard.
func (p *Page) Check(epoch protocol.Epoch) error {
	_, err := p.CheckUntil(epoch)
	return err
}

// CheckUntil is Check, and returns until when its nil holds, on Now's clock.
// See fencing.ValidFor.
func (p *Page) CheckUntil(epoch protocol.Epoch) (time.Duration, error) {
	l, sequence, err := p.read()
	switch {
	case err != nil:
		return 0, err
	case l.epoch != epoch || epoch == 0:
		return 0, fencing.ErrNotPrimary
	}
	if p.seen.Load() != sequence {
		p.clocks.Renewed()
		p.seen.Store(sequence)
	}
	if !p.clocks.Before(l.deadline) {
		return 0, fencing.ErrLeaseExpired
	}
	return l.deadline, nil
}

// Epoch returns the epoch the page speaks of, and whether there is one; its
// lease may be over. It is for showing: a database checks the epoch that it was
// promoted in.
func (p *Page) Epoch() (protocol.Epoch, bool) {
	l, _, err := p.read()
	return l.epoch, err == nil && l.epoch != 0
}

// Now reads the clock of the deadlines.
func (p *Page) Now() time.Duration { return p.clocks.Now() }

func (p *Page) read() (lease, uint64, error) {
	defer runtime.KeepAlive(p) // or the page might be unmapped meanwhile
	return p.words.read(p.own, p.magic)
}
