package logstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sentinels. Typed errors below wrap the ones they belong to.
var (
	// ErrKeyNotFound is returned, never wrapped, for a stable key that was
	// never set. hashicorp/raft compares its text, which therefore is exactly
	// this.
	ErrKeyNotFound = errors.New("not found")

	// ErrClosed is returned by every method but Close once a store is closed.
	ErrClosed = errors.New("the log store is closed")

	// ErrFailed is wrapped by every write after a sync to disk has failed: what
	// is on disk is unknown until the store has been closed and opened again.
	ErrFailed = errors.New("the log store has stopped writing after a failed sync to disk; close it and open it again")

	// ErrCorrupt is wrapped by every error that reports damage to what was
	// stored.
	ErrCorrupt = errors.New("stored data is damaged")

	// ErrInUse is wrapped by *InUseError.
	ErrInUse = errors.New("the state directory is in use")

	// ErrMiddle is wrapped by *MiddleError.
	ErrMiddle = errors.New("a range out of the middle of the log cannot be deleted")

	// ErrVoted is wrapped by *VoteError.
	ErrVoted = errors.New("this node's vote is given")

	// ErrTooLarge is wrapped by *TooLargeError.
	ErrTooLarge = errors.New("too large for the log store")
)

// CorruptionError names a place where stored data is damaged. It wraps
// ErrCorrupt.
type CorruptionError struct {
	File   string // path of the damaged file
	Line   int    // number of the line, from 1; 0: the file as a whole
	Offset int64  // byte offset of that line's start
	Index  uint64 // index of the entry that should stand there; 0: unknown
	Reason string // what is wrong
	Advice string // what to do about it; may be empty
}

// Error tells all fields in one line.
func (e *CorruptionError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ": line %d, byte offset %d", e.Line, e.Offset)
		if e.Index > 0 {
			fmt.Fprintf(&b, ", index %d", e.Index)
		}
	}
	b.WriteString(" is damaged: ")
	b.WriteString(e.Reason)
	if e.Advice != "" {
		b.WriteString("; ")
		b.WriteString(e.Advice)
	}
	return b.String()
}

// Unwrap returns ErrCorrupt.
func (e *CorruptionError) Unwrap() error { return ErrCorrupt }

// ContiguityError says that an entry does not follow the log's last one.
type ContiguityError struct {
	Expected uint64 // the index that must come next; 0: the log is empty, any from 1 to MaxIndex
	Given    uint64 // the index that came
}

func (e *ContiguityError) Error() string {
	want := strconv.FormatUint(e.Expected, 10)
	switch {
	case e.Expected == 0:
		want = "any from 1 to " + strconv.FormatUint(MaxIndex, 10)
	case e.Expected > MaxIndex:
		want = "none, the log has reached the last index there is"
	}
	return fmt.Sprintf("log entries are not contiguous: expected index %s, given %d", want, e.Given)
}

// NilLogError says that a *raft.Log handed to StoreLogs was nil.
type NilLogError struct {
	Position int // its place in the slice, from 0
}

func (e *NilLogError) Error() string {
	return fmt.Sprintf("log entry at position %d of the batch is nil", e.Position)
}

// MiddleError says that a DeleteRange would leave a hole. It wraps ErrMiddle.
type MiddleError struct {
	First, Last uint64 // what the log holds
	Min, Max    uint64 // what was to be deleted
}

func (e *MiddleError) Error() string {
	return fmt.Sprintf("%v: %d to %d of a log that holds %d to %d", ErrMiddle, e.Min, e.Max, e.First, e.Last)
}

// Unwrap returns ErrMiddle.
func (e *MiddleError) Unwrap() error { return ErrMiddle }

// VoteError says that a vote was to be recorded that Raft cannot have meant: for
// a term before the last one in which this node voted, or for a second candidate in
// one. It wraps ErrVoted. Raft then gives no vote.
type VoteError struct {
	Term     uint64 // of the vote that was to be recorded
	LastTerm uint64 // of the last vote
	Given    string // its candidate, if the terms are the same
}

func (e *VoteError) Error() string {
	if e.Term == e.LastTerm {
		return fmt.Sprintf("%v in term %d, to %q", ErrVoted, e.Term, e.Given)
	}
	return fmt.Sprintf("%v in term %d already, which is after term %d", ErrVoted, e.LastTerm, e.Term)
}

// Unwrap returns ErrVoted.
func (e *VoteError) Unwrap() error { return ErrVoted }

// TooLargeError says that something exceeds a bound of the store. It wraps
// ErrTooLarge.
type TooLargeError struct {
	What             string // what is too large, for people
	SizeBytes, Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s is %v: %d bytes, at most %d", e.What, ErrTooLarge, e.SizeBytes, e.Limit)
}

// Unwrap returns ErrTooLarge.
func (e *TooLargeError) Unwrap() error { return ErrTooLarge }

// InUseError says that another store, in this process or another, holds the
// directory. It wraps ErrInUse.
type InUseError struct {
	Dir    string
	Holder string // who holds it, as it wrote itself into the lock, such as "pid 4711"; may be empty
}

func (e *InUseError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("the state directory %s is in use by %s: stop that first, or choose another directory", e.Dir, holder)
}

// Unwrap returns ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

// FailedError says which failure latched a store. It wraps ErrFailed and the
// cause.
type FailedError struct {
	Cause error
}

func (e *FailedError) Error() string { return fmt.Sprintf("%v: %v", ErrFailed, e.Cause) }

// Unwrap returns ErrFailed and the cause.
func (e *FailedError) Unwrap() []error { return []error{ErrFailed, e.Cause} }
