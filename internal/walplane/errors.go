package walplane

import (
	"errors"
	"fmt"

	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("write-ahead log is closed")
	// ErrFailed is wrapped by everything after a write to disk whose outcome
	// is unknown (a failed fsync, say): the DB refuses all until opened again.
	ErrFailed = errors.New("write-ahead log cannot be trusted after a disk error; restart the node")
	// ErrDamaged is wrapped by every *DamageError.
	ErrDamaged = errors.New("write-ahead log is damaged")
	// ErrNotPrimary is wrapped by every *NotPrimaryError.
	ErrNotPrimary = errors.New("not primary")
	// ErrUnknownOutcome is wrapped by every *UnknownOutcomeError.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNoQuorum says that too few voters answered in time. Alone it means
	// that nothing was written; together with ErrUnknownOutcome it does not.
	ErrNoQuorum = errors.New("no quorum")
	// ErrStaleEpoch is wrapped by every *StaleEpochError.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrNotFound is returned for a key that has no value.
	ErrNotFound = errors.New("no such key")
	// ErrTooLarge is returned for a value beyond its limit.
	ErrTooLarge = errors.New("too large")
	// ErrBadKey is returned for a key that is empty, too long or not UTF-8.
	ErrBadKey = errors.New("bad key")
	// ErrLogFull is returned for writes once the log has reached
	// Config.MaxLogBytes. Nothing was written.
	ErrLogFull = errors.New("write-ahead log has reached its size limit; it is never compacted")
)

// DamageError says where a log file is damaged. The file has not been touched.
type DamageError struct {
	File   string
	Offset int64        // of the first record that cannot be read, in bytes
	LSN    protocol.LSN // that record should have; 0 for the header
	Reason string
}

// Error names file, offset and what to do, in one line.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%v: %s at offset %d (lsn %d): %s; put the file back from a backup, or, only while all other nodes run, move this node's data directory away and start it empty",
		ErrDamaged, e.File, e.Offset, e.LSN, e.Reason)
}

// Unwrap returns ErrDamaged.
func (e *DamageError) Unwrap() error { return ErrDamaged }

// InUseError says that another process, or another DB of this one, has the
// directory open.
type InUseError struct{ Dir string }

// Error names the directory and what to do.
func (e *InUseError) Error() string {
	return fmt.Sprintf("directory %s is in use by another process; stop that one first", e.Dir)
}

// NotPrimaryError says that nothing was written or read because this node is
// not primary, and who is, as far as it knows.
type NotPrimaryError struct {
	Primary protocol.NodeID // NoNode if unknown
	Address string          // of the primary's database; empty if unknown
	Cause   error           // more about it; may be nil
}

// Error names the primary if it is known.
func (e *NotPrimaryError) Error() string {
	s := ErrNotPrimary.Error()
	if e.Primary != protocol.NoNode {
		s += fmt.Sprintf("; node %d at %s is", e.Primary, e.Address)
	} else {
		s += ", and nobody else is known to be"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns ErrNotPrimary and the cause.
func (e *NotPrimaryError) Unwrap() []error { return wrapped(ErrNotPrimary, e.Cause) }

// UnknownOutcomeError says that a write is in this node's log, and was not
// acknowledged: it may or may not survive.
type UnknownOutcomeError struct {
	Epoch     protocol.Epoch
	LSN       protocol.LSN // 0 if it was not flushed here either, yet
	Confirmed int          // voters known to have flushed it, this one included
	Voters    int          // of how many
	NoQuorum  bool         // that is why: too few voters confirmed in time
	Cause     error        // what ended the wait
}

// Error begins with "no quorum" when that is why.
func (e *UnknownOutcomeError) Error() string {
	if e.NoQuorum {
		return fmt.Sprintf("%v: %d of %d nodes confirmed lsn %d of epoch %d, %d are needed; %v, it may or may not survive: %v",
			ErrNoQuorum, e.Confirmed, e.Voters, e.LSN, e.Epoch, e.Voters/2+1, ErrUnknownOutcome, e.Cause)
	}
	return fmt.Sprintf("%v: lsn %d of epoch %d was not acknowledged and may or may not survive: %v", ErrUnknownOutcome, e.LSN, e.Epoch, e.Cause)
}

// Unwrap returns ErrUnknownOutcome, ErrNoQuorum if that is why, and the cause.
func (e *UnknownOutcomeError) Unwrap() []error {
	errs := wrapped(ErrUnknownOutcome, e.Cause)
	if e.NoQuorum {
		errs = append(errs, ErrNoQuorum)
	}
	return errs
}

// StaleEpochError says that an epoch is below what this node was fenced to.
type StaleEpochError struct {
	Epoch protocol.Epoch // asked for
	Floor protocol.Epoch // what stands against it
}

// Error names both.
func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("%v: epoch %d is over, this node is fenced to %d", ErrStaleEpoch, e.Epoch, e.Floor)
}

// Unwrap returns ErrStaleEpoch.
func (e *StaleEpochError) Unwrap() error { return ErrStaleEpoch }

// DivergedError says that following a primary would mean cutting off what is
// known to be committed. It can only come from a broken rule elsewhere, so the
// node stops following and keeps its log as it is.
type DivergedError struct {
	Epoch  protocol.Epoch // of the primary that was to be followed
	Common protocol.LSN   // where the logs part
	Commit protocol.LSN   // known here to be committed
}

// Error says that somebody has to look at it.
func (e *DivergedError) Error() string {
	return fmt.Sprintf("timeline %d parts from this log at lsn %d, but lsn %d is committed here: "+
		"acknowledged writes are missing there; not following, look at both logs before anything is deleted", e.Epoch, e.Common, e.Commit)
}

// wrapped lists a sentinel and, if there is one, a cause.
func wrapped(sentinel, cause error) []error {
	if cause == nil {
		return []error{sentinel}
	}
	return []error{sentinel, cause}
}
