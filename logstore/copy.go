package logstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/hashicorp/raft"
)

// DefaultCopyBatchBytes is how much payload Copy stores at a time unless told
// otherwise: enough that a sync to disk per batch does not count.
const DefaultCopyBatchBytes = 1 << 20

// maxCopyBatchEntries bounds a batch of empty entries.
const maxCopyBatchEntries = 1 << 14

// Sentinels of Copy and Compare.
var (
	// ErrHole is wrapped by *HoleError.
	ErrHole = errors.New("the source has a hole")

	// ErrDiffers is wrapped by *DifferenceError.
	ErrDiffers = errors.New("the stores differ")
)

// HoleError says that an entry is missing in the middle of a source; stores
// without a contiguity check let that happen. It wraps ErrHole.
type HoleError struct {
	Missing uint64 // the index that is missing
	Next    uint64 // the next one that is there; 0: unknown
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("%v: entry %d is missing. What lies before it is of no use to Raft; if the newest snapshot reaches to it or further, copy from a later index on", ErrHole, e.Missing)
}

// Unwrap returns ErrHole.
func (e *HoleError) Unwrap() error { return ErrHole }

// DifferenceError says where a copy is not what its source is. It wraps
// ErrDiffers.
type DifferenceError struct {
	Index  uint64 // the entry; 0: not an entry
	Key    []byte // the stable key; nil: not a value
	Reason string
}

func (e *DifferenceError) Error() string {
	switch {
	case e.Index > 0:
		return fmt.Sprintf("%v: log entry %d: %s", ErrDiffers, e.Index, e.Reason)
	case e.Key != nil:
		return fmt.Sprintf("%v: stable value %q: %s", ErrDiffers, e.Key, e.Reason)
	}
	return fmt.Sprintf("%v: %s", ErrDiffers, e.Reason)
}

// Unwrap returns ErrDiffers.
func (e *DifferenceError) Unwrap() error { return ErrDiffers }

// CopyOptions change how Copy and Compare work. The zero value is a good one.
type CopyOptions struct {
	// From leaves out the entries before it; 0: none.
	From uint64

	// BatchBytes of payload are stored at a time; 0: DefaultCopyBatchBytes.
	BatchBytes int

	// Progress, if not nil, is called after every batch, by the caller's
	// goroutine.
	Progress func(CopyProgress)
}

// CopyProgress tells how far a copy or a comparison is.
type CopyProgress struct {
	Done, Total uint64 // entries
	Bytes       int64  // payload and extensions of those done in this call
}

// CopyReport tells what was copied, or compared.
type CopyReport struct {
	First, Last uint64 // the entries in the copy; 0, 0: none
	Resumed     uint64 // entries that an earlier, interrupted copy had left there
	Bytes       int64  // payload and extensions copied by this call
	Keys        int    // stable values
}

// Copy puts every entry and every stable value of src into dst, which is empty
// or holds what an earlier Copy of the same source left when it was
// interrupted: then it goes on from there. A dst that holds anything else is
// refused with an error wrapping ErrDiffers.
//
// The values go in last, CurrentTerm before the vote, so that a dst with a
// term has all entries; but a copy is complete only when Copy has returned nil.
// Compare proves it. Neither store may be in use by Raft. A source with a hole
// is refused with a *HoleError.
//
// The commit index is not copied: no store but ours keeps one, and Raft learns it
// anew.
func Copy(ctx context.Context, dst Store, src Source, o CopyOptions) (CopyReport, error) {
	p, err := prepare(src, o)
	if err != nil {
		return CopyReport{}, err
	}
	report := CopyReport{First: p.first, Last: p.last}
	next, err := resume(dst, src, p)
	if err != nil {
		return report, err
	}
	if p.last > 0 {
		report.Resumed = next - p.first
	}
	p.done = report.Resumed
	store := func(batch []*raft.Log) error {
		if err := dst.StoreLogs(batch); err != nil {
			return fmt.Errorf("storing entries %d to %d: %w", batch[0].Index, batch[len(batch)-1].Index, err)
		}
		return nil
	}
	if err := p.batches(ctx, src, next, store); err != nil {
		return report, err
	}
	report.Bytes = p.bytes
	report.Keys, err = copyValues(dst, src)
	return report, err
}

// Compare checks that dst holds exactly what src holds, from o.From on: every
// entry, field by field, and every stable value. It returns a *DifferenceError
// for the first difference. An empty candidate and none are the same.
func Compare(ctx context.Context, dst, src Source, o CopyOptions) (CopyReport, error) {
	p, err := prepare(src, o)
	if err != nil {
		return CopyReport{}, err
	}
	report := CopyReport{First: p.first, Last: p.last}
	first, last, err := boundsOf(dst)
	if err != nil {
		return report, err
	}
	if first != p.first || last != p.last {
		return report, &DifferenceError{Reason: fmt.Sprintf("one holds entries %s, the other %s", span(p.first, p.last), span(first, last))}
	}
	copied, stop := iter.Pull2(each(dst, first, last))
	defer stop()
	check := func(batch []*raft.Log) error {
		for _, want := range batch {
			got, err, ok := copied()
			switch {
			case err != nil:
				return fmt.Errorf("the copy: %w", err)
			case !ok:
				return &DifferenceError{Index: want.Index, Reason: "it is missing in the copy"}
			}
			if reason := difference(want, got); reason != "" {
				return &DifferenceError{Index: want.Index, Reason: reason}
			}
		}
		return nil
	}
	if err := p.batches(ctx, src, p.first, check); err != nil {
		return report, err
	}
	report.Bytes = p.bytes
	report.Keys, err = compareValues(dst, src)
	return report, err
}

// passage is one walk over the entries of a source.
type passage struct {
	first, last uint64 // 0, 0: none
	batchBytes  int
	progress    func(CopyProgress)
	done        uint64
	bytes       int64
}

func prepare(src Source, o CopyOptions) (*passage, error) {
	first, last, err := boundsOf(src)
	if err != nil {
		return nil, fmt.Errorf("reading the source: %w", err)
	}
	if o.From > 0 && o.From > last+1 {
		return nil, fmt.Errorf("the source ends with entry %d: copying from %d on would leave a hole", last, o.From)
	}
	if last > 0 && o.From > first {
		first = o.From
		if first > last {
			first, last = 0, 0
		}
	}
	p := &passage{first: first, last: last, batchBytes: o.BatchBytes, progress: o.Progress}
	if p.batchBytes <= 0 {
		p.batchBytes = DefaultCopyBatchBytes
	}
	if p.progress == nil {
		p.progress = func(CopyProgress) {}
	}
	return p, nil
}

func boundsOf(s Source) (first, last uint64, err error) {
	if first, err = s.FirstIndex(); err != nil {
		return 0, 0, err
	}
	last, err = s.LastIndex()
	return first, last, err
}

func span(first, last uint64) string {
	if last == 0 {
		return "none"
	}
	return fmt.Sprintf("%d to %d", first, last)
}

// eacher is a source that walks faster than by single reads.
type eacher interface {
	Each(index uint64, yield func(*raft.Log) bool) error
}

// batches calls do with the entries from index next on.
func (p *passage) batches(ctx context.Context, src Source, next uint64, do func([]*raft.Log) error) error {
	var batch []*raft.Log
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := do(batch); err != nil {
			return err
		}
		p.done += uint64(len(batch))
		p.bytes += int64(size)
		batch, size = batch[:0], 0
		p.progress(CopyProgress{Done: p.done, Total: p.last - p.first + 1, Bytes: p.bytes})
		return ctx.Err()
	}
	add := func(l *raft.Log) error {
		if l.Index != next {
			return &HoleError{Missing: next, Next: l.Index}
		}
		next++
		batch = append(batch, l)
		size += len(l.Data) + len(l.Extensions)
		if size >= p.batchBytes || len(batch) == maxCopyBatchEntries {
			return flush()
		}
		return nil
	}
	if p.last == 0 || next > p.last {
		return ctx.Err()
	}
	for l, err := range each(src, next, p.last) {
		if err == nil {
			err = add(l)
		}
		if err != nil {
			return err
		}
	}
	if next <= p.last {
		return &HoleError{Missing: next}
	}
	return flush()
}

// each yields the entries of src from first to last, in order. A missing one is
// a *HoleError, or an index that does not follow. An error is the last thing
// yielded.
func each(src Source, first, last uint64) iter.Seq2[*raft.Log, error] {
	return func(yield func(*raft.Log, error) bool) {
		if s, ok := src.(eacher); ok {
			enough := false
			err := s.Each(first, func(l *raft.Log) bool {
				enough = l.Index > last || !yield(l, nil)
				return !enough
			})
			if err != nil && !enough {
				yield(nil, fmt.Errorf("reading the entries: %w", err))
			}
			return
		}
		for i := first; i <= last; i++ {
			l := new(raft.Log)
			switch err := src.GetLog(i, l); {
			case errors.Is(err, raft.ErrLogNotFound):
				yield(nil, &HoleError{Missing: i})
				return
			case err != nil:
				yield(nil, fmt.Errorf("reading entry %d: %w", i, err))
				return
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// resume returns the index from which on dst lacks what src has.
func resume(dst Store, src Source, p *passage) (uint64, error) {
	first, err := dst.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := dst.LastIndex()
	if err != nil || last == 0 {
		return p.first, err
	}
	if first != p.first || last > p.last {
		return 0, &DifferenceError{Reason: fmt.Sprintf("the target holds entries %s already, which are not the front of the source's %s: give an empty target",
			span(first, last), span(p.first, p.last))}
	}
	// The ends of what is there; Compare looks at everything.
	for _, i := range []uint64{first, last} {
		var want, got raft.Log
		if err := errors.Join(src.GetLog(i, &want), dst.GetLog(i, &got)); err != nil {
			return 0, err
		}
		if reason := difference(&want, &got); reason != "" {
			return 0, &DifferenceError{Index: i, Reason: reason + ": the target holds something else already, give an empty one"}
		}
	}
	return last + 1, nil
}

// difference tells the first field in which two entries differ; "": in none.
func difference(want, got *raft.Log) string {
	switch {
	case want.Index != got.Index:
		return fmt.Sprintf("index %d became %d", want.Index, got.Index)
	case want.Term != got.Term:
		return fmt.Sprintf("term %d became %d", want.Term, got.Term)
	case want.Type != got.Type:
		return fmt.Sprintf("type %v became %v", want.Type, got.Type)
	case !bytes.Equal(want.Data, got.Data):
		return fmt.Sprintf("its %d bytes of data became %d other ones", len(want.Data), len(got.Data))
	case !bytes.Equal(want.Extensions, got.Extensions):
		return fmt.Sprintf("its %d bytes of extensions became %d other ones", len(want.Extensions), len(got.Extensions))
	case !want.AppendedAt.Equal(got.AppendedAt):
		return fmt.Sprintf("time %v became %v", want.AppendedAt, got.AppendedAt)
	}
	return ""
}

// stableValues reads all stable values but an empty candidate, in the order in
// which they are to be written.
func stableValues(s Source) (keys []string, values map[string][]byte, err error) {
	list, err := s.Keys()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the stable values: %w", err)
	}
	values = make(map[string][]byte, len(list))
	for _, k := range list {
		v, err := s.Get(k)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the stable value %q: %w", k, err)
		}
		if string(k) == KeyLastVoteCand && len(v) == 0 {
			continue
		}
		values[string(k)] = v
		keys = append(keys, string(k))
	}
	// Writing LastVoteTerm removes the candidate, which therefore comes last;
	// the term comes before both.
	rank := func(key string) int {
		return slices.Index([]string{KeyCurrentTerm, KeyLastVoteTerm, KeyLastVoteCand}, key)
	}
	slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	return keys, values, nil
}

func copyValues(dst Store, src Source) (int, error) {
	keys, values, err := stableValues(src)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		if err := dst.Set([]byte(k), values[k]); err != nil {
			return 0, fmt.Errorf("storing the stable value %q: %w", k, err)
		}
	}
	return len(keys), nil
}

func compareValues(dst, src Source) (int, error) {
	_, got, err := stableValues(dst)
	if err != nil {
		return 0, err
	}
	keys, want, err := stableValues(src)
	if err != nil {
		return 0, err
	}
	for _, k := range keys {
		v, ok := got[k]
		if !ok {
			return 0, &DifferenceError{Key: []byte(k), Reason: "it is missing in the copy"}
		}
		if !bytes.Equal(v, want[k]) {
			return 0, &DifferenceError{Key: []byte(k), Reason: fmt.Sprintf("its %d bytes became %d other ones", len(want[k]), len(v))}
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			return 0, &DifferenceError{Key: []byte(k), Reason: "it is not in the source"}
		}
	}
	return len(keys), nil
}
