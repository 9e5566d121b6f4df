package failover

import (
	"errors"
	"fmt"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

var (
	// ErrNoQuorum says that too few voters can be reached. Nothing is known to
	// have been done.
	ErrNoQuorum = errors.New("no quorum")
	// ErrOutcomeUnknown says that what was asked may or may not have been
	// done, or may happen yet. It is neither success nor failure.
	ErrOutcomeUnknown = errors.New("outcome unknown: it may or may not have been done")
	// ErrNotLeader is wrapped by every NotLeaderError. Nothing was done.
	ErrNotLeader = errors.New("not the Raft leader")
	// ErrNotPrimary is wrapped by every NotPrimaryError. It is the guard's
	// own ErrNotPrimary, so that one errors.Is finds both.
	ErrNotPrimary = fencing.ErrNotPrimary
	// ErrClosed says that the node is shut down, or being so.
	ErrClosed = errors.New("closed")
	// ErrIncredibleEpoch says that another node has told of an epoch that no term
	// of Raft can have reached.
	ErrIncredibleEpoch = errors.New("incredible epoch")
	// ErrStalled says that a write of this node, of the log or of the database,
	// hangs.
	ErrStalled = errors.New("the disk hangs")
	// ErrBusy says that another switchover is under way.
	ErrBusy = errors.New("a switchover is under way already")
)

// NotLeaderError says that this node is not the Raft leader, and who is.
type NotLeaderError struct {
	Leader protocol.NodeID // NoNode if unknown
}

// Error names the leader.
func (e *NotLeaderError) Error() string {
	if e.Leader == protocol.NoNode {
		return ErrNotLeader.Error() + ", and none is known"
	}
	return fmt.Sprintf("%v, node %d is", ErrNotLeader, e.Leader)
}

// Unwrap returns ErrNotLeader.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

// NotPrimaryError says that this node is not primary, and who is.
type NotPrimaryError struct {
	Primary protocol.NodeID // NoNode if unknown
	Address string          // where its database listens; empty if unknown
}

// Error names the primary.
func (e *NotPrimaryError) Error() string {
	switch {
	case e.Primary == protocol.NoNode:
		return ErrNotPrimary.Error() + ", and no primary is known"
	case e.Address == "":
		return fmt.Sprintf("%v, node %d is", ErrNotPrimary, e.Primary)
	}
	return fmt.Sprintf("%v, node %d at %s is", ErrNotPrimary, e.Primary, e.Address)
}

// Unwrap returns ErrNotPrimary.
func (e *NotPrimaryError) Unwrap() error { return ErrNotPrimary }
