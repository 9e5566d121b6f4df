// Package logstore is the contract between hashicorp/raft and whatever keeps
// its log on disk, and the words in which such a store fails.
//
//	   hashicorp/raft                       the node's watchdog
//	        |                                       |
//	        |  LogStore, StableStore,               |  WriteInFlight
//	        |  MonotonicLogStore,                   |
//	        |  CommitTrackingLogStore               |
//	        v                                       v
//	+-------------------------- Store --------------------------+
//	|  Memory: the reference, nothing on disk                   |
//	|  jsonlstore: a log people can read                        |
//	|  Checked: the contract on top of another project's store  |
//	|  Twin: one in use, and one on trial that is compared      |
//	+-----------------------------------------------------------+
//
// hashicorp/raft relies on more than its interfaces say. What it relies on is
// written here, on the methods of Store, and checked by package storetest
// against every implementation.
//
// A Source is a store that is only read; Copy and Compare go through one entry by
// entry and value by value. A Registry opens stores by name; package kinds has
// the names of this module and Migrate. boltstore and walstore read and write the
// files of raft-boltdb and raft-wal. docs/swap.md is the way from one to another.
//
// The package leans on hashicorp/raft alone.
package logstore

import (
	"io"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// The keys under which hashicorp/raft keeps its promises in a StableStore. A
// Store treats them with more care than any other key; see Store.
const (
	KeyCurrentTerm  = "CurrentTerm"
	KeyLastVoteTerm = "LastVoteTerm"
	KeyLastVoteCand = "LastVoteCand"
)

// MaxIndex is the greatest index an entry may have. The one above it is
// refused, so that "the index after this one" always exists.
const MaxIndex uint64 = math.MaxUint64 - 1

// Store is everything a node asks of its log. One goroutine writes (Raft's
// main loop); any number read beside it. No reader waits for a sync to disk.
//
// # The log
//
// The log is contiguous: StoreLogs refuses, with a *ContiguityError, an index
// that does not follow the last one; only an empty log may begin anywhere from
// 1 to MaxIndex. StoreLogs stores all of its entries or none, so that Raft may
// try the same indexes again after an error. nil and empty are no-ops. The
// caller keeps its Log values and their bytes: they are neither kept nor
// changed. When StoreLogs returns nil, the entries survive a power cut.
//
// FirstIndex and LastIndex of an empty log are 0. While LastIndex is above 0,
// GetLog(LastIndex) works. GetLog of an index that is not there returns the
// bare raft.ErrLogNotFound, because Raft compares it by identity. Bytes handed
// out by GetLog belong to the caller.
//
// DeleteRange takes a prefix, a suffix (whose end may lie beyond the last
// entry) or everything. A range that is inverted or that touches no entry is a
// no-op. One out of the middle is refused with ErrMiddle.
//
// # The stable values
//
// Get and GetUint64 of a key that was never set return an error whose whole
// text is "not found" (ErrKeyNotFound, unwrapped), because Raft compares the
// text, and Get then returns nil. Set and SetUint64 share one set of keys: a
// uint64 is eight bytes, big endian. GetUint64 of a value of another length is
// an error.
//
// CurrentTerm never goes down: a lower value, like an equal one, changes nothing
// and is no error. Raft does ask for that: its heartbeat fast path runs beside its main
// loop and may be late (hashicorp/raft issue 695); and it answers an error with a
// panic. It then works with the lower term until the next election. So that it
// cannot vote twice meanwhile, votes are kept: a LastVoteTerm below the last one, and
// another LastVoteCand beside the same LastVoteTerm, are refused with a *VoteError.
//
// Writing a higher LastVoteTerm removes LastVoteCand in the same atomic step: Raft
// records a vote in two calls, and a crash between them must not leave an old
// candidate in a new term.
//
// # The commit index
//
// StageCommitIndex keeps its value in memory; it reaches the disk inside the
// next StoreLogs or not at all. GetCommitIndex never exceeds LastIndex, and is
// 0 when nothing is known.
//
// # Failure
//
// After a sync to disk has failed, every further write returns an error
// wrapping ErrFailed until the store is closed and opened again; reads go on.
// Damage found while reading is an error wrapping ErrCorrupt, never data.
//
// # Closing
//
// Raft never closes a store. Shut Raft down first, then Close: it waits for a
// write in progress, may be called again, and gives the same answer each time.
// Everything else returns ErrClosed from then on.
type Store interface {
	raft.LogStore
	raft.StableStore
	raft.MonotonicLogStore
	CommitTracker
	io.Closer

	// WriteInFlight tells since when a write has been waiting for the disk, for
	// the watchdog that must notice a disk that hangs. The zero time means
	// that none is waiting. It never blocks, and the time it returns carries a
	// monotonic clock reading.
	WriteInFlight() time.Time
}

// CommitTracker is raft.CommitTrackingLogStore, spelled out because hashicorp/raft
// has it from v1.8.0 on alone, and a program on v1.7 can use these stores, too;
// see docs/swap.md.
type CommitTracker interface {
	StageCommitIndex(index uint64) error
	GetCommitIndex() (uint64, error)
}

// CheckAppend is the contiguity check: it returns nil if logs may follow a log
// whose last index is last (0: the log is empty), and otherwise an error
// saying which index was expected and which was given. It looks at the indexes
// only.
func CheckAppend(last uint64, logs []*raft.Log) error {
	for i, l := range logs {
		if l == nil {
			return &NilLogError{Position: i}
		}
		expected := last + 1
		switch {
		case last == 0 && i == 0:
			if l.Index == 0 || l.Index > MaxIndex {
				return &ContiguityError{Given: l.Index}
			}
		case l.Index != expected || l.Index > MaxIndex:
			return &ContiguityError{Expected: expected, Given: l.Index}
		}
		last = l.Index
	}
	return nil
}

// Cut says what a DeleteRange means for a log.
type Cut uint8

// The kinds of DeleteRange. CutNothing: no entry is touched.
const (
	CutNothing Cut = iota
	CutFront       // a prefix: everything up to max
	CutTail        // a suffix: everything from min
	CutAll         // everything
)

// CheckDelete tells what DeleteRange(min, max) means for a log that holds first
// to last (0, 0: empty). It returns ErrMiddle for a range that would leave a
// hole.
func CheckDelete(first, last, min, max uint64) (Cut, error) {
	switch {
	case last == 0 || min > max || max < first || min > last:
		return CutNothing, nil
	case min <= first && max >= last:
		return CutAll, nil
	case min <= first:
		return CutFront, nil
	case max >= last:
		return CutTail, nil
	}
	return CutNothing, &MiddleError{First: first, Last: last, Min: min, Max: max}
}
