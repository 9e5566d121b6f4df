package jsonlstore

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// A log lies in several files, its parts, in the order of their entries:
//
//	raft_log.00000000000000000001.jsonl   sealed: it never changes any more
//	raft_log.00000000000000000001.index   where its entries begin; can be made anew
//	raft_log.00000000000000065537.jsonl
//	raft_log.00000000000000065537.index
//	raft_log.jsonl                        the open part, which is written to
//
// The number is the index of the part's first entry. The open part holds an entry
// as long as the log does. Entries below first_index in raft_state.json are deleted,
// whether their lines are still there or not.

// part is one file of a log.
type part struct {
	path   string
	first  uint64 // index of its first entry, as its name says; 0: the open part, whose name says nothing
	sealed bool
}

const (
	partPrefix  = "raft_log."
	partSuffix  = ".jsonl"
	indexSuffix = ".index"
	partDigits  = 20 // of the number in a name
)

func partPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%0*d%s", partPrefix, partDigits, first, partSuffix))
}

// indexPath returns the path of the index file of a part.
func indexPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%0*d%s", partPrefix, partDigits, first, indexSuffix))
}

// parsePartName reads the number in the name of a sealed part or an index file.
// Any other name belongs to somebody else.
func parsePartName(name, suffix string) (first uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, partPrefix)
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, suffix); !ok || len(digits) != partDigits {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && strings.Trim(digits, "0123456789") == "" && first > 0 && first <= logstore.MaxIndex
}

// listParts returns the parts of the log in dir in the order of their entries,
// the open one, if it is there, at the end. What a crash left behind is among them:
// a sealed part and the open one may be the same file, and parts may lie below
// first_index.
func listParts(fsys vfs.FS, dir string) ([]part, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	var parts []part
	open := false
	for _, name := range names { // in order, and so are numbers with leading zeros
		if first, ok := parsePartName(name, partSuffix); ok {
			parts = append(parts, part{path: filepath.Join(dir, name), first: first, sealed: true})
		}
		open = open || name == LogFile
	}
	if open {
		parts = append(parts, part{path: filepath.Join(dir, LogFile)})
	}
	return parts, nil
}

// listIndexes returns the numbers of the index files in dir, in ascending order.
func listIndexes(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	var firsts []uint64
	for _, name := range names {
		if first, ok := parsePartName(name, indexSuffix); ok {
			firsts = append(firsts, first)
		}
	}
	return firsts, nil
}

// partHead is what there is to know of a sealed part without its entries.
type partHead struct {
	first   uint64     // index of the first entry
	count   int        // entries, at least one
	bytes   int64      // up to behind the last entry; blanks may follow
	maxTerm uint64     // of all entries
	mark    commitMark // the last one in it; zero: there is none
}

func (h *partHead) last() uint64 { return h.first + uint64(h.count) - 1 }

// partIndex is a sealed part's index: its head, and where its entries begin.
type partIndex struct {
	partHead
	starts starts
}

// span returns where the line of an entry of the part begins and ends.
func (x *partIndex) span(index uint64) (from, to int64) {
	n := int(index - x.first)
	if from = x.starts.at(n); n == x.count-1 {
		return from, x.bytes
	}
	return from, x.starts.at(n + 1)
}

// starts holds ascending offsets, in 4 bytes each unless the part is larger than
// that can say.
type starts struct {
	short []uint32
	long  []uint64
}

func newStarts(count int, bytes int64) starts {
	if bytes <= math.MaxUint32 {
		return starts{short: make([]uint32, 0, count)}
	}
	return starts{long: make([]uint64, 0, count)}
}

func (s *starts) add(offset int64) {
	if s.long != nil {
		s.long = append(s.long, uint64(offset))
	} else {
		s.short = append(s.short, uint32(offset))
	}
}

func (s *starts) at(n int) int64 {
	if s.long != nil {
		return int64(s.long[n])
	}
	return int64(s.short[n])
}

// scanPart reads a sealed part from end to end and makes its index. Whatever is
// wrong with the part is an error that wraps logstore.ErrCorrupt: it was synced
// before it was sealed, so nothing in it is a torn write.
func scanPart(fsys vfs.FS, p part, maxLine int) (*partIndex, error) {
	file, err := fsys.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", p.path, err)
	}
	defer file.Close() // only read from
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.path, err)
	}
	x := &partIndex{partHead: partHead{first: p.first}, starts: newStarts(0, size)}
	sc := scanner{
		r: file, size: size, file: p.path, maxLine: maxLine,
		damaged: func(e *logstore.CorruptionError) error {
			if x.count == 0 {
				e.Index = p.first
			}
			return e
		},
		visit: func(line rawLine, l *parsedLine) error {
			if x.count == 0 && l.index != p.first {
				return &logstore.CorruptionError{
					File: p.path, Line: line.number, Offset: line.offset, Index: p.first, Advice: logAdvice,
					Reason: (&logstore.ContiguityError{Expected: p.first, Given: l.index}).Error(),
				}
			}
			x.starts.add(line.offset)
			x.count++
			x.bytes = line.end
			x.maxTerm = max(x.maxTerm, l.term)
			if l.commit > 0 {
				x.mark = commitMark{index: l.index, commit: min(l.commit, l.index)}
			}
			return nil
		},
	}
	torn, err := sc.run()
	if err != nil {
		return nil, err
	}
	if torn != nil {
		return nil, &logstore.CorruptionError{
			File: p.path, Line: torn.Line, Offset: torn.Offset, Index: sc.last + 1, Reason: torn.Reason, Advice: logAdvice,
		}
	}
	if x.count == 0 {
		return nil, &logstore.CorruptionError{File: p.path, Line: 1, Index: p.first, Reason: errNoEntries.Error(), Advice: logAdvice}
	}
	return x, nil
}

var errNoEntries = errors.New("there are no entries in it")
