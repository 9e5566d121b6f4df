package protocol

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrBadHistory is wrapped by every error about a timeline history or a
// lineage that contradicts itself or lacks what is asked of it.
var ErrBadHistory = errors.New("timeline history does not fit")

// find returns the fork that began epoch e.
func (h History) find(e Epoch) (Fork, bool) {
	i, ok := slices.BinarySearchFunc(h, e, func(f Fork, e Epoch) int { return cmp.Compare(f.Epoch, e) })
	if !ok {
		return Fork{}, false
	}
	return h[i], true
}

// Lineage returns what a log on timeline e is made of: it follows Parent from
// e back to a timeline whose beginning is not in the history (0, or what the
// database had written before) and turns every fork on the way into a segment.
// A timeline that nothing was written on has no segment. The last segment is
// e's own and ends at MaxLSN.
//
// An error wraps ErrBadHistory: e is not in the history, a fork's parent is
// not older than the fork, or a fork lies before the one its parent grew from.
// The history must be ascending by Epoch.
func (h History) Lineage(e Epoch) (Lineage, error) {
	l := Lineage{{Epoch: e, End: MaxLSN}}
	fork, ok := h.find(e)
	if !ok {
		return nil, fmt.Errorf("%w: no promotion of epoch %d in it", ErrBadHistory, e)
	}
	// Every step goes to a lower epoch, so the loop ends within len(h) steps.
	for ok {
		if fork.Parent >= fork.Epoch {
			return nil, fmt.Errorf("%w: timeline %d has the parent %d, which is not older", ErrBadHistory, fork.Epoch, fork.Parent)
		}
		end := fork.LSN
		next, known := h.find(fork.Parent)
		begin := LSN(0)
		if known {
			begin = next.LSN
		}
		if end < begin {
			return nil, fmt.Errorf("%w: timeline %d forks from %d at %d, but %d begins behind %d",
				ErrBadHistory, fork.Epoch, fork.Parent, end, fork.Parent, begin)
		}
		if end > begin {
			l = append(l, Segment{Epoch: fork.Parent, End: end})
		}
		fork, ok = next, known
	}
	slices.Reverse(l)
	if err := l.Valid(); err != nil {
		return nil, err
	}
	return l, nil
}

// EpochAt returns the epoch that wrote the record at lsn, and 0 if the log
// does not reach that far or lsn is 0. The lineage must be Valid.
func (l Lineage) EpochAt(lsn LSN) Epoch {
	if lsn == 0 {
		return 0
	}
	i, _ := slices.BinarySearchFunc(l, lsn, func(s Segment, lsn LSN) int { return cmp.Compare(s.End, lsn) })
	if i == len(l) {
		return 0
	}
	return l[i].Epoch
}

// CommonPrefix returns up to where a log with the lineage own agrees with a
// log with the lineage l: the greatest LSN that both hold and that the same
// epoch wrote in both, 0 if there is none. There is one primary per epoch, and
// a log is continued on a timeline only when it agrees with all that timeline
// grew from; so records of the same epoch at the same LSN are the same record,
// and so is everything before them. Both lineages must be Valid.
func (l Lineage) CommonPrefix(own Lineage) LSN {
	// From the end: the first stretch both have in common is the answer.
	for i, j := len(l)-1, len(own)-1; i >= 0 && j >= 0; {
		a, b := l[i], own[j]
		switch c := cmp.Compare(a.Epoch, b.Epoch); {
		case c > 0:
			i--
		case c < 0:
			j--
		default:
			if end := min(a.End, b.End); end > max(l.begin(i), own.begin(j)) {
				return end
			}
			i, j = i-1, j-1
		}
	}
	return 0
}

// begin returns the LSN behind which segment i begins.
func (l Lineage) begin(i int) LSN {
	if i == 0 {
		return 0
	}
	return l[i-1].End
}

// Valid returns nil when epochs and ends rise strictly and no segment is
// empty; otherwise an error that wraps ErrBadHistory. An empty lineage, that of
// an empty log, is valid.
func (l Lineage) Valid() error {
	for i, s := range l {
		if s.End <= l.begin(i) {
			return fmt.Errorf("%w: segment of epoch %d ends at %d, where it begins or before", ErrBadHistory, s.Epoch, s.End)
		}
		if i > 0 && s.Epoch <= l[i-1].Epoch {
			return fmt.Errorf("%w: epoch %d follows epoch %d", ErrBadHistory, s.Epoch, l[i-1].Epoch)
		}
	}
	return nil
}
